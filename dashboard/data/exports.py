"""What an export would hold, its bytes, and the commands that write one into a folder of the workspace."""

from __future__ import annotations

from typing import Any

from dashboard.data.core import Snapshot, cursor, many
from engine.queries.writers import Choice, Decisions, export_bytes


def export(at: Snapshot, run_id: str, where: str, split: str, decisions: Decisions = "apply") -> dict[str, Any]:
    """What `winnow export` would write, without its rows: ids, total, left_out, relabeled, known, wrong, counts."""
    found: dict[str, Any] = many(at, "fetch_export", where, run_id, split, decisions)
    return found


def file_bytes(at: Snapshot, run_id: str, where: str, split: str, decisions: Decisions, format: str) -> bytes:
    """The file that `winnow export` would write, of a format that is one file."""
    return export_bytes(cursor(at, with_decisions=True), Choice(where, split, run_id, decisions), format)
