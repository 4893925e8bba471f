"""Which relabeling's suggestions the review shows, how far to trust them, and taking all above a confidence at once."""

from __future__ import annotations

import streamlit as st

from dashboard import charts, data, widgets
from dashboard.data import View
from dashboard.data.relabelings import CONFIDENCES, Proposed
from dashboard.markup import plain
from dashboard.reliability import reliability_chart

OWN = "own"
"""In an address: the suggestions of the run itself."""

_TAKEN = "winnow_taken"


def choose_suggesting(view: View) -> tuple[str, float]:
    """The picker in the sidebar: the relabeling whose labels are suggested, "" = the run itself, and their least confidence."""
    found = data.relabelings.suggesting(view.at)
    if not found:
        return "", 0.0
    titles = {OWN: "this run"} | {run: title.removeprefix("relabel: ") for run, title in found.items()}
    chosen = widgets.choose(
        "Suggestions of", "suggests", list(titles), OWN, lambda r: titles[r], resets=("sample", "samples")
    )
    if chosen == OWN:
        return "", 0.0
    least = widgets.choose(
        "From a confidence of",
        "sure",
        CONFIDENCES,
        CONFIDENCES[0],
        lambda c: "any" if c == "0" else c,
        segments=True,
        resets=("sample",),
    )
    bins = data.relabelings.reliability(view.at, chosen)
    if len(bins):
        with st.expander("Does its confidence hold?", icon=":material/verified:"):
            st.plotly_chart(reliability_chart(bins), config=charts.NO_BAR, key=f"reliability_{chosen}")
            st.caption(
                "Of the suggestions of samples whose true label is known. On the line it is right as often as it says."
            )
    return chosen, float(least)


def draw_taking(view: View, these: Proposed, among: int) -> None:
    """How many suggestions are in the list, and the button that relabels all that nobody has decided."""
    left = data.relabelings.undecided(view.at, these)
    decided = f"; {len(these) - len(left):,} of these are decided" if len(left) < len(these) else ""
    taken = st.session_state.get(_TAKEN)

    def take() -> None:
        try:
            st.session_state[_TAKEN] = (view.at.dataset, data.relabelings.accept(view.at, these), len(left), "")
        except data.WinnowError as error:
            st.session_state[_TAKEN] = (view.at.dataset, 0, 0, str(error))

    def take_back() -> None:
        done = st.session_state.pop(_TAKEN)
        try:
            data.decisions.undo(view.at, done[1])
        except data.WinnowError as error:
            st.session_state[_TAKEN] = (view.at.dataset, 0, 0, str(error))

    with st.container(horizontal=True, vertical_alignment="center", key="taking"):
        st.markdown(
            f"Another label is suggested for **{len(these):,}** of the {among:,} samples here{decided}.",
            width="content",
        )
        if len(left):
            st.button(f"Relabel {len(left):,} as suggested", key="take", icon=":material/done_all:", on_click=take)
        if taken and taken[0] == view.at.dataset and taken[3]:
            st.error(plain(taken[3]))
        elif taken and taken[0] == view.at.dataset:
            st.button(f"Take back {taken[2]:,}", key="take_back", icon=":material/undo:", on_click=take_back)
