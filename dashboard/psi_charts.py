"""Test accuracy against the share pruned: points -> their means, what stands out, plotly figures. No Streamlit in here."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard.charts import BLUE, GRAY, GREEN, GRID, PURPLE, VERMILION, new_figure, rows, with_alpha
from dashboard.curves import label_end, spread
from dashboard.markup import chart_text

TINTS = (BLUE, VERMILION, PURPLE, "#e0a100", "#a96b59", "#4fb3d1", "#bd1f01", "#717581")
DASHES = ("solid", "dash", "dot", "dashdot")
Curve = tuple[str, str]
"""A run and an order."""


def curve_means(points: pd.DataFrame) -> pd.DataFrame:
    """The points of each curve, in percent: run_id, order, pruned, share (pruned), mean, low, high (over seeds), seeds.

    Args: points with run_id, order, seed, pruned, kept_fraction and accuracy (0..1)
    """
    grouped = points.groupby(["run_id", "order", "pruned"], sort=True, as_index=False)
    means = grouped.agg(
        share=("kept_fraction", "first"),
        mean=("accuracy", "mean"),
        low=("accuracy", "min"),
        high=("accuracy", "max"),
        seeds=("accuracy", "size"),
    )
    means["share"] = 100 * (1 - means["share"])
    means[["mean", "low", "high"]] *= 100
    return means


def curve_marks(means: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """What stands out on each curve whose full set is measured.

    Args:    means as of `curve_means`; tolerance: points of accuracy
    Returns: run_id, order, full (accuracy of the full set), best, best_at (share pruned), within (the largest share
             pruned before the drop), drop, drop_at: the first point that falls more than the tolerance below the full
             set; NaN when none does
    """
    found = []
    for (run_id, order), curve in means.sort_values("share").groupby(["run_id", "order"], sort=False):
        if curve["pruned"].iloc[0] != 0:
            continue
        full, best = float(curve["mean"].iloc[0]), curve.iloc[int(curve["mean"].argmax())]
        below = curve[curve["mean"] < full - tolerance]
        before = curve[curve["share"] < below["share"].iloc[0]] if len(below) else curve
        drop, drop_at = (below["mean"].iloc[0], below["share"].iloc[0]) if len(below) else (np.nan, np.nan)
        found.append((run_id, order, full, best["mean"], best["share"], before["share"].iloc[-1], drop, drop_at))
    columns = ["run_id", "order", "full", "best", "best_at", "within", "drop", "drop_at"]
    return pd.DataFrame(found, columns=columns)


def curve_names(means: pd.DataFrame, runs: Mapping[str, str]) -> dict[Curve, str]:
    """What each curve is called: its order, with its run's name where several runs are drawn."""
    curves = means[["run_id", "order"]].drop_duplicates()
    several = curves["run_id"].nunique() > 1
    return {(c.run_id, c.order): f"{c.order} · {runs[c.run_id]}" if several else str(c.order) for c in rows(curves)}


def in_chart(point: tuple[str, str, int]) -> tuple[str, str, int]:
    """A point's run, order and number pruned, as the chart has them: an order may be called as markup is."""
    return point[0], chart_text(point[1]), point[2]


