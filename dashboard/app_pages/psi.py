"""psi-curves: test accuracy against the share pruned, an order each, points appearing while they are computed."""

from __future__ import annotations

import streamlit as st

from dashboard import charts, curves, data, state, widgets

view = widgets.current_view()
runs = data.runs(view.at)
runs = runs[runs["kind"] == "psi"]
unfinished = [job for job in data.jobs(view.at.dataset) if job.kind == "psi" and job.state != "done"]
running = [job for job in unfinished if job.state == "running"]
titles = widgets.run_titles(runs) if len(runs) else {}
titles |= {job.run_id: f"{job.title or job.run_id} ({job.state})" for job in unfinished}
if not titles:
    widgets.empty(
        f"{view.at.dataset} has no psi-curve yet. This prunes by four orders and trains at every point:",
        f"winnow psi {view.at.dataset} --orders 'random,el2n,el2n*,oracle'",
    )

asked = [r for r in state.get("psi").split(",") if r in titles]
chosen = asked or [next(iter(titles)), *(job.run_id for job in running)]
st.session_state["pick_psi"] = list(dict.fromkeys(chosen))
st.multiselect(
    "Curves",
    list(titles),
    format_func=lambda r: titles[r],
    key="pick_psi",
    on_change=lambda: state.put(psi=",".join(st.session_state["pick_psi"])),
)


@widgets.guarded
def draw() -> None:
    """The curves of the chosen runs; those being computed are read from their journals."""
    found = data.psi_curves(view.at, st.session_state["pick_psi"])
    for job in data.jobs(view.at.dataset):
        if job.run_id in st.session_state["pick_psi"] and job.state == "running":
            left = f" · {widgets.duration(job.seconds_left)} left" if job.seconds_left is not None else ""
            st.progress(
                min(1.0, job.fraction),
                text=f"{widgets.plain(job.title or job.run_id)} · {widgets.plain(job.stage)} · {100 * job.fraction:.0f} %{left}",
            )
    if found.empty:
        st.caption("The first points appear as soon as they are trained.")
        return
    st.plotly_chart(curves.psi_chart(found), config=charts.NO_BAR, key="psi")
    full = found[found["kept_fraction"] == 1]["accuracy"].mean() * 100
    best = found.groupby(["order", "kept_fraction"])["accuracy"].mean().mul(100)
    lines = []
    for order in dict.fromkeys(found["order"]):
        means = best[order].sort_index()
        good = means[means >= full - 1]
        if len(good):
            lines.append(f"**{widgets.plain(order)}** {100 * (1 - good.index.min()):.0f} %")
    if full == full and lines:
        st.markdown(
            f"With every sample {full:.1f} %. Most that can be pruned within 1 point of it: " + " · ".join(lines)
        )


if any(job.run_id in chosen for job in running):
    st.fragment(draw, run_every=1.5)()
else:
    draw()
if len(running) == 0:
    with st.expander("Compute another"):
        st.code(
            f"winnow psi {view.at.dataset} --orders 'random,el2n,el2n*,oracle' --points 10 --seeds 3", language="bash"
        )
