"""The verdict as pictures: what is drawn is what the verdict says."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from given_verdicts import JUDGED, TOO_WEAK

from dashboard.data import Verdict
from dashboard.detail import suspicion
from dashboard.verdict import noise_words
from dashboard.verdict_charts import accuracy_bar, noise_bar, suspicion_chart

VERDICT = Verdict(run_id="abc", judged=1000, listed=200, **JUDGED)  # type: ignore[arg-type]
CANNOT = Verdict(run_id="abc", judged=1000, listed=0, **TOO_WEAK)  # type: ignore[arg-type]


def test_the_accuracy_is_a_bar_with_a_mark_at_a_guess() -> None:
    figure = accuracy_bar(VERDICT)
    whole, bar = figure.data
    assert whole.x == (100,) and bar.x == pytest.approx((87.5,))
    assert [a.text for a in figure.layout.annotations] == ["guess"] and figure.layout.shapes[0].x0 == 12.5
    assert len(accuracy_bar(replace(VERDICT, accuracy=None, chance=None)).data) == 1


def test_the_interval_is_a_bar_and_every_estimate_a_mark() -> None:
    figure = noise_bar(VERDICT, known=0.25)
    _, interval, *marks = figure.data
    assert interval.base == pytest.approx((18,)) and interval.x == pytest.approx((4,))
    assert [mark.x[0] for mark in marks] == pytest.approx([21, 19, 25, 20])
    assert figure.layout.xaxis.range[1] >= 25 and [a.text for a in figure.layout.annotations] == ["known"]
    apart = noise_bar(replace(VERDICT, noise_joint=0.4))
    assert [(a.text, a.x) for a in apart.layout.annotations] == [("predictions", 40), ("distribution", 19)]
    assert len(noise_bar(CANNOT, known=0.1).data) == 1  # nothing that looks like a number


def test_the_histogram_shows_the_shortlist_apart() -> None:
    bins = pd.DataFrame({"left": [0, 0.5], "right": [0.5, 1], "rest": [900, 3], "listed": [0, 97]})
    rest, listed = suspicion_chart(bins).data
    assert rest.name == "not flagged  903" and listed.name == "on the shortlist  97"
    assert (
        list(listed.x) == [25, 75] and listed.y[1] == 97 and pd.isna(listed.y[0])
    )  # no bar of no height on a log axis


def test_the_words_under_the_interval() -> None:
    assert noise_words(VERDICT, None) == "95 % interval 18 to 22 %; about 200 of 1,000 samples."
    assert noise_words(VERDICT, 0.203).endswith("; of the training labels 20.3 % are known to be wrong.")


def test_a_sample_is_told_its_place_on_the_shortlist() -> None:
    row = pd.DataFrame({"rank": [2], "p_wrong": [0.874], "listed": [True]})
    told = suspicion(row, VERDICT)
    assert told == "Its label is wrong with a probability of **87 %**: number 3 of 1,000, on the shortlist. "
    assert "not on the shortlist" in suspicion(row.assign(listed=False), VERDICT)
    assert suspicion(row.iloc[:0], VERDICT) == "This sample was not judged. "
    assert "cannot tell" in suspicion(row, CANNOT) and "%" not in suspicion(row, CANNOT)
    assert suspicion(row, None) == ""
