"""What to believe of a run, at the head of the overview: in words, and drawn where that says it better."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import data, overview_charts
from dashboard.data import View, percent
from dashboard.markup import plain


def draw_verdict(view: View, facts: dict[str, Any]) -> None:
    """The verdict of the chosen run, or that it has none and which command makes one.

    Args: facts: of the dataset, with noise_rate (None where unknown)
    """
    verdict = data.verdict(view.at, view.run_id)
    if verdict is None:
        st.info(
            "This run has no verdict: it was made by an older version, or recorded. So none of its samples is flagged; its "
            f"scores and rules can be seen as before. `winnow run {view.at.dataset}` makes a run that says how many labels "
            "are wrong, and which.",
            icon=":material/help:",
        )
        return
    with st.container(border=True, key="verdict"):
        if verdict.tells:
            _with_estimate(view, verdict, facts["noise_rate"])
        else:
            _without_estimate(verdict)


def _with_estimate(view: View, verdict: data.Verdict, known: float | None) -> None:
    accuracy, noise, listed = st.columns([3, 4, 5], gap="large")
    with accuracy:
        _number("Held-out accuracy", "–" if verdict.accuracy is None else percent(verdict.accuracy))
        st.html(overview_charts.page(overview_charts.accuracy_bar(verdict)))
        guess = "" if verdict.chance is None else f" A guess would agree with {percent(verdict.chance)}."
        st.caption(f"of the given labels agree with predictions of networks that did not see the sample.{guess}")
    with noise:
        _number("Wrong labels, estimated", percent(verdict.noise or 0))
        st.html(overview_charts.page(overview_charts.noise_bar(verdict, known)))
        st.caption(noise_words(verdict, known))
    with listed:
        _number("Shortlist", f"{verdict.listed:,}", f"of {verdict.judged:,} judged samples")
        st.html(overview_charts.page(overview_charts.suspicion_bars(data.suspicion(view.at, view.run_id))))
    if verdict.disagrees:
        st.warning(
            f"Two estimates disagree: {percent(verdict.noise_joint or 0)} of the labels are wrong by the held-out "
            f"predictions, {percent(verdict.noise_mixture or 0)} by how the suspicion is distributed. Rely on the ranking, "
            "not on the number.",
            icon=":material/balance:",
        )
    st.markdown(" ".join(plain(text) for text in (verdict.reason, verdict.advice) if text))


def _without_estimate(verdict: data.Verdict) -> None:
    """No number of wrong labels, and nothing that looks like one: the networks are too weak for it."""
    left, right = st.columns([3, 9], gap="large")
    with left:
        _number("Held-out accuracy", "–" if verdict.accuracy is None else percent(verdict.accuracy))
        st.html(overview_charts.page(overview_charts.accuracy_bar(verdict)))
        if verdict.chance is not None:
            st.caption(f"A guess would agree with {percent(verdict.chance)} of the given labels.")
    with right:
        st.markdown("#### These networks cannot tell which labels are wrong")
        st.markdown("No sample is flagged. " + " ".join(plain(t) for t in (verdict.reason, verdict.advice) if t))


def noise_words(verdict: data.Verdict, known: float | None) -> str:
    """The interval of the estimated share of wrong labels, the number of samples, the second estimate, and the known share."""
    found = []
    if verdict.noise_low is not None and verdict.noise_high is not None:
        found.append(f"95 % interval {percent(verdict.noise_low, False)} to {percent(verdict.noise_high)}")
    found.append(f"about {round((verdict.noise or 0) * verdict.judged):,} of {verdict.judged:,} samples")
    if verdict.noise_mixture is not None and not verdict.disagrees:
        found.append(f"a second estimate, the unlabeled tick, is {percent(verdict.noise_mixture)}")
    if known is not None:
        found.append(f"of the training labels {percent(known)} are known to be wrong")
    return "; ".join(found) + "."


def _number(title: str, value: str, beside: str = "") -> None:
    more = f"&ensp;:gray[:small[{beside}]]" if beside else ""
    st.markdown(f":gray[{title}]  \n### {value}{more}")
