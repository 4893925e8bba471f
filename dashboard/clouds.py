"""Clouds of samples, on a map or by two of their scores: DataFrame -> plotly figure. No Streamlit in here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard.charts import BLUE, CLASSES, GRAY, GRID, HARDNESS, PURPLE, VERMILION, class_color, new_figure, with_alpha
from dashboard.markup import chart_text

SVG_POINTS = 4_000
"""Up to this many points are drawn as SVG, which every browser paints; more go to WebGL."""


def linear_fit(x: Any, y: Any) -> tuple[float, float]:
    """Slope and intercept of the least-squares line."""
    slope, intercept = np.polyfit(np.asarray(x, float), np.asarray(y, float), 1)
    return float(slope), float(intercept)


def pair_chart(points: pd.DataFrame, x: str, y: str, *, fit: bool = False, square: bool = False) -> go.Figure:
    """Two numbers of every sample against each other; the mislabeled in vermilion and on top, an optional fit dashed.

    Args: points with sample_id, x, y, wrong (bool)
    """
    x, y = chart_text(x), chart_text(y)
    figure = new_figure(560, x=x, y=y, legend=True, top=34, right=44)
    # Not "lasso": Streamlit answers clicks on points only while the mouse pans.
    figure.update_layout(dragmode="pan", legend={"itemsizing": "constant"})
    size = 7 if len(points) <= SVG_POINTS else 4
    for wrong, name, color in ((False, "clean", BLUE), (True, "mislabeled", VERMILION)):
        some = points[points["wrong"] == wrong]
        if some.empty:
            continue
        _points(
            figure,
            some,
            name=f"{name}  {len(some):,}" if points["wrong"].any() else f"all  {len(some):,}",
            marker={"size": size, "color": color, "opacity": 0.62},
            total=len(points),
            x=x,
            y=y,
        )
    if fit and len(points) > 1:
        slope, intercept = linear_fit(points["x"], points["y"])
        ends = np.array([points["x"].min(), points["x"].max()], float)
        figure.add_scatter(
            x=ends,
            y=slope * ends + intercept,
            mode="lines",
            name=f"fit, slope {slope:.2f}",
            hoverinfo="skip",
            line={"color": PURPLE, "width": 2.5, "dash": "dash"},
        )
    figure.update_xaxes(showgrid=True, gridcolor=GRID)
    if square:
        figure.update_yaxes(scaleanchor="x", constrain="domain")
        figure.update_xaxes(constrain="domain")
    return figure


def _points(
    figure: go.Figure, some: pd.DataFrame, *, name: str, marker: dict[str, Any], total: int, x: str = "x", y: str = "y"
) -> None:
    """A cloud of samples: SVG while that is quick, WebGL above; numbers only, no text per point."""
    kind = go.Scatter if total <= SVG_POINTS else go.Scattergl
    hover = (
        {"hoverinfo": "skip"}
        if total > 100_000
        else {"hovertemplate": f"sample %{{customdata}}<br>{x} %{{x:.4g}}<br>{y} %{{y:.4g}}<extra>{name}</extra>"}
    )
    figure.add_trace(
        kind(
            x=some["x"].to_numpy(np.float32),
            y=some["y"].to_numpy(np.float32),
            mode="markers",
            name=name,
            marker=marker,
            customdata=some["sample_id"].to_numpy(np.int32),
            unselected={"marker": {"opacity": 0.12}},
            **hover,
        )
    )


def map_chart(
    points: pd.DataFrame, color: str, names: Sequence[str], outline: Sequence[tuple[float, float]] = ()
) -> go.Figure:
    """The two-dimensional map of the samples.

    Args: points with sample_id, x, y and `color`; color: "class" (int labels, -1 unknown), "yes" (bool) or a title
          of numbers, in which case the column `color` holds them; outline: a chosen region to draw
    """
    figure = new_figure(640, legend=color == "yes" or len(names) > 30, top=34, right=44)
    figure.update_layout(dragmode="pan", legend={"itemsizing": "constant"}, uirevision="map")
    size = 7 if len(points) <= SVG_POINTS else 4 if len(points) <= 60_000 else 3
    total = len(points)
    if color == "class":
        if len(points) > SVG_POINTS:
            _mixed(figure, points, size)
        for label in sorted(set(points["color"])):
            some = points[points["color"] == label]
            tint = class_color(label) if label >= 0 else GRAY
            name = chart_text(names[label]) if label >= 0 else "unknown"
            if len(points) <= SVG_POINTS:
                _points(figure, some, name=name, marker={"size": size, "color": tint, "opacity": 0.75}, total=total)
            if 0 <= label and len(names) <= 30:
                x, y = _above(some)
                figure.add_annotation(
                    x=x,
                    y=y,
                    text=f"<b>{name}</b>",
                    showarrow=False,
                    font={"size": 13, "color": "#ffffff"},
                    bgcolor=with_alpha(tint, 0.9),
                    borderpad=3,
                    yanchor="bottom",
                    yshift=8,
                )
    elif color == "yes":
        for yes, name, tint in ((False, "no", GRAY), (True, "yes", VERMILION)):
            some = points[points["color"] == yes]
            if len(some):
                _points(
                    figure,
                    some,
                    name=f"{name}  {len(some):,}",
                    marker={"size": size, "color": tint, "opacity": 0.8 if yes else 0.4},
                    total=total,
                )
    else:
        low, high = np.nanpercentile(points["color"].to_numpy(float), [1, 99])
        _points(
            figure,
            points,
            name="",
            marker={
                "size": size,
                "color": points["color"].to_numpy(np.float32),
                "colorscale": HARDNESS,
                "cmin": low,
                "cmax": high,
                "opacity": 0.8,
                "colorbar": {"title": {"text": chart_text(color), "side": "right"}, "thickness": 10, "outlinewidth": 0},
            },
            total=total,
        )
    if outline:
        path = "M" + " L".join(f"{x},{y}" for x, y in outline) + " Z"
        figure.add_shape(
            type="path",
            path=path,
            line={"color": PURPLE, "width": 2, "dash": "dot"},
            fillcolor=with_alpha(PURPLE, 0.10),
        )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    return figure


def inside(
    x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], outline: Sequence[tuple[float, float]]
) -> np.ndarray[Any, Any]:
    """Which points lie inside a closed outline, by the even-odd rule: (n,) bool."""
    found = np.zeros(len(x), bool)
    for (x1, y1), (x2, y2) in zip(outline, [*outline[1:], outline[0]], strict=True):
        if y1 != y2:
            found ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return found


def _mixed(figure: go.Figure, points: pd.DataFrame, size: int) -> None:
    """All classes in one trace, in a random order: where they overlap, none paints over the others."""
    some = points.sample(frac=1, random_state=0)
    tints = [*CLASSES, GRAY]
    steps = len(tints)
    scale = [[(i + side) / steps, tint] for i, tint in enumerate(tints) for side in (0, 1)]
    codes = np.where(some["color"] < 0, steps - 1, some["color"] % len(CLASSES)).astype(np.uint8)
    marker = {"color": codes, "colorscale": scale, "cmin": -0.5, "cmax": steps - 0.5, "size": size, "opacity": 0.75}
    _points(figure, some, name="", marker=marker, total=len(points))


def _above(points: pd.DataFrame) -> tuple[float, float]:
    """Where to name a class: above the core of its points, since some of a noisy class lie among other classes."""
    x, y = float(points["x"].median()), float(points["y"].median())
    away = np.hypot(points["x"].to_numpy() - x, points["y"].to_numpy() - y)
    return x, float(points["y"].to_numpy()[away <= np.quantile(away, 0.6)].max())
