"""The reliability diagram of suggested labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard.charts import BLUE, GRAY, new_figure


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
