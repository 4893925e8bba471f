"""What a curated set gains, drawn: the two networks of each seed, and their differences with the interval. No Streamlit."""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.charts import BLUE, GRAY, GREEN, GRID, VERMILION, new_figure, rows, with_alpha


def proof_chart(
    networks: pd.DataFrame, low: float | None, high: float | None, seeds: int, height: int = 230
) -> go.Figure:
    """The accuracies of each seed as a line from the full to the curated set, and beside it what is gained.

    The axes end at whole points, so that they seldom move while networks arrive, and then only apart.

    Args: networks with seed, set (full or curated) and accuracy (0..1); low, high: the 95 % interval of the mean
          difference, None where there is none yet; seeds: of the whole proof
    """
    wide = 100 * networks.pivot(index="seed", columns="set", values="accuracy").reindex(columns=["full", "curated"])
    figure = make_subplots(
        1, 2, column_widths=[0.55, 0.45], horizontal_spacing=0.16, figure=new_figure(height, right=16)
    )
    for pair in rows(wide):
        better = pair.curated - pair.full
        color = GRAY if not better == better or better == 0 else GREEN if better > 0 else VERMILION
        figure.add_scatter(
            x=["full set", "curated set"],
            y=[pair.full, pair.curated],
            mode="lines+markers",
            line={"color": with_alpha(color, 0.8), "width": 2},
            marker={"size": 8, "color": color},
            hovertemplate=f"seed {pair.Index}, %{{x}}: %{{y:.2f}} %<extra></extra>",
            row=1,
            col=1,
        )
    differences = (wide["curated"] - wide["full"]).dropna()
    figure.add_scatter(
        x=differences.index.to_list(),
        y=differences,
        mode="markers",
        marker={"size": 8, "color": [GREEN if d > 0 else VERMILION if d < 0 else GRAY for d in differences]},
        hovertemplate="seed %{x}: %{y:+.2f} points<extra></extra>",
        row=1,
        col=2,
    )
    figure.add_hline(y=0, line={"color": GRAY, "width": 1}, row=1, col=2)
    ends = [*differences, 0.0]
    if low is not None and high is not None:
        mean = float(differences.mean())
        ends += [100 * low, 100 * high]
        figure.add_scatter(
            x=[seeds],
            y=[mean],
            error_y={"array": [100 * high - mean], "color": BLUE, "thickness": 2.5, "width": 7},
            mode="markers",
            marker={"size": 11, "symbol": "diamond", "color": BLUE},
            hovertemplate=f"mean %{{y:+.2f}} points<br>95 % interval {100 * low:+.2f} to {100 * high:+.2f}<extra></extra>",
            row=1,
            col=2,
        )
    figure.update_xaxes(range=[-0.25, 1.25], showgrid=False, row=1, col=1)
    figure.update_yaxes(ticksuffix=" %", title="accuracy", range=_whole(networks["accuracy"] * 100), row=1, col=1)
    places = list(range(seeds)) if seeds <= 10 else [0, seeds - 1]
    ticks = {"tickvals": [*places, seeds], "ticktext": [*map(str, places), "mean"]}
    figure.update_xaxes(**ticks, range=[-0.6, seeds + 0.6], title="seed", showgrid=False, row=1, col=2)
    figure.update_yaxes(title="points gained", gridcolor=GRID, range=_whole(pd.Series(ends)), row=1, col=2)
    return figure


def _whole(values: pd.Series) -> list[float]:
    """An axis from whole number to whole number around some values, with a little air."""
    return [math.floor(float(values.min())) - 0.2, math.ceil(float(values.max())) + 0.2]
