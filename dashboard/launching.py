"""Computing from the browser: the form of a curve, the bar of a job, the epoch of a score, what a figure lacks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboard import charts, data, psi_charts, state, widgets
from dashboard.data import View
from dashboard.markup import command_line, plain

STARTED = "winnow_started"


def start(words: Sequence[str]) -> None:
    """Start a command as its own process; `pending` follows it until it is a run."""
    st.session_state[STARTED] = data.start(words)


def pending() -> bool:
    """Say what became of the command that was started here last; whether it is still on its way to be a run."""
    started: data.Started | None = st.session_state.get(STARTED)
    if started is None:
        return False
    run_id = data.started_run(started)
    if run_id is None and started.running:
        st.progress(0.0, text=f"Starting {plain(command_line(started.words))}")
        return True
    if run_id is None and (message := started.message()):
        st.error(plain(message), icon=":material/error:")
        return False
    del st.session_state[STARTED]
    if run_id is None and started.words[0] in ("run", "psi", "prove", "relabel"):
        st.toast("It was computed before: it is on this page.", icon=":material/info:")
    a_curve = any(job.run_id == run_id and job.kind == "psi" for job in data.jobs())
    if run_id and a_curve and len(chosen := [r for r in state.get("psi").split(",") if r]) and run_id not in chosen:
        state.put(psi=",".join([*chosen, run_id]))
    return False


def job_bar(job: data.Job, waiting: bool) -> None:
    """How far a curve or a proof is, with the buttons that pause, resume and delete it.

    waiting: a command is on its way to be a run
    """
    title = f"**{plain(job.title or job.run_id)}**"
    with st.container(horizontal=True, vertical_alignment="center", key=f"job_{job.run_id}"):
        if job.state == "running":
            facts: list[str] = []
            if job.kind not in data.SCORED:  # of a run whose networks are trained side by side, the share says more
                done, per_minute = data.throughput(job.run_id)
                pace = f"{per_minute:.0f} a minute" if per_minute >= 10 else f"{per_minute:.1f} a minute"
                facts = [f"{done:,} network{'s' * (done != 1)}", *([pace] if done else [])]
            facts += [f"{widgets.duration(job.seconds_left)} left"] if job.seconds_left is not None else []
            text = " · ".join([title, f"{100 * job.fraction:.0f} %", *facts])
            st.progress(min(1.0, job.fraction), text=text, width="stretch")
            st.button(
                "Pause",
                icon=":material/pause:",
                key=f"pause_{job.run_id}",
                disabled=data.read_only(),
                on_click=act,
                args=(data.pause, job.run_id),
                help=f"Stops it within seconds and keeps what is trained, as `winnow cancel {job.run_id}` does.",
            )
        else:
            shown = "paused" if job.state == "cancelled" else job.state
            reason = f": {plain(job.message)}" if job.message else ""
            text = f"{title} · {100 * job.fraction:.0f} % · {shown}{reason}"
            st.progress(min(1.0, job.fraction), text=text, width="stretch")
            st.button(
                "Resume",
                icon=":material/play_arrow:",
                key=f"resume_{job.run_id}",
                disabled=waiting or data.read_only(),
                on_click=act,
                args=(lambda run_id: start(["resume", run_id]), job.run_id),
                help="Goes on after the last network that is trained.",
            )
        with st.popover("Cancel", icon=":material/delete:", disabled=data.read_only()):
            st.markdown("Stop this run and delete what it has trained?")
            st.button(
                "Delete it", type="primary", key=f"remove_{job.run_id}", on_click=act, args=(data.remove, job.run_id)
            )


def act(what: object, run_id: str) -> None:
    """Do something with a run; when it cannot be done any more, say so."""
    assert callable(what)
    try:
        what(run_id)
    except data.WinnowError as error:
        st.toast(plain(error), icon=":material/error:")


def networks(orders: int, points: int, seeds: int) -> int:
    """How many networks a curve trains: the full set once for all orders."""
    return seeds + (points - 1) * orders * seeds


def scores_of(view: View) -> list[str]:
    """Every score that some run of the dataset has."""
    runs = data.runs(view.at)
    found = {
        str(s) for run in runs[runs["kind"].isin(data.SCORED)]["run_id"] for s in data.catalog(view.at, run)["score"]
    }
    return sorted(found - {"random"})


def default_orders(scores: Sequence[str], truth_known: bool) -> list[str]:
    """Random, one good score both ways, and the oracle where it is known."""
    early = [s for s in scores if s.startswith("el2n@")]
    best = next((s for s in [*early, "el2n", "aum"] if s in scores), None)
    return ["random", *([best, f"{best}*"] if best else []), *(["oracle"] if truth_known else [])]


def number_field(setting: data.Setting, value: int, key: str) -> int:
    """The field of an option that is a whole number."""
    label = setting.name.replace("_", " ").capitalize()
    return int(st.number_input(label, setting.low, setting.high, value, key=key, width=110, help=setting.help))


def option_field(setting: data.Setting) -> list[str]:
    """The field of any option; its words on the command line, none while it has its default."""
    label, key = setting.name.replace("_", " ").capitalize(), f"new_{setting.name}"
    if isinstance(setting.default, bool):
        return [setting.flag] if st.checkbox(label, setting.default, key=key, help=setting.help) else []
    value: str | int
    if setting.choices:
        at = setting.choices.index(setting.default)
        value = st.selectbox(label, setting.choices, at, key=key, help=setting.help)
    else:
        value = number_field(setting, setting.default, key)
    return [] if value == setting.default else [setting.flag, str(value)]


def curve_form(view: View) -> None:
    """What a curve should be, how much work that is, and the button that starts it."""
    facts, scores = data.dataset_facts(view.at), scores_of(view)
    if not facts["test"]:
        st.markdown("A curve needs a test split to measure on, and this set has none.")
        st.code("winnow ingest NAME --from SOURCE --test-fraction 0.2", language="bash", wrap_lines=True)
        return
    known = bool(facts["known"])
    options = ["random", *(["oracle"] if known else []), *(o for s in scores for o in (s, f"{s}*"))]
    trained = data.training(view.at, view.run_id)
    with st.container(horizontal=True, vertical_alignment="bottom", key="curve_form"):
        orders = st.multiselect(
            "Prune by",
            options,
            default_orders(scores, known),
            key=f"new_orders_{view.at.dataset}",
            format_func=data.shown,
            accept_new_options=True,
            width="stretch",
            help="A score prunes the easiest first, with * the hardest. Any order that `winnow psi --orders` takes can be "
            "typed.",
        )
        of_curve, of_training = data.settings("psi"), data.settings("training")
        points = number_field(of_curve["points"], 10, "new_points")
        seeds = number_field(of_training["seeds"], 2, "new_seeds")
        default = int(trained.get("epochs", of_training["epochs"].default))
        epochs = number_field(of_training["epochs"], default, f"new_epochs_{view.run_id}")
        words = ["psi", view.at.dataset, "--orders", ",".join(orders), "--points", str(points), "--seeds", str(seeds)]
        words += ["--epochs", str(epochs)]
        with st.popover("Options", icon=":material/tune:"):
            for name, setting in of_curve.items():
                words += option_field(setting) if name != "points" else []
        started: data.Started | None = st.session_state.get(STARTED)
        busy = data.read_only() or not orders or (started is not None and started.running)
        if st.button("Start", icon=":material/play_arrow:", type="primary", disabled=busy, key="new_start"):
            start(words)
            st.rerun()
    st.caption(
        f"**{networks(len(orders), points, seeds):,} networks**, from all {facts['train']:,} training samples down to "
        f"{facts['train'] - (points - 1) * (facts['train'] // points):,}, {epochs} epochs each. The same from a terminal:"
    )
    st.code(command_line(words), language="bash", wrap_lines=True)


def epoch_mover(view: View) -> None:
    """How good and how steady a score of one epoch is at each, and the score of another epoch."""
    trained = data.training(view.at, view.run_id)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        column = st.segmented_control(
            "Score of one epoch", list(data.EPOCH_COLUMNS), default="el2n", key="epoch_column", required=True
        )
        quality = data.epoch_quality(view.at, view.run_id, column)
        if quality["stability"].notna().sum() < 1:
            st.caption("This run has recorded fewer than two epochs.")
            return
        last = int(quality["epoch"].max())
        first = min(last, next((int(e) for e in re.findall(r"el2n@([0-9]{1,4})", " ".join(scores_of(view)))), 5))
        epoch = st.slider("Epoch", 1, last, first, key=f"epoch_{view.run_id}", width=360)
        score = f"{data.EPOCH_COLUMNS[column][0]}@{epoch}"
        options = [word for name, value in trained.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        words = ["run", view.at.dataset, "--scores", score, *options]
        there = score in scores_of(view)
        if (
            st.button(f"Compute {plain(score)}", disabled=there or not trained or data.read_only(), key="epoch_start")
            and not there
        ):
            start(words)
            st.rerun()
    st.plotly_chart(psi_charts.epoch_chart(quality, column, epoch), config=charts.NO_BAR, key="epoch_chart")
    here = quality.set_index("epoch").loc[epoch]
    words = [f"**{plain(score)}**"]
    words += [f"ROC AUC {here['roc_auc']:.3f}"] if pd.notna(here["roc_auc"]) else []
    words += [f"Spearman {here['stability']:.3f} with epoch {epoch + 1}"] if pd.notna(here["stability"]) else []
    source = (
        "It is there: prune by it above." if there else "It is read from the dynamics of this run; nothing is trained."
    )
    st.caption(f"{' · '.join(words)}. {source if trained else ''}")


OFFERED = "winnow_offered"
"""Of the session: the process that finds out how long a command takes, which a person may start then."""

PLACES = {"NAME", "SOURCE", "DATASET"}
"""Words of a command that stand for what only a person knows."""

COMPUTED = ("run", "psi", "relabel", "ingest", "velocity", "gap")
"""The commands that say how long they take before they start."""


def offer(commands: str, offered_above: set[tuple[str, ...]]) -> None:
    """The commands that make what is missing, and a button for the first that is not computed yet.

    How long a command of COMPUTED takes is found out by a process of its own, before a person starts it. There is no button for
    a command that leaves a name to fill in, and only one for a command that makes several of the things that are missing.

    offered_above: the commands with a button further up on the page; this one is added
    """
    st.code(data.shown(commands, 10_000, "\n"), language="bash", wrap_lines=True)
    computed: set[tuple[str, ...]] = st.session_state.setdefault("winnow_computed", set())
    lines = [tuple(shlex.split(line)[1:]) for line in commands.splitlines()]
    left = [words for words in lines if words not in computed]
    if not left or left[0] in offered_above or PLACES & set(left[0]) or data.read_only():
        return
    offered_above.add(left[0])
    words, key = left[0], "offer_" + re.sub(r"\W", "_", " ".join(left[0]))
    offered: data.Started | None = st.session_state.get(OFFERED)
    started: data.Started | None = st.session_state.get(STARTED)
    busy = started is not None and started.running
    if offered is None or offered.words[: len(words)] != words:
        label = "Compute it" if len(lines) == 1 else f"Compute the {'first' if len(left) == len(lines) else 'next'}"
        if st.button(label, icon=":material/play_arrow:", key=key, disabled=busy):
            if words[0] in COMPUTED:
                st.session_state[OFFERED] = data.estimate(words)
            else:
                start(words)
            st.rerun()
        return
    seconds = data.estimated(offered)
    if seconds == 0:
        computed.add(words)
        del st.session_state[OFFERED]
        st.rerun()
    if failed := offered.message():
        st.error(plain(failed), icon=":material/error:")
        return
    with st.container(horizontal=True, vertical_alignment="center", key="offered"):
        if seconds is None:
            st.caption("Timing a step of its networks ...")
        else:
            st.markdown(f"It takes **about {widgets.duration(seconds)}** on this machine.")
        begin = st.button("Start", icon=":material/play_arrow:", type="primary", key=f"{key}_start", disabled=busy)
        if begin or st.button("Not now", key=f"{key}_not"):
            offered.process.terminate()
            del st.session_state[OFFERED]
            if begin:
                start(words)
            st.rerun()


def offering() -> bool:
    """Whether the time of a command is being found out here."""
    offered: data.Started | None = st.session_state.get(OFFERED)
    return offered is not None and offered.running
