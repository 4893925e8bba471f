"""DataFrame -> plotly figure. No Streamlit in here: figures take their text and grid colors from the page's theme.

Colors mean the same everywhere: blue is what a label says or what is clean, vermilion is mislabeled or negative,
green is positive. The three stay apart for color-blind eyes (Okabe and Ito); classes take the ten colors of
Petroff (2021), which were chosen for the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard.markup import chart_text

BLUE, VERMILION, GREEN, PURPLE = "#3b82b8", "#d9571c", "#1a9a74", "#8b6bb1"
GRAY, FAINT = "#8a949e", "rgba(138,148,158,0.28)"
CLASSES = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
HARDNESS = "Cividis"
DIVERGING = [[0, "#2166ac"], [0.25, "#67a9cf"], [0.5, "#8a949e"], [0.75, "#ef8a62"], [1, "#b2182b"]]
MINUS = "\N{MINUS SIGN}"
CELLS = [[0, "#2166ac"], [0.25, "#92c5de"], [0.5, "#dfe4e8"], [0.75, "#f4a582"], [1, "#b2182b"]]
"""Like DIVERGING, but light in the middle: numbers are read on it."""
NO_BAR: dict[str, Any] = {"displayModeBar": False}
GRID = "rgba(138,148,158,0.18)"


def new_figure(
    height: int, *, x: str = "", y: str = "", legend: bool = False, top: int = 12, right: int = 12
) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": right, "t": top, "b": 8},
        showlegend=legend,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0, "xanchor": "left", "title": None},
        hovermode="closest",
        modebar={"orientation": "v", "bgcolor": "rgba(0,0,0,0)", "color": GRAY, "activecolor": BLUE},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    figure.update_xaxes(title=x, showgrid=False, zeroline=False, automargin=True)
    figure.update_yaxes(title=y, gridcolor=GRID, zeroline=False, automargin=True)
    return figure


def cut(name: object, most: int = 28) -> str:
    """A name as long as a chart has room for."""
    text = str(name)
    return text if len(text) <= most else f"{text[: most - 1].rstrip(' ,;(')}…"


def whole_epochs(last: float) -> dict[str, Any]:
    """For an axis of epochs: no tick between two of few."""
    return {"dtick": 1} if last <= 12 else {}


def rows(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows of a frame, columns as attributes."""
    return iter(frame.itertuples())


def class_color(label: int) -> str:
    """The color of a class; more than ten classes share colors."""
    return CLASSES[label % len(CLASSES)]


def with_alpha(color: str, alpha: float) -> str:
    r, g, b = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{alpha})"


# Scores -------------------------------------------------------------------------------------------------------


def histogram_chart(
    bins: pd.DataFrame, score: str, higher_means: str, thresholds: Sequence[tuple[str, float]]
) -> go.Figure:
    """A score's distribution, the mislabeled apart from the clean where the truth is known, with threshold lines.

    Args: bins with left, right, clean, mislabeled, unknown (samples)
    """
    sides = ("easier", "harder") if higher_means == "harder" else ("harder", "easier")
    figure = new_figure(
        380, x=f"← {sides[0]}     <b>{chart_text(score)}</b>     {sides[1]} →", y="samples", legend=True, top=36
    )
    center, width = (bins["left"] + bins["right"]) / 2, bins["right"] - bins["left"]
    for column, name, color in (
        ("unknown", "truth unknown", GRAY),
        ("clean", "clean", BLUE),
        ("mislabeled", "mislabeled", VERMILION),
    ):
        if bins[column].sum() == 0:
            continue
        figure.add_bar(
            x=center,
            y=bins[column],
            width=width,
            name=f"{name}  {int(bins[column].sum()):,}",
            marker={"color": color, "line": {"width": 0}},
            opacity=0.72,
            customdata=np.stack([bins["left"], bins["right"]], axis=1),
            hovertemplate=f"%{{customdata[0]:.3g}} to %{{customdata[1]:.3g}}<br>%{{y:,}} {name}<extra></extra>",
        )
    for rule in dict.fromkeys(rule for rule, _ in thresholds):
        values = sorted(value for name, value in thresholds if name == rule)
        for value in values:
            figure.add_vline(x=value, line={"color": PURPLE, "width": 2, "dash": "dash"})
        figure.add_annotation(
            x=values[-1],
            y=1,
            yref="paper",
            text=f"{chart_text(rule)}<br>{' and '.join(f'{v:.2f}'.replace('-', MINUS) for v in values)}",
            showarrow=False,
            xanchor="left",
            yanchor="top",
            xshift=6,
            align="left",
        )
    figure.update_layout(barmode="overlay", bargap=0)
    if thresholds:  # their names stand above the bars
        highest = int(bins[["clean", "mislabeled", "unknown"]].to_numpy().max(initial=1))
        figure.update_yaxes(range=[0, 1.22 * highest])
    return figure


def detection_curve_chart(curve: pd.DataFrame, score: str, noise_rate: float) -> go.Figure:
    """How many of the mislabeled a person finds who looks at the hardest first, between chance and an oracle.

    Args: curve with looked_at and found, 0..1; noise_rate: share of the labels that are wrong, above 0
    """
    figure = new_figure(300, x="looked at, hardest first, % of the samples", y="mislabeled found, %", right=20)
    x = 100 * curve["looked_at"]
    figure.add_scatter(x=x, y=x, mode="lines", line={"color": GRAY, "width": 1.5, "dash": "dot"}, hoverinfo="skip")
    figure.add_scatter(
        x=[0, 100 * noise_rate, 100],
        y=[0, 100, 100],
        mode="lines",
        line={"color": GRAY, "width": 1.5, "dash": "dash"},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=x,
        y=100 * curve["found"],
        mode="lines",
        line={"color": BLUE, "width": 3},
        hovertemplate=f"the hardest %{{x:.0f}} % by {chart_text(score)}<br>hold %{{y:.1f}} % of the mislabeled<extra></extra>",
    )
    for at, height, text in ((62, 58, "chance"), (100 * noise_rate, 107, "oracle")):
        figure.add_annotation(x=at, y=height, text=text, showarrow=False, xanchor="left")
    figure.update_xaxes(range=[0, 100])
    figure.update_yaxes(range=[0, 113], tickvals=[0, 25, 50, 75, 100])
    return figure


