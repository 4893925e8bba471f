"""What is said of one sample's training: each value of `aum` once, and named for what it is."""

from __future__ import annotations

import pandas as pd

from dashboard.learning import aums, legend

SCORES = pd.DataFrame({"score": ["el2n", "aum"], "value": [0.5, -3.318]})


def flags(flagged: bool, value: float) -> pd.DataFrame:
    rows = {
        "rule": ["bmm", "aum_threshold"],
        "value": [0.9, value],
        "threshold": [0.5, 0.78],
        "flagged": [True, flagged],
    }
    return pd.DataFrame(rows)


def test_the_mean_over_seeds_and_the_threshold_round_are_told_apart() -> None:
    five = pd.DataFrame({"seed": range(5)})
    assert aums(five, SCORES, flags(True, -3.6)).replace("\N{MINUS SIGN}", "-") == (
        "aum **-3.32**, the mean of 5 seeds; -3.60 in the threshold round, below the threshold 0.78: aum_threshold "
        "**flags it**."
    )
    assert "1.20 in the threshold round, not below the threshold 0.78: aum_threshold does not" in aums(
        five, SCORES, flags(False, 1.2)
    )


def test_what_a_run_has_not_is_not_said() -> None:
    one = pd.DataFrame({"seed": [0]})
    nothing = pd.DataFrame(columns=["rule", "value", "threshold", "flagged"])
    assert aums(one, SCORES, nothing).replace("\N{MINUS SIGN}", "-") == "aum **-3.32**."
    assert aums(one, SCORES.iloc[:1], nothing) == ""


def test_the_legend_names_what_is_drawn_and_the_detector_only_where_it_is() -> None:
    assert "hatched: another class leads" in legend(True) and "noise detector" in legend(True)
    assert "noise detector" not in legend(False) and "{" not in legend(False)
