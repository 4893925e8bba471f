"""The map of the training samples, colored by anything; an outline drawn on it filters every page."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from dashboard import data, filters, grid, state, widgets
from dashboard.cloud import Shown, draw_cloud
from dashboard.coloring import choose_color
from dashboard.detail import detail

PAGE = {"title": "Embedding", "icon": ":material/bubble_chart:", "place": 60}

view = widgets.current_view()
widgets.need_run(view)
of = data.clouds.Cloud(view.at, data.clouds.Plane(view.run_id))
if not data.clouds.extent(of)["n"]:
    widgets.empty("This run has no map.", "run", view.at.dataset)
with st.sidebar:
    coloring = choose_color(view, "given")
scores = list(data.catalog(view.at, view.run_id)["score"])
colored = coloring.color.name if coloring.color.kind == "score" else ""
score = colored or ("aum" if "aum" in scores else scores[0] if scores else "")
wanted = filters.filter_bar(view, score, suspicion=False)
ids = data.ids(view.at, view.run_id, wanted, score)
sample_id = state.get_int("sample")
PER_PAGE = 60


def open_sample(sample_id: int | None) -> None:
    state.put(sample=sample_id)


filters.filter_chips(view, wanted, len(ids), data.dataset_facts(view.at)["train"])
left, right = st.columns([3, 2], gap="large")
with left:
    shown = Shown(
        of,
        replace(wanted, region=()),
        coloring,
        "Map of the training samples",
        equal=True,
        outline=wanted.region,
        selected=sample_id,
    )
    draw_cloud(view, shown, "map", lambda corners: state.put(region=corners, page=None), open_sample)
with right:
    if sample_id is not None:
        with st.container(key="detail"):
            detail(view, sample_id, ids)
    elif len(ids):
        if not wanted.region:
            st.caption("Click a sample, or draw around some: the outline filters the gallery and the export too.")
        count = -(-len(ids) // PER_PAGE)
        number = max(1, min(state.get_int("page", 1) or 1, count))
        page = ids[(number - 1) * PER_PAGE : number * PER_PAGE]
        grid.draw_cards(data.cards(view.at, view.run_id, page, score), view.names, "inside", open_sample, size=84)
        widgets.pages(number, count)
    else:
        st.info("No sample meets all of these conditions.", icon=":material/filter_alt_off:")
