"""Winnow's dashboard: page config, navigation, shared pickers. A router."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard import data, widgets

PAGES = (
    ("overview", "Overview", ":material/dashboard:"),
    ("gallery", "Gallery", ":material/grid_view:"),
    ("trajectories", "Trajectories", ":material/show_chart:"),
    ("scores", "Scores", ":material/bar_chart:"),
    ("compare", "Compare", ":material/scatter_plot:"),
    ("embedding", "Embedding", ":material/bubble_chart:"),
    ("psi", "Psi curves", ":material/content_cut:"),
    ("figures", "Figures", ":material/auto_stories:"),
    ("export", "Export", ":material/download:"),
)

# A sieve of nine pixels, one of which does not belong. Drawn here: an icon by name would be fetched from outside.
DOTS = "".join(
    f'<rect x="{2 + 10 * x}" y="{2 + 10 * y}" width="8" height="8" rx="2" fill="{"#d9571c" if (x, y) == (2, 0) else "#2b8aa8"}"/>'
    for x in range(3)
    for y in range(3)
)
ICON = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{DOTS}</svg>'
LOGO = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 140 32">{DOTS}<text x="42" y="24" fill="#2b8aa8" '
    'font-family="Source Sans, Source Sans Pro, sans-serif" font-size="24" font-weight="700">winnow</text></svg>'
)

st.set_page_config(page_title="Winnow", page_icon=ICON, layout="wide")
st.logo(LOGO, size="large")
st.html(Path(__file__).with_name("static") / "page.css")

here = Path(__file__).with_name("app_pages")
page = st.navigation(
    [
        st.Page(here / f"{name}.py", title=title, icon=icon, url_path=name, default=name == "overview")
        for name, title, icon in PAGES
    ],
    position="top",
)


@st.fragment(run_every=3)
def follow() -> None:
    """Draw the page anew when a run or a dataset is published."""
    now = data.published()
    if st.session_state.setdefault("winnow_published", now) != now:
        st.session_state["winnow_published"] = now
        st.rerun()


follow()
try:
    widgets.shared_pickers()
    page.run()
except data.WinnowError as error:
    widgets.error_box(error)
