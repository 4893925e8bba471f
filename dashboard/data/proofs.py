"""What curated sets gain: the proofs of a dataset, finished or not, and what each shows."""

from __future__ import annotations

import pandas as pd

from dashboard.data.core import Snapshot, few, frame, snapshot_of, workspace_root
from dashboard.data.jobs import jobs
from engine.queries.proofs import Gain, compute_gain, fetch_proof_journal, points
from engine.store.jobs import Job
from engine.store.workspace import Workspace

__all__ = ["Gain", "gain", "networks", "of", "points", "seeds"]


def of(at: Snapshot) -> list[Job]:
    """The proofs of a dataset that can be read, the latest first; not cached."""
    return [job for job in jobs(at.dataset) if job.kind == "prove" and job.state != "unreadable"]


def networks(run_id: str) -> pd.DataFrame:
    """The networks of a proof by seed, full before curated: seed, set, accuracy, accuracy_true, ... as far as they are."""
    workspace = Workspace.open(workspace_root())
    if workspace.is_published(run_id):
        return frame(few(snapshot_of(run_id), "fetch_proof", run_id))
    return fetch_proof_journal(workspace, run_id)


def gain(networks: pd.DataFrame, column: str = "accuracy") -> Gain | None:
    """What the finished pairs show; None where none is finished, or the truth that the column needs is unknown."""
    return compute_gain(networks, column) if len(networks) else None


def seeds(run_id: str) -> int:
    """How many seeds a proof has."""
    training = Workspace.open(workspace_root()).read_record(run_id).spec.get("training")
    given = training.get("seeds") if isinstance(training, dict) else None
    return given if type(given) is int and 0 < given <= 1000 else 1
