"""Figures of AUM (Pleiss et al.): logits of groups, thresholds, removing by rank, margins and their running mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard import charts, data
from dashboard.charts import BLUE, GRAY, GREEN, PURPLE, VERMILION, histogram_chart, whole_epochs, with_alpha
from dashboard.curves import crossing_points
from dashboard.figures.declare import paper_figure
from dashboard.figures.needs import Needs
from dashboard.figures.panels import add_band, add_line, panels


@paper_figure(
    "aum-2",
    title="Logits of easy, hard and mislabeled samples",
    caption="Mean logits of up to 50 samples: the given label in blue, the class they are mistaken for in orange, others in gray.",
)
def logits_of_groups(needs: Needs) -> go.Figure | None:
    """Figure 2: the logits over the epochs."""
    if not needs.known_noise():
        return None
    run_id, found = needs.scores("aum")
    groups = data.figure_table(needs.view.at, "fetch_logit_groups", run_id) if found else pd.DataFrame()
    if len(groups):
        return logit_figure(groups, needs.view.names)
    if found:
        command = f"winnow run {needs.view.at.dataset} --scores aum --logit-seeds 1"
        needs.lacks("That run has kept no logits.", command)
    return None


def logit_figure(groups: pd.DataFrame, names: Sequence[str]) -> go.Figure:
    """Mean logits over the epochs of easy, hard and mislabeled samples that carry one label.

    The area between the logit of that label and the largest other one is green where the label leads, else vermilion:
    it is the AUM.

    Args: groups with part (easy, hard, mislabeled), given, other (classes), n, epoch, label, logit
    """
    given, other = int(groups["given"].iloc[0]), int(groups["other"].iloc[0])
    titles = {
        "easy": f"{names[given]}, easy to learn",
        "hard": f"{names[given]}, hard to learn",
        "mislabeled": f"{names[other]}, mislabeled as {names[given]}",
    }
    parts = [part for part in titles if part in set(groups["part"])]
    figure = panels([titles[part] for part in parts], share_y=True)
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
            strong = {given: (BLUE, 3.0), other: (VERMILION, 2.0)}.get(int(label), (GRAY, 1.0))
            add_line(figure, col, some.index, some[label], names[int(label)], strong[0], axis="epoch", width=strong[1])
    figure.update_xaxes(title="epoch", **whole_epochs(float(groups["epoch"].max())))
    figure.update_yaxes(title="logit", col=1)
    return figure


@paper_figure(
    "aum-3",
    title="The threshold on the area under the margin",
    caption="The area under the margin (aum) of clean and mislabeled samples, and where the threshold samples put the line.",
)
def threshold(needs: Needs) -> go.Figure | None:
    """Figure 3: the distribution of AUM with its thresholds."""
    run_id, found = needs.scores("aum")
    if not found:
        return None
    rules = data.rules(needs.view.at, run_id).set_index("rule")["thresholds"]
    thresholds = [float(t) for t in rules.get("aum_threshold", []) if t is not None]
    if not thresholds:
        command = f"winnow run {needs.view.at.dataset} --scores aum --threshold-rounds 2"
        needs.lacks("That run has trained no threshold samples.", command)
    return threshold_figure(data.histogram(needs.view.at, run_id, "aum"), thresholds)


def threshold_figure(bins: pd.DataFrame, thresholds: Sequence[float]) -> go.Figure:
    """AUM of clean and of mislabeled samples, and the threshold that comes from the threshold samples.

    Args: bins with left, right, clean, mislabeled, unknown (samples)
    """
    drawn = [("99th percentile of threshold samples", value) for value in thresholds]
    return histogram_chart(bins, "area under the margin", "easier", drawn).update_layout(height=540)


@paper_figure(
    "aum-5",
    title="Removing what the threshold flags",
    caption="Test error while samples are removed: the best is where the threshold is.",
)
def removal(needs: Needs) -> go.Figure | None:
    """Figure 5: test error by the share removed."""
    options = "--points 20 --seeds 3"
    run_id, found = data.having(needs.view.at, "score", ("aum",))
    rules = charts.rows(data.rules(needs.view.at, run_id)) if found else iter(())
    flagged = next((float(rule.flagged / rule.judged) for rule in rules if rule.rule == "aum_threshold"), None)
    if flagged is not None:
        options = f"--around aum_threshold {options}"
        needs.runs.append(run_id)
    points = needs.curve(needs.view.at.dataset, ("random", "aum*"), options)
    return removal_figure(points, flagged) if len(points) and (points["order"] == "aum*").any() else None


def removal_figure(points: pd.DataFrame, flagged: float | None) -> go.Figure:
    """Test error while samples are removed, those of the lowest AUM first or at random.

    Args: points with order (aum*, random), seed, kept_fraction, accuracy; flagged: share that the threshold removes
    """
    figure = panels([""], legend=True)
    for order, name, color in (("random", "at random", GRAY), ("aum*", "lowest AUM first", VERMILION)):
        some = points[points["order"] == order]
        if some.empty:
            continue
        error = pd.DataFrame({"removed": 100 * (1 - some["kept_fraction"]), "error": 100 * (1 - some["accuracy"])})
        by = error.groupby("removed")["error"].agg(["mean", "min", "max"])
        removed = by.index.to_series()
        add_band(figure, 1, removed, by["min"], by["max"], color)
        add_line(figure, 1, removed, by["mean"], name, color, axis="% removed", mode="lines+markers")
    if flagged is not None:
        figure.add_vline(
            x=100 * flagged,
            line={"color": PURPLE, "width": 2, "dash": "dash"},
            annotation={"text": "what the threshold flags", "font": {"color": PURPLE}},
        )
    figure.update_xaxes(title="share of the training samples removed", ticksuffix=" %")
    figure.update_yaxes(title="test error", ticksuffix=" %")
    return figure


@paper_figure(
    "aum-6",
    title="A margin and its running mean",
    caption="A margin swings, its running mean separates: a hard clean sample and a typical mislabeled one.",
)
def margins(needs: Needs) -> go.Figure | None:
    """Figure 6: margin and AUM so far of two samples."""
    if not needs.known_noise():
        return None
    run_id, found = needs.scores("aum")
    pair = data.figure_table(needs.view.at, "fetch_margin_pair", run_id) if found else pd.DataFrame()
    return margin_figure(pair) if len(pair) else None


def margin_figure(pair: pd.DataFrame) -> go.Figure:
    """The margin of one clean and one mislabeled sample over the epochs (left), and its running mean (right).

    Args: pair with sample_id, wrong (bool), epoch, margin, aum
    """
    figure = panels(["margin", "mean margin so far"], legend=True, share_y=True)
    for wrong, kind, color in ((False, "clean", BLUE), (True, "mislabeled", VERMILION)):
        some = pair[pair["wrong"] == wrong]
        name = f"{kind}, sample {int(some['sample_id'].iloc[0])}"
        for col, column in ((1, "margin"), (2, "aum")):
            add_line(figure, col, some["epoch"], some[column], name, color, axis="epoch")
    figure.add_hline(y=0, line={"color": GRAY, "width": 1})
    figure.update_xaxes(title="epoch", **whole_epochs(float(pair["epoch"].max())))
    return figure
