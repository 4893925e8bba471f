"""How to use Winnow, a chapter at a time: from your own photographs to adding a score."""

from __future__ import annotations

import html
from urllib.parse import urlencode

import streamlit as st

from dashboard import chapters, state
from dashboard.chapters import Picture

PAGE = {"title": "Guide", "icon": ":material/menu_book:", "place": 100, "pickers": False}


def address_of(name: str) -> str:
    """Where a chapter opens, with all that is chosen on the other pages."""
    return f"guide?{urlencode(state.link(chapter=name))}"


found = {chapter.name: chapter for chapter in chapters.all_chapters()}
if not found:
    st.info("This installation of Winnow has no guide.", icon=":material/menu_book:")
    st.stop()
chosen = found.get(state.get("chapter"), next(iter(found.values())))
with st.sidebar, st.container(key="chapters"):
    # Plain links: a chapter opens at its top, with its own address and its own step in the browser's history.
    for chapter in found.values():
        title = f"**{chapter.title}**" if chapter == chosen else chapter.title
        link = f'<a href="{html.escape(address_of(chapter.name))}" target="_self">{title}</a>'
        st.markdown(link, unsafe_allow_html=True)
with st.container(width=860, key="guide"):
    for piece in chapters.pieces(chosen, address_of):
        if isinstance(piece, Picture):
            st.image(piece.file, alt=piece.alt)
        else:
            st.markdown(piece, unsafe_allow_html=True)
