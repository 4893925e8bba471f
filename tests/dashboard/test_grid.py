"""What thumbnails say: chips, numbers, and the sentence that tells why."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest

from dashboard.detail import why
from dashboard.grid import chips, number
from dashboard.widgets import duration, plain, run_titles

NAMES = ["cat", "dog", "cow"]


@pytest.mark.parametrize(
    ("true_label", "suggested", "expected"),
    [
        (0, 1, [("given", "cat")]),  # known to be right: a suggestion is not shown
        (2, 1, [("given", "cat"), ("true", "cow")]),
        (pd.NA, 1, [("given", "cat"), ("suggested", "dog")]),
        (pd.NA, 0, [("given", "cat")]),
        (pd.NA, pd.NA, [("given", "cat")]),
    ],
)
def test_chips_carry_the_given_label_and_the_other_where_it_differs(
    true_label: object, suggested: object, expected: list[tuple[str, str]]
) -> None:
    row = SimpleNamespace(label=0, true_label=true_label, suggested_label=suggested)
    assert chips(row, NAMES) == expected


def test_the_sentence_counts_epochs_and_names_the_threshold() -> None:
    dynamics = pd.DataFrame(
        {"seed": 0, "epoch": range(1, 21), "correct": [False] * 18 + [True] * 2, "predicted": [1] * 18 + [0] * 2}
    )
    flags = pd.DataFrame(
        {"rule": ["aum_threshold"], "score": ["aum"], "flagged": [True], "threshold": [-0.4], "value": [-3.1]}
    )
    scores = pd.DataFrame({"score": ["aum", "el2n"], "value": [-3.1, 1.0]})
    assert why("cat", NAMES, dynamics, flags, scores) == (
        "In **18** of 20 epochs the networks preferred **dog** over the given **cat**. "
        "Its aum −3.10 is below the threshold −0.40: **aum\\_threshold flags it**."
    )


def test_a_sample_that_was_always_right_is_told_so() -> None:
    dynamics = pd.DataFrame({"seed": [0, 1], "epoch": [1, 1], "correct": True, "predicted": 0})
    none = pd.DataFrame({"rule": [], "score": [], "flagged": [], "threshold": [], "value": []})
    told = why("cat", NAMES, dynamics, none, pd.DataFrame({"score": [], "value": []}))
    assert told == "In all 2 epochs (2 networks × 1) the networks preferred the given cat."


@pytest.mark.parametrize(
    ("value", "text"),
    [(-3.2, "−3.20"), (0.0, "0.00"), (0.5, "0.50"), (0.0123, "0.012"), (12345.0, "1.2e+04"), (-0.001, "−0.001")],
)
def test_numbers_are_short_with_a_true_minus(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.2, "under 1 s"), (42, "42 s"), (600, "10 min"), (9000, "2.5 h"), (float("nan"), "")],
)
def test_durations_are_for_people(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_nothing_in_a_title_is_read_as_markup() -> None:
    assert plain("el2n*, aum_x") == r"el2n\*, aum\_x"


def test_runs_of_one_title_are_told_apart_by_their_time() -> None:
    runs = pd.DataFrame({
        "run_id": ["a", "b", "c"], "title": ["mlp", "mlp", "cnn"],
        "created_at": pd.to_datetime(["2026-01-02 03:04", "2026-01-02 05:06", "2026-01-03 00:00"]),
    })  # fmt: skip
    assert run_titles(runs) == {"a": "mlp · 02 Jan 03:04", "b": "mlp · 02 Jan 05:06", "c": "cnn"}
