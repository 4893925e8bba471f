"""The filters of every page that lists samples: in the sidebar, as chips that take them back, and what they count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from dashboard import charts, data, grid, state
from dashboard.data import View
from dashboard.markup import plain
from dashboard.widgets import choose


def filter_bar(view: View, score: str, split: str = "train", suspicion: bool = True) -> data.Filter:
    """The filters in the sidebar, the same for every page that lists samples.

    Args: split: the one that is meant where none is chosen; suspicion: with those that the run's verdict allows
    """
    wanted, verdict = state.get_filter(score, split), data.verdict(view.at, view.run_id)
    facts, rules, scores = (
        data.dataset_facts(view.at),
        data.rules(view.at, view.run_id),
        data.catalog(view.at, view.run_id),
    )
    wanted = _valid(wanted, view, list(rules["rule"]), verdict if suspicion else None)
    with st.sidebar:
        st.divider()
        _named()
        if verdict and suspicion:
            _suspicion(verdict, facts["train"], split)
        if len(rules):
            titles = {"": "all samples", **{r.rule: f"flagged by {r.rule} · {r.flagged:,}" for r in charts.rows(rules)}}
            choose("Rule", "rule", list(titles), "", lambda r: titles[r], resets=("page",))
        if facts["known"]:
            titles_truth = {"": "all", "wrong": "mislabeled", "right": "clean"}
            choose(
                "Known true label",
                "truth",
                list(titles_truth),
                "",
                lambda t: titles_truth[t],
                segments=True,
                resets=("page",),
            )
        if "margin_last" in set(scores["score"]):
            titles_agree = {"": "all", "disagrees": "disagrees", "agrees": "agrees"}
            choose(
                "Prediction of the last epoch",
                "agrees",
                list(titles_agree),
                "",
                lambda t: titles_agree[t],
                segments=True,
                resets=("page",),
                help="whether the networks agree with the given label after the last epoch (margin_last above 0)",
            )
        _decisions(view, wanted)
        if score != data.SUSPICION:
            _range(f"Rank by {score}", "low", "high", "0 % = easiest, 100 % = hardest")
        st.caption("Given label")
        grid.draw_facets(
            data.facets(view.at, view.run_id, replace(wanted, labels=())),
            wanted.labels,
            "facets_label",
            lambda label: state.toggle("label", label),
        )
        with st.expander("True or suggested label", expanded=bool(wanted.others)):
            _others(view, wanted)
        _metadata(view, wanted)
    return wanted


def count_all(view: View, wanted: data.Filter) -> int:
    """How many samples there are to choose from."""
    return int(data.facets(view.at, view.run_id, replace(wanted, labels=()))["total"].sum())


def _valid(wanted: data.Filter, view: View, rules: Sequence[str], verdict: data.Verdict | None) -> data.Filter:
    """Without what a link names and this run does not have; classes are named here, the rest under its picker."""
    known = range(len(view.names))
    if lost := [c for c in (*wanted.labels, *wanted.others, *wanted.suggested) if c not in known]:
        st.warning(f"There is no class {', '.join(map(str, lost[:5]))}.", icon=":material/search_off:")
    found = replace(
        wanted,
        labels=tuple(c for c in wanted.labels if c in known),
        others=tuple(c for c in wanted.others if c in known),
        suggested=tuple(c for c in wanted.suggested if c in known),
        rule=wanted.rule if wanted.rule in rules else "",
        about=wanted.about if wanted.about in set(data.metadata(view.at, "names")["name"]) else "",
    )
    scores = set(data.catalog(view.at, view.run_id)["score"])
    if not set(wanted.plane) <= scores:
        found = replace(found, plane=("", ""), outline=())
    if wanted.measure not in scores:
        found = replace(found, measure="", above=-math.inf, below=math.inf)
    if verdict is None:
        return replace(found, flagged=False, least=0, most=1, split="train")
    if not verdict.tells:
        found = replace(found, least=0, most=1)
    return found if verdict.listed else replace(found, flagged=False)


def _named() -> None:
    """The filter by a part of a file's name."""
    key = "pick_name"
    st.session_state[key] = state.get("name")[: state.MOST_NAMED]
    st.text_input(
        "File name",
        key=key,
        on_change=lambda: state.put(name=st.session_state[key].strip(), page=None),
        max_chars=state.MOST_NAMED,
        placeholder="any part of it",
        icon=":material/search:",
        help="samples whose path has this in it, in upper or lower case",
    )


