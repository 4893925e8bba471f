"""The set to train on: choose by score, rule and class, see what stays, and download it."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard import charts, data, exporting, filters, grid, state, widgets
from dashboard.data import exports
from dashboard.markup import command_line, plain

PAGE = {"title": "Export", "icon": ":material/download:", "place": 90, "section": "Curate"}

view = widgets.current_view()
widgets.need_run(view)


def show(title: str, ids: data.Ids, key: str) -> None:
    """Some of a set as pictures."""
    if len(ids):
        st.markdown(f"#### {plain(title)}&ensp;:gray[:small[{len(ids):,}]]")
        grid.draw_cards(
            data.cards(view.at, view.run_id, ids[:32], score), view.names, key, widgets.open_in_gallery, size=72
        )


verdict = data.verdict(view.at, view.run_id)
if verdict and verdict.listed:
    state.open_on_shortlist()
with st.sidebar:
    score = widgets.choose_score(view, "Score", suspicion=True)
wanted = filters.filter_bar(view, score, "train")
rule = data.condition(view.at, view.run_id, wanted)
# An export has the column `flagged`, so that its command need not name the run.
rule = rule.replace(data.condition(view.at, view.run_id, data.Filter(flagged=True)), "flagged")

KEEP = {"keep": "keep those that match", "drop": "drop those that match"}
mode = widgets.choose(
    "What to do",
    "mode",
    list(KEEP),
    "drop" if wanted.flagged else "keep",
    lambda m: KEEP[m],
    segments=True,
    collapsed=True,
)
# Where the truth is unknown a condition on it is NULL: not met, so the sample is not dropped either.
where = (
    rule
    if mode == "keep" or not rule
    else f"NOT coalesce({rule}, false)"
    if "true_label" in rule
    else f"NOT {rule}"
    if rule == "flagged"
    else f"NOT ({rule})"
)
names = exports.version_names(view.at)
with st.sidebar:
    version = widgets.choose("Version", "version", ["", *names], "", lambda n: n or "none") if names else ""
    titles = {"apply": "applied", "ignore": "ignored"}
    decisions = "apply"
    if not version:
        decisions = widgets.choose("Decisions", "decisions", list(titles), "apply", lambda d: titles[d], segments=True)
chosen = exports.Export(view.run_id, where, wanted.split, "ignore" if decisions == "ignore" else "apply", version)
kept = exports.export(view.at, chosen)
ids = kept["ids"]
everything = data.ids(view.at, view.run_id, data.Filter(split=wanted.split), score)
total = len(everything)

with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
    st.markdown(
        f"### {len(ids):,} of {total:,} kept&ensp;:gray[:small[{100 * len(ids) / max(total, 1):.1f} %]]",
        width="content",
    )
    if kept["known"]:
        st.markdown(
            f":gray[mislabeled among them:] **{kept['wrong']:,}** of {data.dataset_facts(view.at)['wrong']:,}",
            width="content",
        )
about = [f"{kept['relabeled']:,} under another label than the given one"] if kept["relabeled"] else []
about += [f"{kept['left_out']:,} left out because they were dropped"] if kept["left_out"] else []
if about:
    st.markdown(f":gray[{' · '.join(about)}]")
if rule:
    filters.filter_chips(view, wanted, len(data.ids(view.at, view.run_id, wanted)), total)

left, right = st.columns([2, 3], gap="large")
with left:
    st.markdown("#### Classes before and after")
    after = kept["counts"].set_index("label")["n"]
    classes = data.classes(view.at).rename(columns={"train": "total"})
    if len(classes) > charts.MOST_BARS:
        st.caption(f"The {charts.MOST_BARS} classes of {len(classes):,} that lose the largest share.")
    st.plotly_chart(
        charts.balance_chart(classes.assign(n=classes["label"].map(after).fillna(0).astype(int))),
        config=charts.NO_BAR,
        key="balance",
    )
with right:
    st.markdown("#### Download")
    name = f"{view.at.dataset}-kept"
    exporting.downloads(view, chosen, len(ids), name)
    words = chosen.words(view.at, data.best_run(view.at))
    st.caption("The same from the command line:")
    st.code(command_line([*words, "--to", f"{name}.csv"]), language="bash", wrap_lines=True)
    st.markdown("#### Write on the server")
    exporting.writing(view, words)
    stays = np.isin(everything, ids)
    first = "the most suspicious first" if score == data.SUSPICION else f"the hardest by {score} first"
    show(f"Kept, {first}", everything[stays], "kept")
with left:
    show("Dropped", everything[~stays], "dropped")
widgets.go_to_gallery()
