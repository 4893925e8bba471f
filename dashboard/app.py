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
    ("export", "Export", ":material/download:"),
)

st.set_page_config(page_title="Winnow", page_icon=":material/filter_alt:", layout="wide")
st.html(Path(__file__).with_name("static") / "page.css")

here = Path(__file__).with_name("app_pages")
page = st.navigation(
    [st.Page(here / f"{name}.py", title=title, icon=icon, url_path=name, default=name == "overview") for name, title, icon in PAGES],
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
