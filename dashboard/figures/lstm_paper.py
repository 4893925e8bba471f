"""Figures of LSTM (Jia et al.): dynamics by kind of noise, finding by noise rate, what the detector sees, its transfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard import charts, data
from dashboard.charts import BLUE, GRAY, VERMILION
from dashboard.figures.declare import paper_figure
from dashboard.figures.needs import Needs
from dashboard.figures.panels import add_band, add_line, panels
from dashboard.markup import chart_text

PANELS = 4
"""Datasets beside each other at most."""

EXPLAINED = 3
"""Samples whose detection is explained."""


@paper_figure(
    "lstm-1",
    title="Learning right and wrong labels",
    caption="Probability of the given label over the epochs: mean and standard deviation over up to 1,000 samples each.",
)
def dynamics_by_noise(needs: Needs) -> go.Figure | None:
    """Figure 1: p_given of right and wrong labels; of other noise on the same samples beside it."""
    known = bool(data.dataset_facts(needs.view.at)["wrong"])
    curves: dict[str, pd.DataFrame] = {}
    for name in needs.relatives()[:PANELS] if known else [needs.view.at.dataset]:
        at = data.snapshot(name)
        run_id, found = data.having(at, "score", ("aum",)) if known else (needs.view.run_id, {"aum": "aum"})
        table = data.figure_table(at, "fetch_group_curves", run_id, known) if found and run_id else pd.DataFrame()
        if table.empty:
            needs.lacks(f"No run of {name} has the dynamics of its networks.", f"winnow run {name} --scores aum")
        elif table["wrong"].nunique() < 2:
            needs.lacks(f"The shortlist of that run of {name} is empty, so there are no two groups to compare.", "")
        else:
            needs.runs.append(run_id)
            curves[f"{name}: {data.dataset_facts(at)['noise'] or 'its own labels'}"] = table
    return dynamics_figure(curves, known) if curves else None


def dynamics_figure(curves: Mapping[str, pd.DataFrame], known: bool) -> go.Figure:
    """p_given over the epochs of two groups of samples, a panel per dataset; the band is one standard deviation.

    Args: curves with wrong (bool), epoch, mean, spread (0..1), by title; known: whether wrong is the truth or a shortlist
    """
    names = ("right label", "wrong label") if known else ("not on the shortlist", "on the shortlist")
    figure = panels(list(curves), legend=True, share_y=True)
    for col, table in enumerate(curves.values(), start=1):
        for wrong, color in ((False, BLUE), (True, VERMILION)):
            some = table[table["wrong"] == wrong]
            epoch, low, high = some["epoch"], some["mean"] - some["spread"], some["mean"] + some["spread"]
            add_band(figure, col, epoch, low.clip(lower=0), high.clip(upper=1), color)
            add_line(figure, col, epoch, some["mean"], names[wrong], color, axis="epoch")
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(range=[0, 1.02])
    figure.update_yaxes(title="probability of the given label", col=1)
    return figure


@paper_figure(
    "lstm-8",
    title="What the noise detector looks at",
    caption="What each epoch adds to the probability of a wrong label, of samples that the detector is surest of (LIME).",
)
def attention(needs: Needs) -> go.Figure | None:
    """Figure 8: the importance of each epoch, of three samples that the detector has found."""
    at = needs.view.at
    run_id, found = needs.scores("lstm_detector")
    if not found:
        return None
    known = bool(data.dataset_facts(at)["wrong"])
    rows = data.figure_table(at, "fetch_found", run_id, "lstm_detector", known, EXPLAINED)
    seen: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
    for row in charts.rows(rows):
        dynamics = data.trajectory(at, run_id, row.sample_id)
        seed = int(dynamics["seed"].min()) if len(dynamics) else 0
        explained = data.explanation(at, run_id, row.sample_id, seed)
        if explained is not None:
            own = dynamics.loc[dynamics["seed"] == seed, "p_given"].tolist()
            seen[f"sample {row.sample_id}, {needs.view.names[row.label]}"] = (explained.tolist(), own)
    if not seen:
        command = f"winnow run {at.dataset} --scores lstm_detector"
        needs.lacks("That run has no dynamics, or its detector is not in this workspace any more.", command)
        return None
    return attention_figure(seen)


def attention_figure(samples: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> go.Figure:
    """A panel per sample: what each epoch speaks for (a wrong label: vermilion), and the p_given that it was read from.

    Args: samples: by title what each epoch adds, and p_given after each epoch
    """
    figure = panels(list(samples), legend=True, share_y=True)
    for col, (adds, p_given) in enumerate(samples.values(), start=1):
        values, epochs = np.asarray(adds, float), np.arange(1, len(adds) + 1)
        for sign, name, color in ((1, "speaks for a wrong label", VERMILION), (-1, "speaks against it", BLUE)):
            figure.add_bar(
                x=epochs,
                y=np.where(sign * values > 0, values, 0),
                name=name,
                legendgroup=name,
                showlegend=col == 1,
                marker={"color": color},
                hovertemplate="epoch %{x}<br>adds %{y:.3f}<extra></extra>",
                row=1,
                col=col,
            )
        add_line(figure, col, epochs, p_given, "probability of the given label", GRAY, axis="epoch", width=1.5)
    figure.update_layout(barmode="relative", bargap=0.15)
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title="added probability", col=1)
    return figure


@paper_figure(
    "lstm-5",
    title="Noise detectors on other data",
    caption="Average precision of each detector (row) on each dataset whose wrong labels are known (column).",
)
def transfer(needs: Needs) -> go.Figure | None:
    """Figure 5 and the paper's transfer: detectors that learned from one dataset on the dynamics of others."""
    found = data.detector_quality()
    if found.empty:
        name = needs.view.at.dataset
        needs.lacks(
            "No detector was applied to a dataset whose wrong labels are known.",
            f"winnow run {name} --scores lstm_detector",
        )
        return None
    needs.runs += found["run_id"].tolist()
    if found["detector"].nunique() == 1:
        name = next(iter(found["dataset"]))
        command = (
            f"winnow detector train {name}-detector --dataset {name}\nwinnow detector apply {name}-detector DATASET"
        )
        needs.lacks("Only one detector was applied so far; train one on the dynamics of a dataset of yours:", command)
    return transfer_figure(found)


def transfer_figure(found: pd.DataFrame) -> go.Figure:
    """A cell per detector and dataset, the higher its average precision the bluer; the number is in the cell.

    Args: found with detector, dataset, average_precision (0..1), one row per pair
    """
    table = found.pivot(index="detector", columns="dataset", values="average_precision")
    figure = panels([""], max(220, 110 + 44 * len(table)))
    figure.add_heatmap(
        z=table.to_numpy(float),
        x=[chart_text(name) for name in table.columns],
        y=[chart_text(name) for name in table.index],
        zmin=0,
        zmax=1,
        # never so strong that the page's own text color, light or dark, could not be read on it
        colorscale=[[0, charts.with_alpha(BLUE, 0.03)], [1, charts.with_alpha(BLUE, 0.5)]],
        showscale=False,
        xgap=2,
        ygap=2,
        hoverongaps=False,
        hovertemplate="%{y} on %{x}<br>average precision %{z:.3f}<extra></extra>",
    )
    for place, value in np.ndenumerate(table.to_numpy(float)):
        if not np.isnan(value):
            figure.add_annotation(x=place[1], y=place[0], text=f"{value:.3f}", showarrow=False, font={"size": 14})
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category")
    return figure
