"""The labels that relabelings propose, and accepting them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from dashboard.data import decisions
from dashboard.data.core import Snapshot, few, frame, many
from engine.queries.samples import Ids

CONFIDENCES = ("0", "0.5", "0.9", "0.99")
"""Least confidences to choose from, as an address holds them."""


@dataclass(frozen=True)
class Proposed:
    """Samples and the labels that are proposed for them, both (B,)."""

    ids: Ids
    labels: Ids

    def __len__(self) -> int:
        return len(self.ids)


def suggesting(at: Snapshot) -> dict[str, str]:
    """The relabelings of a dataset that propose something, the newest first: title by run."""
    found = frame(few(at, "fetch_suggesting"))
    return dict(zip(found["run_id"], found["title"], strict=True))


def proposed(at: Snapshot, run_id: str, among: Ids, least: float) -> Proposed:
    """Of some samples, in their order, those for which a relabeling proposes a label with at least a confidence."""
    found = frame(many(at, "fetch_proposed", run_id))
    found = found[found["confidence"] >= least]
    labels = np.full(
        int(max(found["sample_id"].max(), among.max(initial=-1), 0)) + 1 if len(found) else 1, -1, np.int32
    )
    labels[found["sample_id"]] = found["suggested_label"]
    mine = among[among < len(labels)]
    mine = mine[labels[mine] >= 0]
    return Proposed(mine, labels[mine])


def undecided(at: Snapshot, these: Proposed) -> Proposed:
    """Those of them about which nobody has decided."""
    with decisions.following(at) as standing:
        left = standing.actions()[these.ids] < 0
    return Proposed(these.ids[left], these.labels[left])


def accept(at: Snapshot, these: Proposed) -> int:
    """Relabel samples as proposed, those that nobody has decided, in one batch. Returns: the batch

    Raises: WinnowError when all of them are decided
    """
    left = undecided(at, these)
    return decisions.decide(at, left.ids.tolist(), "relabel", left.labels.tolist())


def reliability(at: Snapshot, run_id: str) -> pd.DataFrame:
    """Whether the confidence holds, see fetch_reliability; empty where no true label is known."""
    return frame(few(at, "fetch_reliability", run_id))
