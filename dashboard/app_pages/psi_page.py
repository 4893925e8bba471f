"""Psi-curves: start, watch and pause them; test accuracy against the share pruned, point by point as they are trained."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import charts, data, launching, psi_charts, state, widgets
from dashboard.figures import cg_paper
from dashboard.markup import plain

PAGE = {"title": "Psi curves", "icon": ":material/content_cut:", "place": 70, "section": "Analyze"}

view = widgets.current_view()
broken = data.unreadable(view.at)


def curves_of(jobs: list[data.Job]) -> list[data.Job]:
    """Those of the jobs that compute psi-curves; the overview tells of those that cannot be read."""
    return [job for job in jobs if job.kind == "psi" and job.state != "unreadable" and job.run_id not in broken]


jobs = sorted(curves_of(data.jobs()), key=lambda job: job.dataset != view.at.dataset)
here = [job for job in jobs if job.dataset == view.at.dataset]


def title_of(job: data.Job) -> str:
    ending = {"done": "", "running": " (running)", "cancelled": " (paused)"}.get(job.state, f" ({job.state})")
    return f"{job.dataset} · {job.title.removeprefix('psi: ') or job.run_id}{ending}"


def choose_runs() -> list[str]:
    """The curves that are drawn: those of the address, else the latest of this dataset and what is being computed."""
    titles = {job.run_id: title_of(job) for job in jobs}
    given = [r for r in state.get("psi").split(",") if r in titles]
    running = [job.run_id for job in here if job.state == "running"]
    st.session_state["pick_psi"] = given or list(dict.fromkeys([*(job.run_id for job in here[:1]), *running]))
    st.multiselect(
        "Curves",
        list(titles),
        format_func=lambda r: data.shown(titles[r], 120),
        key="pick_psi",
        on_change=lambda: state.put(psi=",".join(st.session_state["pick_psi"])),
        help="of this dataset and of others",
    )
    picked: list[str] = st.session_state["pick_psi"]
    return picked


def short_names(chosen: list[str]) -> dict[str, str]:
    """What each chosen run is called beside its orders: its dataset, and its id where that is not enough."""
    datasets = {job.run_id: job.dataset for job in jobs if job.run_id in chosen}
    several = [d for d in datasets.values() if list(datasets.values()).count(d) > 1]
    return {r: f"{d} {r[:4]}" if d in several else d for r, d in datasets.items()}


def with_composition(means: pd.DataFrame) -> pd.DataFrame:
    """The means with kept, smallest, largest, noise (NaN where they cannot be known), and all that in words."""
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


def table(means: pd.DataFrame, names: dict[psi_charts.Curve, str]) -> tuple[str, str, int] | None:
    """Every point as a row; the one that is selected is ringed on the chart. Returns it."""
    shown = means.assign(
        curve=[data.shown(names[r.run_id, r.order], 80) for r in charts.rows(means)], noise=100 * means["noise"]
    )
    shown["classes"] = [
        f"{a:.0f} to {b:.0f}" if a == a else "" for a, b in zip(means["smallest"], means["largest"], strict=True)
    ]
    percent = st.column_config.NumberColumn
    event = st.dataframe(
        shown[["curve", "share", "kept", "mean", "low", "high", "seeds", "classes", "noise"]],
        hide_index=True,
        height=280,
        key="points",
        on_select="rerun",
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
    picked = event["selection"]["rows"]
    if not picked or picked[0] >= len(means):
        return None
    row = means.iloc[picked[0]]
    return str(row["run_id"]), str(row["order"]), int(row["pruned"])


@widgets.guarded
def draw() -> None:
    """The jobs of this dataset that are not done, and the points of the chosen curves as they stand."""
    now = curves_of(data.jobs(view.at.dataset))
    waiting = launching.pending()
    for job in [job for job in now if job.state != "done"][:6]:
        launching.job_bar(job, waiting)
    live = waiting or any(job.state == "running" for job in now)
    if live != st.session_state.get("winnow_live", False) or {j.run_id for j in now} != {j.run_id for j in here}:
        st.session_state["winnow_live"] = live
        st.rerun()
    points = data.psi_points(chosen)
    if points.empty:
        if chosen:
            st.caption("The first points appear as soon as they are trained.")
        return
    windows = data.window_points(points)
    if len(windows):
        st.plotly_chart(cg_paper.window_figure(windows, pd.DataFrame()), config=charts.NO_BAR, key="windows")
        points = points[~points["run_id"].isin(windows["run_id"])]
    if points.empty:
        return
    means = with_composition(psi_charts.curve_means(points))
    names = psi_charts.curve_names(means, short_names(chosen))
    place = st.container()
    tolerance = st.slider(
        "Tolerance", 0.1, 10.0, 1.0, 0.1, format="%.1f points", key="tolerance", width=360,
        help="A cross marks the first point of a curve that falls further below the full set, a star its best point.",
    )  # fmt: skip
    marks = psi_charts.curve_marks(means, tolerance)
    words = [
        f"{plain(names[m.run_id, m.order])} **{m.within:.0f} %** (best {m.best:.1f} % at {m.best_at:.0f} %)"
        for m in charts.rows(marks)
    ]
    for run_id, some in marks.groupby("run_id", sort=False):
        who = f"{short_names(chosen)[str(run_id)]}: with" if len(chosen) > 1 else "With"
        st.markdown(f"{plain(who)} every sample {some['full'].iloc[0]:.1f} %.")
    if words:
        st.markdown(f"Pruned before accuracy falls more than {tolerance:.1f} points below that: " + " · ".join(words))
    ring = table(means, names)
    place.plotly_chart(psi_charts.psi_chart(points, means, names, marks, ring), config=charts.NO_BAR, key="psi")


with st.container():
    chosen = choose_runs() if jobs else []
    if not here:
        st.markdown(f"#### {plain(view.at.dataset)} has no psi-curve yet")
        st.caption(
            "Prune more and more by each order, train a new network at every point, and see what accuracy is left."
        )
st.fragment(draw, run_every=1.5 if st.session_state.get("winnow_live") else None)()
with st.expander("Start a curve", icon=":material/add:", expanded=not here):
    launching.curve_form(view)
if view.run_id and data.training(view.at, view.run_id):
    # A toggle, not an expander: what is shut away there would be computed on every visit.
    if st.toggle("Choose the epoch of a score", key="epoch_open"):
        launching.epoch_mover(view)
