"""The points of psi-curves on a page: the chart, what it says in words, and the table; a point and its row choose each other."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from dashboard import charts, data, psi_charts
from dashboard.markup import plain

Point = tuple[str, str, int]
"""A run, an order and the number pruned."""


def means_of(points: pd.DataFrame) -> pd.DataFrame:
    """The means of the points over seeds, with kept, smallest, largest, noise (NaN where unknown), and all that in words."""
    means = psi_charts.curve_means(points)
    parts = []
    for (run_id, order), curve in means.groupby(["run_id", "order"], sort=False):
        parts.append(curve.merge(data.kept_sets(str(run_id), str(order), curve["pruned"].to_list()), on="pruned"))
    out = pd.concat(parts, ignore_index=True)
    about = "<br>" + out["kept"].map("{:,} kept".format)
    classes = [
        f" · classes of {a:,.0f} to {b:,.0f}" if a == a else ""
        for a, b in zip(out["smallest"], out["largest"], strict=True)
    ]
    noise = [f" · {100 * share:.1f} % mislabeled" if share == share else "" for share in out["noise"]]
    return out.assign(about=about + classes + noise)


def _chose_row() -> None:
    """A row of the table is chosen, or none any more."""
    picked = st.session_state["points"]["selection"]["rows"]
    shown: list[Point] = st.session_state.get("psi_rows", [])
    st.session_state["psi_point"] = shown[picked[0]] if picked and picked[0] < len(shown) else None


def _chose_point() -> None:
    """A point of the chart is clicked; a click beside the points chooses none."""
    known = {psi_charts.in_chart(point): point for point in st.session_state.get("psi_rows", [])}
    clicked = [tuple((point.get("customdata") or [])[-3:]) for point in st.session_state["psi"]["selection"]["points"]]
    st.session_state["psi_point"] = next((known[point] for point in clicked if point in known), None)


def draw_table(means: pd.DataFrame, runs: Mapping[str, str]) -> None:
    """Every point as a row, the chosen one selected. runs: what each run is called where there are several"""
    names = psi_charts.curve_names(means, runs)
    chosen: Point | None = st.session_state.get("psi_point")
    listed = list(zip(means["run_id"], means["order"], means["pruned"].map(int), strict=True))
    st.session_state["psi_rows"] = listed
    st.session_state["points"] = {
        "selection": {
            "rows": [listed.index(chosen)] if chosen in listed else [],
            "columns": [],
            "cells": [],
        }
    }
    shown = means.assign(
        curve=[data.shown(names[r.run_id, r.order], 80) for r in charts.rows(means)], noise=100 * means["noise"]
    )
    shown["classes"] = [
        f"{a:.0f} to {b:.0f}" if a == a else "" for a, b in zip(means["smallest"], means["largest"], strict=True)
    ]
    percent = st.column_config.NumberColumn
    st.dataframe(
        shown[["curve", "share", "kept", "mean", "low", "high", "seeds", "classes", "noise"]],
        hide_index=True,
        height=280,
        key="points",
        on_select=_chose_row,
        selection_mode="single-row",
        column_config={
            "curve": "Order",
            "share": percent("Pruned", format="%.1f %%"),
            "kept": percent("Kept", format="localized"),
            "mean": percent("Accuracy", format="%.2f %%"),
            "low": percent("Lowest seed", format="%.2f %%"),
            "high": percent("Highest seed", format="%.2f %%"),
            "seeds": "Seeds",
            "classes": st.column_config.TextColumn("Samples of a class"),
            "noise": percent("Mislabeled", format="%.1f %%"),
        },
    )


def _summary(means: pd.DataFrame, names: Mapping[psi_charts.Curve, str], runs: Mapping[str, str]) -> pd.DataFrame:
    """How much can be pruned within a tolerance that is set here, in words. Returns what stands out on each curve."""
    tolerance = st.slider(
        "Tolerance", 0.1, 10.0, 1.0, 0.1, format="%.1f points", key="tolerance",
        help="A cross marks the first point of a curve that falls further below the full set, a star its best point.",
    )  # fmt: skip
    marks = psi_charts.curve_marks(means, tolerance)
    for run_id, some in marks.groupby("run_id", sort=False):
        who = f"{runs[str(run_id)]}: with" if len(runs) > 1 else "With"
        st.markdown(f"{plain(who)} every sample {some['full'].iloc[0]:.1f} %.")
    if len(marks):
        lines = [f"Pruned before accuracy falls more than {tolerance:.1f} points below that:", ""]
        lines += [
            f"- {plain(names[m.run_id, m.order])} **{m.within:.0f} %** (best {m.best:.1f} % at {m.best_at:.0f} %)"
            for m in charts.rows(marks)
        ]
        st.markdown("\n".join(lines))
        st.caption(
            "★ best point of a curve · ✕ first point below the tolerance · faint dots: single networks · band: from the "
            "lowest to the highest seed"
        )
    return marks


def draw_chart(points: pd.DataFrame, means: pd.DataFrame, runs: Mapping[str, str]) -> None:
    """The curves with what they say beside them. means: as of `means_of`; runs: what each run is called"""
    names = psi_charts.curve_names(means, runs)
    with st.container(horizontal=True, key="psi_halves"):
        chart, side = st.container(key="psi_chart"), st.container(key="psi_side")
    with side:
        marks = _summary(means, names, runs)
    figure = psi_charts.psi_chart(points, means, names, marks, st.session_state.get("psi_point"))
    chart.plotly_chart(figure, config=charts.NO_BAR, key="psi", on_select=_chose_point, selection_mode="points")
