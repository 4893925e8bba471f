"""Figures of ROP: pruning clean and noisy labels, and relabeling by neighboring-label inconsistency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard import charts, data
from dashboard.charts import BLUE, FAINT, GRAY, GREEN, VERMILION, new_figure
from dashboard.figures.declare import paper_figure
from dashboard.figures.needs import Needs
from dashboard.figures.panels import add_band, add_line, panels
from dashboard.markup import chart_text
from dashboard.psi_charts import TINTS, order_colors

ORDERS = {
    "grand": ("largest gradients", VERMILION),
    "nli*": ("agreeing neighbors (NLI)", BLUE),
    "random": ("random", GREEN),
}
"""The orders that are compared, with what stays of each."""

BASELINES = {
    "loss_last": "smallest loss",
    "top2_gap": "margin",
    "forgetting": "forgetting",
    "grand_last_layer": "GraNd, last layer",
    "grand": "GraNd",
    "prototype_distance": "SSP",
    "class_median_distance": "Moderate",
    "nli": "NLI",
}
"""Scores that the paper selects by, as it calls them."""

NEIGHBORS = (5, 10, 15, 20)
"""The K that the paper compares."""

CORRECTING = "sop+"
"""The learner of a figure's command, where no relabeling is there to say another."""


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
                _add_accuracy(figure, col, some, name, color)
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


@paper_figure(
    "rop-4",
    title="Selections compared",
    caption="Test accuracy by the share that is kept, for every way of selecting that a relabeling of this set has tried.",
)
def selections(needs: Needs) -> go.Figure | None:
    """Figure 4: accuracy by the share kept, a line per selection, a panel per learner."""
    found = _comparable(needs)
    if found.empty:
        return None
    newest = found["run_id"].iloc[0]
    needs.runs += found["run_id"].unique().tolist()
    if not (found["sampler"] == "ccs").any():
        command = data.relabelings.command_like(needs.view.at, newest, select="ccs", beta=0.1)
        needs.lacks("ROP's selection that covers the range of NLI is not there yet.", command)
    return compared_figure(found)


def _comparable(needs: Needs) -> pd.DataFrame:
    """The networks of selections that differ in how they select alone, of the newest run and those like it, with `name`.

    Of two runs with one selection the newer counts. Notes what is missing where there is none.
    """
    found, name = data.relabelings.selections(needs.view.at), needs.view.at.dataset
    if not data.dataset_facts(needs.view.at)["test"]:
        needs.lacks("It needs a test split to measure on, and this set has none.", "")
        return found.iloc[:0]
    found = found[found["accuracy"].notna()]
    if found.empty:
        command = f"winnow relabel {name} --method rop --learner {CORRECTING}"
        needs.lacks("No relabeling has learned from selections of this set.", command)
        return found
    found = found[(found["alike"] == found["alike"].iloc[0]) & (found["neighbors"] == found["neighbors"].iloc[0])]
    plain = found["sampler"].isin(["descending", ""]) | (found["subset"] != "rop")
    found = found.assign(name=found["subset"].where(plain, found["subset"] + ", " + found["sampler"]))
    first = found.groupby("name")["run_id"].transform("first")
    newest: pd.DataFrame = found[found["run_id"] == first]
    return newest


def compared_figure(found: pd.DataFrame) -> go.Figure:
    """A panel per learner: mean test accuracy by the share kept, a line per selection, its band from worst to best seed.

    Args: found with name, learner, kept_fraction, seed, accuracy (0..1)
    """
    learners = sorted(found["learner"].unique(), key=lambda name: (name != "cross-entropy", name))
    titles = {"cross-entropy": "labels as they are"}
    figure = panels([titles.get(name, f"corrected by {name}") for name in learners], legend=True, share_y=True)
    colors = order_colors(found["name"])
    for col, learner in enumerate(learners, start=1):
        for name, some in found[found["learner"] == learner].groupby("name"):
            _add_accuracy(figure, col, some, str(name).replace("rop", "ROP"), colors[str(name)])
    figure.update_xaxes(title="kept", ticksuffix=" %")
    figure.update_yaxes(title="test accuracy", ticksuffix=" %", col=1)
    return figure


def _add_accuracy(figure: go.Figure, col: int, some: pd.DataFrame, name: str, color: str) -> None:
    """The mean accuracy of one selection over the share kept, with a band from its worst to its best seed."""
    by = (100 * some[["kept_fraction", "accuracy"]]).groupby("kept_fraction")["accuracy"].agg(["mean", "min", "max"])
    kept = by.index.to_series()
    add_band(figure, col, kept, by["min"], by["max"], color)
    add_line(figure, col, kept, by["mean"], name, color, axis="% kept", mode="lines+markers")


