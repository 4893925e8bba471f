"""What thumbnails say: chips and numbers."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest

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
