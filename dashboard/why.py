"""Why a label is in doubt, in a sentence or two: what networks prefer, how many rules flag it, what its neighbors are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dashboard.markup import plain

Piece = tuple[str, bool]
"""A part of a sentence, and whether it is to stand out. Names are in it as they are: they are text to whoever draws it."""


@dataclass(frozen=True)
class Doubt:
    """What is known of one sample's label.

    given, suggested, true: names of classes, "" where there is none; confidence: of the suggestion, 0..1; method: that
    suggests it; p_given: the probability of the given label in networks that did not see the sample; rules: that vote on
    labels in this run, flagging: those that flag it; neighbors: how many nearest ones are known, like_given and
    like_suggested: how many of them have that label; judged: whether the run has predictions of networks that did not
    see the sample; test: whether it is of the test part
    """

    given: str
    suggested: str = ""
    true: str = ""
    confidence: float | None = None
    method: str = ""
    p_given: float | None = None
    rules: int = 0
    flagging: int = 0
    neighbors: int = 0
    like_given: int = 0
    like_suggested: int = 0
    judged: bool = False
    test: bool = False


_OF_TEST = "It is of the test part: no network was trained on it, so it has no learning curves and no scores"


def doubt_of(row: Any, neighbors: Sequence[int], names: Sequence[str], judged: bool) -> Doubt:
    """What is known of a sample.

    Args: row: of `data.reviews.doubts`; neighbors: the labels of its nearest ones; names: of the classes; judged: whether
          the run has predictions of networks that did not see it
    """
    label, suggested = int(row.label), -1 if pd.isna(row.suggested_label) else int(row.suggested_label)
    return Doubt(
        given=names[label],
        suggested=names[suggested] if suggested >= 0 else "",
        true="" if pd.isna(row.true_label) else names[int(row.true_label)],
        confidence=None if pd.isna(row.confidence) else float(row.confidence),
        method="" if pd.isna(row.method) else str(row.method),
        p_given=None if pd.isna(row.p_given) else float(row.p_given),
        rules=int(row.rules),
        flagging=int(row.flagging),
        neighbors=len(neighbors),
        like_given=sum(1 for one in neighbors if one == label),
        like_suggested=sum(1 for one in neighbors if one == suggested),
        judged=judged,
        test=row.split == "test",
    )


def why(doubt: Doubt) -> list[Piece]:
    """The sentences, in pieces."""
    rules, neighbors = _rules(doubt), _neighbors(doubt)
    counted = [*rules, *([(" and ", False)] if rules and neighbors else []), *neighbors]
    networks = _networks(doubt)
    sentences = [[*networks, *([("; ", False)] if networks and counted else []), *counted]]
    if doubt.true and doubt.true != doubt.given:
        sentences.append([("The known true label is ", False), (doubt.true, True)])
    if doubt.test:
        sentences.append([(_OF_TEST, False)])
    found: list[Piece] = []
    for sentence in filter(None, sentences):
        (text, strong), *rest = sentence
        found += [(" ", False)] if found else []
        found += [(text if strong else text[:1].upper() + text[1:], strong), *rest, (".", False)]
    return found


def markdown(pieces: Iterable[Piece]) -> str:
    """Pieces for a page: names are shown as they are written."""
    return "".join(f"**{plain(text)}**" if strong else text for text, strong in pieces)


def _networks(doubt: Doubt) -> list[Piece]:
    """What networks prefer."""
    if not doubt.suggested:
        if doubt.judged:
            how = f" ({_share(doubt.p_given)})" if doubt.p_given is not None else ""
            return [("Networks that did not see it agree with the given ", False), (doubt.given, True), (how, False)]
        return []
    over: list[Piece] = [(" over the given ", False), (doubt.given, True)]
    if doubt.method == "heldout_prediction":
        found: list[Piece] = [("Networks that did not see it prefer ", False), (doubt.suggested, True)]
        found += [(f" ({_share(doubt.confidence)})", False)] if doubt.confidence is not None else []
        found += over
        return found + ([(f" ({_share(doubt.p_given)})", False)] if doubt.p_given is not None else [])
    if doubt.method and doubt.method != "prediction_vote":
        sure = [(f" ({_share(doubt.confidence)})", False)] if doubt.confidence is not None else []
        return [(f"The method {doubt.method} suggests ", False), (doubt.suggested, True), *sure, *over]
    if doubt.confidence is None:
        return [("The networks prefer ", False), (doubt.suggested, True), *over]
    when = "In all epochs" if doubt.confidence >= 0.9995 else f"In {_share(doubt.confidence)} of the epochs"
    return [(f"{when} the networks preferred ", False), (doubt.suggested, True), *over]


def _rules(doubt: Doubt) -> list[Piece]:
    if not doubt.rules:
        return []
    if doubt.rules == 1:
        return [("the only rule flags it" if doubt.flagging else "the only rule does not flag it", False)]
    if doubt.flagging == doubt.rules:
        return [(f"all {doubt.rules} rules flag it", False)]
    many = "none" if not doubt.flagging else str(doubt.flagging)
    return [(f"{many} of {doubt.rules} rules flag{'' if doubt.flagging > 1 else 's'} it", False)]


def _neighbors(doubt: Doubt) -> list[Piece]:
    if not doubt.neighbors:
        return []
    if doubt.suggested:
        return [(f"{_of(doubt.like_suggested, doubt.neighbors)} labeled ", False), (doubt.suggested, True)]
    return [(f"{_of(doubt.like_given, doubt.neighbors)} labeled ", False), (doubt.given, True), (" as well", False)]


def _of(some: int, many: int) -> str:
    """ "12 of its 15 nearest neighbors are" """
    if many == 1:
        return "its only neighbor is" if some else "its only neighbor is not"
    amount = "none" if not some else "all" if some == many else str(some)
    return f"{amount} of its {many} nearest neighbors {'are' if some > 1 else 'is'}"


def _share(value: float | None) -> str:
    """A probability in whole percent, never as a certainty."""
    percent = 100 * (value or 0.0)
    return "> 99 %" if percent > 99 else "< 1 %" if percent < 1 else f"{percent:.0f} %"
