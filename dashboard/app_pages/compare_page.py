"""Two scores of the same samples: any two of a run, before and after noise, and all of them at once."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from dashboard import charts, clouds, data, grid, widgets
from dashboard.markup import plain

PAGE = {"title": "Compare", "icon": ":material/scatter_plot:", "place": 50}

view = widgets.current_view()
widgets.need_run(view)
KINDS = {"pair": "Two scores", "noise": "Before and after noise", "all": "All scores"}
kind = widgets.choose("Compare", "compare", list(KINDS), "pair", lambda k: KINDS[k], segments=True, collapsed=True)


def samples_of(event: Any, points: pd.DataFrame) -> pd.DataFrame:
    """The samples inside the outline drawn on a chart, else those clicked."""
    chosen = event["selection"]
    for outline in [*chosen.get("lasso", []), *chosen.get("box", [])]:
        x, y = outline["x"], outline["y"]
        corners = (
            list(zip(x, y, strict=True)) if len(x) > 2 else [(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])]
        )
        return points[clouds.inside(points["x"].to_numpy(), points["y"].to_numpy(), corners)]
    clicked = {
        int(p["customdata"][0] if isinstance(p["customdata"], list) else p["customdata"])
        for p in chosen.get("points", [])
        if "customdata" in p
    }
    return points[points["sample_id"].isin(clicked)]


def show(points: pd.DataFrame, chart: Any, score: str) -> None:
    """The chart, and beside it the samples chosen on it."""
    left, right = st.columns([3, 2], gap="large")
    with left:
        event = st.plotly_chart(chart, config=charts.SELECT_BAR, on_select="rerun", key=f"compare_{kind}")
    with right:
        some = samples_of(event, points)
        if some.empty:
            st.caption(
                "Click a point, or draw around some with the lasso tool, to see them here. "
                "Until then, these are the samples whose two ranks differ most."
            )
            some = points.loc[points["apart"].sort_values(ascending=False).index[:60]]
        else:
            st.markdown(f"**{len(some):,}** of {len(points):,}")
        cards = data.cards(view.at, view.run_id, some["sample_id"].to_list()[:60], score)
        grid.draw_cards(cards, view.names, "chosen", widgets.open_in_gallery, size=84)
        widgets.go_to_gallery()


def with_truth(points: pd.DataFrame) -> pd.DataFrame:
    """The points with `wrong`: known to be mislabeled."""
    labels = data.labels(view.at)
    merged = points.merge(labels, on="sample_id")
    return merged.assign(wrong=(merged["true_label"] >= 0) & (merged["true_label"] != merged["label"]))


def two_scores() -> None:
    with st.sidebar:
        x = widgets.choose_score(view, "Horizontal axis", "x", "aum")
        y = widgets.choose_score(view, "Vertical axis", "y", "el2n")
    a, b = data.score(view.at, view.run_id, x), data.score(view.at, view.run_id, y)
    both = a.merge(b, on="sample_id")
    apart = (both["rank_x"] - both["rank_y"]).abs()
    points = with_truth(
        pd.DataFrame({"sample_id": both["sample_id"], "x": both["value_x"], "y": both["value_y"], "apart": apart})
    )
    rho = float(data.spearman(view.at, view.run_id)[x][y])
    catalog = data.catalog(view.at, view.run_id).set_index("score")["higher_means"]
    shared = (
        "both turned so that higher = harder"
        if catalog[x] != catalog[y]
        else "higher = " + str(catalog[x]) + " in both"
    )
    st.markdown(f"#### Spearman {rho:.3f}&ensp;:gray[:small[{plain(f'{x} and {y}, {shared}')}]]")
    show(points, clouds.pair_chart(points, x, y), x)


def before_after() -> None:
    parent = data.dataset_facts(view.at)["parent"]
    if not parent:
        widgets.empty(
            f"{view.at.dataset} was not derived from another dataset. This command derives one with label noise from it:",
            *("ingest", f"{view.at.dataset}-noisy", "--from", f"dataset:{view.at.dataset}", "--noise", "symmetric:0.2"),
        )
    if parent not in data.datasets():
        widgets.empty(
            f"{parent}, which it was derived from, is not in this workspace.", "ingest", parent, "--from", "SOURCE"
        )
    before = data.snapshot(parent)
    runs = data.runs(before)
    runs = runs[runs["kind"].isin(data.SCORED)]
    if runs.empty:
        widgets.empty(f"{parent} has no scores yet.", "run", parent)
    with st.sidebar:
        score = widgets.choose_score(view, "Score")
        titles = widgets.run_titles(runs)
        other = widgets.choose(
            f"Run on {parent}", "before", list(titles), str(runs["run_id"].iloc[0]), lambda r: titles[r]
        )
    old = data.score(before, other, score)
    if old.empty:
        widgets.empty(f"That run on {parent} has no {score}.", "run", parent, "--scores", score)
    new = data.score(view.at, view.run_id, score)
    both = old.merge(new, on="sample_id")
    apart = (both["rank_x"] - both["rank_y"]).abs()
    points = with_truth(
        pd.DataFrame({"sample_id": both["sample_id"], "x": both["rank_x"], "y": both["rank_y"], "apart": apart})
    )
    moved = points.loc[points["wrong"], ["x", "y"]].mean()
    moves = (
        f"the mislabeled moved from rank {moved['x']:,.0f} to {moved['y']:,.0f} on average"
        if points["wrong"].any()
        else ""
    )
    st.markdown(f"#### Rank by {plain(score)} before and after noise&ensp;:gray[:small[0 = easiest; {moves}]]")
    show(
        points,
        clouds.pair_chart(points, f"rank on {parent}", f"rank on {view.at.dataset}", fit=True, square=True),
        score,
    )


def all_scores() -> None:
    st.markdown("#### Spearman correlation&ensp;:gray[:small[all scores turned so that higher = harder]]")
    st.plotly_chart(charts.spearman_chart(data.spearman(view.at, view.run_id)), config=charts.NO_BAR, key="spearman")


{"pair": two_scores, "noise": before_after, "all": all_scores}[kind]()
