"""Figures of AUM (Pleiss et al.): logits of groups, thresholds, removing by rank, margins and their running mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard.charts import BLUE, GREEN, GREY, PURPLE, VERMILION, histogram_chart, with_alpha
from dashboard.curves import crossing_points
from dashboard.figures.panels import add_band, add_line, panels


def logit_figure(groups: pd.DataFrame, names: Sequence[str]) -> go.Figure:
    """Figure 2: mean logits over the epochs of easy, hard and mislabelled samples that carry one label.

    The area between the logit of that label and the largest other one is green where the label leads, else vermilion:
    it is the AUM.

    Args: groups with part (easy, hard, mislabelled), given, other (classes), n, epoch, label, logit
    """
    given, other = int(groups["given"].iloc[0]), int(groups["other"].iloc[0])
    said = {
        "easy": f"{names[given]}, easy to learn",
        "hard": f"{names[given]}, hard to learn",
        "mislabelled": f"{names[other]}, mislabelled as {names[given]}",
    }
    parts = [part for part in said if part in set(groups["part"])]
    figure = panels([said[part] for part in parts], share_y=True)
    for col, part in enumerate(parts, start=1):
        some = groups[groups["part"] == part].pivot(index="epoch", columns="label", values="logit")
        largest = some.drop(columns=given).max(axis=1).to_numpy()
        x, high, low = crossing_points(some.index.to_numpy(), some[given].to_numpy(), largest)
        for edge, color, name in (
            (np.maximum(high, low), GREEN, "ahead"),
            (np.minimum(high, low), VERMILION, "behind"),
        ):
            hidden = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
            figure.add_scatter(x=x, y=low, **hidden, row=1, col=col)
            figure.add_scatter(
                x=x, y=edge, **hidden, fill="tonexty", fillcolor=with_alpha(color, 0.35), name=name, row=1, col=col
            )
        for label in some.columns:
            strong = {given: (BLUE, 3.0), other: (VERMILION, 2.0)}.get(int(label), (GREY, 1.0))
            add_line(figure, col, some.index, some[label], names[int(label)], strong[0], said="epoch", width=strong[1])
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title="logit", col=1)
    return figure


def threshold_figure(bins: pd.DataFrame, thresholds: Sequence[float]) -> go.Figure:
    """Figure 3: AUM of clean and of mislabelled samples, and the threshold that comes from the threshold samples.

    Args: bins with left, right, clean, mislabelled, unknown (samples)
    """
    return histogram_chart(bins, "aum", "easier", [("99th percentile of threshold samples", v) for v in thresholds])


def removal_figure(points: pd.DataFrame, flagged: float | None) -> go.Figure:
    """Figure 5: test error while samples are removed, those of the lowest AUM first or at random.

    Args: points with order (aum*, random), seed, kept_fraction, accuracy; flagged: share that the threshold removes
    """
    figure = panels([""], 460, legend=True)
    for order, name, color in (("random", "at random", GREY), ("aum*", "lowest AUM first", VERMILION)):
        some = points[points["order"] == order]
        if some.empty:
            continue
        error = pd.DataFrame({"removed": 100 * (1 - some["kept_fraction"]), "error": 100 * (1 - some["accuracy"])})
        by = error.groupby("removed")["error"].agg(["mean", "min", "max"])
        removed = by.index.to_series()
        add_band(figure, 1, removed, by["min"], by["max"], color)
        add_line(figure, 1, removed, by["mean"], name, color, said="% removed", mode="lines+markers")
    if flagged is not None:
        figure.add_vline(
            x=100 * flagged,
            line={"color": PURPLE, "width": 2, "dash": "dash"},
            annotation={"text": "what the threshold flags", "font": {"color": PURPLE}},
        )
    figure.update_xaxes(title="removed", ticksuffix=" %")
    figure.update_yaxes(title="test error", ticksuffix=" %")
    return figure


def margin_figure(pair: pd.DataFrame) -> go.Figure:
    """Figure 6: the margin of one clean and one mislabelled sample over the epochs (left), and its running mean (right).

    Args: pair with sample_id, wrong (bool), epoch, margin, aum
    """
    figure = panels(["margin", "AUM so far"], legend=True, share_y=True)
    for wrong, kind, color in ((False, "clean", BLUE), (True, "mislabelled", VERMILION)):
        some = pair[pair["wrong"] == wrong]
        name = f"{kind}, sample {int(some['sample_id'].iloc[0])}"
        for col, column in ((1, "margin"), (2, "aum")):
            add_line(figure, col, some["epoch"], some[column], name, color, said="epoch")
    figure.add_hline(y=0, line={"color": GREY, "width": 1})
    figure.update_xaxes(title="epoch")
    return figure
