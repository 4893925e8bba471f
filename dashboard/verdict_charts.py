"""The verdict of a run as pictures: DataFrame or Verdict -> plotly figure. No Streamlit in here."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard.charts import BLUE, FAINT, GRAY, GREEN, PURPLE, VERMILION, new_figure
from dashboard.data import Verdict


def accuracy_bar(verdict: Verdict) -> go.Figure:
    """Held-out accuracy on a line from 0 to 100 %, with what a guess would reach. Without an accuracy: an empty line."""
    figure = _line(100)
    if verdict.accuracy is not None:
        figure.add_bar(
            x=[100 * verdict.accuracy],
            y=[""],
            orientation="h",
            width=0.5,
            marker={"color": BLUE},
            hovertemplate="held-out predictions agree with %{x:.1f} % of the labels<extra></extra>",
        )
    if verdict.chance is not None:
        _mark(figure, 100 * verdict.chance, "guess")
    return figure


def noise_bar(verdict: Verdict, known: float | None = None) -> go.Figure:
    """The estimated share of wrong labels with its interval, the two estimates behind it, and the known share.

    Args: known: the share of the labels that are wrong, 0..1; None = unknown
    """
    shares = [verdict.noise, verdict.noise_low, verdict.noise_high, verdict.noise_joint, verdict.noise_mixture, known]
    most = max((100 * share for share in shares if share is not None), default=0.0)
    figure = _line(min(100.0, max(1.0, 1.3 * most)))
    if verdict.noise is None:
        return figure
    low, high = verdict.noise_low, verdict.noise_high
    if low is not None and high is not None:
        figure.add_bar(
            x=[100 * (high - low)],
            base=[100 * low],
            y=[""],
            orientation="h",
            width=0.5,
            marker={"color": PURPLE, "opacity": 0.45, "line": {"width": 0}},
            hovertemplate=f"95 % interval: {100 * low:.1f} to {100 * high:.1f} %<extra></extra>",
        )
    for share, name, symbol, tint in (
        (verdict.noise_joint, "by the held-out predictions", "line-ns", GRAY),
        (verdict.noise_mixture, "by how the suspicion is distributed", "line-ns", GRAY),
        (known, "known to be wrong", "diamond", GREEN),
        (verdict.noise, "estimate", "circle", PURPLE),
    ):
        if share is None:
            continue
        figure.add_scatter(
            x=[100 * share],
            y=[""],
            mode="markers",
            name=name,
            marker={
                "symbol": symbol,
                "size": 15 if symbol == "line-ns" else 12,
                "color": tint,
                "line": {"width": 2, "color": tint},
            },
            hovertemplate=f"{name}: %{{x:.1f}} %<extra></extra>",
        )
    if verdict.disagrees:
        for share, name in ((verdict.noise_joint, "predictions"), (verdict.noise_mixture, "distribution")):
            _mark(figure, 100 * float(share or 0), name)
    elif known is not None:
        _mark(figure, 100 * known, "known")
    return figure


def suspicion_chart(bins: pd.DataFrame) -> go.Figure:
    """How many samples have which probability of a wrong label, those of the shortlist apart. Counts are on a log scale.

    Args: bins with left, right (0..1), listed, rest (samples)
    """
    figure = new_figure(230, x="probability that the label is wrong, %", y="samples", legend=True, top=34)
    left, right = 100 * bins["left"], 100 * bins["right"]
    for column, name, tint in (("rest", "not flagged", BLUE), ("listed", "on the shortlist", VERMILION)):
        if not bins[column].sum():
            continue
        figure.add_bar(
            x=(left + right) / 2,
            y=bins[column].where(bins[column] > 0),
            width=right - left,
            name=f"{name}  {int(bins[column].sum()):,}",
            marker={"color": tint, "line": {"width": 0}},
            opacity=0.78,
            customdata=np.stack([left, right], axis=1),
            hovertemplate=f"%{{customdata[0]:.3g}} to %{{customdata[1]:.3g}} %<br>%{{y:,}} {name}<extra></extra>",
        )
    figure.update_layout(barmode="overlay", bargap=0)
    figure.update_xaxes(range=[0, 100], tickvals=[0, 25, 50, 75, 100])
    most = float(bins[["rest", "listed"]].to_numpy().max(initial=1))
    figure.update_yaxes(type="log", range=[np.log10(0.7), np.log10(max(most, 1)) + 0.15], dtick=1)
    return figure


def reliability_chart(bins: pd.DataFrame) -> go.Figure:
    """How often suggested labels are right against how sure they are; on the diagonal both are the same.

    Args: bins with confidence, right (0..1), n (samples)
    """
    figure = new_figure(260, x="confidence, %", y="right, %", top=12)
    figure.add_scatter(
        x=[0, 100], y=[0, 100], mode="lines", line={"color": GRAY, "width": 1.5, "dash": "dot"}, hoverinfo="skip"
    )
    figure.add_scatter(
        x=100 * bins["confidence"],
        y=100 * bins["right"],
        mode="lines+markers",
        line={"color": BLUE, "width": 2.5},
        marker={"size": 5 + 11 * np.sqrt(bins["n"] / bins["n"].max()), "color": BLUE},
        customdata=bins["n"],
        hovertemplate="confidence %{x:.1f} %<br>right %{y:.1f} %<br>%{customdata:,} suggestions<extra></extra>",
    )
    figure.update_xaxes(range=[-2, 103])
    figure.update_yaxes(range=[-3, 106])
    return figure


def _line(most: float) -> go.Figure:
    """An empty horizontal line from 0 to a percentage."""
    figure = new_figure(92, top=22, right=30)
    figure.add_bar(x=[most], y=[""], orientation="h", width=0.5, marker={"color": FAINT}, hoverinfo="skip")
    figure.update_layout(barmode="overlay", margin={"l": 12, "b": 26})
    step = next(step for step in (0.5, 1, 2, 5, 10, 20, 50) if most / step <= 4)
    figure.update_xaxes(range=[0, most], ticksuffix=" %", dtick=step, tick0=0, automargin=False)
    figure.update_yaxes(visible=False)
    return figure


def _mark(figure: go.Figure, at: float, text: str) -> None:
    """A thin line across with a word above it."""
    figure.add_shape(type="line", x0=at, x1=at, y0=-0.3, y1=0.3, line={"color": GRAY, "width": 2, "dash": "dot"})
    figure.add_annotation(
        x=at,
        y=0.34,
        text=text,
        showarrow=False,
        font={"color": GRAY, "size": 12},
        yanchor="bottom",
        xanchor="left",
        xshift=-4,
    )
