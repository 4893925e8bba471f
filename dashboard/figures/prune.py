"""Figures of PRUNE (Freese and Theunissen): pruning curves on clean and on noised labels, ranks before and after noise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard.charts import BLUE, GREY, GRID, VERMILION
from dashboard.clouds import linear_fit
from dashboard.figures.panels import panels
from dashboard.pruning import curve_means, curve_names, psi_chart

DRAWN_SAMPLES = 20_000
"""Of larger sets every k-th sample is drawn."""


def pruning_figure(points: pd.DataFrame) -> go.Figure:
    """Figures 1 and 2: test accuracy while more and more is pruned, a line per order.

    Args: points of one psi run: run_id, order, seed, pruned, kept_fraction, accuracy
    """
    means = curve_means(points)
    return psi_chart(points, means, curve_names(means, {}))


def rank_figure(ranks: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Figure 3: each sample's rank before and after the labels were corrupted, the corrupted ones in vermilion.

    Args: ranks: by score, frames with x (rank before), y (rank after, 0 = easiest) and wrong (bool)
    """
    figure = panels([f"rank by {score}" for score in ranks], 520, legend=True)
    for col, points in enumerate(ranks.values(), start=1):
        some = points.iloc[:: -(-len(points) // DRAWN_SAMPLES)]
        for wrong, name, color in ((False, "not corrupted", GREY), (True, "corrupted", VERMILION)):
            of = some[some["wrong"] == wrong]
            figure.add_scattergl(
                x=of["x"].to_numpy(np.float32),
                y=of["y"].to_numpy(np.float32),
                mode="markers",
                name=name,
                legendgroup=name,
                showlegend=col == 1,
                marker={"size": 4, "color": color, "opacity": 0.6},
                hoverinfo="skip",
                row=1,
                col=col,
            )
        slope, intercept = linear_fit(points["x"], points["y"])
        ends = np.array([0.0, float(points["x"].max())])
        figure.add_scatter(
            x=ends,
            y=slope * ends + intercept,
            mode="lines",
            name="linear fit",
            legendgroup="fit",
            showlegend=col == 1,
            line={"color": BLUE, "width": 2.5, "dash": "dash"},
            hoverinfo="skip",
            row=1,
            col=col,
        )
    figure.update_xaxes(title="rank before noise", showgrid=True, gridcolor=GRID)
    figure.update_yaxes(title="rank after noise", col=1)
    return figure
