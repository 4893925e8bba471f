"""One sample beside the grid: its picture, why it is flagged, its trajectories, its neighbors, all its scores."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image

from dashboard import charts, curves, data, grid, state, zoom
from dashboard.data import View
from dashboard.markup import plain
from dashboard.review import MISSING
from dashboard.why import doubt_of, markdown, why

SIDE, FULL_SIDE = 640, 8_192
"""Pixels a side at most of the original beside the grid, and of the one that is opened over the window."""

_ZOOMED = "winnow_zoomed"


def why_text(view: View, sample_id: int) -> str:
    """Why a sample's label is in doubt, as Markdown."""
    (row,) = charts.rows(data.reviews.doubts(view.at, view.run_id, [sample_id]))
    near = data.reviews.neighbor_labels(view.at, view.run_id, [sample_id])
    verdict = data.verdict(view.at, view.run_id)
    judged = bool(verdict and verdict.accuracy is not None)
    names = [charts.cut(name, 40) for name in view.names]  # in full above, where they are the labels
    return markdown(why(doubt_of(row, near["label"].tolist(), names, judged)))


def suspicion(judged: pd.DataFrame, verdict: data.Verdict | None) -> str:
    """How likely the label is wrong, and where the sample stands; "" in a run without a verdict.

    Args: judged: rank, p_wrong, listed of the sample, no row where it was not judged
    """
    if verdict is None:
        return ""
    if judged.empty:
        return "This sample was not judged. "
    if not verdict.tells:
        return "The networks of this run cannot tell whether its label is wrong. "
    (row,) = charts.rows(judged)
    where = "on the shortlist" if row.listed else "not on the shortlist"
    place = f"number {row.rank + 1:,} of {verdict.judged:,}, {where}"
    return f"Its label is wrong with a probability of **{data.likely(row.p_wrong)}**: {place}. "


def detail(view: View, sample_id: int, ids: np.ndarray[Any, Any]) -> None:
    """Draw everything known about one sample; ids is the list it is looked at in."""
    sample = data.sample(view.at, sample_id)
    if sample is None:
        st.warning(f"There is no sample {sample_id} in {plain(view.at.dataset)}.", icon=":material/search_off:")
        return
    _head(sample_id, ids)
    label = int(sample["label"])
    dynamics = data.trajectory(view.at, view.run_id, sample_id)
    scores = data.sample_scores(view.at, view.run_id, sample_id)
    card = data.cards(view.at, view.run_id, [sample_id])
    with st.container(horizontal=True, gap="medium"):
        with st.container(width=230):
            path = original(view, card, str(sample["source"] or ""))
        with st.container():
            chips(card, view.names)
            judged = data.suspect(view.at, view.run_id, sample_id)
            doubt = suspicion(judged, data.verdict(view.at, view.run_id))
            st.markdown(doubt + why_text(view, sample_id))
            st.code(data.shown(path, 4_000), language=None, wrap_lines=True)
    if len(dynamics):
        seed = int(dynamics["seed"].min())
        logits = data.sample_logits(view.at, view.run_id, sample_id)
        st.plotly_chart(
            curves.trajectory_chart(dynamics, logits, seed, label, view.names, 360),
            config=charts.NO_BAR,
            key="trajectory",
        )
        if dynamics["seed"].nunique() > 1:
            st.caption(f"Seed {seed}, and the margins of the other seeds in gray.")
        st.page_link(
            "app_pages/trajectories_page.py",
            label="All seeds and more samples",
            icon=":material/show_chart:",
            query_params=state.link(samples=sample_id),
        )
    _metadata(view, sample_id)
    near = data.neighbors(view.at, view.run_id, sample_id)
    if len(near):
        ids_near = near["neighbor_id"].to_list()[:12]
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("##### Nearest neighbors (cosine of the features)", width="content")
            st.page_link(
                "app_pages/review_page.py",
                label="Review them",
                icon=":material/rate_review:",
                query_params=state.link(samples=",".join(map(str, [sample_id, *ids_near])), sample=None, page=None),
            )
        cards = data.cards(view.at, view.run_id, ids_near)
        similarity = near.set_index("neighbor_id")["similarity"]
        grid.draw_cards(
            cards.assign(value=cards["sample_id"].map(similarity), flagged=False, p_wrong=np.nan),
            view.names,
            "neighbors",
            lambda i: state.put(sample=i),
            size=62,
        )
    if len(scores):
        st.markdown("##### Percentile of each score")
        st.plotly_chart(charts.percentile_chart(scores), config=charts.NO_BAR, key="percentiles")


