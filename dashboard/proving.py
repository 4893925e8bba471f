"""What would I gain: the button that starts a proof, how far it is, and what it shows. Used by several pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import charts, data, launching, proof_charts, state
from dashboard.data import View
from dashboard.markup import command_line, plain

Sources = Mapping[str, Sequence[str]]
"""Of the curated sets that can be proved: what each is called, and the options of `winnow prove` that name it."""


def sources_of(view: View) -> Sources:
    """What can be proved of a dataset now: what is decided, that without the rest of the shortlist, and the named versions."""
    decided = data.decisions.current(view.at)["action"].value_counts()
    dropped, relabeled = (int(decided.get(action, 0)) for action in ("drop", "relabel"))
    found = {f"decided: {dropped:,} dropped, {relabeled:,} relabeled": ()} if dropped or relabeled else {}
    verdict = data.verdict(view.at, view.run_id)
    if verdict and verdict.listed:
        run = () if view.run_id == data.best_run(view.at) else ("--run", view.run_id)
        found["decided, shortlist dropped"] = ("--drop-shortlist", *run)
    return found | {
        f"version {version.name}": ("--version", version.name) for version in reversed(data.versions.versions(view.at))
    }


def card(view: View, sources: Sources, waiting: bool) -> None:
    """A form that starts a proof, the proofs that are being computed, and what the chosen one shows.

    waiting: a command is on its way to be a run, as `launching.pending` says
    """
    jobs = data.proofs.of(view.at)
    with st.container(horizontal=True, key="proof_halves"):
        side, chart = st.container(key="proof_side"), st.container(key="proof_chart") if jobs else None
    with side:
        st.markdown("##### What would I gain?")
        for job in [job for job in jobs if job.state != "done"][:3]:
            launching.job_bar(job, waiting)
        if chart is not None:
            _result(jobs, chart)
        else:
            st.caption(
                "Networks are trained on the curated set and on the full one, with the same seeds; the difference in "
                "test accuracy gets a 95 % interval."
            )
        if not sources:
            st.caption(
                "Drop or relabel samples first, or compute a run whose networks can tell which labels are wrong."
            )
            return
        with st.container(horizontal=True, vertical_alignment="bottom"):
            name = st.selectbox("Curated set", list(sources), format_func=data.shown, key="prove_set", width="stretch")
            seeds = launching.number_field(data.settings("training")["seeds"], 5, "prove_seeds")
            words = ["prove", view.at.dataset, *sources[name], "--seeds", str(seeds)]
            busy = waiting or any(job.state == "running" for job in jobs)
            label, command = "Prove it", command_line(words)
            if st.button(
                label,
                icon=":material/balance:",
                disabled=busy or data.read_only(),
                key="prove_start",
                help=f"`{command}`",
            ):
                launching.start(words)
                st.rerun()


def _result(jobs: Sequence[data.Job], place: DeltaGenerator) -> None:
    """The proof that is chosen in the address, else the latest: its sentence, and its chart in a place beside it."""
    titles = {job.run_id: job.title.removeprefix("prove: ") or job.run_id for job in jobs}
    chosen = state.get("proof") if state.get("proof") in titles else jobs[0].run_id
    if len(titles) > 1:
        st.session_state["pick_proof"] = chosen
        st.selectbox(
            "Proof",
            list(titles),
            format_func=lambda run_id: data.shown(titles[run_id], 120),
            key="pick_proof",
            on_change=lambda: state.put(proof=st.session_state["pick_proof"]),
            label_visibility="collapsed",
        )
    else:
        st.caption(plain(titles[chosen]))
    networks = data.proofs.networks(chosen)
    gain = data.proofs.gain(networks)
    if gain is None:
        st.caption("The first pair appears as soon as both of its networks are trained.")
        return
    st.markdown(f"**{plain(gain.sentence)}**")
    seeds = data.proofs.seeds(chosen)
    of = f" So far, of {seeds} seeds." if gain.pairs < seeds else ""
    true = data.proofs.gain(networks, "accuracy_true")
    by_truth = f" By the true labels: {true.sentence}." if true and true != gain else ""
    st.caption(plain(f"{gain.measured[:1].upper()}{gain.measured[1:]}.{of}{by_truth}"))
    chart = proof_charts.proof_chart(networks, gain.low, gain.high, seeds)
    place.plotly_chart(chart, config=charts.NO_BAR, key="proof")
