"""Psi-curves: start, watch and pause them; test accuracy against the share pruned, point by point as they are trained."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import charts, data, launching, proving, psi_points, state, widgets
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


@widgets.guarded
def draw() -> None:
    """The jobs of this dataset that are not done, the points of the chosen curves as they stand, and what is gained."""
    now = curves_of(data.jobs(view.at.dataset))
    waiting = launching.pending()
    for job in [job for job in now if job.state != "done"][:6]:
        launching.job_bar(job, waiting)
    running = [job.run_id for job in [*now, *data.proofs.of(view.at)] if job.state == "running"]
    live = waiting or bool(running)
    if live != st.session_state.get("winnow_live", False) or {j.run_id for j in now} != {j.run_id for j in here}:
        st.session_state["winnow_live"] = live
        st.rerun()
    points = data.psi_points(chosen)
    if points.empty and chosen:
        st.caption("The first points appear as soon as they are trained.")
    windows = data.window_points(points)
    if len(windows):
        st.plotly_chart(cg_paper.window_figure(windows, pd.DataFrame()), config=charts.NO_BAR, key="windows")
        points = points[~points["run_id"].isin(windows["run_id"])]
    if len(points):
        means = psi_points.means_of(points)
        psi_points.draw_chart(points, means, short_names(chosen))
    with st.container(border=True):
        proving.card(view, proving.sources_of(view), waiting)
    if len(points):
        psi_points.draw_table(means, short_names(chosen))


with st.container():
    chosen = choose_runs() if jobs else []
    if not here:
        st.markdown(f"#### {plain(view.at.dataset)} has no psi-curve yet")
        st.caption(
            "Prune more and more by each order, train a new network at every point, and see what accuracy is left."
        )
with st.expander("Start a curve", icon=":material/add:", expanded=not here):
    launching.curve_form(view)
st.fragment(draw, run_every=1.5 if st.session_state.get("winnow_live") else None)()
if view.run_id and data.training(view.at, view.run_id):
    # A toggle, not an expander: what is shut away there would be computed on every visit.
    if st.toggle("Choose the epoch of a score", key="epoch_open"):
        launching.epoch_mover(view)
