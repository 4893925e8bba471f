"""The samples as pictures: the shortlist first, sorted by any score, filtered, and a click away from everything known about one."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard import data, deciding, filters, gallery, grid, saved, searching, state, widgets
from dashboard.detail import detail

PAGE = {"title": "Gallery", "icon": ":material/grid_view:", "place": 20}

view = widgets.current_view()
widgets.need_run(view)

verdict, sample_id = data.verdict(view.at, view.run_id), state.get_int("sample")
if verdict and verdict.listed and sample_id is None:
    state.open_on_shortlist()
with st.sidebar:
    score, order = widgets.choose_order(view, resets=("page",))
    by = gallery.choose_group()
    tint = gallery.choose_tint(view)
    saved.saved_filters(view)
    searching.search_by_image(view)
wanted = filters.filter_bar(view, score, "all")
similar = searching.found_similar(view)
ids = similar.ids if similar else data.ids(view.at, view.run_id, wanted, score, order == "hard")


def open_sample(sample_id: int | None) -> None:
    state.put(sample=sample_id)


with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
    if similar:
        searching.similar_chip(similar)
    else:
        filters.filter_chips(view, wanted, len(ids), filters.count_all(view, wanted))
    st.page_link(
        "app_pages/review_page.py",
        label="Review",
        icon=":material/rate_review:",
        query_params=state.link(page=None, samples=",".join(map(str, ids)) if similar else None),
    )
    if by == "duplicates":
        gallery.drop_copies(view)
    widgets.legend(data.dataset_facts(view.at)["known"] > 0, bool(verdict and verdict.tells))
    if tint:
        gallery.tint_legend(view, tint)
    with st.container(horizontal=True, vertical_alignment="center", width="content"):
        per_page = int(
            widgets.choose("Per page", "n", ["48", "96", "200"], "96", segments=True, collapsed=True, resets=("page",))
        )
        size = gallery.choose_size()

if not len(ids):
    st.info("No sample meets all of these conditions.", icon=":material/filter_alt_off:")
    st.stop()

grouped = data.grouped(view.at, view.run_id, ids, by, score, order == "hard") if by else None
if grouped is not None:
    ids = grouped.ids
    if not len(ids):
        st.info("None of these samples has a duplicate that this run found.", icon=":material/filter_alt_off:")
        st.stop()

pages = -(-len(ids) // per_page)
at = np.flatnonzero(ids == sample_id)
number = max(1, min(state.get_int("page") or 1 + (int(at[0]) // per_page if len(at) else 0), pages))
first, last = (number - 1) * per_page, min(number * per_page, len(ids))
shown = ids[first:last]
cards = data.cards(view.at, view.run_id, shown, score)
if similar:
    nearness = dict(zip(similar.ids.tolist(), similar.similarity.tolist(), strict=True))
    cards = cards.assign(value=cards["sample_id"].map(nearness))
column, beside = (st.container(), None) if sample_id is None else st.columns([11, 9], gap="large")
with column:
    grid.draw_cards(
        cards,
        [data.shown(name, 400) for name in data.class_names(view.at)],  # in full, as far as a tile has room
        "samples",
        open_sample,
        size=size,
        selected=sample_id,
        follow=sample_id is not None,
        page=number,
        acting=deciding.acting(view, ids, "samples", wanted, score, order, by, similar and similar.ids.tobytes()),
        groups=gallery.heads(view, grouped, by, first, last) if grouped else (),
        on_turn=lambda way: gallery.turn(grouped, first, last, per_page, way) if grouped else None,
        tints=gallery.tints(view, tint, shown),
    )
    widgets.pages(number, pages)
if sample_id is not None and beside is not None:
    with beside, st.container(key="detail"):
        detail(view, sample_id, ids)
