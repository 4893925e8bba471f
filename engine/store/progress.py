"""How far a computation has come: to its journal for pages and other processes, and to whoever listens here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from engine.errors import Cancelled
from engine.store.journal import append_journal

Listener = Callable[[str, float, float | None], None]
"""(stage, fraction of the whole 0..1, seconds left or None)"""


class Reporter(Protocol):
    """What long work reports to: `Progress`, or one part of one of its stages."""

    def step(self, done: float, total: float, detail: str = "") -> None:
        """Report done of total; Cancelled when the run is to stop."""

    def heartbeat(self) -> None:
        """Raise Cancelled when the run is to stop."""

    def stop(self, stopped: bool = True) -> None:
        """Make every thread that reports here stop at its next heartbeat, or let them go on."""


PRIOR_SECONDS = 10.0
"""After so long in a stage, what is seen of its speed counts as much as what was expected; a tenth of short stages."""

REFRESH_SECONDS = 1.0
"""A stage whose steps take longer than this is reported again meanwhile, with the time that has passed."""


class Schedule:
    """What each of some stages is expected to take, in seconds, and what is left of them.

    A finished stage counts with what it took, the one that runs with what is seen of it so far, and those ahead with
    what was expected of them.
    """

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._ahead = {name: expected for name, expected in seconds.items() if expected > 0}
        self._expected = self._spent = self._skipped = 0.0
        self._began = time.monotonic()

    def enter(self, name: str) -> None:
        """Begin a stage; the one before it is done."""
        now = time.monotonic()
        self._spent += now - self._began + self._expected * self._skipped
        self._skipped = 0.0
        self._began, self._expected = now, self._ahead.pop(name, 0.0)

    def skip(self, share: float) -> None:
        """Take this share of the stage as done by an earlier attempt: it says nothing about the speed."""
        self._skipped = share

    def left(self, share: float, known: float | None = None) -> tuple[float, float | None]:
        """Seconds spent and seconds left when a share 0..1 of the stage is done.

        Args:    known: what is left of the stage, where its parts say that themselves
        Returns: spent, as if all had been done at this speed; left, or None before anything is known
        """
        elapsed, fresh = time.monotonic() - self._began, share - self._skipped
        whole = self._expected
        if fresh > 0:
            prior = min(PRIOR_SECONDS, whole / 10)
            trust = elapsed / (elapsed + prior) if whole else 1.0
            whole = (1 - trust) * whole + trust * elapsed / fresh
        ahead = sum(self._ahead.values())
        left = whole * (1 - share) if known is None else known
        unknown = not (whole or ahead or known)
        return self._spent + elapsed + whole * self._skipped, None if unknown and share < 1 else left + ahead


class Progress:
    """Turns stages into one fraction and the time left, and answers a request to stop.

    seconds: what each stage is expected to take. The journal gets a line a second at first and fewer on long runs (never
    more than some hundred in all).
    """

    def __init__(self, folder: Path, seconds: Mapping[str, float], listener: Listener | None = None) -> None:
        self.folder = folder
        self.listener = listener
        self.started = time.monotonic()
        self._schedule = Schedule(seconds)
        self._stage = ""
        self._fraction = 0.0
        self._at: tuple[float, str, float | None] = (0.0, "", None)
        self._last_line = 0.0
        self._last_step = 0.0
        self._stopped = False
        self._latest: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._last_heartbeat = 0.0

    def stage(self, name: str, **values: Any) -> None:
        """Enter a stage; those before it are done."""
        self._schedule.enter(name)
        self._stage = name
        self._last_step = 0.0  # however short the stage before it was, a stage is reported
        append_journal(self.folder, "stage", stage=name, **values)
        self.step(0, 1)

    def resumed(self, fraction: float) -> None:
        """Take this share of the stage as done by an earlier attempt: it counts for nothing in the estimate of time."""
        self._schedule.skip(fraction)

    def step(self, done: float, total: float, detail: str = "", left: float | None = None) -> None:
        """Report done of total in the current stage. left: its seconds left, where they are known better."""
        self._obey()
        with self._lock:
            self._at = (done / total if total else 1.0, detail, left)
            self._report()

    def _report(self) -> None:
        now, (share, detail, known) = time.monotonic(), self._at
        if now - self._last_step < 0.1 and share < 1:
            return
        self._last_step = now
        spent, left = self._schedule.left(share, known)
        if left is not None:
            whole = spent + left
            self._fraction = max(self._fraction, spent / whole if whole else 1.0)
        label = f"{self._stage} {detail}".strip()
        self._latest = {"stage": label, "fraction": round(self._fraction, 4), "seconds_left": left}
        if self.listener:
            self.listener(label, self._fraction, left)
        if now - self._last_line >= min(10.0, max(1.0, (now - self.started) / 200)):
            self._journal(now)

    def _journal(self, now: float) -> None:
        """Write the latest report, if it is not written yet."""
        if self._latest:
            self._last_line = now
            append_journal(self.folder, "progress", **self._latest)
            self._latest = {}

    def stop(self, stopped: bool = True) -> None:
        """Make every thread that reports here stop at its next heartbeat, or let them go on."""
        self._stopped = stopped

    def heartbeat(self) -> None:
        """Raise Cancelled when the run is to stop; report again where the last report is old."""
        self._obey()
        if self._stage and time.monotonic() - self._last_step > REFRESH_SECONDS:
            with self._lock:
                self._report()

    def _obey(self) -> None:
        """Raise Cancelled when the run is to stop; reads the disk a few times a second at most."""
        if self._stopped:
            raise Cancelled()
        now = time.monotonic()
        if now - self._last_heartbeat < 0.25:
            return
        self._last_heartbeat = now
        if (self.folder / "cancel").exists():
            self._journal(now)  # so that a cancelled run shows how far it came
            raise Cancelled()


class Parts:
    """One stage in parts, whose names are shown beside it. A part that is entered ends the others.

    seconds: what each part is expected to take
    """

    def __init__(self, progress: Progress, seconds: Mapping[str, float]) -> None:
        self.progress = progress
        self._schedule = Schedule(seconds)
        self._part = ""

    def enter(self, name: str) -> None:
        """Begin a part."""
        self._schedule.enter(name)
        self._part = name
        self.step(0, 1)

    def step(self, done: float, total: float, detail: str = "") -> None:
        """Report done of total in the current part."""
        spent, left = self._schedule.left(done / total if total else 1.0)
        done, total = (0.0, 1.0) if left is None else (spent, spent + left)
        self.progress.step(done, total, f"{self._part} {detail}".strip(), left)

    def heartbeat(self) -> None:
        self.progress.heartbeat()

    def stop(self, stopped: bool = True) -> None:
        self.progress.stop(stopped)


class Piece:
    """One of several equal pieces of what is reported elsewhere, each from 0 to 1."""

    def __init__(self, progress: Reporter, index: int, count: int) -> None:
        self.progress, self.index, self.count = progress, index, count

    def step(self, done: float, total: float, detail: str = "") -> None:
        """Report done of total in this piece."""
        self.progress.step(self.index + (done / total if total else 1.0), self.count, detail)

    def heartbeat(self) -> None:
        self.progress.heartbeat()

    def stop(self, stopped: bool = True) -> None:
        self.progress.stop(stopped)


class Unheard:
    """Progress that nobody sees."""

    def step(self, done: float, total: float, detail: str = "") -> None: ...

    def heartbeat(self) -> None: ...

    def stop(self, stopped: bool = True) -> None: ...
