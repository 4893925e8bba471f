"""The figures of the papers, drawn from this dataset's runs; where a run is missing, the command that makes it."""

from __future__ import annotations

import streamlit as st

from dashboard import charts, data, state, widgets
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
drawing = chosen.draw(needs)
if drawing is not None:
    key = "panels" if len(list(drawing.select_xaxes())) > 1 else "figure"
    st.plotly_chart(drawing, config=charts.NO_BAR, key=f"{key}_{name}")
    titles = {job.run_id: f"{job.dataset}: {job.title}" for job in data.jobs() if job.run_id in needs.runs}
    st.caption("Drawn from " + " · ".join(f"{plain(titles.get(r, r))} ({r})" for r in dict.fromkeys(needs.runs)))
for text, command in needs.missing:
    st.markdown(plain(text))
    if command:
        st.code(data.shown(command, 10_000, "\n"), language="bash", wrap_lines=True)
