"""What was decided: how far the shortlist is, who decided how much and when, where people differ, and the log with its undo."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import charts, data, grid, state, widgets
from dashboard.data import Filter
from dashboard.markup import command_line, plain

PAGE = {"title": "Decisions", "icon": ":material/gavel:", "place": 17, "section": "Curate"}
MOST_SHOWN, MOST_LOGGED = 48, 25

view = widgets.current_view()
counts = data.decisions.counts(view.at)
st.header("Decisions", anchor=False)
listed = data.ids(view.at, view.run_id, Filter(flagged=True, split="all")) if view.run_id else np.zeros(0, np.int32)
batches = data.decisions.batches(view.at, MOST_LOGGED)
if batches.empty:
    st.caption(
        "Nobody has decided anything about this dataset yet: do it image by image, or many at once by a command."
    )
    if view.run_id:
        link = state.link()
        st.page_link("app_pages/review_page.py", label="Review", icon=":material/rate_review:", query_params=link)
        words = ["decide", view.at.dataset, "drop", "--where", "p_wrong > 0.99"]
    else:
        st.caption("Which images to begin with is known once networks were trained:")
        words = ["run", view.at.dataset]
    st.code(command_line(words), language="bash", wrap_lines=True)
    st.stop()

with st.container(horizontal=True, gap="large", key="decision_counts"):
    if len(listed):
        done = int(data.decisions.meets(view.at, Filter(decision="decided"))[listed].sum())
        share = f"{100 * done / len(listed):.0f} %"
        st.metric("Of the shortlist", share, help=f"{done:,} of {len(listed):,} are decided", width="content")
    for name, title in {"decided": "Samples decided", "keep": "Keep", "drop": "Drop", "relabel": "Relabel"}.items():
        st.metric(title, f"{counts[name]:,}", width="content")
    st.metric("Unsure", f"{counts['unsure']:,}", width="content")
    st.metric("People differ", f"{counts['disputed']:,}", width="content")


def who(name: str) -> str:
    return data.shown(name, 80) or "nobody named"


def by_author() -> pd.DataFrame:
    """A row per person: the decisions that stand, and those of the last days on which anybody decided."""
    days = data.decisions.days(view.at)
    latest = sorted(days["day"].unique())[-7:]
    total = days.groupby("author")["n"].sum().rename("decisions").to_frame()
    total.insert(1, "latest", pd.Series(data.decisions.authors(view.at)).reindex(total.index).fillna(0).astype(int))
    for day in latest:
        of_day = days[days["day"] == day].set_index("author")["n"]
        total[f"{day:%d %b %Y}"] = of_day.reindex(total.index).fillna(0).astype(int)
    return total.sort_values("decisions", ascending=False).rename(index=who).rename_axis("Person").reset_index()


def verdict_of(row: pd.Series) -> str:
    to = "" if pd.isna(row["new_label"]) else f" to {view.names[int(row['new_label'])]}"
    return f"{row['action']}{to}"


me = data.decisions.author()


def take_back(batch: int) -> None:
    try:
        data.decisions.undo(view.at, batch)
    except data.WinnowError as error:
        st.toast(plain(error), icon=":material/error:")


left, right = st.columns([3, 2], gap="large")
with left:
    st.subheader("By person and day", anchor=False)
    people_by_day = by_author()
    st.dataframe(
        people_by_day,
        hide_index=True,
        height="content",
        width="content",
        column_config={day: st.column_config.NumberColumn(format="localized") for day in people_by_day.columns[3:]}
        | {
            "decisions": st.column_config.NumberColumn(
                "Decisions", format="localized", help="that were not taken back"
            ),
            "latest": st.column_config.NumberColumn(
                "Last word on", format="localized", help="samples whose latest decision is theirs"
            ),
        },
    )
    if counts["disputed"]:
        st.subheader("Where people differ", anchor=False)
        found = data.decisions.disagreements(view.at)
        samples = found["sample_id"].drop_duplicates().head(MOST_SHOWN)
        found = found[found["sample_id"].isin(samples)]
        people = sorted(found["author"].unique())
        decided = [verdict_of(row) for _, row in found.iterrows()]
        # By number: a person may be called as another column is.
        column = found["author"].map({name: f"person {i}" for i, name in enumerate(people)})
        table = (
            found.assign(decided=decided, column=column)
            .pivot(index="sample_id", columns="column", values="decided")
            .fillna("")
        )
        cards = data.cards(view.at, view.run_id, samples.tolist())
        table.insert(0, "given", cards.set_index("sample_id")["label"].map(lambda label: view.names[label]))
        with st.container(horizontal=True, vertical_alignment="center"):
            if len(samples) < counts["disputed"]:
                st.caption(f"The first {len(samples)} of {counts['disputed']:,}.", width="content")
            address = state.link(decision="disputed", list="all", sample=None, samples=None, by=None, page=None)
            for page, label, icon in (
                ("review", "Review them", "rate_review"),
                ("gallery", "In the gallery", "grid_view"),
            ):
                st.page_link(
                    f"app_pages/{page}_page.py",
                    label=label,
                    icon=f":material/{icon}:",
                    query_params=address,
                    width="content",
                )
        grid.draw_cards(cards, view.names, "disputed", widgets.open_in_gallery, size=88)
        st.dataframe(
            table.reset_index(),
            column_config={
                "sample_id": "Sample",
                "given": st.column_config.TextColumn(
                    "Given", width="medium" if max(map(len, view.names)) > 30 else None
                ),
                **{f"person {i}": st.column_config.TextColumn(who(name)) for i, name in enumerate(people)},
            },
            hide_index=True,
            height="content" if len(table) < 12 else 400,
            width="content",
        )
with right:
    st.subheader("Log", anchor=False)
    for row in charts.rows(batches):
        number = -1 if pd.isna(row.new_label) else int(row.new_label)
        to = f" to {view.names[number]}" if row.action == "relabel" and 0 <= number < len(view.names) else ""
        what = f"{row.action}{to} · {row.n:,} sample{'s' * (row.n != 1)}"
        if row.action == "undo":
            what = f"took back decision {number}"
        when = "" if pd.isna(row.decided_at) else f"{row.decided_at:%d %b %H:%M}"
        text = f"**{row.batch}** :gray[{when}] {plain(who(row.author))}: {plain(what)}"
        text += f" :gray[{plain(row.note[:200])}]" if row.note else ""
        with st.container(horizontal=True, vertical_alignment="center", key=f"log_{row.batch}"):
            st.markdown(f"~~{text}~~" if not row.stands else text, width="content")
            if row.stands and row.action != "undo" and row.author == me:
                st.button("Undo", key=f"undo_{row.batch}", type="tertiary", on_click=take_back, args=(int(row.batch),))
    if len(batches) == MOST_LOGGED:
        st.caption("Older ones:")
        st.code(command_line(["decisions", view.at.dataset, "--log"]), language="bash", wrap_lines=True)
widgets.go_to_gallery()
