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


class Progress:
    """Turns stages of known weight into one fraction, and answers a request to stop.

    The journal gets a line a second at first and fewer on long runs (never more than some hundred in all).
    """

    def __init__(self, folder: Path, weights: dict[str, float], listener: Listener | None = None) -> None:
        self.folder = folder
        self.weights = {k: w for k, w in weights.items() if w > 0}
        self.listener = listener
        self.started = time.monotonic()
        self._done = 0.0
        self._skipped = 0.0
        self._stage = ""
        self._last_line = 0.0
        self._last_step = 0.0
        self._stopped = False
        self._latest: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._last_heartbeat = 0.0

    def stage(self, name: str, **values: Any) -> None:
        """Enter a stage; those before it are done."""
        if self._stage:
            self._done += self.weights.pop(self._stage, 0.0)
        self._stage = name
        self._last_step = 0.0  # however short the stage before it was, a stage is reported
        append_journal(self.folder, "stage", stage=name, **values)
        self.step(0, 1)

    def resumed(self, name: str, fraction: float) -> None:
        """Take this share of a stage as done by an earlier attempt: it counts for nothing in the estimate of time."""
        self._skipped = self.weights.get(name, 0.0) * fraction

    def step(self, done: float, total: float, detail: str = "") -> None:
        """Report done of total in the current stage."""
        self.heartbeat()
        with self._lock:
            self._step(done, total, detail)

    def _step(self, done: float, total: float, detail: str) -> None:
        now = time.monotonic()
        if now - self._last_step < 0.1 and done < total:
            return
        self._last_step = now
        elapsed = now - self.started
        finished = self._done + self.weights.get(self._stage, 0.0) * (done / total if total else 1.0)
        whole = self._done + sum(self.weights.values())
        fraction = min(1.0, finished / whole) if whole else 1.0
        fresh = finished - self._skipped
        left = elapsed * (whole - finished) / fresh if fresh > 0.02 * whole and elapsed > 1 else None
        label = f"{self._stage} {detail}".strip()
        self._latest = {"stage": label, "fraction": round(fraction, 4), "seconds_left": left}
        if self.listener:
            self.listener(label, fraction, left)
        if now - self._last_line >= min(10.0, max(1.0, elapsed / 200)):
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
    """One stage in parts of known weight, whose names are shown beside it. A part that is entered ends the others."""

    def __init__(self, progress: Progress, weights: Mapping[str, float]) -> None:
        self.progress = progress
        self.weights = dict(weights)
        self._whole = sum(weights.values()) or 1.0
        self._done = 0.0
        self._part = ""

    def enter(self, name: str) -> None:
        """Begin a part."""
        self._done += self.weights.pop(self._part, 0.0)
        self._part = name
        self.step(0, 1)

    def step(self, done: float, total: float, detail: str = "") -> None:
        """Report done of total in the current part."""
        share = self.weights.get(self._part, 0.0) * (done / total if total else 1.0)
        self.progress.step(self._done + share, self._whole, detail or self._part)

    def heartbeat(self) -> None:
        self.progress.heartbeat()

    def stop(self, stopped: bool = True) -> None:
        self.progress.stop(stopped)
