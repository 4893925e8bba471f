"""The samples as pictures: the shortlist first, sorted by any score, filtered, and a click away from everything known about one."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard import data, deciding, filters, grid, state, widgets
from dashboard.detail import detail

PAGE = {"title": "Gallery", "icon": ":material/grid_view:", "place": 20}

view = widgets.current_view()
widgets.need_run(view)
SIZES = {"S": 88, "M": 120, "L": 190}

verdict, sample_id = data.verdict(view.at, view.run_id), state.get_int("sample")
if verdict and verdict.listed and sample_id is None:
    state.open_on_shortlist()
FIRST = {"hard": "hardest", "easy": "easiest"}
with st.sidebar:
    score = widgets.choose_score(view, suspicion=True)
    if score == data.SUSPICION:
        FIRST = {"hard": "most suspicious", "easy": "least"}
    order = widgets.choose(
        "First",
        "order",
        ["hard", "easy"],
        "hard",
        lambda o: FIRST[o],
        segments=True,
        resets=("page",),
    )
wanted = filters.filter_bar(view, score, "all")
ids = data.ids(view.at, view.run_id, wanted, score, order == "hard")


def open_sample(sample_id: int | None) -> None:
    state.put(sample=sample_id)


with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
    filters.filter_chips(view, wanted, len(ids), filters.count_all(view, wanted))
    widgets.legend(data.dataset_facts(view.at)["known"] > 0, bool(verdict and verdict.tells))
    with st.container(horizontal=True, vertical_alignment="center", width="content"):
        per_page = int(
            widgets.choose("Per page", "n", ["48", "96", "200"], "96", segments=True, collapsed=True, resets=("page",))
        )
        size = SIZES[widgets.choose("Size", "size", list(SIZES), "M", segments=True, collapsed=True)]

if not len(ids):
    st.info("No sample meets all of these conditions.", icon=":material/filter_alt_off:")
    st.stop()

pages = -(-len(ids) // per_page)
at = np.flatnonzero(ids == sample_id)
number = max(1, min(state.get_int("page") or 1 + (int(at[0]) // per_page if len(at) else 0), pages))
shown = ids[(number - 1) * per_page : number * per_page]
cards = data.cards(view.at, view.run_id, shown, score)
acting = deciding.acting(view, ids, "samples", wanted, score, order)
if sample_id is None:
    grid.draw_cards(cards, view.names, "samples", open_sample, size=size, page=number, acting=acting)
    column = st.container()
else:
    column, beside = st.columns([11, 9], gap="large")
    with column:
        grid.draw_cards(
            cards,
            view.names,
            "samples",
            open_sample,
            size=size,
            selected=sample_id,
            follow=True,
            page=number,
            acting=acting,
        )
    with beside, st.container(key="detail"):
        detail(view, sample_id, ids)
with column:
    widgets.pages(number, pages)
