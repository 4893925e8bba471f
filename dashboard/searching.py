"""Search by an image of one's own: what was found stands in the gallery until it is taken back."""

from __future__ import annotations

import streamlit as st

from dashboard import data
from dashboard.data import View
from dashboard.data.similar import Similar
from dashboard.markup import plain

_FOUND, _UPLOADS = "winnow_similar", "winnow_uploads"
COUNT = 96
SUFFIXES = ["bmp", "gif", "jpg", "jpeg", "png", "ppm", "tif", "tiff", "webp"]


def search_by_image(view: View) -> None:
    """Draw the place for an image; when one is given, look for what is near it by the features of the run.

    A dashboard that only shows starts no process, so it has no such place.
    """
    if data.read_only():
        return
    with st.expander("Search by an image"):
        # Another key empties the place: Streamlit would give the same image again with every drawing.
        key = f"upload_{st.session_state.get(_UPLOADS, 0)}"
        given = st.file_uploader("An image of your own", SUFFIXES, key=key, label_visibility="collapsed")
        if given is None:
            st.caption("Its nearest samples by the features of this run. The image stays on this machine.")
            return
        try:
            with st.spinner("Comparing its features with all stored ones …"):
                found = data.similar.find_similar(view.at, view.run_id, given.name, given.getvalue(), COUNT)
        except data.WinnowError as error:
            st.error(plain(error), icon=":material/error:")
            return
    st.session_state[_FOUND] = found
    st.session_state[_UPLOADS] = st.session_state.get(_UPLOADS, 0) + 1
    st.rerun()


def found_similar(view: View) -> Similar | None:
    """What is near the image that was given, if it was for this run of this dataset."""
    found = st.session_state.get(_FOUND)
    return found if isinstance(found, Similar) and found.at == (view.at.dataset, view.run_id) else None


def similar_chip(found: Similar) -> None:
    """A chip that takes the search back."""
    with st.container(horizontal=True, vertical_alignment="center", key="chips", width="content"):
        st.markdown(f"**{len(found.ids):,}** nearest", width="content")
        st.button(
            plain(f"like {data.shown(found.name, 60)}"),
            key="chip_similar",
            icon=":material/close:",
            icon_position="right",
            on_click=lambda: st.session_state.pop(_FOUND, None),
        )