@paper_figure(
    "rop-5",
    title="How long selecting takes",
    caption="Seconds until a subset can be chosen: training one network, where a score reads one, and computing the score.",
)
def selecting_time(needs: Needs) -> go.Figure | None:
    """Figure 5: seconds of each selection that a relabeling has timed, and of the scores that the paper selects by."""
    at, name = needs.view.at, needs.view.at.dataset
    found = data.relabelings.selections(at)
    found = found[found["select_seconds"].notna()]
    rows: list[tuple[str, float, float]] = []
    if found.empty:
        command = f"winnow relabel {name} --method rop --learner {CORRECTING}"
        needs.lacks("No relabeling has timed a selection of this set.", command)
    for subset, some in found.groupby("subset"):
        some = some[some["run_id"] == some["run_id"].iloc[0]]
        needs.runs.append(some["run_id"].iloc[0])
        rows.append((str(subset).replace("rop", "ROP"), float("nan"), float(some["select_seconds"].mean())))
    scores = data.relabelings.selecting_seconds(at)
    scores = scores[scores["score"].isin(BASELINES)]
    for row in charts.rows(scores):
        needs.runs.append(row.run_id)
        rows.append((BASELINES[row.score], float(row.training), float(row.scoring)))
    if absent := [score for score in BASELINES if score not in set(scores["score"]) and score != "grand"]:
        command = f"winnow run {name} --scores {','.join(absent)}"
        needs.lacks(f"No run of {name} has {', '.join(absent)}.", command)
    return time_figure(rows) if rows else None


def time_figure(rows: Sequence[tuple[str, float, float]]) -> go.Figure:
    """A bar per selection, the slowest at the top: training, and what comes after it.

    Args: rows of name, seconds of training (NaN where they are part of the rest), seconds of the rest
    """
    rows = sorted(rows, key=lambda row: np.nan_to_num(row[1]) + row[2])
    figure = new_figure(max(260, 110 + 34 * len(rows)), x="seconds", legend=True, top=36)
    names = [chart_text(name) for name, _, _ in rows]
    parts = (
        ("training one network", [row[1] for row in rows], charts.with_alpha(BLUE, 0.45)),
        ("the score", [row[2] if row[1] == row[1] else np.nan for row in rows], BLUE),
        ("both together", [row[2] if row[1] != row[1] else np.nan for row in rows], GREEN),
    )
    for part, seconds, color in parts:
        if np.isnan(seconds).all():
            continue
        figure.add_bar(
            x=seconds,
            y=names,
            orientation="h",
            name=part,
            marker={"color": color},
            hovertemplate=f"%{{y}}<br>{part} %{{x:.3g}} s<extra></extra>",
        )
    for name, row in zip(names, rows, strict=True):
        total = float(np.nan_to_num(row[1]) + row[2])
        figure.add_annotation(x=total, y=name, text=f"{total:,.2g} s", showarrow=False, xanchor="left", xshift=4)
    figure.update_layout(barmode="stack", bargap=0.3, legend={"traceorder": "normal"})
    figure.update_xaxes(rangemode="tozero", ticksuffix=" s", title="until a subset can be chosen")
    figure.update_yaxes(type="category", showgrid=False)
    return figure


@paper_figure(
    "rop-6",
    title="How many neighbors to read",
    caption="Test accuracy of ROP's subset by the share that is kept, where NLI reads K neighbors.",
)
def neighbors(needs: Needs) -> go.Figure | None:
    """Figure 6: accuracy by the share kept, a line for each K, of relabelings that differ in K alone."""
    at, name = needs.view.at, needs.view.at.dataset
    if not data.dataset_facts(at)["test"]:
        needs.lacks("It needs a test split to measure on, and this set has none.", "")
        return None
    found = data.relabelings.selections(at)
    found = found[(found["subset"] == "rop") & found["accuracy"].notna() & (found["neighbors"] > 0)]
    if len(found):  # those with most K; of equals the newest
        alike = found["alike"] + found["sampler"]
        most = found.groupby(alike, sort=False)["neighbors"].nunique().idxmax()
        found = found[alike == most]
        found = found[found["run_id"] == found.groupby("neighbors")["run_id"].transform("first")]
        corrected = found["learner"] != "cross-entropy"
        found = found[corrected] if corrected.any() else found
    there = set(found["neighbors"])
    if absent := [k for k in NEIGHBORS if k not in there]:
        bare = f"winnow relabel {name} --method rop --learner {CORRECTING} --neighbors"
        commands = [
            data.relabelings.command_like(at, found["run_id"].iloc[0], neighbors=k) if there else f"{bare} {k}"
            for k in absent
        ]
        needs.lacks(f"There is no relabeling with K = {', '.join(map(str, absent))}.", "\n".join(commands))
    needs.runs += found["run_id"].unique().tolist()
    return neighbors_figure(found) if there else None


def neighbors_figure(found: pd.DataFrame) -> go.Figure:
    """Mean test accuracy by the share kept, a line for each K.

    Args: found with neighbors, kept_fraction, seed, accuracy (0..1)
    """
    figure = panels([""], legend=True)
    for at, k in enumerate(sorted(found["neighbors"].unique())):
        some = found[found["neighbors"] == k]
        by = (100 * some[["kept_fraction", "accuracy"]]).groupby("kept_fraction")["accuracy"].mean()
        add_line(figure, 1, by.index, by, f"K = {k}", TINTS[at % len(TINTS)], axis="% kept", mode="lines+markers")
    figure.update_xaxes(title="kept", ticksuffix=" %")
    figure.update_yaxes(title="test accuracy", ticksuffix=" %")
    return figure
