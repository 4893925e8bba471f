"""What an export would hold, its bytes, and the command that writes one into a folder of the workspace."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.data.core import Snapshot, cursor, many, require_writable
from engine.queries.versions import choose_version
from engine.queries.writers import WRITERS, Choice, Decisions, Writer, export_bytes, fetch_export
from engine.store.atomic import storage_errors
from engine.store.jobs import Started
from engine.store.versions import stored_version, stored_versions
from engine.store.workspace import Workspace

FOLDER = "exports"
"""Of a workspace: where the pages write."""


@dataclass(frozen=True)
class Export:
    """What an export is to hold, as the page has it. version: of the curated set, "" = none."""

    run_id: str
    where: str
    split: str
    decisions: Decisions = "apply"
    version: str = ""

    def words(self, at: Snapshot, best_run: str) -> list[str]:
        """The words of `winnow` that write it, but for --format and --to."""
        words = ["export", at.dataset, "--where", self.where or "true"]
        words += ["--split", self.split] if self.split != "train" else []
        words += ["--run", self.run_id] if self.run_id != best_run else []
        words += ["--decisions", self.decisions] if self.decisions != "apply" and not self.version else []
        return words + (["--version", self.version] if self.version else [])


def export(at: Snapshot, wanted: Export) -> dict[str, Any]:
    """What `winnow export` would write, without its rows: ids, total, left_out, relabeled, known, wrong, counts."""
    if wanted.version:
        version = stored_version(Workspace(Path(at.root)), at.dataset, wanted.version)
        return _of_version(at, wanted, version.hash)
    found: dict[str, Any] = many(at, "fetch_export", _choice(at, wanted))
    return found


@st.cache_data(max_entries=8, show_spinner=False)
def _of_version(at: Snapshot, wanted: Export, hash: str) -> dict[str, Any]:
    """Apart, because a version's samples would be the key."""
    return fetch_export(cursor(at, with_decisions=True), _choice(at, wanted))


def file_bytes(at: Snapshot, wanted: Export, format: str) -> bytes:
    """The file that `winnow export` would write, of a format that is one file."""
    return export_bytes(cursor(at, with_decisions=True), _choice(at, wanted), format)


def _choice(at: Snapshot, wanted: Export) -> Choice:
    choice = Choice(wanted.where, wanted.split, wanted.run_id, wanted.decisions)
    return choose_version(Workspace(Path(at.root)), at.dataset, wanted.version, choice) if wanted.version else choice


def version_names(at: Snapshot) -> list[str]:
    """The names of the versions of a dataset, the latest first; not cached."""
    return [version.name for version in reversed(stored_versions(Workspace(Path(at.root)), at.dataset))]


def free_path(at: Snapshot, writer: Writer) -> Path:
    """A name that is free in the folder of exports, which is made."""
    require_writable()
    folder = Path(at.root) / FOLDER
    with storage_errors("exports", folder.parent):
        folder.mkdir(exist_ok=True)
    name, number = f"{at.dataset}-{writer.name}", 1
    while (path := folder / f"{name}{f'-{number}' if number > 1 else ''}{writer.ending}").exists():
        number += 1
    return path


def share_done(started: Started) -> float:
    """How far an export is that was started here, 0..1, by what it has written to its output."""
    try:
        found = re.findall(rb" (\d{1,3}) %", started.output.read_bytes()[-4_000:])
    except OSError:
        return 0.0
    return min(1.0, int(found[-1]) / 100) if found else 0.0


def words_of(started: Started) -> str:
    """What an export printed when it ended: how much was written, and what to know of it."""
    try:
        lines = started.output.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "; ".join(line for line in lines if line.strip() and not re.fullmatch(r"\w+ \d{1,3} %", line.strip()))


def stop(started: Started) -> None:
    """Stop an export, which leaves nothing behind."""
    require_writable()
    if started.running:
        started.process.send_signal(signal.SIGINT)


__all__ = [
    "WRITERS", "Export", "Writer", "export", "file_bytes", "free_path", "share_done", "stop", "version_names", "words_of",
]  # fmt: skip