def _suspicion(verdict: data.Verdict, train: int, split: str) -> None:
    """The filters by the run's verdict: the shortlist, the probability of a wrong label, the part of the set."""
    if verdict.listed:
        titles = {"all": "all", "short": f"shortlist · {verdict.listed:,}"}
        choose("Show", "list", list(titles), "", lambda s: titles[s], segments=True, resets=("page",))
    if verdict.tells:
        how = "estimated from predictions of networks that did not see the sample"
        _range("Probability of a wrong label", "least", "most", how)
    if verdict.judged > train:
        choose("Part", "split", ["all", "train", "test"], split, segments=True, resets=("page",))


_DECISIONS = {"": "all", "undecided": "undecided", "decided": "decided", "disputed": "people differ"}


def _decisions(view: View, wanted: data.Filter) -> None:
    """The filters by what people decided; none while nobody has decided anything."""
    counts, authors = data.decisions.counts(view.at), data.decisions.authors(view.at)
    if not counts["decided"] and not wanted.decision and not wanted.author:
        return
    options = [d for d in data.decisions.DECISIONS if counts.get(d, 1) or d == wanted.decision]
    titles = {d: _DECISIONS.get(d, d) + (f" · {counts[d]:,}" if d in counts else "") for d in options}
    choose("Decision", "decision", options, "", lambda d: titles[d], resets=("page",))
    names = [name for name in {**authors, wanted.author: 0} if name]
    if len(authors) > 1 or wanted.author:
        choose("Decided by", "by", ["", *names], "", lambda name: name or "anybody", resets=("page",))


def _range(label: str, first: str, last: str, help: str) -> None:
    """A slider for two query parameters, percentages; at its ends it takes them back."""
    key, now = f"pick_{first}", (state.get_int(first, 0) or 0, state.get_int(last, 100))
    low = max(0, min(now[0], 100))
    st.session_state[key] = (low, max(low, min(100, 100 if now[1] is None else now[1])))

    def changed() -> None:
        low, high = st.session_state[key]
        state.put(**{first: low or None, last: None if high == 100 else high}, page=None)

    st.slider(plain(label), 0, 100, key=key, on_change=changed, format="%d %%", help=help)


def _others(view: View, wanted: data.Filter) -> None:
    options = list(range(len(view.names)))
    key = "pick_other"
    st.session_state[key] = list(wanted.others)

    def changed() -> None:
        state.put(other=",".join(map(str, sorted(st.session_state[key]))), page=None)

    st.multiselect(
        "True or suggested label",
        options,
        format_func=lambda c: view.names[c],
        key=key,
        on_change=changed,
        label_visibility="collapsed",
    )


NUMBERS_FROM = 12
"""So many different numbers are chosen by a range, fewer one by one."""


def number_range(view: View, name: str) -> tuple[float, float] | None:
    """The smallest and the largest number of a name of the metadata; None where it is no number or of few values."""
    names = data.metadata(view.at, "names")
    for row in names[names["name"] == name].to_dict("records"):
        if row["is_number"] and row["different"] > NUMBERS_FROM:
            return float(row["low"]), float(row["high"])
    return None


def _metadata(view: View, wanted: data.Filter) -> None:
    """The filter by one name of the metadata: by a value, or by a range of numbers."""
    names = data.metadata(view.at, "names")
    if names.empty:
        return
    with st.expander("Metadata", expanded=bool(wanted.about)):
        restricts = ("value", "from", "to", "page")
        name = choose("Column", "about", ["", *map(str, names["name"])], "", lambda n: n or "any", resets=restricts)
        if not name:
            return
        if ends := number_range(view, name):
            _between(name, *ends, wanted)
        else:
            found = data.metadata(view.at, "values", name)
            counts = dict(zip(found["value"].astype(str), found["n"], strict=True))
            titles = {"": "any", **{value: f"{value[:60]} · {n:,}" for value, n in counts.items()}}
            choose("Value", "value", list(titles), "", lambda value: titles[value], resets=("page",))


