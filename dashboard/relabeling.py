"""Starting a relabeling from the review: its form with the time that it takes, and how far it is."""

from __future__ import annotations

import shlex

import streamlit as st

from dashboard import data, launching, widgets
from dashboard.data import View

METHODS = {
    "vote": "vote of the run's networks",
    "neighbors": "vote of the nearest neighbors",
    "sop+": "SOP+, trains a network",
    "dividemix": "DivideMix, trains two networks",
    "debug": "suspects, by a network trained without them",
    "rop": "ROP: select, then correct",
}
"""What `winnow relabel --method` takes, in the words of a person who chooses; the first two train nothing."""

UNTRAINED = ("vote", "neighbors")
LEARNERS = ("sop+", "dividemix")


def draw(view: View) -> None:
    """The relabelings of this dataset that are being computed, and the form that starts another one; in the sidebar."""

    @widgets.guarded
    def follow() -> None:
        _follow(view)

    st.fragment(follow, run_every=1.5 if st.session_state.get("winnow_relabeling") else None)()


def _follow(view: View) -> None:
    waiting = launching.pending()
    jobs = [job for job in data.jobs(view.at.dataset) if job.kind == "relabel" and job.state != "done"]
    jobs = [job for job in jobs if job.state != "unreadable"]
    live = waiting or any(job.state == "running" for job in jobs) or launching.offering()
    published = data.published()
    shown = st.session_state.setdefault("winnow_suggesting_runs", published)
    if live != st.session_state.get("winnow_relabeling", False) or shown != published:
        st.session_state["winnow_relabeling"] = live
        st.session_state["winnow_suggesting_runs"] = published
        st.rerun()
    for job in jobs[:2]:
        launching.job_bar(job, waiting)
    with st.popover("Other suggestions", icon=":material/auto_fix_high:", width="stretch"):
        _form(view)


def _form(view: View) -> None:
    """Which relabeling, and the button that says its time and starts it."""
    st.caption("Labels proposed by another method, each with a confidence. No label is changed by it.")
    method = st.selectbox("Method", list(METHODS), format_func=lambda name: METHODS[name], key="relabel_method")
    words = ["winnow", "relabel", view.at.dataset, "--method", method]
    if method == "rop":
        words += ["--learner", st.selectbox("Learner", LEARNERS, key="relabel_learner")]
    if method not in UNTRAINED:
        epochs = st.number_input(
            "Epochs", 1, 10_000, None, key="relabel_epochs", placeholder="as many as the method needs", width="stretch"
        )
        words += [] if epochs is None else ["--epochs", str(epochs)]
    words += [] if view.run_id == data.best_run(view.at) else ["--run", view.run_id]
    launching.offer(shlex.join(words), set())
