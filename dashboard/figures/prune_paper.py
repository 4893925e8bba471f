"""Figures of PRUNE (Freese and Theunissen): pruning curves on clean and on noisy labels, ranks before and after noise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard import data
from dashboard.charts import BLUE, GRAY, GRID, VERMILION
from dashboard.figures.declare import paper_figure
from dashboard.figures.needs import Needs
from dashboard.figures.panels import panels
from dashboard.psi_charts import curve_means, curve_names, psi_chart

DRAWN_SAMPLES = 20_000
"""Of larger sets every k-th sample is drawn."""


@paper_figure(
    "prune-1",
    title="Pruning clean data",
    caption="Test accuracy while more and more of the clean training set is pruned; * prunes the hardest first.",
)
def clean_pruning(needs: Needs) -> go.Figure | None:
    """Figure 1: pruning curves on the clean dataset."""
    _, clean = needs.noisy_and_clean()
    if not clean:
        needs.lacks("The clean dataset is not in this workspace.", "winnow ingest NAME --from SOURCE")
        return None
    orders = ("random", "forgetting", "forgetting*", "el2n", "el2n*")
    points = needs.curve(clean, orders, "--points 20 --seeds 3")
    return pruning_figure(points) if len(points) else None


@paper_figure(
    "prune-2",
    title="Pruning data with label noise",
    caption="Test accuracy while data with label noise is pruned: the oracle prunes the mislabeled before all others.",
)
def noisy_pruning(needs: Needs) -> go.Figure | None:
    """Figure 2: pruning curves on the dataset with label noise."""
    noisy, _ = needs.noisy_and_clean()
    if not noisy:
        needs.lacks_noise()
        return None
    orders = ("random", "oracle", "forgetting", "forgetting*", "el2n", "el2n*")
    points = needs.curve(noisy, orders, "--points 20 --seeds 3")
    return pruning_figure(points) if len(points) else None


def pruning_figure(points: pd.DataFrame) -> go.Figure:
    """Test accuracy while more and more is pruned, a line per order.

    Args: points of one psi run: run_id, order, seed, pruned, kept_fraction, accuracy
    """
    means = curve_means(points)
    return psi_chart(points, means, curve_names(means, {}))


@paper_figure(
    "prune-3",
    title="Ranks before and after label noise",
    caption="Each sample's rank before and after labels were corrupted; the corrupted ones end up last.",
)
def rank_change(needs: Needs) -> go.Figure | None:
    """Figure 3: the same samples ranked in the clean dataset and in the one with label noise."""
    noisy, clean = needs.noisy_and_clean()
    if not noisy or not clean:
        needs.lacks_noise()
        return None
    before, after = data.snapshot(clean), data.snapshot(noisy)
    old_run, old = needs.scores("forgetting", "el2n", dataset=clean)
    new_run, new = needs.scores("forgetting", "el2n", dataset=noisy)
    labels, ranks = data.labels(after), {}
    for score in (score for score in ("forgetting", "el2n") if score in old and score in new):
        both = data.score(before, old_run, old[score]).merge(data.score(after, new_run, new[score]), on="sample_id")
        both = both.merge(labels, on="sample_id")
        wrong = (both["true_label"] >= 0) & (both["true_label"] != both["label"])
        name = old[score] if old[score] == new[score] else f"{old[score]} and {new[score]}"
        ranks[name] = pd.DataFrame({"x": both["rank_x"], "y": both["rank_y"], "wrong": wrong})
    return rank_figure(ranks) if ranks else None


def rank_figure(ranks: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Each sample's rank before and after the labels were corrupted, the corrupted ones in vermilion.

    Args: ranks: by score, frames with x (rank before), y (rank after, 0 = easiest) and wrong (bool)
    """
    figure = panels([f"rank by {score}" for score in ranks], legend=True)
    for col, points in enumerate(ranks.values(), start=1):
        some = points.iloc[:: -(-len(points) // DRAWN_SAMPLES)]
        for wrong, name, color in ((False, "not corrupted", GRAY), (True, "corrupted", VERMILION)):
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
        slope, intercept = np.polyfit(points["x"].to_numpy(float), points["y"].to_numpy(float), 1)
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
    figure.update_xaxes(title="rank before noise, 0 = easiest", showgrid=True, gridcolor=GRID)
    figure.update_yaxes(title="rank after noise, 0 = easiest", col=1)
    return figure
