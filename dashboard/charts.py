"""DataFrame -> plotly figure. No Streamlit in here: figures take their text and grid colours from the page's theme.

Colours mean the same everywhere: blue is what a label says or what is clean, vermilion is mislabelled or negative,
green is positive. The three stay apart for colour-blind eyes (Okabe and Ito); classes take the ten colours of
Petroff (2021), which were chosen for the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

BLUE, VERMILION, GREEN, PURPLE = "#3b82b8", "#d9571c", "#1a9a74", "#8b6bb1"
GREY, FAINT = "#8a949e", "rgba(138,148,158,0.28)"
CLASSES = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
HARDNESS = "Cividis"
DIVERGING = [[0, "#2166ac"], [0.25, "#67a9cf"], [0.5, "#8a949e"], [0.75, "#ef8a62"], [1, "#b2182b"]]
NO_BAR: dict[str, Any] = {"displayModeBar": False}
SELECT_BAR: dict[str, Any] = {
    "displaylogo": False,
    "displayModeBar": True,
    "modeBarButtons": [["lasso2d", "select2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
    "scrollZoom": True,
}
"""The buttons are listed, so that one which sends a chart elsewhere can never appear."""
SVG_POINTS = 4_000
"""Up to this many points are drawn as SVG, which every browser paints; more go to WebGL."""

_GRID = "rgba(138,148,158,0.18)"


def _figure(height: int, *, x: str = "", y: str = "", legend: bool = False, top: int = 12, right: int = 12) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": right, "t": top, "b": 8},
        showlegend=legend,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0, "xanchor": "left", "title": None},
        hovermode="closest",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    figure.update_xaxes(title=x, showgrid=False, zeroline=False, automargin=True)
    figure.update_yaxes(title=y, gridcolor=_GRID, zeroline=False, automargin=True)
    return figure


def _label(figure: go.Figure, x: float, y: float, text: str, color: str, **more: Any) -> None:
    """Name a line at its end, in its colour: no legend to look up."""
    figure.add_annotation(
        x=x, y=y, text=text, font={"color": color, "size": 13}, showarrow=False, xanchor="left", xshift=6, **more
    )


def class_color(label: int) -> str:
    """The colour of a class; more than ten classes share colours."""
    return CLASSES[label % len(CLASSES)]


# Sets and runs ------------------------------------------------------------------------------------------------


def accuracy_chart(epochs: pd.DataFrame) -> go.Figure:
    """Training and test accuracy over epochs: the mean over seeds, and from the lowest to the highest seed.

    Args: epochs with seed, epoch, train_accuracy, test_accuracy (0..1, NaN where there is no test split)
    """
    figure = _figure(260, x="epoch", right=64)
    ends = []
    for column, name, color in (("train_accuracy", "train", GREY), ("test_accuracy", "test", BLUE)):
        if epochs[column].isna().all():
            continue
        by = epochs.groupby("epoch")[column].agg(["mean", "min", "max"]) * 100
        figure.add_scatter(
            x=[*by.index, *by.index[::-1]], y=[*by["max"], *by["min"][::-1]], fill="toself", mode="lines",
            line={"width": 0}, fillcolor=color, opacity=0.22, hoverinfo="skip",
        )  # fmt: skip
        figure.add_scatter(
            x=by.index, y=by["mean"], mode="lines", line={"color": color, "width": 2.5}, name=name,
            hovertemplate=f"{name} %{{y:.1f}} %<br>epoch %{{x}}<extra></extra>",
        )  # fmt: skip
        ends.append([float(by["mean"].iloc[-1]), name, color])
    if len(ends) == 2 and abs(ends[0][0] - ends[1][0]) < 4:  # keep the two names apart
        ends[0][0], ends[1][0] = (ends[0][0] - 3, ends[1][0] + 3) if ends[0][0] < ends[1][0] else (ends[0][0] + 3, ends[1][0] - 3)
    for height, name, color in ends:
        _label(figure, float(epochs["epoch"].max()), height, str(name), str(color))
    figure.update_yaxes(ticksuffix=" %")
    return figure


def noise_chart(matrix: pd.DataFrame, names: Sequence[str]) -> go.Figure:
    """The transition matrix of the labels, in percent of each true class. The diagonal, which is right, stays grey.

    Args: matrix with true_label, label, count, share
    """
    n = len(names)
    share, count = np.zeros((n, n)), np.zeros((n, n), int)
    share[matrix["true_label"], matrix["label"]] = matrix["share"] * 100
    count[matrix["true_label"], matrix["label"]] = matrix["count"]
    wrong = share.copy()
    np.fill_diagonal(wrong, np.nan)
    text = [[f"{v:.0f}" if v >= 0.5 else "" for v in row] for row in share] if n <= 12 else None
    figure = _figure(300 if n <= 12 else 420, x="given label", y="true label")
    figure.add_heatmap(
        z=wrong, text=text, texttemplate="%{text}" if text else None, customdata=np.dstack([share, count]),
        colorscale=[[0, "rgba(217,87,28,0)"], [1, VERMILION]], zmin=0, showscale=False, xgap=1, ygap=1,
        hovertemplate="true %{y}, given %{x}<br>%{customdata[0]:.1f} % of the class, %{customdata[1]} samples<extra></extra>",
    )  # fmt: skip
    if text:
        for i in range(n):
            figure.add_shape(
                type="rect", x0=i - 0.5, x1=i + 0.5, y0=i - 0.5, y1=i + 0.5, line={"width": 0}, fillcolor=FAINT, layer="below"
            )
            figure.add_annotation(x=i, y=i, text=f"{share[i, i]:.0f}", showarrow=False)
    ticks = {"tickvals": list(range(n)), "ticktext": [str(name)[:12] for name in names]} if n <= 30 else {}
    figure.update_xaxes(**ticks, constrain="domain")
    figure.update_yaxes(**ticks, autorange="reversed", showgrid=False)
    return figure


def detection_chart(catalog: pd.DataFrame) -> go.Figure:
    """How well each score ranks the mislabelled last: ROC AUC as a dot on a line from chance (0.5) to 1.

    Args: catalog with score, roc_auc, average_precision (NaN rows are left out)
    """
    known = catalog.dropna(subset=["roc_auc"]).sort_values("roc_auc")
    figure = _figure(60 + 24 * len(known), x="ROC AUC of finding the mislabelled", right=56)
    for row in known.itertuples():
        figure.add_shape(
            type="line", x0=0.5, x1=row.roc_auc, y0=row.score, y1=row.score, line={"color": FAINT, "width": 3}, layer="below"
        )
    figure.add_scatter(
        x=known["roc_auc"], y=known["score"], mode="markers+text", marker={"size": 11, "color": BLUE},
        text=[f"{v:.3f}" for v in known["roc_auc"]], textposition="middle right", cliponaxis=False,
        customdata=known[["average_precision"]],
        hovertemplate="%{y}<br>ROC AUC %{x:.4f}<br>average precision %{customdata[0]:.4f}<extra></extra>",
    )  # fmt: skip
    low = min(0.48, float(known["roc_auc"].min()) - 0.03) if len(known) else 0.48
    figure.update_xaxes(range=[low, 1.0], dtick=0.1)
    figure.update_yaxes(showgrid=False)
    return figure


# Scores -------------------------------------------------------------------------------------------------------


def histogram_chart(bins: pd.DataFrame, score: str, higher_means: str, thresholds: Sequence[tuple[str, float]]) -> go.Figure:
    """A score's distribution, the mislabelled apart from the clean where the truth is known, with threshold lines.

    Args: bins with left, right, clean, mislabelled, unknown (samples)
    """
    sides = ("easier", "harder") if higher_means == "harder" else ("harder", "easier")
    figure = _figure(380, x=f"← {sides[0]}     <b>{score}</b>     {sides[1]} →", y="samples", legend=True, top=36)
    center, width = (bins["left"] + bins["right"]) / 2, bins["right"] - bins["left"]
    for column, name, color in (("unknown", "truth unknown", GREY), ("clean", "clean", BLUE), ("mislabelled", "mislabelled", VERMILION)):
        if bins[column].sum() == 0:
            continue
        figure.add_bar(
            x=center, y=bins[column], width=width, name=f"{name}  {int(bins[column].sum()):,}", marker={"color": color, "line": {"width": 0}},
            opacity=0.72, customdata=np.stack([bins["left"], bins["right"]], axis=1),
            hovertemplate=f"%{{customdata[0]:.3g}} to %{{customdata[1]:.3g}}<br>%{{y:,}} {name}<extra></extra>",
        )  # fmt: skip
    for rule, value in thresholds:
        figure.add_vline(
            x=value, line={"color": PURPLE, "width": 2, "dash": "dash"},
            annotation={"text": f"{rule} {value:.3g}", "font": {"color": PURPLE}, "yanchor": "bottom", "xanchor": "center"},
            annotation_position="top",
        )  # fmt: skip
    figure.update_layout(barmode="overlay", bargap=0)
    return figure


def percentile_chart(scores: pd.DataFrame) -> go.Figure:
    """One sample among all: a bar per score, from the easiest (0) to the hardest (100) percentile of its rank.

    Args: scores with score, title, value, percentile
    """
    ordered = scores.sort_values("percentile")
    figure = _figure(40 + 22 * len(ordered), right=70)
    figure.add_bar(
        x=np.full(len(ordered), 100), y=ordered["score"], orientation="h", marker={"color": _GRID}, hoverinfo="skip", width=0.62
    )
    figure.add_bar(
        x=ordered["percentile"], y=ordered["score"], orientation="h", width=0.62,
        marker={"color": ordered["percentile"], "colorscale": [[0, BLUE], [0.6, "#b9ac70"], [1, VERMILION]], "cmin": 0, "cmax": 100},
        customdata=ordered[["title", "value"]],
        hovertemplate="%{customdata[0]}<br>value %{customdata[1]:.4g}<br>harder than %{x:.1f} % of the samples<extra></extra>",
    )  # fmt: skip
    for row in ordered.itertuples():
        figure.add_annotation(x=100, y=row.score, text=f"{row.value:.3g}", showarrow=False, xanchor="left", xshift=6)
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(range=[0, 100], tickvals=[0, 50, 100], ticktext=["easiest", "median", "hardest"])
    figure.update_yaxes(showgrid=False)
    return figure


# Trajectories -------------------------------------------------------------------------------------------------


def crossing_points(x: np.ndarray[Any, Any], a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> tuple[Any, Any, Any]:
    """x, a, b with a point added wherever the two lines cross, so that areas between them meet in it exactly."""
    gap = a - b
    at = np.nonzero(gap[:-1] * gap[1:] < 0)[0]
    share = gap[at] / (gap[at] - gap[at + 1])
    where = at + 1

    def between(v: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        added: np.ndarray[Any, Any] = np.insert(v.astype(float), where, v[at] + share * (v[at + 1] - v[at]))
        return added

    low = between(b)
    high = between(a)
    high[where + np.arange(len(where))] = low[where + np.arange(len(where))]  # equal despite rounding
    return between(x), high, low


def trajectory_chart(
    dynamics: pd.DataFrame, logits: pd.DataFrame, seed: int, label: int, names: Sequence[str], height: int = 470
) -> go.Figure:
    """One sample in one seed over the epochs: its logits, its margin and running AUM, its probability.

    The area between the logit of the given label and the largest other logit is green where the given label leads
    and hatched vermilion where another class does. Other seeds' margins are drawn faintly behind.

    Args: dynamics with seed, epoch, margin, logit_given, p_given, other; logits with seed, epoch, 0 .. C-1, empty
          where the full logits were not kept: then the largest other logit is logit_given - margin
    """
    one = dynamics[dynamics["seed"] == seed].sort_values("epoch")
    epoch, given, margin = one["epoch"].to_numpy(), one["logit_given"].to_numpy(float), one["margin"].to_numpy(float)
    figure = _figure(height, right=70)
    grid = make_subplots(
        rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.07, row_heights=[0.52, 0.27, 0.21], figure=figure
    )
    x, high, low = crossing_points(epoch, given, given - margin)
    hidden = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    for edge, color, pattern in ((np.maximum(high, low), GREEN, ""), (np.minimum(high, low), VERMILION, "/")):
        grid.add_scatter(x=x, y=low, **hidden, row=1, col=1)
        grid.add_scatter(
            x=x, y=edge, **hidden, fill="tonexty", row=1, col=1, name="ahead" if color == GREEN else "behind",
            fillcolor=_alpha(color, 0.30), fillpattern={"shape": pattern, "fgcolor": _alpha(color, 0.75), "size": 7, "solidity": 0.25},
        )  # fmt: skip
    kept = logits[logits["seed"] == seed] if len(logits) else logits
    rival = int(one["other"].mode().iloc[0])
    if len(kept):
        for c in [c for c in range(len(names)) if c not in (label, rival)]:
            _line(grid, kept["epoch"], kept[c], names[c], GREY, 1, 0.55)
        _line(grid, kept["epoch"], kept[rival], names[rival], VERMILION, 2)
        ends = [(float(kept[rival].iloc[-1]), names[rival], VERMILION)]
    else:
        _line(grid, epoch, given - margin, "largest other", VERMILION, 2)
        ends = [(float((given - margin)[-1]), "other", VERMILION)]
    _line(grid, epoch, given, f"{names[label]} (given)", BLUE, 3)
    ends.append((float(given[-1]), names[label], BLUE))
    for y, text, color in ends:
        _label(grid, float(epoch[-1]), y, str(text)[:9], color, row=1, col=1)
    for other in sorted(set(dynamics["seed"]) - {seed}):
        rest = dynamics[dynamics["seed"] == other].sort_values("epoch")
        _line(grid, rest["epoch"], rest["margin"], f"margin, seed {other}", GREY, 1, 0.35, row=2)
    _line(grid, epoch, margin, "margin", BLUE, 1.5, row=2)
    running = np.cumsum(margin) / np.arange(1, len(margin) + 1)
    _line(grid, epoch, running, "running AUM", PURPLE, 3, row=2)
    _label(grid, float(epoch[-1]), float(running[-1]), f"AUM {running[-1]:.2f}", PURPLE, row=2, col=1)
    grid.add_hline(y=0, line={"color": GREY, "width": 1}, row=2, col=1)
    _line(grid, epoch, one["p_given"], f"p({names[label]})", BLUE, 2, row=3)
    for row, title in enumerate(("logit", "margin", "p given"), start=1):
        grid.update_yaxes(title=title, gridcolor=_GRID, zeroline=False, row=row, col=1)
    grid.update_yaxes(range=[0, 1.02], dtick=0.5, row=3, col=1)
    grid.update_xaxes(showgrid=False, zeroline=False)
    grid.update_xaxes(title="epoch", row=3, col=1)
    return grid


def _line(
    figure: go.Figure, x: Any, y: Any, name: str, color: str, width: float, opacity: float = 1, row: int = 1
) -> None:
    figure.add_scatter(
        x=x, y=y, mode="lines", name=str(name), line={"color": color, "width": width}, opacity=opacity, showlegend=False,
        hovertemplate=f"{name} %{{y:.3f}}<br>epoch %{{x}}<extra></extra>", row=row, col=1,
    )  # fmt: skip


def _alpha(color: str, alpha: float) -> str:
    r, g, b = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{alpha})"


# Two scores ---------------------------------------------------------------------------------------------------


def linear_fit(x: Any, y: Any) -> tuple[float, float]:
    """Slope and intercept of the least-squares line."""
    slope, intercept = np.polyfit(np.asarray(x, float), np.asarray(y, float), 1)
    return float(slope), float(intercept)


def pair_chart(points: pd.DataFrame, x: str, y: str, *, fit: bool = False, square: bool = False) -> go.Figure:
    """Two numbers of every sample against each other; the mislabelled in vermilion and on top, an optional fit dashed.

    Args: points with sample_id, x, y, wrong (bool)
    """
    figure = _figure(560, x=x, y=y, legend=True, top=34)
    figure.update_layout(dragmode="lasso", legend={"itemsizing": "constant"})
    size = 7 if len(points) <= SVG_POINTS else 4
    for wrong, name, color in ((False, "clean", BLUE), (True, "mislabelled", VERMILION)):
        some = points[points["wrong"] == wrong]
        if some.empty:
            continue
        _points(figure, some, name=f"{name}  {len(some):,}" if points["wrong"].any() else f"all  {len(some):,}",
                marker={"size": size, "color": color, "opacity": 0.62}, total=len(points), x=x, y=y)  # fmt: skip
    if fit and len(points) > 1:
        slope, intercept = linear_fit(points["x"], points["y"])
        ends = np.array([points["x"].min(), points["x"].max()], float)
        figure.add_scatter(
            x=ends, y=slope * ends + intercept, mode="lines", name=f"fit, slope {slope:.2f}", hoverinfo="skip",
            line={"color": PURPLE, "width": 2.5, "dash": "dash"},
        )  # fmt: skip
    figure.update_xaxes(showgrid=True, gridcolor=_GRID)
    if square:
        figure.update_yaxes(scaleanchor="x", constrain="domain")
        figure.update_xaxes(constrain="domain")
    return figure


def _points(figure: go.Figure, some: pd.DataFrame, *, name: str, marker: dict[str, Any], total: int, x: str, y: str) -> None:
    """A cloud of samples: SVG while that is quick, WebGL above; numbers only, no text per point."""
    kind = go.Scatter if total <= SVG_POINTS else go.Scattergl
    hover = {"hoverinfo": "skip"} if total > 100_000 else {
        "hovertemplate": f"sample %{{customdata}}<br>{x} %{{x:.4g}}<br>{y} %{{y:.4g}}<extra>{name}</extra>"
    }  # fmt: skip
    figure.add_trace(
        kind(
            x=some["x"].to_numpy(np.float32), y=some["y"].to_numpy(np.float32), mode="markers", name=name,
            marker=marker, customdata=some["sample_id"].to_numpy(np.int32), unselected={"marker": {"opacity": 0.12}}, **hover,
        )  # fmt: skip
    )


def spearman_chart(matrix: pd.DataFrame) -> go.Figure:
    """Spearman correlation of every two scores, all turned so that higher = harder."""
    names = list(matrix.columns)
    z = matrix.to_numpy(float)
    figure = _figure(110 + 40 * len(names))
    figure.add_heatmap(
        z=z, x=names, y=names, zmin=-1, zmax=1, colorscale=DIVERGING, xgap=2, ygap=2, showscale=False,
        text=np.where(np.isfinite(z), np.vectorize(lambda v: f"{v:.2f}")(z), ""), texttemplate="%{text}",
        textfont={"color": "white"}, hovertemplate="%{y} and %{x}<br>Spearman %{z:.3f}<extra></extra>",
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(side="top", tickangle=-40)
    return figure


# The map ------------------------------------------------------------------------------------------------------


def map_chart(points: pd.DataFrame, color: str, names: Sequence[str], outline: Sequence[tuple[float, float]] = ()) -> go.Figure:
    """The two-dimensional map of the samples.

    Args: points with sample_id, x, y and `color`; color: "class" (int labels, -1 unknown), "yes" (bool) or a title
          of numbers, in which case the column `color` holds them; outline: a chosen region to draw
    """
    figure = _figure(640, legend=color in ("class", "yes"), top=34)
    figure.update_layout(dragmode="lasso", legend={"itemsizing": "constant"}, uirevision="map")
    size = 7 if len(points) <= SVG_POINTS else 4 if len(points) <= 60_000 else 3
    common = {"total": len(points), "x": "x", "y": "y"}
    if color == "class":
        for label in sorted(set(points["color"])):
            some = points[points["color"] == label]
            tint = class_color(label) if label >= 0 else GREY
            name = str(names[label]) if label >= 0 else "unknown"
            _points(figure, some, name=name, marker={"size": size, "color": tint, "opacity": 0.75}, **common)
            if 0 <= label and len(names) <= 30:
                figure.add_annotation(
                    x=float(some["x"].median()), y=float(some["y"].median()), text=f"<b>{name}</b>", showarrow=False,
                    font={"size": 14, "color": "#ffffff"}, bgcolor=_alpha(tint, 0.85), borderpad=3,
                )  # fmt: skip
    elif color == "yes":
        for yes, name, tint in ((False, "no", GREY), (True, "yes", VERMILION)):
            some = points[points["color"] == yes]
            if len(some):
                _points(figure, some, name=f"{name}  {len(some):,}",
                        marker={"size": size, "color": tint, "opacity": 0.8 if yes else 0.4}, **common)  # fmt: skip
    else:
        low, high = np.nanpercentile(points["color"].to_numpy(float), [1, 99])
        _points(figure, points, name="", marker={
            "size": size, "color": points["color"].to_numpy(np.float32), "colorscale": HARDNESS, "cmin": low, "cmax": high,
            "opacity": 0.8, "colorbar": {"title": {"text": color, "side": "right"}, "thickness": 10, "outlinewidth": 0},
        }, **common)  # fmt: skip
    if outline:
        path = "M" + " L".join(f"{x},{y}" for x, y in outline) + " Z"
        figure.add_shape(type="path", path=path, line={"color": PURPLE, "width": 2, "dash": "dot"}, fillcolor=_alpha(PURPLE, 0.10))
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    return figure


# psi and export -----------------------------------------------------------------------------------------------


def psi_chart(psi: pd.DataFrame) -> go.Figure:
    """Test accuracy against the share pruned, a line per order: the mean over seeds, from the lowest to the highest.

    Args: psi with order, seed, kept_fraction (0..1), accuracy (0..1)
    """
    figure = _figure(520, x="share of the training samples pruned", y="test accuracy", right=110)
    orders = sorted(psi["order"].unique(), key=lambda o: (o not in ("random", "oracle"), o))
    fixed = {"random": GREY, "oracle": GREEN}
    tints = iter([BLUE, VERMILION, PURPLE, "#e0a100", "#a96b59", "#4fb3d1", "#bd1f01", "#717581"] * 4)
    ends = []
    for order in orders:
        color = fixed.get(order) or next(tints)
        some = psi[psi["order"] == order].assign(pruned=lambda f: (1 - f["kept_fraction"]) * 100)
        by = some.groupby("pruned")["accuracy"].agg(["mean", "min", "max", "count"])
        by[["mean", "min", "max"]] *= 100
        figure.add_scatter(
            x=[*by.index, *by.index[::-1]], y=[*by["max"], *by["min"][::-1]], fill="toself", mode="lines", line={"width": 0},
            fillcolor=_alpha(color, 0.16), hoverinfo="skip", legendgroup=order,
        )  # fmt: skip
        figure.add_scatter(
            x=some["pruned"], y=some["accuracy"] * 100, mode="markers", marker={"size": 5, "color": color, "opacity": 0.45},
            customdata=some["seed"], hovertemplate=f"{order}, seed %{{customdata}}<br>%{{y:.1f}} % at %{{x:.0f}} % pruned<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=by.index, y=by["mean"], mode="lines", name=order, line={"color": color, "width": 2.5, "dash": "dot" if order == "random" else "solid"},
            customdata=by[["min", "max", "count"]],
            hovertemplate=f"<b>{order}</b> %{{y:.1f}} % at %{{x:.0f}} % pruned<br>%{{customdata[0]:.1f}} to %{{customdata[1]:.1f}} %, "
            "%{customdata[2]} seeds<extra></extra>",
        )  # fmt: skip
        ends.append((float(by.index[-1]), float(by["mean"].iloc[-1]), order, color))
    low, high = float(psi["accuracy"].min()) * 100, float(psi["accuracy"].max()) * 100
    for (x, _, order, color), y in zip(sorted(ends, key=lambda e: e[1]), _spread(sorted(e[1] for e in ends), (high - low) / 18), strict=True):
        _label(figure, x, y, order, color)
    figure.update_xaxes(ticksuffix=" %", showgrid=True, gridcolor=_GRID)
    figure.update_yaxes(ticksuffix=" %")
    return figure


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights moved apart upwards until each is at least a gap above the one before: labels that do not collide."""
    out: list[float] = []
    for height in heights:
        out.append(max(height, out[-1] + gap) if out else height)
    return out


def balance_chart(classes: pd.DataFrame) -> go.Figure:
    """Samples kept of each class, over all of the class.

    Args: classes with class_name, n (kept), total
    """
    figure = _figure(max(180, 50 + 24 * len(classes)), x="training samples", right=64)
    names = [str(name) for name in classes["class_name"]]
    share = 100 * classes["n"] / classes["total"].clip(lower=1)
    figure.add_bar(x=classes["total"], y=names, orientation="h", marker={"color": FAINT}, hoverinfo="skip", width=0.7)
    figure.add_bar(
        x=classes["n"], y=names, orientation="h", marker={"color": BLUE}, width=0.7, customdata=np.stack([classes["total"], share], axis=1),
        hovertemplate="%{y}<br>%{x:,} of %{customdata[0]:,} kept, %{customdata[1]:.1f} %<extra></extra>",
    )  # fmt: skip
    for name, total, part in zip(names, classes["total"], share, strict=True):
        figure.add_annotation(x=total, y=name, text=f"{part:.0f} %", showarrow=False, xanchor="left", xshift=6)
    figure.update_layout(barmode="overlay")
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    return figure
