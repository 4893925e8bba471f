"""When a review may stop, and what a browser may send to it."""

from __future__ import annotations

import pytest

from dashboard.data.reviews import Progress, parse
from dashboard.review import stop_advice


def after(*recent: str, n: int = 1_000) -> Progress:
    return Progress(n, recent.count("keep"), recent.count("drop"), 0, recent.count("unsure"), recent)


@pytest.mark.parametrize(
    ("recent", "share"),
    [
        (["keep"] * 28, ""),  # 0.9^28 = 5.2 %: a tenth of the rest may well be wrong
        (["keep"] * 29, "10 %"),  # 0.9^29 = 4.7 %; 1 - 0.05^(1/29) = 9.8 %
        (["keep"] * 59, "5 %"),  # 1 - 0.05^(1/59) = 4.95 %
        (["keep"] * 299 + ["drop"], "1 %"),  # 1 - 0.05^(1/299) = 0.997 %
        (["unsure", *["keep"] * 100], ""),
        (["keep"] * 10 + ["drop"] + ["keep"] * 100, ""),
        ([], ""),
    ],
)
def test_it_may_stop_when_so_many_were_kept_that_few_of_the_rest_are_wrong(recent: list[str], share: str) -> None:
    said = stop_advice(after(*recent), falling=True)
    assert (f"fewer than {share} of the rest" in said) if share else said == ""


def test_at_the_end_of_the_list_there_is_nothing_to_stop() -> None:
    assert stop_advice(after(*["keep"] * 40, n=40), falling=True) == ""


GOOD = {"key": "0123456789abcdef-7", "do": "relabel", "id": 3, "label": 2}


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": "x"}, {"key": None}, {"key": GOOD["key"] * 9}, {"do": 7}, {"id": "3"}, {"id": True}, {"id": 2**40}, {"id": None},
        {"label": 1.5}, {"label": [1]}, {"of": 5},
    ],
)  # fmt: skip
def test_what_is_no_decision_is_passed_over(wrong: dict[str, object]) -> None:
    assert parse(GOOD) is not None
    assert parse({**GOOD, **wrong}) is None


def test_a_message_that_is_nothing_is_passed_over() -> None:
    assert [parse(given) for given in (None, 3, "k", [], ["key"])] == [None] * 5
