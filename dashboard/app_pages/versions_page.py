"""Named versions of the curated set: what each holds and what gave it, what changed between two, and making one."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import data, launching, proving, state, versions, widgets
from dashboard.data.versions import Version
from dashboard.markup import plain

PAGE = {"title": "Versions", "icon": ":material/bookmarks:", "place": 85, "section": "Curate"}

view = widgets.current_view()
found = data.versions.versions(view.at)
names = [version.name for version in found]


def row(version: Version) -> dict[str, object]:
    """A version in the list."""
    facts, gain = version.facts, gains.get(version.hash)
    known = bool(facts.get("known"))
    return {
        "name": version.name,
        "kept": f"{facts['kept']:,}",
        "share": versions.share(facts["kept"], facts["samples"]),
        "relabeled": f"{facts['relabeled']:,}",
        "left": versions.noise(facts, "left"),
        "wrong": versions.share(facts["wrong_left"], facts["known_kept"]) if known else "",
        "gain": "" if gain is None else f"{data.versions.points(gain.difference)} points",
        "created_at": version.created_at,
        "author": data.shown(version.author, 80),
        "note": data.shown(version.note, 200),
    }


def pick() -> None:
    """Open the version whose row was chosen."""
    chosen = st.session_state["version_rows"]["selection"]["rows"]
    state.put(version=listed[chosen[0]].name if chosen else None, part=None)


st.header("Versions", anchor=False)
if not found:
    st.caption(
        "A version is a named set to train on: what rules, the shortlist and people's decisions give at one moment. It stays "
        "as it is, whatever is decided later. This would be the first:"
    )
    versions.form(view, names)
    st.stop()

gains = data.versions.gains(view.at)
listed = found[::-1]
table = pd.DataFrame([row(version) for version in listed])
if not table["wrong"].any():
    table = table.drop(columns="wrong")
empty = [column for column in ("gain", "author", "note") if not table[column].any()]
st.dataframe(
    table.drop(columns=empty),
    hide_index=True,
    height="content",
    key="version_rows",
    on_select=pick,
    selection_mode="single-row",
    column_config={
        "name": st.column_config.TextColumn("Version"),
        "kept": st.column_config.TextColumn("Stay"),
        "share": st.column_config.TextColumn("Share", help="of the training samples"),
        "relabeled": st.column_config.TextColumn("Relabeled"),
        "left": st.column_config.TextColumn("Wrong left", help="estimated share of wrong labels among what stays"),
        "wrong": st.column_config.TextColumn("By the truth", help="share of labels that are known to be wrong"),
        "gain": st.column_config.TextColumn("Gained", help="accuracy on the curated set against the full one"),
        "created_at": st.column_config.DatetimeColumn("Made (UTC)", format="D MMM YYYY, HH:mm"),
        "author": "By",
        "note": st.column_config.TextColumn("Note", width="large"),
    },
)
with st.expander("Save as version", icon=":material/bookmark_add:"):
    versions.form(view, names)
wanted = state.get("version")
if wanted and wanted not in names:
    st.warning(
        plain(f"There is no version '{wanted}' of {view.at.dataset}; the latest is shown."), icon=":material/info:"
    )
opened = next((version for version in found if version.name == wanted), found[-1])
versions.detail(view, opened, [version for version in listed if version is not opened])


@widgets.guarded
def gain() -> None:
    """What the opened version gains, live while it is computed."""
    waiting = launching.pending()
    live = waiting or any(job.state == "running" for job in data.proofs.of(view.at))
    if live != st.session_state.get("winnow_proving", False):
        st.session_state["winnow_proving"] = live
        st.rerun()
    with st.container(border=True):
        proving.card(view, {f"version {opened.name}": ("--version", opened.name)}, waiting)


st.fragment(gain, run_every=1.5 if st.session_state.get("winnow_proving") else None)()
