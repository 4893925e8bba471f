"""Lines over epochs: DataFrame -> plotly figure. No Streamlit in here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.charts import BLUE, GRAY, GREEN, GRID, PURPLE, VERMILION, cut, new_figure, whole_epochs, with_alpha
from dashboard.markup import chart_text


def crossing_points(x: np.ndarray[Any, Any], a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> tuple[Any, Any, Any]:
    """x, a, b with a point added wherever the two lines cross, so that areas between them meet in it exactly."""
    gap = a - b
    at = np.nonzero(gap[:-1] * gap[1:] < 0)[0]
    share = gap[at] / (gap[at] - gap[at + 1])
    where = at + 1

    def between(v: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        added: np.ndarray[Any, Any] = np.insert(v.astype(float), where, v[at] + share * (v[at + 1] - v[at]))
        return added

    low = between(b)
    high = between(a)
    high[where + np.arange(len(where))] = low[where + np.arange(len(where))]  # equal despite rounding
    return between(x), high, low


def trajectory_chart(
    dynamics: pd.DataFrame,
    logits: pd.DataFrame,
    seed: int,
    label: int,
    names: Sequence[str],
    height: int = 470,
    adds: np.ndarray[Any, Any] | None = None,
) -> go.Figure:
    """One sample in one seed over the epochs: its logits, its margin and running AUM, its probability.

    The area between the logit of the given label and the largest other logit is green where the given label leads
    and hatched vermilion where another class does. Other seeds' margins are drawn faintly behind.

    Args: dynamics with seed, epoch, margin, logit_given, p_given, other; logits with seed, epoch, 0 .. C-1, empty
          where the full logits were not kept: then the largest other logit is logit_given - margin; adds (T,): what each
          epoch adds to a noise detector's probability of a wrong label, colored behind the p_given that it reads
    """
    one = dynamics[dynamics["seed"] == seed].sort_values("epoch")
    epoch, given, margin = one["epoch"].to_numpy(), one["logit_given"].to_numpy(float), one["margin"].to_numpy(float)
    figure = new_figure(height, right=84)
    grid = make_subplots(
        rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.52, 0.27, 0.21], figure=figure
    )
    x, high, low = crossing_points(epoch, given, given - margin)
    hidden = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    for edge, color, pattern in ((np.maximum(high, low), GREEN, ""), (np.minimum(high, low), VERMILION, "/")):
        grid.add_scatter(x=x, y=low, **hidden, row=1, col=1)
        grid.add_scatter(
            x=x,
            y=edge,
            **hidden,
            fill="tonexty",
            row=1,
            col=1,
            name="ahead" if color == GREEN else "behind",
            fillcolor=with_alpha(color, 0.30),
            fillpattern={"shape": pattern, "fgcolor": with_alpha(color, 0.75), "size": 7, "solidity": 0.25},
        )
    kept = logits[logits["seed"] == seed] if len(logits) else logits
    rival = int(one["other"].mode().iloc[0])
    if len(kept):
        for c in [c for c in range(len(names)) if c not in (label, rival)]:
            _line(grid, kept["epoch"], kept[c], names[c], GRAY, 1, 0.55)
        _line(grid, kept["epoch"], kept[rival], names[rival], VERMILION, 2)
        ends = [(float(kept[rival].iloc[-1]), names[rival], VERMILION)]
    else:
        _line(grid, epoch, given - margin, "largest other", VERMILION, 2)
        ends = [(float((given - margin)[-1]), "other", VERMILION)]
    _line(grid, epoch, given, f"{names[label]} (given)", BLUE, 3)
    ends.append((float(given[-1]), names[label], BLUE))
    ends.sort()
    span = float(max(high.max(), low.max()) - min(high.min(), low.min()))
    for (_, text, color), y in zip(ends, spread([end[0] for end in ends], span / 9), strict=True):
        label_end(grid, float(epoch[-1]), y, cut(text, 10), color, row=1, col=1)
    for other in sorted(set(dynamics["seed"]) - {seed}):
        rest = dynamics[dynamics["seed"] == other].sort_values("epoch")
        _line(grid, rest["epoch"], rest["margin"], f"margin, seed {other}", GRAY, 1, 0.35, row=2)
    _line(grid, epoch, margin, "margin", BLUE, 1.5, row=2)
    running = np.cumsum(margin) / np.arange(1, len(margin) + 1)
    _line(grid, epoch, running, "running AUM", PURPLE, 3, row=2)
    label_end(
        grid,
        float(epoch[-1]),
        float(running[-1]),
        f"AUM {running[-1]:.2f}".replace("-", "\N{MINUS SIGN}"),
        PURPLE,
        row=2,
        col=1,
    )
    if dynamics["seed"].nunique() > 1:  # the score is the mean over them
        label_end(grid, float(epoch[-1]), float(running[-1]), f"of seed {seed}", PURPLE, yshift=-15, row=2, col=1)
    grid.add_hline(y=0, line={"color": GRAY, "width": 1}, row=2, col=1)
    if adds is not None and len(adds) == len(epoch):
        _bands(grid, epoch, adds)
    _line(grid, epoch, one["p_given"], f"p({names[label]})", BLUE, 2, row=3)
    for row, title in enumerate(("logit", "margin", "p given"), start=1):
        grid.update_yaxes(title=title, gridcolor=GRID, zeroline=False, row=row, col=1)
    grid.update_yaxes(range=[0, 1.02], dtick=0.5, row=3, col=1)
    grid.update_xaxes(showgrid=False, zeroline=False, range=[float(epoch[0]), float(epoch[-1])])
    grid.update_xaxes(title="epoch", row=3, col=1)
    grid.update_xaxes(**whole_epochs(float(epoch[-1])))
    return grid


def _bands(figure: go.Figure, epoch: np.ndarray[Any, Any], adds: np.ndarray[Any, Any]) -> None:
    """A band for each epoch behind p_given: vermilion where it speaks for a wrong label, green where for a right one."""
    strongest = max(float(np.abs(adds).max()), 1e-9)
    colors = [with_alpha(VERMILION if v > 0 else GREEN, round(0.7 * abs(float(v)) / strongest, 3)) for v in adds]
    figure.add_bar(
        x=epoch,
        y=np.full(len(epoch), 1.02),
        width=1,
        marker={"color": colors, "line": {"width": 0}},
        customdata=adds,
        name="detector",
        showlegend=False,
        hovertemplate="epoch %{x} adds %{customdata:+.3f} to the detector's<br>probability of a wrong label<extra></extra>",
        row=3,
        col=1,
    )
    for value, place in ((float(adds.max()), 0.75), (float(adds.min()), 0.25)):
        if (value > 0) == (place > 0.5) and abs(value) >= 0.0005:
            color = VERMILION if value > 0 else GREEN
            text = f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
            label_end(figure, float(epoch[-1]), place, f"{text} at most", color, row=3, col=1)


def _line(
    figure: go.Figure, x: Any, y: Any, name: str, color: str, width: float, opacity: float = 1, row: int = 1
) -> None:
    name = chart_text(name)
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        name=name,
        line={"color": color, "width": width},
        opacity=opacity,
        showlegend=False,
        hovertemplate=f"{name} %{{y:.3f}}<br>epoch %{{x}}<extra></extra>",
        row=row,
        col=1,
    )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights moved apart upwards until each is at least a gap above the one before: labels that do not collide."""
    out: list[float] = []
    for height in heights:
        out.append(max(height, out[-1] + gap) if out else height)
    return out


def label_end(figure: go.Figure, x: float, y: float, text: str, color: str, **more: Any) -> None:
    """Name a line at its end, in its color: no legend to look up."""
    figure.add_annotation(
        x=x,
        y=y,
        text=chart_text(text),
        font={"color": color, "size": 13},
        showarrow=False,
        xanchor="left",
        xshift=6,
        **more,
    )
