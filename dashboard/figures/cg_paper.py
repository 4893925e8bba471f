"""Figures of CG (Ki, Choi and Chung): pruning both ways, detection, learning by decile, windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from dashboard import data
from dashboard.charts import BLUE, DIVERGING, GRAY, GREEN, VERMILION, with_alpha
from dashboard.figures.declare import paper_figure
from dashboard.figures.needs import Needs
from dashboard.figures.panels import add_band, add_line, panels
from dashboard.markup import chart_text
from dashboard.psi_charts import order_colors

DRAWN_SAMPLES = 20_000


@paper_figure(
    "cg-1",
    title="The complexity gap between two classes",
    caption="The inverse kernel of samples of the two classes that are most alike, and the gap by the place between their "
    "means: high near the border, and where a label is wrong.",
)
def between_classes(needs: Needs) -> go.Figure | None:
    """Figure 1: the inverse of the kernel, and the gap along the line between two classes, without and with noise."""
    noisy, clean = needs.noisy_and_clean()
    points: dict[str, pd.DataFrame] = {}
    inverse, names = np.zeros((0, 0)), ("", "")
    for name in dict.fromkeys(one for one in (clean, noisy) if one):
        at = data.snapshot(name)
        run_id, found = needs.scores("cg", dataset=name)
        study = data.gap_study(at, run_id) if found else None
        if found and study is None:
            command = f"winnow gap {name} --run {run_id}"
            needs.lacks(f"Where the samples of {name} lie between two classes is not computed yet.", command)
        if study is not None:
            table = study.points.merge(data.score(at, run_id, "cg"), on="sample_id").merge(
                data.labels(at), on="sample_id"
            )
            wrong = (table["true_label"] >= 0) & (table["true_label"] != table["label"])
            shown = {"x": table["position"], "y": table["value"], "wrong": wrong}
            points[name] = pd.DataFrame(shown | {"second": table["label"] == study.pair[1]})
            inverse = inverse if len(inverse) else study.inverse
            classes = data.class_names(at)
            if all(0 <= label < len(classes) for label in study.pair):
                names = classes[study.pair[0]], classes[study.pair[1]]
    return place_figure(inverse, points, names) if points else None


def place_figure(
    inverse: np.ndarray[Any, Any], points: Mapping[str, pd.DataFrame], names: tuple[str, str]
) -> go.Figure:
    """(a) the entries of the inverse kernel, half of its samples of either class; then a panel per dataset: the gap by place.

    Args: inverse (B, B); points: by dataset, with x (place, -1 and 1 the means of the classes), y (cg), second (bool, whether
          the label is the second class), wrong (bool); names: of the two classes
    """
    figure = panels(["(a) inverse of the kernel", *points], legend=True)
    most = float(np.quantile(np.abs(inverse), 0.995)) or 1.0
    figure.add_heatmap(
        z=inverse,
        zmin=-most,
        zmax=most,
        colorscale=[[0, BLUE], [0.5, with_alpha(GRAY, 0.06)], [1, VERMILION]],
        showscale=False,
        hovertemplate="samples %{x} and %{y}<br>%{z:.3g}<extra></extra>",
        row=1,
        col=1,
    )
    figure.update_xaxes(title=chart_text(f"{names[0]}, then {names[1]}"), showticklabels=False, row=1, col=1)
    figure.update_yaxes(autorange="reversed", showgrid=False, showticklabels=False, row=1, col=1)
    for col, table in enumerate(points.values(), start=2):
        for second, wrong in ((False, False), (True, False), (False, True)):
            some = table[(table["wrong"] == wrong) & (wrong | (table["second"] == second))]
            name = "wrong label" if wrong else f"labeled {names[second]}"
            if len(some):
                figure.add_scatter(
                    x=some["x"],
                    y=some["y"],
                    mode="markers",
                    name=chart_text(name),
                    legendgroup=name,
                    showlegend=name not in {trace.legendgroup for trace in figure.data},
                    marker={
                        "size": 7 if wrong else 4,
                        "symbol": "cross" if wrong else "circle",
                        "color": VERMILION if wrong else (BLUE, GREEN)[second],
                        "opacity": 0.7,
                    },
                    hoverinfo="skip",
                    row=1,
                    col=col,
                )
        figure.update_xaxes(title="place between the classes' means", row=1, col=col)
    figure.update_yaxes(title="complexity gap (cg)", col=2)
    return figure


@paper_figure(
    "cg-2",
    title="Pruning from either end",
    caption="Removing samples by each score, the low ones first or the high ones first; as many steps at every point.",
)
def pruning_both_ways(needs: Needs) -> go.Figure | None:
    """Figure 2: curves of each score and of its reverse."""
    scores = ("cg", "el2n", "forgetting", "consistency")
    orders = ("random", *(order for score in scores for order in (score, f"{score}*")))
    points = needs.curve(needs.view.at.dataset, orders, "--points 10 --seeds 5 --steps fixed")
    drawn = len(points) and points["order"].str.startswith(scores).any()
    return pruning_figure(points) if drawn else None


def pruning_figure(points: pd.DataFrame) -> go.Figure:
    """Test accuracy when low-scoring samples go first (left) and when high-scoring ones do (right).

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
            add_line(figure, col, share, by["mean"], base, colors[base], axis="% removed", mode="lines+markers")
        add_line(
            figure, col, [0, 100 * (1 - points["kept_fraction"].min())], [full, full], "full set", GRAY, dash="dash"
        )
    figure.update_xaxes(title="share of the training samples removed", ticksuffix=" %")
    figure.update_yaxes(title="test accuracy", ticksuffix=" %", col=1)
    return figure


