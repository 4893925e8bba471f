"""Figures of CG (Ki, Choi and Chung): pruning both ways, detection, learning by decile, windows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from dashboard.charts import BLUE, DIVERGING, GREEN, GREY, VERMILION
from dashboard.figures.panels import add_band, add_line, panels
from dashboard.pruning import order_colors

DRAWN_SAMPLES = 20_000


def pruning_figure(points: pd.DataFrame) -> go.Figure:
    """Figure 2: test accuracy when low-scoring samples go first (left) and when high-scoring ones do (right).

    The band is one standard deviation over seeds; the dashed line is the full set.

    Args: points of one psi run: order (a score, with * for the hardest first, or random), seed, kept_fraction, accuracy
    """
    figure = panels(["(a) low scores removed first", "(b) high scores removed first"], legend=True, share_y=True)
    colors = order_colors(points["order"].str.removesuffix("*"))
    full = 100 * points[points["kept_fraction"] == 1]["accuracy"].mean()
    for col, reverse in ((1, False), (2, True)):
        for order, some in points.groupby("order"):
            base = str(order).removesuffix("*")
            if base != "random" and str(order).endswith("*") != reverse:
                continue
            by = (
                (100 * some.assign(pruned=1 - some["kept_fraction"])).groupby("pruned")["accuracy"].agg(["mean", "std"])
            )
            spread = by["std"].fillna(0.0)
            share = by.index.to_series()
            add_band(figure, col, share, by["mean"] - spread, by["mean"] + spread, colors[base])
            add_line(figure, col, share, by["mean"], base, colors[base], said="% removed", mode="lines+markers")
        add_line(
            figure, col, [0, 100 * (1 - points["kept_fraction"].min())], [full, full], "full set", GREY, dash="dash"
        )
    figure.update_xaxes(title="removed", ticksuffix=" %")
    figure.update_yaxes(title="test accuracy", ticksuffix=" %", col=1)
    return figure


def detection_figure(bins: pd.DataFrame, curves: Mapping[str, pd.DataFrame], noise_rate: float) -> go.Figure:
    """Figure 3: the density of CG of clean and mislabelled samples, and how many of the latter each score finds.

    Args: bins of cg with left, right, clean, mislabelled (samples); curves: by score, looked_at and found (0..1)
    """
    figure = panels(["(a) density of cg", "(b) mislabelled among the examined"], legend=True)
    center, width = (bins["left"] + bins["right"]) / 2, bins["right"] - bins["left"]
    for column, color in (("clean", BLUE), ("mislabelled", VERMILION)):
        figure.add_bar(
            x=center,
            y=bins[column] / max(1, bins[column].sum()) / width,
            width=width,
            name=column,
            marker={"color": color, "line": {"width": 0}},
            opacity=0.65,
            hovertemplate=f"{column}<br>cg %{{x:.3g}}<extra></extra>",
            row=1,
            col=1,
        )
    tints = order_colors(pd.Series(list(curves)))
    for score, curve in curves.items():
        add_line(figure, 2, 100 * curve["looked_at"], 100 * curve["found"], score, tints[score], said="% examined")
    add_line(figure, 2, [0, 100 * noise_rate, 100], [0, 100, 100], "oracle", GREEN, dash="dash", width=1.5)
    add_line(figure, 2, [0, 100], [0, 100], "random", GREY, dash="dot", width=1.5)
    figure.update_layout(barmode="overlay", bargap=0)
    figure.update_xaxes(title="cg", col=1)
    figure.update_yaxes(title="density", col=1)
    figure.update_xaxes(title="examined, highest first", ticksuffix=" %", col=2)
    figure.update_yaxes(title="of the mislabelled", ticksuffix=" %", col=2)
    return figure


def decile_figure(curves: pd.DataFrame, velocity: pd.DataFrame, score: str) -> go.Figure:
    """Figure 4: loss, accuracy and kernel velocity of ten groups by a score, from blue (easiest) to red (hardest).

    Args: curves with decile, epoch, loss, accuracy (0..1); velocity with decile, until, velocity, empty if not computed
    """
    titles = ["(a) mean loss", "(b) training accuracy", *(["(c) kernel velocity"] if len(velocity) else [])]
    figure = panels(titles)
    tints = sample_colorscale(DIVERGING, list(np.linspace(0, 1, 10)))
    for decile in range(10):
        name = f"decile {decile + 1} by {score}"
        some = curves[curves["decile"] == decile]
        add_line(figure, 1, some["epoch"], some["loss"], name, tints[decile], said="epoch", width=2)
        add_line(figure, 2, some["epoch"], 100 * some["accuracy"], name, tints[decile], said="epoch", width=2)
        if len(velocity):
            one = velocity[velocity["decile"] == decile]
            add_line(
                figure,
                3,
                one["until"],
                one["velocity"],
                name,
                tints[decile],
                said="epoch",
                width=2,
                mode="lines+markers",
            )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(ticksuffix=" %", col=2)
    return figure


def window_figure(windows: pd.DataFrame, scores: pd.DataFrame) -> go.Figure:
    """Figure 6: accuracy of networks trained on the middle half that begins at an offset; partial CG against CG.

    Args: windows with score, offset (0..1), seed, accuracy (0..1); scores with x (cg_partial), y (cg), wrong (bool);
          either may be empty and is then left out
    """
    titles = [
        *(["(a) half of the samples, from an offset on"] if len(windows) else []),
        *(["(c) partial cg and cg"] if len(scores) else []),
    ]
    figure = panels(titles, legend=True)
    tints = order_colors(windows["score"]) if len(windows) else {}
    for score, some in windows.groupby("score") if len(windows) else ():
        by = (100 * some[["offset", "accuracy"]]).groupby("offset")["accuracy"].agg(["mean", "min", "max"])
        offset = by.index.to_series()
        add_band(figure, 1, offset, by["min"], by["max"], tints[str(score)])
        add_line(figure, 1, offset, by["mean"], str(score), tints[str(score)], said="offset %", mode="lines+markers")
        figure.update_xaxes(title="offset, % of the ranks", col=1)
        figure.update_yaxes(title="test accuracy", ticksuffix=" %", col=1)
    for wrong, name, color in ((False, "clean", BLUE), (True, "mislabelled", VERMILION)) if len(scores) else ():
        some = scores.iloc[:: -(-len(scores) // DRAWN_SAMPLES)]
        some = some[some["wrong"] == wrong]
        figure.add_scattergl(
            x=some["x"].to_numpy(np.float32),
            y=some["y"].to_numpy(np.float32),
            mode="markers",
            name=name,
            marker={"size": 4, "color": color, "opacity": 0.6},
            hoverinfo="skip",
            row=1,
            col=len(titles),
        )
    if len(scores):
        figure.add_vline(x=0, line={"color": GREY, "width": 1.5, "dash": "dash"}, row=1, col=len(titles))
        figure.update_xaxes(title="partial cg", col=len(titles))
        figure.update_yaxes(title="cg", ticksuffix="", col=len(titles))
    return figure
