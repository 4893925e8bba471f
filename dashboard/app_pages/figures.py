"""The figures of the papers, drawn from this dataset's runs; where a run is missing, the command that makes it."""

from __future__ import annotations

import streamlit as st

from dashboard import charts, data, paper, widgets

view = widgets.current_view()
widgets.need_run(view)
name = widgets.choose(
    "Figure",
    "figure",
    list(paper.FIGURES),
    "prune-1",
    lambda n: paper.FIGURES[n].title,
    segments=True,
    collapsed=True,
)
chosen = paper.FIGURES[name]
st.markdown(f"#### {chosen.title}&ensp;:gray[:small[{widgets.plain(chosen.caption)}]]")
shown = chosen.load(view)
if shown.figure is not None:
    st.plotly_chart(shown.figure, config=charts.NO_BAR, key=f"figure_{name}")
    titles = {job.run_id: f"{job.dataset}: {job.title}" for job in data.jobs() if job.run_id in shown.runs}
    st.caption(
        "Drawn from " + " · ".join(f"{widgets.plain(titles.get(r, r))} ({r})" for r in dict.fromkeys(shown.runs))
    )
for text, command in shown.missing:
    st.markdown(widgets.plain(text))
    if command:
        st.code(command, language="bash")