@paper_figure(
    "cg-3",
    title="Finding the mislabeled",
    caption="How the complexity gap separates the mislabeled, and how many each score finds.",
)
def detection(needs: Needs) -> go.Figure | None:
    """Figure 3: the densities of CG, and the detection curves of several scores."""
    if not needs.known_noise():
        return None
    run_id, found = needs.scores("cg", "cg_partial", "el2n", "forgetting")
    if "cg" not in found:
        return None
    at = needs.view.at
    curves = {name: data.detection_curve(at, run_id, name) for name in found.values()}
    return detection_figure(data.histogram(at, run_id, "cg"), curves, data.dataset_facts(at)["noise_rate"])


def detection_figure(bins: pd.DataFrame, curves: Mapping[str, pd.DataFrame], noise_rate: float) -> go.Figure:
    """The density of CG of clean and mislabeled samples, and how many of the latter each score finds.

    Args: bins of cg with left, right, clean, mislabeled (samples); curves: by score, looked_at and found (0..1)
    """
    figure = panels(["(a) complexity gap, clean and mislabeled", "(b) mislabeled among the examined"], legend=True)
    center, width = (bins["left"] + bins["right"]) / 2, bins["right"] - bins["left"]
    for column, name, color in (("clean", "clean", BLUE), ("mislabeled", "mislabeled", VERMILION)):
        figure.add_bar(
            x=center,
            y=bins[column] / max(1, bins[column].sum()) / width,
            width=width,
            name=name,
            marker={"color": color, "line": {"width": 0}},
            opacity=0.65,
            hovertemplate=f"{name}<br>cg %{{x:.3g}}<extra></extra>",
            row=1,
            col=1,
        )
    tints = order_colors(pd.Series(list(curves)))
    for score, curve in curves.items():
        add_line(figure, 2, 100 * curve["looked_at"], 100 * curve["found"], score, tints[score], axis="% examined")
    add_line(figure, 2, [0, 100 * noise_rate, 100], [0, 100, 100], "oracle", GREEN, dash="dash", width=1.5)
    add_line(figure, 2, [0, 100], [0, 100], "random", GRAY, dash="dot", width=1.5)
    figure.update_layout(barmode="overlay", bargap=0)
    figure.update_xaxes(title="complexity gap (cg)", col=1)
    figure.update_yaxes(title="density", col=1)
    figure.update_xaxes(title="examined, highest first", ticksuffix=" %", col=2)
    figure.update_yaxes(title="found, of the mislabeled", ticksuffix=" %", col=2)
    return figure


@paper_figure(
    "cg-4",
    title="Learning by complexity gap",
    caption="Samples with a low complexity gap are learned first: ten groups, blue = lowest, red = highest.",
)
def learning_by_decile(needs: Needs) -> go.Figure | None:
    """Figure 4: loss, accuracy and kernel velocity of the deciles of CG."""
    dataset = needs.view.at.dataset
    run_id, found = needs.scores("cg")
    if not found:
        return None
    curves = data.figure_table(needs.view.at, "fetch_decile_curves", run_id, "cg")
    if curves.empty:
        needs.lacks("That run has no dynamics.", f"winnow run {dataset} --scores cg")
        return None
    velocity = data.velocity(needs.view.at, run_id, "cg")
    if velocity.empty:
        command = f"winnow velocity {dataset} --score cg --run {run_id}"
        needs.lacks("The kernel velocity, panel (c), is not computed yet.", command)
    return decile_figure(curves, velocity, "cg")


