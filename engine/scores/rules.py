"""When a rule says nothing: what the notes of a run and its verdict take from one place."""

from __future__ import annotations

from engine.text import percent

LARGEST_SHARE = 1 / 3
"""A rule that flags more of the samples than this does not tell the wrong labels from the others."""

SEEN = {
    "hardness": "a hard sample",
    "outlier": "an unusual sample",
    "duplicate": "a copy",
    "picture": "how the picture looks",
    "none": "nothing",
}
"""What else than the label a score may be evidence of, as the end of a sentence."""


def why_unused(flagged: float, accuracy: float | None = None, chance: float = 0.0, evidence: str = "label") -> str:
    """Why a rule is left out of the vote, as the end of a sentence about it; "" where it is usable.

    Args:    flagged: share of the samples it flags, 0..1; accuracy: share of the held-out predictions of the networks
             it reads that are right, None where it reads none or nothing was held out; chance: share of the largest
             class; evidence: what the rule's score is evidence of
    """
    if evidence != "label":
        return f"it is no evidence of a wrong label, but of {SEEN.get(evidence, evidence)}"
    if not flagged > 0:
        return "it flags nothing"
    if flagged > LARGEST_SHARE:
        return f"it flags {percent(flagged)} of the samples, more than a third"
    if accuracy is not None and accuracy < tellable_accuracy(chance):
        return (
            f"its networks are right on {percent(accuracy)} of the samples held out, and a guess on {percent(chance)}; "
            f"needed: {percent(tellable_accuracy(chance))}"
        )
    return ""


def tellable_accuracy(chance: float) -> float:
    """The accuracy from which on a network tells wrong labels: twice chance, or halfway from chance to 1 if less.

    Twice chance cannot be reached where a class has half of the samples or more.
    """
    return min(2 * chance, (1 + chance) / 2)