def _between(name: str, low: float, high: float, wanted: data.Filter) -> None:
    """A slider for a range of numbers; at its ends it takes it back."""
    key = "pick_from"
    st.session_state[key] = (max(low, min(high, wanted.at_least)), min(high, max(low, wanted.at_most)))

    def changed() -> None:
        first, last = st.session_state[key]
        state.put(**{"from": None if first <= low else first, "to": None if last >= high else last}, page=None)

    st.slider(plain(name), low, high, key=key, on_change=changed)


def filter_chips(view: View, wanted: data.Filter, shown: int, total: int) -> None:
    """ "n of N" and a removable chip per condition."""
    chips: list[tuple[str, dict[str, object]]] = []
    if wanted.flagged:
        chips.append(("on the shortlist", {"list": "all"}))
    if wanted.least > 0 or wanted.most < 1:
        between = f"{100 * wanted.least:.0f} to {100 * wanted.most:.0f} %"
        chips.append((f"wrong with {between}", {"least": None, "most": None}))
    if wanted.named:
        chips.append((f"named {wanted.named[:60]}", {"name": None}))
    if wanted.labels:
        chips.append((f"given {', '.join(view.names[c] for c in wanted.labels)}", {"label": None}))
    if wanted.others:
        chips.append((f"true or suggested {', '.join(view.names[c] for c in wanted.others)}", {"other": None}))
    if wanted.suggested:
        chips.append((f"suggested {', '.join(view.names[c] for c in wanted.suggested)}", {"suggested": None}))
    if wanted.rule:
        chips.append((f"flagged by {wanted.rule}", {"rule": None}))
    if wanted.truth:
        chips.append(("mislabeled" if wanted.truth == "wrong" else "clean", {"truth": None}))
    if wanted.agreement:
        chips.append((f"network {wanted.agreement}", {"agrees": None}))
    if wanted.low > 0 or wanted.high < 100:
        chips.append((f"{wanted.score} {wanted.low:.0f} to {wanted.high:.0f} %", {"low": None, "high": None}))
    if wanted.about:
        between = (
            f" {wanted.at_least:g} to {wanted.at_most:g}" if math.isfinite(wanted.at_least + wanted.at_most) else ""
        )
        if not between and (math.isfinite(wanted.at_least) or math.isfinite(wanted.at_most)):
            between = f" from {wanted.at_least:g}" if math.isfinite(wanted.at_least) else f" to {wanted.at_most:g}"
        text = f"{wanted.about} {wanted.value or 'given'}" if not between else f"{wanted.about}{between}"
        chips.append((text[:80], dict.fromkeys(("about", "value", "from", "to"))))
    if wanted.decision:
        chips.append((_DECISIONS.get(wanted.decision, f"decided: {wanted.decision}"), {"decision": None}))
    if wanted.author:
        chips.append((f"decided by {data.shown(wanted.author, 40)}", {"by": None}))
    if wanted.region:
        chips.append(("region of the map", {"region": None}))
    if wanted.outline:
        chips.append((f"region of {' and '.join(wanted.plane)}", dict.fromkeys(("outline", "across", "up"))))
    if wanted.measure and math.isfinite(min(abs(wanted.above), abs(wanted.below))):
        least = "" if math.isinf(wanted.above) else f" at least {wanted.above:.4g}"
        most = "" if math.isinf(wanted.below) else f" at most {wanted.below:.4g}"
        chips.append((f"{wanted.measure}{least}{most}", dict.fromkeys(("measure", "above", "below"))))
    with st.container(horizontal=True, vertical_alignment="center", key="chips", width="content"):
        st.markdown(f"**{shown:,}** of {total:,}", width="content")
        for i, (text, clears) in enumerate(chips):
            st.button(
                plain(text),
                key=f"chip_{i}",
                icon=":material/close:",
                icon_position="right",
                on_click=lambda c=clears: state.put(**{**c, "page": None}),
            )
        if len(chips) > 1:
            st.button("clear all", key="chip_all", type="tertiary", on_click=state.clear_filter)
