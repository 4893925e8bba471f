"""A run's journal: one event a line, appended while the run is computed."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from engine.store.atomic import storage_errors


def append_journal(folder: Path, event: str, *, durable: bool = False, **values: Any) -> None:
    """Append one event as one line in one write; with durable, it is on the disk when this returns."""
    line = json.dumps({"at": time.time(), "event": event, **values}) + "\n"
    with storage_errors("the journal", folder):
        handle = os.open(folder / "journal.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
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
    """The events of a run, oldest first; torn lines are passed over. last_bytes reads only the journal's end."""
    try:
        with open(folder / "journal.jsonl", "rb") as file:
            if last_bytes is not None:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - last_bytes))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    events = []
    for line in lines:
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and "event" in event:
                events.append(event)
    return events