def original(view: View, card: pd.DataFrame, place: str) -> str:
    """The sample's original, which opens over the whole window; its thumbnail stands in where the original is gone.

    Returns: the path of its file, or the place that the dataset names
    """
    row = card.iloc[0]
    sample_id, small = int(row["sample_id"]), row["thumbnail"]
    if not isinstance(small, bytes | bytearray):
        return place
    small = bytes(small)
    seen = data.reviews.original(view.at, sample_id, place, small, SIDE)
    full = seen.content
    if max(seen.width, seen.height) > SIDE:
        opened = st.session_state.get(_ZOOMED) == sample_id
        full = data.reviews.original(view.at, sample_id, place, small, FULL_SIDE).content if opened else b""
    note = MISSING[seen.missing] + (f": {data.shown(seen.problem, 120)}" if seen.problem else "")
    zoom.draw_zoom(
        f"sample {sample_id}",
        seen.content or small,
        full or (b"" if seen.content else small),
        note,
        lambda: st.session_state.update({_ZOOMED: sample_id}),
        known_size=(seen.width, seen.height),
    )
    return seen.path or place


def _metadata(view: View, sample_id: int) -> None:
    """What else the dataset knows of a sample."""
    found = data.sample_metadata(view.at, sample_id)
    if len(found):
        with st.expander("Metadata"):
            st.dataframe(
                {
                    "name": [data.shown(name, 80) for name in found["name"]],
                    "value": [data.shown(value, 400) for value in found["value"]],
                },
                hide_index=True,
            )


def picture(card: pd.DataFrame, size: int) -> None:
    """The sample's picture, enlarged with sharp pixels."""
    row = card.iloc[0]
    if isinstance(row["thumbnail"], bytes | bytearray):
        content = bytes(row["thumbnail"])
        kind = "sharp" if max(Image.open(io.BytesIO(content)).size) <= 64 else "smooth"
        with st.container(key=f"picture_{kind}_{int(row['sample_id'])}"):
            st.image(content, width=size, alt=f"sample {row['sample_id']}")


def chips(card: pd.DataFrame, names: Sequence[str]) -> None:
    """The label chips in words."""
    colors = {"given": "blue", "true": "green", "suggested": "orange"}
    row = next(charts.rows(card))
    with st.container(horizontal=True, gap="small"):
        for kind, text in grid.chips(row, names):
            st.badge(plain(f"{kind} {text}"), color=colors[kind])  # type: ignore[arg-type]
        if row.flagged:
            st.badge("flagged", color="red", icon=":material/flag:")


def _head(sample_id: int, ids: np.ndarray[Any, Any]) -> None:
    found = np.nonzero(ids == sample_id)[0]
    at = int(found[0]) if len(found) else None
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        place = f"&ensp;:gray[:small[{at + 1:,} of {len(ids):,}]]" if at is not None else ""
        st.markdown(f"#### Sample {sample_id}{place}", width="content")
        with st.container(horizontal=True, width="content", gap="small"):
            if at is not None:
                before, after = int(ids[max(0, at - 1)]), int(ids[min(len(ids) - 1, at + 1)])
                st.button(
                    "",
                    key="before",
                    icon=":material/chevron_left:",
                    disabled=at == 0,
                    on_click=lambda: state.put(sample=before),
                    help="previous",
                )
                st.button(
                    "",
                    key="after",
                    icon=":material/chevron_right:",
                    disabled=at == len(ids) - 1,
                    on_click=lambda: state.put(sample=after),
                    help="next",
                )
            st.button("", key="close", icon=":material/close:", on_click=lambda: state.put(sample=None), help="close")
