"""Winnow's dashboard: page config, navigation, shared pickers. A router."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard import data, login, navigation, state, widgets

# A sieve of nine pixels, one of which does not belong. Drawn here: an icon by name would be fetched from outside.
DOTS = "".join(
    f'<rect x="{2 + 10 * x}" y="{2 + 10 * y}" width="8" height="8" rx="2" fill="{"#d9571c" if (x, y) == (2, 0) else "#2b8aa8"}"/>'
    for x in range(3)
    for y in range(3)
)
ICON = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{DOTS}</svg>'
LOGO = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 156 32">{DOTS}<text x="42" y="24" fill="#2b8aa8" '
    'font-family="Source Sans, Source Sans Pro, sans-serif" font-size="24" font-weight="700">winnow</text></svg>'
)

st.set_page_config(page_title="Winnow", page_icon=ICON, layout="wide")
st.logo(LOGO, size="large")
st.html(Path(__file__).with_name("static") / "page.css")

login.require()
pages = navigation.all_pages()
first = pages[0]
entries = [
    # The first page opens at the root of the server, where Streamlit gives it no path of its own: see `named`.
    st.Page(
        page.file,
        title=page.title,
        icon=page.icon,
        url_path="" if page == first else page.address,
        default=page == first,
    )
    for page in pages
]


def at_the_root() -> None:
    """The first page, opened by its own address."""
    st.switch_page(entries[0], query_params=st.query_params.to_dict())


named = st.Page(at_the_root, title=first.title, url_path=first.address, visibility="hidden")
sections: dict[str, list[st.Page | str | Path]] = {"": [named]}
for page, entry in zip(pages, entries, strict=True):
    sections.setdefault(page.section, []).append(entry)
opened = st.navigation(sections, position="top")
if opened == named:
    opened.run()
page = pages[entries.index(opened)]


@st.fragment(run_every=3)
def follow() -> None:
    """Draw the page anew when a run or a dataset is published, or somebody else decides; note which address the browser
    has by now."""
    state.chosen()
    if st.session_state.get("winnow_published") != data.published() or data.decisions.is_news():
        st.rerun()


st.session_state["winnow_published"] = data.published()
data.decisions.drawn()
follow()
if data.read_only():
    why = "Nothing is decided, started, saved or removed on this server: winnow dashboard --read-only."
    st.sidebar.badge("read-only", icon=":material/lock:", color="gray", help=why)
try:
    if page.pickers:
        widgets.shared_pickers()
    opened.run()
except data.WinnowError as error:
    widgets.error_box(error)
