"""When a rule is left out of the vote."""

import pytest

from engine.scores.rules import tellable_accuracy, why_unused


@pytest.mark.parametrize(
    "flagged, accuracy, chance, reason",
    [
        (0.0, 0.9, 0.1, "it flags nothing"),
        (0.34, 0.9, 0.1, "it flags 34 % of the samples, more than a third"),
        (1.0, None, 0.1, "more than a third"),
        (1 / 3, 0.9, 0.1, ""),
        (0.08, 0.2, 0.1, ""),
        (0.08, 0.19, 0.1, "right on 19 % of the samples held out, and a guess on 10 %; needed: 20 %"),
        (0.08, None, 0.1, ""),  # no network, or nothing held out
        (0.08, 0.74, 0.5, "needed: 75 %"),  # of two classes twice chance would be certainty
        (0.08, 0.97, 0.9, ""),
    ],
)
def test_a_rule_that_says_nothing_is_left_out(flagged, accuracy, chance, reason):
    found = why_unused(flagged, accuracy, chance)
    assert reason in found and bool(reason) == bool(found)


def test_a_rule_about_something_else_is_left_out():
    assert "no evidence of a wrong label, but of how the picture looks" in why_unused(0.05, 0.9, 0.1, "picture")


def test_what_a_network_needs_is_always_possible():
    for chance in (0.01, 0.1, 1 / 3, 0.5, 0.99):
        assert chance < tellable_accuracy(chance) < 1
