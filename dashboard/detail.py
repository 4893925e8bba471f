"""One sample beside the grid: its picture, why it is flagged, its trajectories, its neighbors, all its scores."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image

from dashboard import charts, curves, data, grid, state
from dashboard.data import View
from dashboard.markup import plain
from dashboard.why import doubt_of, markdown, why


def why_text(view: View, sample_id: int) -> str:
    """Why a sample's label is in doubt, as Markdown."""
    (row,) = charts.rows(data.reviews.doubts(view.at, view.run_id, [sample_id]))
    near = data.reviews.neighbor_labels(view.at, view.run_id, [sample_id])
    verdict = data.verdict(view.at, view.run_id)
    judged = bool(verdict and verdict.accuracy is not None)
    return markdown(why(doubt_of(row, near["label"].tolist(), view.names, judged)))


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
        with st.container(width=190):
            picture(card, 190)
        with st.container():
            chips(card, view.names)
            judged = data.suspect(view.at, view.run_id, sample_id)
            told = suspicion(judged, data.verdict(view.at, view.run_id))
            st.markdown(told + why_text(view, sample_id))
            st.caption(plain(sample["source"]))
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
    near = data.neighbors(view.at, view.run_id, sample_id)
    if len(near):
        st.markdown("##### Nearest neighbors (cosine of the features)")
        ids_near = near["neighbor_id"].to_list()[:12]
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
