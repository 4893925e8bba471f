"""Checks of findings that hold a row against all others, against a number, or one column against another."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from engine.reproduce.values import Holds, Values, decide, less, more
from engine.text import percent


def lowest(
    row: str, columns: Sequence[str] = (), but: Collection[str] = (), among: str = ""
) -> Callable[[Values], Holds]:
    """The check that a row is smaller than every other one, in the mean over the columns.

    It does not hold as soon as one other row is surely smaller, and holds where all others are surely larger.

    Args: but: rows that do not take part; among: text that the names of the others contain
    """
    return lambda values: _against_all(values, row, columns, but, among, -1)


def highest(row: str, columns: Sequence[str] = (), among: str = "") -> Callable[[Values], Holds]:
    """The check that a row is larger than every other one whose name contains a text; as `lowest`."""
    return lambda values: _against_all(values, row, columns, (), among, 1)


def _against_all(
    values: Values, row: str, columns: Sequence[str], but: Collection[str], among: str, sign: int
) -> Holds:
    """Whether a row is the largest (sign 1) or the smallest (-1); said by the closest other row that decides it."""
    check, held = more if sign == 1 else less, []
    for other in values.rows:
        if other != row and other not in but and among in other and (found := values.differences(row, other, columns)):
            held.append((sign * math.fsum(found) / len(found), check(row, other, columns)(values)))
    if not held:
        return Holds(None, f"{row} or what it is held against was not computed")
    return _all_hold(held)


def _all_hold(held: Sequence[tuple[float, Holds]]) -> Holds:
    """Whether all of some comparisons hold, each with how far it is from not holding: False where one surely does not.

    It is said by the comparison with the smallest distance among those that come to the same as the whole.
    """
    decided = [one.holds for _, one in held]
    holds = False if False in decided else True if all(decided) else None
    distance = [far if one.holds is holds else math.inf for far, one in held]
    return Holds(holds, held[distance.index(min(distance))][1].because)


def all_of(*checks: Callable[[Values], Holds]) -> Callable[[Values], Holds]:
    """The check that several hold: it does not where one does not, and is said by the first that comes to the same."""
    return lambda values: _all_hold([(float(i), check(values)) for i, check in enumerate(checks)])


def at_least(row: str, bound: float, columns: Sequence[str]) -> Callable[[Values], Holds]:
    """The check that a row is at least a number in each of the columns that are there, by the interval of its mean."""
    return lambda values: _beyond(values, row, bound, columns, 1)


def at_most(row: str, bound: float, columns: Sequence[str]) -> Callable[[Values], Holds]:
    """The check that a row is at most a number in each of the columns that are there; as `at_least`."""
    return lambda values: _beyond(values, row, bound, columns, -1)


def _beyond(values: Values, row: str, bound: float, columns: Sequence[str], sign: int) -> Holds:
    held = []
    for column in columns:
        found = list(values.of(row, column).values())
        if found:
            holds = decide([sign * value for value in found], row, values.percent, sign * bound).holds
            name = row if len(values.columns) == 1 else f"{row}, {column}"
            shown = f"{values.shown(row, column)}{' %' if values.percent else ''}"
            needed = f"{percent(bound) if values.percent else f'{bound:g}'} or {'more' if sign == 1 else 'less'}"
            alone = ", one seed" if len(found) == 1 else ""
            held.append((sign * values.mean(row, column), Holds(holds, f"{name}: {shown}{alone}; needed: {needed}")))
    return _all_hold(held) if held else Holds(None, f"{row} was not computed")


def larger_at(row: str, column: str, other: str, by: float = 0.0) -> Callable[[Values], Holds]:
    """The check that a row is larger in one column than in another, by more than a difference, paired by seed."""

    def check(values: Values) -> Holds:
        first, second = values.of(row, column), values.of(row, other)
        found = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
        return decide(found, f"{row}, {column} - {other}", values.percent, by)

    return check
