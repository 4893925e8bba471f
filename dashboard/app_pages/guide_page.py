"""How to use Winnow: a chapter at a time, from your first photographs to adding a score."""

from __future__ import annotations

from urllib.parse import urlencode

import streamlit as st

from dashboard import chapters, state
from dashboard.chapters import Picture

PAGE = {"title": "Guide", "icon": ":material/menu_book:", "place": 100, "pickers": False}

found = {chapter.name: chapter for chapter in chapters.all_chapters()}
if not found:
    st.info("This installation of Winnow has no guide.", icon=":material/menu_book:")
    st.stop()
chapter = found.get(state.get("chapter"), next(iter(found.values())))
with st.sidebar:
    for other in found.values():
        st.page_link(
            "app_pages/guide_page.py",
            label=f"**{other.title}**" if other == chapter else other.title,
            query_params=state.link(chapter=other.name),
        )
with st.container(width=860, key="guide"):
    for piece in chapters.pieces(chapter, lambda name: f"guide?{urlencode(state.link(chapter=name))}"):
        if isinstance(piece, Picture):
            st.image(piece.file, alt=piece.alt)
        else:
            st.markdown(piece, unsafe_allow_html=True)
