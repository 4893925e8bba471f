"""The sentence that says why a label is in doubt, for every case of what is known of a sample."""

from __future__ import annotations

import pytest

from dashboard.why import Doubt, markdown, why

HELD_OUT = {"suggested": "cat", "confidence": 0.91, "method": "heldout_prediction", "judged": True}


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (
            {**HELD_OUT, "p_given": 0.03, "rules": 5, "flagging": 4, "neighbors": 15, "like_suggested": 12},
            "Networks that did not see it prefer **cat** (91 %) over the given **dog** (3 %); 4 of 5 rules flag it and "
            "12 of its 15 nearest neighbors are labeled **cat**.",
        ),
        # a run whose predictions were not kept, all rules, one neighbor
        (
            {**HELD_OUT, "rules": 7, "flagging": 7, "neighbors": 15, "like_suggested": 1},
            "Networks that did not see it prefer **cat** (91 %) over the given **dog**; all 7 rules flag it and "
            "1 of its 15 nearest neighbors is labeled **cat**.",
        ),
        # a run without a verdict: what its own networks preferred while they learned
        (
            {"suggested": "cat", "confidence": 0.45, "method": "prediction_vote", "rules": 3, "flagging": 1},
            "In 45 % of the epochs the networks preferred **cat** over the given **dog**; 1 of 3 rules flags it.",
        ),
        (
            {"suggested": "cat", "confidence": 1.0, "method": "prediction_vote"},
            "In all epochs the networks preferred **cat** over the given **dog**.",
        ),
        # of a relabeling
        (
            {
                "suggested": "cat",
                "confidence": 0.72,
                "method": "sop+",
                "judged": True,
                "neighbors": 2,
                "like_suggested": 1,
            },
            "The method sop+ suggests **cat** (72 %) over the given **dog**; 1 of its 2 nearest neighbors is labeled **cat**.",
        ),
        # no suggestion
        (
            {"judged": True, "p_given": 0.999, "rules": 5, "neighbors": 15, "like_given": 15},
            "Networks that did not see it agree with the given **dog** (> 99 %); none of 5 rules flags it and "
            "all of its 15 nearest neighbors are labeled **dog** as well.",
        ),
        # neither a suggestion nor a verdict
        ({"rules": 5, "flagging": 2}, "2 of 5 rules flag it."),
        ({"neighbors": 15, "like_given": 0}, "None of its 15 nearest neighbors is labeled **dog** as well."),
        ({}, ""),
        # the truth is known, and known to be what is given
        ({"rules": 1, "flagging": 1, "true": "cow"}, "The only rule flags it. The known true label is **cow**."),
        ({"true": "dog"}, ""),
        # the test part: nothing but held-out predictions
        (
            {**HELD_OUT, "p_given": 0.001, "test": True},
            "Networks that did not see it prefer **cat** (91 %) over the given **dog** (< 1 %). It is of the test part: no "
            "network was trained on it, so it has no learning curves and no scores.",
        ),
    ],
)
def test_the_sentence(known: dict[str, object], said: str) -> None:
    assert markdown(why(Doubt(given="dog", **known))) == said  # type: ignore[arg-type]


def test_names_are_text_in_it() -> None:
    pieces = why(Doubt(given="![x](http://a)", suggested="**b**", confidence=0.5, method="heldout_prediction"))
    assert [text for text, strong in pieces if strong] == ["**b**", "![x](http://a)"]  # as they are, for textContent
    assert r"**\*\*b\*\***" in markdown(pieces) and "](http" not in markdown(pieces).replace("\\", "")
