"""Figures of ROP: pruning clean and noisy labels, and relabeling by neighboring-label inconsistency."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard import data
from dashboard.charts import BLUE, FAINT, GRAY, GREEN, VERMILION, new_figure
from dashboard.figures.declare import paper_figure
from dashboard.figures.needs import Needs
from dashboard.figures.panels import add_band, add_line, panels

ORDERS = {
    "grand": ("largest gradients", VERMILION),
    "nli*": ("agreeing neighbors (NLI)", BLUE),
    "random": ("random", GREEN),
}
"""The orders that are compared, with what stays of each."""


@paper_figure(
    "rop-1",
    title="What to keep of clean and of noisy labels",
    caption="Test accuracy by the share that is kept: large gradients are worth keeping only where labels are right.",
)
def clean_and_noisy(needs: Needs) -> go.Figure | None:
    """Figure 1: selection by loss, by neighbors and at random, on the clean dataset and on the noisy one."""
    noisy, clean = needs.noisy_and_clean()
    if not noisy or not clean:
        needs.lacks_noise()
        return None
    curves: dict[str, pd.DataFrame] = {}
    for name in (clean, noisy):
        points = needs.curve(name, tuple(ORDERS), "--points 10 --seeds 3")
        if len(points) and points["order"].str.startswith(("grand", "nli")).any():
            curves[name] = points
    return selection_figure(curves) if curves else None


def selection_figure(curves: Mapping[str, pd.DataFrame]) -> go.Figure:
    """A panel per dataset: mean test accuracy by the share kept, a line per order; the dashed line is the full set.

    Args: curves: by dataset, points of psi runs with order, seed, kept_fraction, accuracy (0..1)
    """
    figure = panels(list(curves), legend=True, share_y=True)
    for col, points in enumerate(curves.values(), start=1):
        for order, (name, color) in ORDERS.items():
            some = points[points["order"].str.replace(r"@\d+", "", regex=True) == order]
            if len(some):
                by = (100 * some[["kept_fraction", "accuracy"]]).groupby("kept_fraction")["accuracy"]
                table = by.agg(["mean", "min", "max"])
                kept = table.index.to_series()
                add_band(figure, col, kept, table["min"], table["max"], color)
                add_line(figure, col, kept, table["mean"], name, color, axis="% kept", mode="lines+markers")
        full = 100 * points.loc[points["kept_fraction"] == 1, "accuracy"].mean()
        add_line(figure, col, [0, 100], [full, full], "full set", GRAY, dash="dash", width=1.5)
    figure.update_xaxes(title="kept", ticksuffix=" %")
    figure.update_yaxes(title="test accuracy", ticksuffix=" %", col=1)
    return figure


@paper_figure(
    "rop-3",
    title="Relabeling where neighbors agree",
    caption="Labels the networks vote for are right where neighbors agree, by neighboring-label inconsistency.",
)
def relabeling(needs: Needs) -> go.Figure | None:
    """Figure 3: the share of right labels before and after relabeling."""
    if not needs.known_noise():
        return None
    run_id, found = needs.scores("nli")
    bins = data.figure_table(needs.view.at, "fetch_relabeling", run_id) if found else pd.DataFrame()
    return relabeling_figure(bins) if len(bins) else None


def relabeling_figure(bins: pd.DataFrame) -> go.Figure:
    """Share of samples whose new label is the true one, by NLI; behind it that of the labels as they are.

    Args: bins with left, right, n (samples), accuracy, given (0..1)
    """
    figure = new_figure(
        540, x="inconsistency of the neighbors' labels (nli)", y="labels that are the true one", legend=True, top=36
    )
    center, width = (bins["left"] + bins["right"]) / 2, bins["right"] - bins["left"]
    for column, name, color in (("given", "labels as they are", FAINT), ("accuracy", "after relabeling", BLUE)):
        figure.add_bar(
            x=center,
            y=100 * bins[column],
            width=width * (0.9 if column == "given" else 0.55),
            name=name,
            marker={"color": color},
            customdata=np.stack([bins["left"], bins["right"], bins["n"]], axis=1),
            hovertemplate=f"{name} %{{y:.1f}} %<br>nli %{{customdata[0]:.3f}} to %{{customdata[1]:.3f}}, "
            "%{customdata[2]:,} samples<extra></extra>",
        )
    figure.update_layout(barmode="overlay")
    figure.update_yaxes(range=[0, 103], ticksuffix=" %")
    return figure
