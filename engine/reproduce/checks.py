"""Checks of findings that hold a row against all others, against a number, or one column against another."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from engine.reproduce.values import Holds, Values, decide, less


def lowest(
    row: str, columns: Sequence[str] = (), but: Collection[str] = (), among: str = ""
) -> Callable[[Values], Holds]:
    """The check that a row is smaller than every other one, in the mean over the columns.

    It does not hold as soon as one other row is surely smaller, and holds where all others are surely larger.

    Args: but: rows that do not take part; among: text that the names of the others contain
    """

    def check(values: Values) -> Holds:
        others = [other for other in values.rows if other != row and other not in but and among in other]
        held = {other: less(row, other, columns)(values) for other in others}
        distance = {other: _mean(values.differences(other, row, columns)) for other in others}
        near = sorted((other for other in others if not math.isnan(distance[other])), key=distance.__getitem__)
        if not near:
            return Holds(None, f"{row} or what it is held against was not computed")
        decided = [held[other].holds for other in near]
        holds = False if False in decided else True if all(decided) else None
        # Where one is smaller, the smallest of all says it best; else the nearest of those that decide nothing.
        shown = next((other for other in near if holds is not None or held[other].holds is None), near[0])
        return Holds(holds, held[shown].because)

    return check


def highest(row: str, columns: Sequence[str] = (), among: str = "") -> Callable[[Values], Holds]:
    """The check that a row is larger than every other one whose name contains a text; as `lowest`."""

    def check(values: Values) -> Holds:
        turned = Values(values.percent)
        for other in values.rows:
            for column in values.columns:
                for seed, value in values.of(other, column).items():
                    turned.put(other, column, -value, seed)
        return lowest(row, columns, among=among)(turned)

    return check


def at_least(row: str, bound: float, columns: Sequence[str]) -> Callable[[Values], Holds]:
    """The check that a row is at least a number in each of the columns that are there, by the interval of its mean."""

    def check(values: Values) -> Holds:
        there = [column for column in columns if values.of(row, column)]
        held = []
        for column in there:
            beyond = decide(list(values.of(row, column).values()), f"{row}, {column}", values.percent, bound)
            held.append(Holds(beyond.holds, f"{beyond.because}; needed: {100 * bound if values.percent else bound:g}"))
        if not held:
            return Holds(None, f"{row} was not computed")
        worst = min(range(len(there)), key=lambda i: values.mean(row, there[i]))
        decided = [one.holds for one in held]
        return Holds(False if False in decided else True if all(decided) else None, held[worst].because)

    return check


def larger_at(row: str, column: str, other: str) -> Callable[[Values], Holds]:
    """The check that a row is larger in one column than in another, paired by seed."""

    def check(values: Values) -> Holds:
        first, second = values.of(row, column), values.of(row, other)
        found = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
        return decide(found, f"{row}, {column} - {other}", values.percent)

    return check


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