def percentile_chart(scores: pd.DataFrame) -> go.Figure:
    """One sample among all: a bar per score, from the easiest (0) to the hardest (100) percentile of its rank.

    Args: scores with score, title, value, percentile
    """
    ordered = scores.sort_values("percentile")
    ordered = ordered.assign(score=ordered["score"].map(chart_text), title=ordered["title"].map(chart_text))
    figure = new_figure(40 + 22 * len(ordered), right=70)
    figure.add_bar(
        x=np.full(len(ordered), 100),
        y=ordered["score"],
        orientation="h",
        marker={"color": GRID},
        hoverinfo="skip",
        width=0.62,
    )
    figure.add_bar(
        x=ordered["percentile"],
        y=ordered["score"],
        orientation="h",
        width=0.62,
        marker={
            "color": ordered["percentile"],
            "colorscale": [[0, BLUE], [0.6, "#b9ac70"], [1, VERMILION]],
            "cmin": 0,
            "cmax": 100,
        },
        customdata=ordered[["title", "value"]],
        hovertemplate="%{customdata[0]}<br>value %{customdata[1]:.4g}<br>harder than %{x:.1f} % of the samples<extra></extra>",
    )
    for row in rows(ordered):
        figure.add_annotation(x=100, y=row.score, text=f"{row.value:.3g}", showarrow=False, xanchor="left", xshift=6)
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(range=[0, 100], tickvals=[0, 50, 100], ticktext=["easiest", "median", "hardest"])
    figure.update_yaxes(showgrid=False)
    return figure


# All scores at once ---------------------------------------------------------------------------------------------------


MOST_NUMBERED = 20
"""Scores up to which their correlations are written in the cells."""


def spearman_chart(matrix: pd.DataFrame) -> go.Figure:
    """Spearman correlation of every two scores, all turned so that higher = harder."""
    # By the leading eigenvector: scores that agree with most others stand together, first.
    vector = np.linalg.eigh(np.nan_to_num(matrix.to_numpy(float)))[1][:, -1]
    order = np.argsort(-vector * (np.sign(vector.sum()) or 1), kind="stable")
    matrix = matrix.iloc[order, order]
    names = [chart_text(name) for name in matrix.columns]
    z = matrix.to_numpy(float)
    crowded = len(names) > MOST_NUMBERED
    figure = new_figure(180 + (24 if crowded else 40) * len(names))
    figure.add_heatmap(
        z=z,
        x=names,
        y=names,
        zmin=-1,
        zmax=1,
        colorscale=CELLS,
        xgap=2,
        ygap=2,
        colorbar={
            "title": {"text": "Spearman", "side": "right"},
            "thickness": 12,
            "outlinewidth": 0,
            "lenmode": "pixels",
            "len": 260,
            "y": 1,
            "yanchor": "top",
            "tickvals": [-1, -0.5, 0, 0.5, 1],
        },
        text=np.where(np.isfinite(z), np.vectorize(lambda v: f"{v:.2f}")(z), ""),
        texttemplate=None if crowded else "%{text}",
        hovertemplate="%{y} and %{x}<br>Spearman %{z:.3f}<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, dtick=1)
    figure.update_xaxes(side="top", tickangle=-90 if crowded else -40, dtick=1)
    return figure


# Export -----------------------------------------------------------------------------------------------


MOST_BARS = 50
"""Classes that are drawn as bars at most."""


def balance_chart(classes: pd.DataFrame) -> go.Figure:
    """Samples kept of each class, over all of the class; of many classes those that lose the largest share.

    Args: classes with class_name, n (kept), total
    """
    if len(classes) > MOST_BARS:
        lost = 1 - classes["n"] / classes["total"].clip(lower=1)
        classes = classes.loc[lost.sort_values(ascending=False, kind="stable").index[:MOST_BARS]]
    figure = new_figure(max(180, 50 + 24 * len(classes)), x="training samples", right=64)
    places = list(range(len(classes)))  # two names may be cut to the same
    share = 100 * classes["n"] / classes["total"].clip(lower=1)
    figure.add_bar(x=classes["total"], y=places, orientation="h", marker={"color": FAINT}, hoverinfo="skip", width=0.7)
    figure.add_bar(
        x=classes["n"],
        y=places,
        orientation="h",
        marker={"color": BLUE},
        width=0.7,
        customdata=np.stack([classes["total"], share], axis=1),
        text=classes["class_name"].map(chart_text),
        textposition="none",
        hovertemplate="%{text}<br>%{x:,} of %{customdata[0]:,} kept, %{customdata[1]:.1f} %<extra></extra>",
    )
    figure.update_layout(
        annotations=[
            {"x": total, "y": place, "text": f"{part:.0f} %", "showarrow": False, "xanchor": "left", "xshift": 6}
            for place, total, part in zip(places, classes["total"], share, strict=True)
        ]
    )
    figure.update_layout(barmode="overlay")
    ticks = [chart_text(cut(name)) for name in classes["class_name"]]
    figure.update_yaxes(autorange="reversed", showgrid=False, tickvals=places, ticktext=ticks)
    return figure
