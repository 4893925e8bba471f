"""Figure of ROP: relabeling by neighboring-label inconsistency."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard import data
from dashboard.charts import BLUE, FAINT, new_figure
from dashboard.figures.declare import paper_figure
from dashboard.figures.needs import Needs


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