def psi_chart(
    points: pd.DataFrame,
    means: pd.DataFrame,
    names: Mapping[Curve, str],
    marks: pd.DataFrame | None = None,
    ring: tuple[str, str, int] | None = None,
    height: int = 440,
) -> go.Figure:
    """Test accuracy against the share pruned, a line per curve between the measured points.

    The mean over seeds is a dot on the line, each network a faint one, and the band goes from the lowest to the highest
    seed. A star is the best point of a curve, a cross the first that falls below the tolerance. The axes stay where they
    are while points arrive: x is 0 to 100 %, y only grows. The last three of a point's customdata are its run, order and
    number pruned.

    Args: points: every network; means as of `curve_means`, with `about` (text) where more is known of a point; ring: the
          run, order and number pruned of a point to mark
    """
    figure = new_figure(height, x="share of the training samples pruned", y="test accuracy", right=64)
    runs, ends = list(dict.fromkeys(means["run_id"])), []
    # What a person zoomed to stays while points arrive, and goes with the curves that it was of.
    figure.update_layout(uirevision=" ".join(runs), clickmode="event+select")
    pruned_at = {(m.run_id, m.order, m.share): m.pruned for m in rows(means)}
    colors = order_colors(means["order"])
    for (run_id, order), name in names.items():
        color, number = colors[order], runs.index(run_id)
        some = points[(points["run_id"] == run_id) & (points["order"] == order)]
        curve = means[(means["run_id"] == run_id) & (means["order"] == order)].sort_values("share")
        figure.add_scatter(
            x=[*curve["share"], *curve["share"][::-1]],
            y=[*curve["high"], *curve["low"][::-1]],
            fill="toself",
            mode="lines",
            line={"width": 0},
            fillcolor=with_alpha(color, 0.16),
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=(1 - some["kept_fraction"]) * 100,
            y=some["accuracy"] * 100,
            mode="markers",
            marker={"size": 4, "color": color, "opacity": 0.35},
            hoverinfo="skip",
        )
        dash = DASHES[number % len(DASHES)] if len(runs) > 1 else "dot" if order == "random" else "solid"
        about = curve["about"] if "about" in curve else pd.Series("", index=curve.index)
        figure.add_scatter(
            x=curve["share"],
            y=curve["mean"],
            mode="lines+markers",
            name=chart_text(name),
            line={"color": with_alpha(color, 0.75), "width": 2, "dash": dash},
            marker={"size": 7, "color": color},
            customdata=np.stack(
                [
                    *(curve[c] for c in ("low", "high", "seeds")),
                    about,
                    *(curve["run_id"], curve["order"].map(chart_text), curve["pruned"]),
                ],
                axis=1,
                dtype=object,
            ),
            **ALL_ALIKE,
            hovertemplate=f"<b>{chart_text(name)}</b> %{{y:.1f}} % at %{{x:.4g}} % pruned<br>%{{customdata[0]:.1f}} to "
            "%{customdata[1]:.1f} %, seeds: %{customdata[2]}%{customdata[3]}<extra></extra>",
        )
        ends.append((float(curve["share"].iloc[-1]), float(curve["mean"].iloc[-1]), name, color))
    for mark in rows(marks) if marks is not None else ():
        color = colors[mark.order]
        places = [("star", mark.best_at, mark.best, f"best of {chart_text(mark.order)}")]
        if mark.drop == mark.drop:
            places.append(("x", mark.drop_at, mark.drop, f"{chart_text(mark.order)} falls below the tolerance here"))
        for symbol, x, y, text in places:
            _mark(figure, x, y, symbol, color, text, (mark.run_id, mark.order, pruned_at[mark.run_id, mark.order, x]))
    if ring is not None:
        run_id, order, pruned = ring
        at = means[(means["run_id"] == run_id) & (means["order"] == order) & (means["pruned"] == pruned)]
        figure.add_scatter(
            x=at["share"],
            y=at["mean"],
            mode="markers",
            name="chosen",
            marker={"size": 18, "symbol": "circle-open", "color": VERMILION, "line": {"width": 3}},
            hoverinfo="skip",
        )
    low, high = accuracy_range(means)
    heights = spread(sorted(end[1] for end in ends), (high - low) / 18)
    for (x, _, name, color), y in zip(sorted(ends, key=lambda e: e[1]), heights, strict=True):
        label_end(figure, x, y, name if len(name) <= 24 else f"{name[:22]}…", color)
    figure.update_xaxes(ticksuffix=" %", showgrid=True, gridcolor=GRID, range=[-1.5, 101.5])
    figure.update_yaxes(ticksuffix=" %", range=[low, high])
    return figure


ALL_ALIKE = {"selected": {"marker": {"opacity": 1}}, "unselected": {"marker": {"opacity": 1}}}
"""A point that is chosen gets a ring; the others stay as they are."""


def accuracy_range(means: pd.DataFrame) -> tuple[float, float]:
    """Where the axis of accuracy begins and ends, in percent: whole fives, which further points only move apart."""
    low, high = 5 * math.floor(means["low"].min() / 5), 5 * math.ceil(means["high"].max() / 5)
    return max(0.0, low - 1.0), min(101.0, max(high, low + 5) + 1.0)


def order_colors(orders: pd.Series) -> dict[str, str]:
    """The color of each order: gray and green for chance and oracle, the others in turn by name."""
    fixed = {"random": GRAY, "oracle": GREEN}
    others = sorted(set(orders) - set(fixed))
    return fixed | {order: TINTS[i % len(TINTS)] for i, order in enumerate(others)}


def _mark(
    figure: go.Figure, x: float, y: float, symbol: str, color: str, text: str, point: tuple[str, str, int]
) -> None:
    figure.add_scatter(
        x=[x],
        y=[y],
        mode="markers",
        name=symbol,
        marker={"size": 15, "symbol": symbol, "color": color, "line": {"width": 1.5, "color": "#ffffff"}},
        customdata=[in_chart(point)],
        hovertemplate=f"{text}<br>%{{y:.1f}} % at %{{x:.4g}} % pruned<extra></extra>",
        **ALL_ALIKE,
    )


def epoch_chart(quality: pd.DataFrame, score: str, chosen: int) -> go.Figure:
    """Over the epochs at which a score could be taken: its ROC AUC and its stability, the chosen epoch marked.

    Args: quality with epoch, roc_auc and stability (NaN where there is none)
    """
    figure = new_figure(260, x=f"epoch of {chart_text(score)}", right=120)
    ends = []
    for column, name, color in (("roc_auc", "ROC AUC", BLUE), ("stability", "rank stability", PURPLE)):
        known = quality.dropna(subset=[column])
        if known.empty:
            continue
        figure.add_scatter(
            x=known["epoch"],
            y=known[column],
            mode="lines+markers",
            name=name,
            line={"color": color, "width": 2},
            marker={"size": 6, "color": color},
            hovertemplate=f"{name} %{{y:.4f}}<br>epoch %{{x}}<extra></extra>",
        )
        ends.append((float(known["epoch"].iloc[-1]), float(known[column].iloc[-1]), name, color))
    values = quality[["roc_auc", "stability"]].to_numpy(float)
    span = float(np.nanmax(values) - np.nanmin(values)) if np.isfinite(values).any() else 1.0
    heights = spread(sorted(end[1] for end in ends), span / 6)
    for (x, _, name, color), y in zip(sorted(ends, key=lambda e: e[1]), heights, strict=True):
        label_end(figure, x, y, name, color)
    figure.add_vline(x=chosen, line={"color": GRAY, "width": 2, "dash": "dash"})
    return figure
