"""Several panels in one figure, in the style of the other charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.charts import GRID, new_figure, with_alpha
from dashboard.markup import chart_text


def panels(titles: Sequence[str], height: int = 540, *, legend: bool = False, share_y: bool = False) -> go.Figure:
    """A figure of panels beside each other, with a title each; axes are for the caller to name."""
    figure = make_subplots(
        rows=1,
        cols=len(titles),
        subplot_titles=[chart_text(title) for title in titles],
        horizontal_spacing=0.05 if share_y else 0.09,
        shared_yaxes=share_y,
        figure=new_figure(height, top=70 if legend else 34, legend=legend),
    )
    figure.update_layout(legend={"y": 1 + 30 / (height - 130)})  # above the titles of the panels
    figure.update_annotations(font={"size": 15})
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    return figure


def add_line(
    figure: go.Figure, col: int, x: Any, y: Any, name: str, color: str, *, axis: str = "", row: int = 1, **more: Any
) -> None:
    """A line of one panel; lines of one name share one entry of the legend."""
    name = chart_text(name)
    seen = {trace.name for trace in figure.data if trace.showlegend is not False}
    line = {"color": color, "width": more.pop("width", 2.5), "dash": more.pop("dash", "solid")}
    figure.add_scatter(
        x=np.asarray(x, float),
        y=np.asarray(y, float),
        mode=more.pop("mode", "lines"),
        name=name,
        legendgroup=name,
        showlegend=name not in seen,
        line=line,
        hovertemplate=f"{name} %{{y:.4g}}<br>{axis} %{{x:.4g}}<extra></extra>",
        row=row,
        col=col,
        **more,
    )


def add_band(figure: go.Figure, col: int, x: pd.Series, low: pd.Series, high: pd.Series, color: str) -> None:
    """The area between two lines of one panel."""
    figure.add_scatter(
        x=[*x, *x[::-1]],
        y=[*high, *low[::-1]],
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=with_alpha(color, 0.16),
        hoverinfo="skip",
        showlegend=False,
        row=1,
        col=col,
    )
