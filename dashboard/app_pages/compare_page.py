"""Two scores of the same samples, or of two runs; one score and a threshold; before and after noise; all scores at once."""

from __future__ import annotations

from dashboard import comparing, data, widgets

PAGE = {"title": "Compare", "icon": ":material/scatter_plot:", "place": 50}

view = widgets.current_view()
widgets.need_run(view)
KINDS = {
    "pair": ("Two scores", comparing.two_scores),
    "threshold": ("One score", comparing.one_score),
    "runs": ("Two runs", comparing.two_runs),
    "noise": ("Before and after noise", comparing.before_and_after),
    "all": ("All scores", comparing.all_scores),
}
if data.catalog(view.at, view.run_id).empty:
    widgets.empty("This run has no scores.", "run", view.at.dataset, "--scores", "all")
kind = widgets.choose("Compare", "compare", list(KINDS), "pair", lambda k: KINDS[k][0], segments=True, collapsed=True)
KINDS[kind][1](view)
