"""Filters saved under a name: opened, saved and removed in the sidebar."""

from __future__ import annotations

import streamlit as st

from dashboard import data, state
from dashboard.data import View
from dashboard.markup import plain

_FAILED = "winnow_saving_failed"


def saved_filters(view: View) -> None:
    """Draw the saved filters of a dataset: a list to open one, and a name to save what is filtered now."""
    found = data.decisions.saved_filters(view.at)
    queries = dict(zip(found["name"].astype(str), found["query"].astype(str), strict=True))
    now = state.filter_query()
    current = next((name for name, query in queries.items() if query == now), "")
    if data.read_only() and not queries:
        return
    with st.expander("Saved filters", expanded=bool(current)):
        if queries:
            key = "pick_saved"
            st.session_state[key] = current
            st.selectbox(
                "Open",
                ["", *queries],
                key=key,
                on_change=lambda: state.choose_filter(queries.get(st.session_state[key], "")),
                format_func=lambda name: data.shown(name, 80) or "none",
                label_visibility="collapsed",
            )
        if current and not data.read_only():
            st.button(
                "Remove it", icon=":material/delete:", on_click=lambda: _do(data.decisions.remove_filter, view, current)
            )
        elif now and not current and not data.read_only():
            st.text_input("Save this filter as", key="save_as", max_chars=80, on_change=lambda: _save(view, now))
        elif not queries:
            st.caption("Filter first, and give the filter a name here; everybody who opens this workspace sees it.")
        if message := st.session_state.pop(_FAILED, ""):
            st.error(plain(message))


def _save(view: View, query: str) -> None:
    name = str(st.session_state["save_as"]).strip()
    st.session_state["save_as"] = ""
    if name:
        _do(data.decisions.save_filter, view, name, query)


def _do(work: object, view: View, *given: str) -> None:
    """Do what a click wants; an expected error is shown by the next drawing."""
    try:
        work(view.at, *given)  # type: ignore[operator]
    except data.WinnowError as error:
        st.session_state[_FAILED] = str(error)
