"""What every benchmark of `python tests/benchmarks` shares: a row of its table, and two sides timed in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Work = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """How much is measured. small: the smallest form, seconds in all; samples: of the growth, one run each; data: a folder
    with MNIST/raw or cifar10 in it; workspace: one of make_workspace.py, for the dashboard"""

    repeats: int = 5
    small: bool = False
    samples: tuple[int, ...] = (1_000, 10_000, 100_000)
    data: Path | None = None
    workspace: Path | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table: processor seconds of ours and of a peer, measured in turn, a warm-up of both left out.

    goal: the most that ours may take, as a share of the peer's; most: the most seconds, where there is no peer; note: what
    else was seen, or why a peer is not there
    """

    what: str
    data: str
    peer: str
    goal: float | None = None
    ours: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()
    wall: tuple[float, float] | None = None
    note: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    most: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours as a share of the peer's: the median over the rounds, since both sides of a round saw the same machine."""
        if not self.ours or not self.theirs:
            return None
        return statistics.median(a / b for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def met(self) -> str:
        if self.most is not None and self.ours:
            return "met" if statistics.median(self.ours) <= self.most else "not met"
        if self.goal is None or self.ratio is None:
            return "-"
        return "met" if self.ratio <= self.goal else "not met"

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "ratio": self.ratio, "met": self.met}


def race(row: Row, ours: Work, theirs: Work | None, repeats: int) -> Row:
    """A row with the times of both sides, each run once to warm up and then `repeats` times, who is first by turns."""
    sides = [ours] if theirs is None else [ours, theirs]
    processor: list[list[float]] = [[] for _ in sides]
    wall: list[list[float]] = [[] for _ in sides]
    for turn in range(repeats + 1):
        for i in range(len(sides)) if turn % 2 else reversed(range(len(sides))):
            started, used = time.perf_counter(), time.process_time()
            sides[i]()
            if turn:
                wall[i].append(time.perf_counter() - started)
                processor[i].append(time.process_time() - used)
    both = (statistics.median(wall[0]), statistics.median(wall[-1])) if theirs else None
    return Row(**{
        **{name: getattr(row, name) for name in ("what", "data", "peer", "goal", "note", "more")},
        "ours": tuple(processor[0]), "theirs": tuple(processor[1]) if theirs else (), "wall": both,
    })  # fmt: skip


def missing(package: str, install: str = "") -> str:
    """The command that installs a peer, where it is not there; "" where it is."""
    return "" if find_spec(package) else f"not installed: pip install {install or package}"
