"""The values of a table: one for each row, column and seed; their means, intervals and differences. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from engine.queries.proofs import interval


@dataclass(frozen=True)
class Holds:
    """Whether a finding holds: True, False, or None where the values do not decide it. because: the numbers, in words"""

    holds: bool | None
    because: str


class Values:
    """The values of one table or figure, in the order in which rows and columns came."""

    def __init__(self, percent: bool = True) -> None:
        self.percent = percent
        self._cells: dict[tuple[str, str], dict[int, float]] = {}

    def put(self, row: str, column: str, value: float, seed: int = 0) -> None:
        """Add one value; shares are 0..1."""
        self._cells.setdefault((row, column), {})[seed] = float(value)

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(row for row, _ in self._cells))

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for _, column in self._cells))

    def of(self, row: str, column: str) -> dict[int, float]:
        """The values of a cell by seed; {} for one that is empty."""
        return self._cells.get((row, column), {})

    def mean(self, row: str, column: str) -> float:
        """The mean over the seeds; nan for an empty cell."""
        found = self.of(row, column).values()
        return math.fsum(found) / len(found) if found else math.nan

    def half(self, row: str, column: str) -> float | None:
        """Half of the 95 % interval (Student's t) of the mean over the seeds; None with fewer than two."""
        low, high = interval(list(self.of(row, column).values()))
        return None if low is None or high is None else (high - low) / 2

    def shown(self, row: str, column: str) -> str:
        """The cell as text, mean ± half of the interval; "" for an empty one."""
        mean, half = self.mean(row, column), self.half(row, column)
        if math.isnan(mean):
            return ""
        return _number(mean, self.percent) + ("" if half is None else f" ± {_number(half, self.percent)}")

    def differences(self, first: str, second: str, columns: Iterable[str] = ()) -> list[float]:
        """first - second of every seed that both rows have, each the mean over the columns; all that both rows have."""
        named = list(columns) or self.columns
        both = [column for column in named if self.of(first, column) and self.of(second, column)]
        seeds = [set(self.of(row, column)) for row in (first, second) for column in both]
        shared = sorted(set.intersection(*seeds)) if seeds else []
        return [
            math.fsum(self.of(first, column)[seed] - self.of(second, column)[seed] for column in both) / len(both)
            for seed in shared
        ]


def _number(value: float, percent: bool) -> str:
    return f"{100 * value:.1f}" if percent else f"{value:.4g}"


Columns = Sequence[str] | Callable[[Values], Sequence[str]]
"""Names of columns, () = all; or what finds them among those that are there."""


def more(first: str, second: str, columns: Columns = (), by: float = 0.0) -> Callable[[Values], Holds]:
    """The check that a row is larger than another, in the mean over the columns, by more than a difference.

    It holds where the 95 % interval of the mean difference, paired by seed, is above it, does not where it is below, and
    is undecided in between, or with a single seed.
    """

    def check(values: Values) -> Holds:
        named = columns(values) if callable(columns) else columns
        found = values.differences(first, second, named) if named or not callable(columns) else []
        if not found:
            return Holds(None, f"{first} or {second} was not computed")
        return decide(found, f"{first} - {second}", values.percent, by)

    return check


def decide(differences: Sequence[float], name: str, percent: bool, by: float = 0.0) -> Holds:
    """Whether differences, one for each seed, are above a number, by the 95 % interval of their mean.

    Args: name: of what the differences are
    """
    if not differences:
        return Holds(None, f"{name} was not computed")
    mean, (low, high) = math.fsum(differences) / len(differences), interval(list(differences))
    text = f"{name}: {_signed(mean, percent)}{' points' if percent else ''}"
    if low is None or high is None:
        return Holds(None, f"{text}, one seed")
    text += f" ({_signed(low, percent)} to {_signed(high, percent)})"
    return Holds(True if low > by else False if high < by else None, text)


def less(first: str, second: str, columns: Columns = ()) -> Callable[[Values], Holds]:
    """The check that a row is smaller than another; as `more` with the rows exchanged."""
    return more(second, first, columns)


def _signed(value: float, percent: bool) -> str:
    return f"{100 * value:+.1f}" if percent else f"{value:+.3g}"
