"""What people decide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dashboard.data.core import Snapshot
from engine.store import decisions as log
from engine.store.decisions import Action
from engine.store.workspace import Workspace


def decide(
    at: Snapshot, ids: Sequence[int], action: Action, new_label: int | Sequence[int] | None = None, note: str = ""
) -> int:
    """Append one decision for every sample. Returns: its batch."""
    if new_label is None or isinstance(new_label, int):
        return log.decide(Workspace(Path(at.root)), at.dataset, ids, action, new_label=new_label, note=note)
    batch = 0
    for label in set(new_label):
        own = [i for i, given in zip(ids, new_label, strict=True) if given == label]
        batch = log.decide(Workspace(Path(at.root)), at.dataset, own, action, new_label=label, note=note)
    return batch


def undo(at: Snapshot) -> int | None:
    """Take back the latest batch."""
    return log.undo(Workspace(Path(at.root)), at.dataset)
