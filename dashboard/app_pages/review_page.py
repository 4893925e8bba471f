"""One image after the other, decided by keys: keep, drop, relabel; why its label is in doubt, and how far you are."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard import data, filters, proposing, relabeling, review, state, widgets

PAGE = {"title": "Review", "icon": ":material/rate_review:", "place": 15}

view = widgets.current_view()
widgets.need_run(view)
if data.read_only():
    st.info(
        "This dashboard is read-only: samples are shown in the gallery, and nothing is decided.", icon=":material/lock:"
    )
    st.page_link(
        "app_pages/gallery_page.py", label="Open the gallery", icon=":material/grid_view:", query_params=state.link()
    )
    st.stop()
verdict = data.verdict(view.at, view.run_id)
chosen = state.get_ints("samples")
if verdict and verdict.listed and not chosen:
    state.open_on_shortlist()
with st.sidebar:
    score, order = widgets.choose_order(view, resets=("sample",))
    suggesting, sure = proposing.choose_suggesting(view)
    relabeling.draw(view)
wanted = filters.filter_bar(view, score, "all")
facts = data.dataset_facts(view.at)
n = int(facts["train"] + facts["test"])
if given := [i for i in chosen if i < n]:
    ids = np.array(given, np.int32)
else:
    ids = data.ids(view.at, view.run_id, wanted, score, order == "hard")
matching = len(ids)
if suggesting:
    proposed = data.relabelings.proposed(view.at, suggesting, ids, sure)
    ids = proposed.ids

with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
    if given:
        with st.container(horizontal=True, vertical_alignment="center", key="chips", width="content"):
            st.markdown(f"**{len(ids):,}** of {n:,}", width="content")
            st.button(
                "chosen samples",
                key="chip_samples",
                icon=":material/close:",
                icon_position="right",
                on_click=lambda: state.put(samples=None, sample=None),
            )
    else:
        filters.filter_chips(view, wanted, matching, filters.count_all(view, wanted))
    st.page_link(
        "app_pages/gallery_page.py",
        label="As a gallery",
        icon=":material/grid_view:",
        query_params=state.link(sample=None),
    )

if suggesting:
    proposing.draw_taking(view, proposed, matching)
if not len(ids):
    st.info("No sample meets all of these conditions.", icon=":material/filter_alt_off:")
    st.stop()

if len(ids) <= 2_000 and (gone := data.reviews.moved(view.at, tuple(int(i) for i in ids))):
    some = "1 original is" if gone == 1 else f"{gone:,} originals are"
    st.caption(f":material/image_not_supported: {some} not there any more: the small thumbnail stands in.")
places = np.flatnonzero(ids == state.get_int("sample", -1))
start = int(places[0]) if len(places) else data.reviews.first_undecided(view.at, ids)
falling = order == "hard" and not given


@st.fragment
@widgets.guarded
def decide() -> None:
    if not review.draw_review(view, ids, start, falling, suggesting):
        with st.container(horizontal=True, horizontal_alignment="center", gap="medium"):
            st.page_link("app_pages/versions_page.py", label="Name a version of the set", icon=":material/bookmarks:")
            st.page_link("app_pages/export_page.py", label="Export the set", icon=":material/download:")


decide()
