"""The figures of the papers, drawn from this dataset's runs; where one is missing, the command and what it takes."""

from __future__ import annotations

import streamlit as st

from dashboard import charts, data, launching, state, widgets
from dashboard.figures.declare import all_figures
from dashboard.figures.needs import Needs
from dashboard.markup import plain

PAGE = {"title": "Figures", "icon": ":material/auto_stories:", "place": 80, "section": "Analyze"}

view = widgets.current_view()
widgets.need_run(view)
figures = all_figures()
if not state.get("figure"):  # opens on the first that this dataset's runs can draw
    drawn = (name for name, one in figures.items() if one.draw(Needs(view)) is not None)
    first = next(drawn, next(iter(figures)))
else:
    first = next(iter(figures))
with st.container(width=560):
    name = widgets.choose(
        "Figure", "figure", list(figures), first, titles=lambda n: f"{figures[n].title} · {figures[n].source}"
    )
chosen = figures[name]
st.markdown(f"#### {chosen.title}&ensp;:gray[:small[{chosen.source}]]")
st.caption(plain(chosen.caption))
needs = Needs(view)
if chosen.percentile:
    with st.sidebar:
        given = state.real_number(state.get("percentile"))
        st.session_state["pick_percentile"] = given if given is not None and 50 <= given <= 99.9 else 99.0
        needs.percentile = st.slider(
            "Percentile of the threshold samples",
            50.0,
            99.9,
            step=0.1,
            key="pick_percentile",
            on_change=lambda: state.put(percentile=f"{st.session_state['pick_percentile']:g}"),
        )
drawing = chosen.draw(needs)
if drawing is not None:
    key = "panels" if len(list(drawing.select_xaxes())) > 1 else "figure"
    st.plotly_chart(drawing, config=charts.NO_BAR, key=f"{key}_{name}")
    titles = {job.run_id: f"{job.dataset}: {job.title}" for job in data.jobs() if job.run_id in needs.runs}
    st.caption("Drawn from " + " · ".join(f"{plain(titles.get(r, r))} ({r})" for r in dict.fromkeys(needs.runs)))


@widgets.guarded
def missing() -> None:
    """What the figure lacks, with what makes it; and what is being computed, until the figure can be drawn."""
    waiting = launching.pending()
    running = [job for job in data.jobs() if job.state == "running"]
    live = waiting or bool(running) or launching.offering()
    shown_runs = st.session_state.setdefault("winnow_figure_runs", data.published())
    if live != st.session_state.get("winnow_computing", False) or shown_runs != data.published():
        st.session_state["winnow_computing"] = live
        st.session_state["winnow_figure_runs"] = data.published()
        st.rerun()
    offered: set[tuple[str, ...]] = set()
    for text, command in needs.missing:
        st.markdown(plain(text))
        if command:
            launching.offer(command, offered)
    for job in running[:3]:
        launching.job_bar(job, waiting)


st.fragment(missing, run_every=1.5 if st.session_state.get("winnow_computing") else None)()
