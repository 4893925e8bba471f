"""A run's journal: one event a line, appended while the run is computed."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import StorageError
from engine.store.atomic import storage_errors
from engine.store.documents import NO_LINK, number, read_bytes, require_regular


def append_journal(folder: Path, event: str, *, durable: bool = False, **values: Any) -> None:
    """Append one event as one line in one write; with durable, it is on the disk when this returns."""
    line = json.dumps({"at": time.time(), "event": event, **values}) + "\n"
    with storage_errors("the journal", folder):
        path = folder / "journal.jsonl"
        if os.path.lexists(path):
            require_regular(path)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | NO_LINK, 0o644)
        try:
            # A process killed in the middle of a write leaves a torn line: end it, so that this one stays whole.
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = "\n" + line
            os.write(handle, line.encode())
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)


def read_journal(folder: Path, last_bytes: int | None = None) -> list[dict[str, Any]]:
    """The events of a run, oldest first, each with `event` (text) and `at` (seconds since the epoch).

    Torn lines, and lines that no version writes, are passed over: a journal shows progress and decides nothing.
    last_bytes reads only the journal's end.
    """
    try:
        lines = read_bytes(folder / "journal.jsonl", last_bytes).split(b"\n")
    except (FileNotFoundError, StorageError):
        return []
    events = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            event = json.loads(line)
            if isinstance(event, dict) and isinstance(event.get("event"), str) and number(event.get("at"), -1) >= 0:
                events.append(event)
    return events


def psi_points(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The points of a psi-curve among the events of a journal: order (text or None), pruned, seed, network, kept_fraction,
    accuracy, seconds. One that is not whole is passed over, so its network is trained again."""
    points = []
    for event in events:
        listed = event.get("points") if event["event"] == "psi_points" else ()
        points += [point for point in listed if _is_point(point)] if isinstance(listed, list) else []
    return points


def _is_point(point: object) -> bool:
    if not isinstance(point, dict):
        return False
    whole = all(type(point.get(name)) is int and 0 <= point[name] < 1 << 31 for name in ("pruned", "seed"))
    shares = all(0 <= number(point.get(name), -1) <= 1 for name in ("accuracy", "kept_fraction"))
    named = isinstance(point.get("network", ""), str) and isinstance(point.get("order"), str | None)
    return whole and shares and named and number(point.get("seconds"), -1) >= 0


def proof_networks(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The networks of a proof among the events of a journal: network, seed, set, accuracy, accuracy_true (or None), samples,
    tested, held_out, steps, seconds. One that is not whole is passed over, so it is trained again."""
    found = []
    for event in events:
        listed = event.get("networks") if event["event"] == "proof" else ()
        found += [one for one in listed if _is_network(one)] if isinstance(listed, list) else []
    return found


def _is_network(one: object) -> bool:
    if not isinstance(one, dict):
        return False
    counts = all(type(one.get(n)) is int and 0 <= one[n] < 1 << 31 for n in ("seed", "samples", "tested", "steps"))
    shares = [one.get("accuracy")] + ([] if one.get("accuracy_true") is None else [one["accuracy_true"]])
    named = one.get("set") in ("full", "curated") and isinstance(one.get("network"), str)
    measured = all(0 <= number(share, -1) <= 1 for share in shares) and number(one.get("seconds"), -1) >= 0
    return counts and named and measured and isinstance(one.get("held_out"), bool) and one["tested"] > 0