def decile_figure(curves: pd.DataFrame, velocity: pd.DataFrame, score: str) -> go.Figure:
    """Loss, accuracy and kernel velocity of ten groups by a score, from blue (easiest) to red (hardest).

    Args: curves with decile, epoch, loss, accuracy (0..1); velocity with decile, until, velocity, empty if not computed
    """
    titles = ["(a) mean loss", "(b) training accuracy", *(["(c) kernel velocity"] if len(velocity) else [])]
    figure = panels(titles)
    tints = sample_colorscale(DIVERGING, list(np.linspace(0, 1, 10)))
    for decile in range(10):
        name = f"decile {decile + 1} by {score}"
        some = curves[curves["decile"] == decile]
        add_line(figure, 1, some["epoch"], some["loss"], name, tints[decile], axis="epoch", width=2)
        add_line(figure, 2, some["epoch"], 100 * some["accuracy"], name, tints[decile], axis="epoch", width=2)
        if len(velocity):
            one = velocity[velocity["decile"] == decile]
            add_line(
                figure,
                3,
                one["until"],
                one["velocity"],
                name,
                tints[decile],
                axis="epoch",
                width=2,
                mode="lines+markers",
            )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(ticksuffix=" %", col=2)
    return figure


@paper_figure(
    "cg-6",
    title="Training on half of the ranks, and the partial complexity gap",
    caption="Accuracy when half of the samples are trained on, from an offset in the ranks on; the sign of the partial gap.",
)
def windows_and_partial_gap(needs: Needs) -> go.Figure | None:
    """Figure 6: the window experiment, and partial CG against CG."""
    at, dataset = needs.view.at, needs.view.at.dataset
    windows = data.windows(at)
    if windows.empty:
        command = f"winnow psi {dataset} --orders cg --window --points 10 --seeds 3"
        if "cg" not in data.having(at, "score", ("cg",))[1]:
            command = f"winnow run {dataset} --scores cg,cg_partial\n{command}"
        needs.lacks("The window experiment, panel (a), is not computed yet.", command)
    else:
        needs.runs += list(dict.fromkeys(windows["run_id"]))
    scatter = pd.DataFrame()
    if needs.known_noise():
        run_id, found = needs.scores("cg", "cg_partial")
        if len(found) == 2:
            both = data.score(at, run_id, "cg_partial").merge(data.score(at, run_id, "cg"), on="sample_id")
            both = both.merge(data.labels(at), on="sample_id")
            wrong = (both["true_label"] >= 0) & (both["true_label"] != both["label"])
            scatter = pd.DataFrame({"x": both["value_x"], "y": both["value_y"], "wrong": wrong})
    return window_figure(windows, scatter) if len(windows) or len(scatter) else None


def window_figure(windows: pd.DataFrame, scores: pd.DataFrame) -> go.Figure:
    """Accuracy of networks trained on the middle half that begins at an offset; partial CG against CG.

    Args: windows with score, offset (0..1), seed, accuracy (0..1); scores with x (cg_partial), y (cg), wrong (bool);
          either may be empty and is then left out
    """
    titles = [
        *(["(a) half of the samples, from an offset on"] if len(windows) else []),
        *(["(c) partial and full complexity gap"] if len(scores) else []),
    ]
    figure = panels(titles, legend=True)
    tints = order_colors(windows["score"]) if len(windows) else {}
    for score, some in windows.groupby("score") if len(windows) else ():
        by = (100 * some[["offset", "accuracy"]]).groupby("offset")["accuracy"].agg(["mean", "min", "max"])
        offset = by.index.to_series()
        add_band(figure, 1, offset, by["min"], by["max"], tints[str(score)])
        add_line(figure, 1, offset, by["mean"], str(score), tints[str(score)], axis="offset %", mode="lines+markers")
        figure.update_xaxes(title="offset, % of the ranks", col=1)
        figure.update_yaxes(title="test accuracy", ticksuffix=" %", col=1)
    for wrong, name, color in ((False, "clean", BLUE), (True, "mislabeled", VERMILION)) if len(scores) else ():
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
        figure.add_vline(x=0, line={"color": GRAY, "width": 1.5, "dash": "dash"}, row=1, col=len(titles))
        figure.update_xaxes(title="partial complexity gap (cg_partial)", col=len(titles))
        figure.update_yaxes(title="complexity gap (cg)", ticksuffix="", col=len(titles))
    return figure
