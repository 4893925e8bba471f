"""One sample's training in words: each value of a score once, and named for what it is. No Streamlit."""

from __future__ import annotations

import pandas as pd

from dashboard.charts import rows
from dashboard.grid import number

LEGEND = """<div class="legend wrapped">
<span><i class="line given"></i>given label</span><span><i class="line other"></i>the other class that leads most</span>
<span><i class="line thin"></i>other classes, or other seeds' margins</span>
<span><i class="ahead"></i>the given label leads</span><span><i class="behind"></i>hatched: another class leads</span>
<span><i class="line running"></i>running AUM: mean margin so far</span>{detector}</div>"""
"""What the lines and areas of `curves.trajectory_chart` mean."""

DETECTOR = """<span><i class="for"></i>the noise detector takes the epoch for a sign of a wrong label</span>
<span><i class="against"></i>for a sign of a right one; the stronger the color, the more</span>"""


def legend(detector: bool) -> str:
    """The legend as HTML. detector: whether what a noise detector makes of the epochs is drawn"""
    return LEGEND.format(detector=DETECTOR if detector else "")


def aums(dynamics: pd.DataFrame, scores: pd.DataFrame, flags: pd.DataFrame) -> str:
    """The mean `aum` over the seeds, and that of the threshold round with its threshold, as Markdown; "" without any.

    The one of the seed that is drawn stands in the chart.

    Args: scores with score, value; flags with rule, value, threshold, flagged
    """
    seeds = dynamics["seed"].nunique()
    parts = []
    mean = scores.loc[scores["score"] == "aum", "value"]
    if len(mean):
        parts.append(f"aum **{number(float(mean.iloc[0]))}**" + (f", the mean of {seeds} seeds" if seeds > 1 else ""))
    for rule in rows(flags[flags["rule"] == "aum_threshold"]):
        side = "below" if rule.value < rule.threshold else "not below"
        verdict = "**flags it**" if rule.flagged else "does not flag it"
        parts.append(
            f"{number(rule.value)} in the threshold round, {side} the threshold {number(rule.threshold)}: "
            f"aum_threshold {verdict}"
        )
    return "; ".join(parts) + "." if parts else ""
