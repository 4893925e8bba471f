"""A version of the curated set on its page: how one is made, what it holds, and what changed against another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import charts, data, grid, state, widgets
from dashboard.data import View
from dashboard.data.versions import Version
from dashboard.markup import command_line, plain

FULL = ":all"
"""Stands for all training samples where a version is compared; no version can be called so."""

MOST_BARS, MOST_CARDS = 20, 60
CHECKED_AT_ONCE = 100_000
"""Training samples up to which a version is computed again whenever it is shown: about a second."""


def share(part: float | None, whole: float) -> str:
    return "" if part is None or not whole else data.percent(part / whole)


def noise(facts: Mapping[str, Any], when: str) -> str:
    """The estimated share of wrong labels, "before" or "left"; a dash where the run cannot tell."""
    value = facts.get(f"noise_{when}")
    return "–" if value is None else data.percent(value)


def numbers(facts: Mapping[str, Any], gain: str = "") -> None:
    """What a set holds, in a row of numbers."""

    def tell(label: str, value: str, beside: str = "", help: str | None = None) -> None:
        st.metric(label, value, beside or None, delta_color="off", delta_arrow="off", help=help, width="content")

    def people(count: int) -> str:
        return f"{count:,} by a person" if count else ""

    with st.container(horizontal=True, gap="large"):
        tell("Stay", f"{facts['kept']:,}", f"{share(facts['kept'], facts['samples'])} of {facts['samples']:,}")
        tell("Dropped", f"{facts['samples'] - facts['kept']:,}", people(facts["dropped_by_person"]))
        tell("Relabeled", f"{facts['relabeled']:,}", people(facts["relabeled_by_person"]))
        if facts["noise_left"] is not None:
            how = (
                "the mean over what stays of: the run's probability that the label is wrong; 1 − the confidence of a "
                "suggestion that was taken; 0 where a person kept or relabeled"
            )
            tell("Wrong, estimated", noise(facts, "left"), f"{noise(facts, 'before')} before", how)
        if facts.get("known"):
            before = share(facts["wrong_before"], facts["known"])
            tell("Wrong, by the truth", share(facts["wrong_left"], facts["known_kept"]), f"{before} before")
        if gain:
            tell("Accuracy gained", gain, help="measured by winnow prove")


# Making one -----------------------------------------------------------------------------------------------------


def form(view: View, taken: Sequence[str]) -> None:
    """What a new version is made of, what it would hold, and the button that keeps it; with images where it is the first."""
    verdict = data.verdict(view.at, view.run_id) if view.run_id else None
    if not view.run_id:
        st.caption("There is no run yet, so a version can hold decisions and conditions on what was ingested. A run:")
        st.code(command_line(["run", view.at.dataset]), language="bash", wrap_lines=True)
    left, right = st.columns([2, 3], gap="large")
    with left:
        listed = bool(verdict and verdict.listed)
        drop_shortlist = listed and st.checkbox("Drop what is on the shortlist", value=True, key="v_short")
        relabel = view.run_id and st.checkbox("Relabel where the suggestion is confident", key="v_relabel")
        above = st.slider("Confidence at least", 50, 100, 90, format="%d %%", key="v_above") / 100 if relabel else None
        found, condition = _filter(view)
        drop = (
            [condition]
            if condition and st.checkbox(f"Drop what the filter matches · {found:,}", key="v_filter")
            else []
        )
        written = st.text_input(
            "Drop also where",
            placeholder="sharpness < 2 OR aum < -1",
            key="v_where",
            help="SQL, as in winnow export --where",
        )
        drop += [written] if written.strip() else []
        decided = data.decisions.current(view.at)["action"].value_counts()
        decisions = st.checkbox(f"Apply people's decisions · {int(decided.sum()):,}", value=True, key="v_decisions")
        unsure = ""
        if decisions and decided.get("unsure", 0):
            titles = {"": "as the rules say", "keep": "keep", "drop": "drop"}
            label = f"Samples that people were unsure of · {decided['unsure']:,}"
            unsure = st.selectbox(label, list(titles), format_func=lambda u: titles[u], key="v_unsure")
    with right:
        try:
            planned = data.versions.plan(view.at, view.run_id, drop, drop_shortlist, above, decisions, unsure)
        except data.WinnowError as error:
            st.error(plain(error), icon=":material/error:")
            return
        numbers(planned.facts)
        steps(planned.recipe, planned.facts)
        with st.container(horizontal=True, vertical_alignment="bottom"):
            name = st.text_input("Name", value=_free_name(taken), max_chars=64, key="v_name")
            note = st.text_input("Note", max_chars=2_000, key="v_note", placeholder="what it is for")
            if st.button(
                "Save as version",
                type="primary",
                icon=":material/bookmark_add:",
                key="v_save",
                disabled=data.read_only(),
            ):
                _save(view, planned, name.strip(), note.strip())
        words = data.versions.command_words(planned.recipe, name.strip() or "NAME", note.strip())
        st.code(command_line(words), language="bash", wrap_lines=True)
    if not taken:
        st.markdown("#### What would change")
        changes(view, data.versions.everything(view.at), planned.labels)


def _save(view: View, planned: data.versions.Planned, name: str, note: str) -> None:
    try:
        made = data.versions.save(view.at, planned.recipe, name, note)
    except data.WinnowError as error:
        st.error(plain(error), icon=":material/error:")
        return
    for key in ("v_name", "v_note"):
        st.session_state.pop(key, None)
    state.put(version=made.name)
    st.rerun()


def _free_name(taken: Sequence[str]) -> str:
    return next(name for i in range(1, len(taken) + 2) if (name := f"v{i}") not in taken)


def _filter(view: View) -> tuple[int, str]:
    """What the filter of the other pages matches of the training samples, and its condition; "" where none is chosen."""
    if not view.run_id:
        return 0, ""
    score = state.get("sort")
    known = set(data.catalog(view.at, view.run_id)["score"])
    wanted = state.get_filter(score if score in known else data.SUSPICION)
    try:
        condition = data.condition(view.at, view.run_id, wanted)
        only_listed = condition == data.condition(view.at, view.run_id, data.Filter(flagged=True))
        if not condition or only_listed:
            return 0, ""
        return len(data.ids(view.at, view.run_id, wanted)), condition
    except data.WinnowError:  # of another run, or of a score that this one has not: there is no filter to offer
        return 0, ""


def steps(recipe: data.versions.Recipe, facts: Mapping[str, Any]) -> None:
    """A recipe in words: what each step did, in the order in which they decide."""
    lines = [
        f"1. {plain(text)}" + (f"&ensp;**{count:,}**" if count else "")
        for text, count in data.versions.recipe_sentences(recipe, facts)
    ]
    st.markdown("\n".join(lines))


# One that is there ----------------------------------------------------------------------------------------------


def detail(view: View, version: Version, others: Sequence[Version]) -> None:
    """A version: its numbers, its recipe, its balance, whether it reproduces, and what changed against another set."""
    on = data.versions.on_dataset(view.at, version)
    gain = data.versions.gains(view.at).get(version.hash)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(f"### {plain(version.name)}", width="content")
        with st.container(horizontal=True, vertical_alignment="center", width="content"):
            link = state.link(version=version.name, sample=None)
            st.page_link("app_pages/export_page.py", label="Export", icon=":material/download:", query_params=link)
            _removal(view, version)
    by = f" by {plain(version.author)}" if version.author else ""
    st.caption(
        f"made {version.created_at:%d %b %Y, %H:%M} UTC{by}" + (f" · {plain(version.note)}" if version.note else "")
    )
    if words := on.words(version):
        st.warning(plain(words[0].upper() + words[1:] + "."), icon=":material/history:")
    numbers(version.facts, "" if gain is None else f"{data.versions.points(gain.difference)} points")
    if gain is None:
        words_of_proof = ["prove", version.dataset, "--version", version.name]
        st.caption("The accuracy that it gains is measured by:")
        st.code(command_line(words_of_proof), language="bash", wrap_lines=True)
    else:
        st.caption(plain(f"{gain.sentence}; {gain.measured}"))
    left, right = st.columns([1, 1], gap="large")
    with left:
        st.markdown("#### Recipe")
        steps(version.recipe, version.facts)
        words_again = data.versions.command_words(version.recipe, "NAME")
        st.caption("The same with the decisions of today:")
        st.code(command_line(words_again), language="bash", wrap_lines=True)
        _reproduction(view, version)
    with right:
        _balance(version)
    _against(view, version, on, others)


def _removal(view: View, version: Version) -> None:
    with st.popover("Remove", icon=":material/delete:", type="tertiary", disabled=data.read_only()):
        st.markdown("The name is free again; exports of it stay.")
        if st.button("Remove it", key="v_remove", type="primary"):
            data.versions.remove(view.at, version.name)
            state.put(version=None)
            st.rerun()


def _reproduction(view: View, version: Version) -> None:
    """Whether its recipe gives the same set again."""
    st.caption(f"SHA-256 {version.hash[:16]}…", help=f"of its sample ids and labels: {version.hash}")
    wanted = version.samples <= CHECKED_AT_ONCE or st.button("Compute it again and compare", key="v_check")
    if wanted:
        with st.spinner("Computing it again …"):
            again = data.versions.check(view.at, version)
        icon = ":material/check_circle:" if again.same else ":material/difference:"
        (st.success if again.same else st.info)(plain(again.words), icon=icon)


def _balance(version: Version) -> None:
    """Samples of each class before and after; of many classes those that changed most."""
    before, after = np.array(version.facts["before"]), np.array(version.facts["after"])
    order = np.argsort(-np.abs(after - before) / np.maximum(before, 1), kind="stable")[:MOST_BARS]
    many = len(before) > MOST_BARS
    st.markdown(
        "#### Classes before and after" + (f"&ensp;:gray[:small[the {MOST_BARS} that changed most]]" if many else "")
    )
    chosen = order if many else np.arange(len(before))
    names = [version.classes[i] for i in chosen]
    frame = pd.DataFrame({"class_name": names, "n": after[chosen], "total": before[chosen]})
    st.plotly_chart(charts.balance_chart(frame), config=charts.NO_BAR, key="balance")


def _against(view: View, version: Version, on: data.versions.OnDataset, others: Sequence[Version]) -> None:
    """What changed against all training samples, or against another version."""
    titles = {FULL: "all training samples", **{other.name: other.name for other in others}}
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("#### What changed against", width="content")
        against = widgets.choose(
            "Against", "against", list(titles), FULL, lambda n: titles[n], collapsed=True, resets=("part", "sample")
        )
    if against == FULL:
        return changes(view, data.versions.everything(view.at), on.labels)
    other = next(other for other in others if other.name == against)
    before = data.versions.on_dataset(view.at, other).labels
    changes(view, before, on.labels, f"only in {against}", f"only in {version.name}")


def changes(view: View, before: Any, after: Any, only_before: str = "dropped", only_after: str = "added") -> None:
    """What differs between two sets, each the label of every training sample, as images: a part at a time."""
    found = data.versions.difference(before, after)
    relabeled = found.relabeled.set_index("sample_id")
    parts = {
        "before": (only_before, found.only_first),
        "label": ("under another label", relabeled.index.to_numpy(np.int32)),
        "after": (only_after, found.only_second),
    }
    there = [name for name, (_, ids) in parts.items() if len(ids)]
    if not there:
        st.caption(f"Nothing: all {found.same:,} samples are in both, under the same label.")
        return
    part = widgets.choose(
        "Part",
        "part",
        there,
        there[0],
        lambda p: f"{parts[p][0]} · {len(parts[p][1]):,}",
        segments=True,
        collapsed=True,
        resets=("sample",),
    )
    ids = parts[part][1]
    cards = data.cards(view.at, view.run_id, ids[:MOST_CARDS], "")
    if part == "label":
        rows = relabeled.loc[cards["sample_id"]]
        cards = cards.assign(
            label=rows["first"].to_numpy(), true_label=np.nan, suggested_label=rows["second"].to_numpy()
        )
    grid.draw_cards(cards, view.names, f"changed_{part}", widgets.open_in_gallery, size=84)
    notes = [f"{found.same:,} samples are in both under the same label."]
    notes += ["The first label is that of before, the second that of after."] if part == "label" else []
    notes += [f"Shown are the first {MOST_CARDS} of {len(ids):,}."] if len(ids) > MOST_CARDS else []
    st.caption(" ".join(notes))
    widgets.go_to_gallery()
