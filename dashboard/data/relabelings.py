"""The labels that relabelings propose, and accepting them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dashboard.data import decisions
from dashboard.data.core import Snapshot, few, frame, many
from engine.fields import Setting, settings_of
from engine.queries.samples import Ids
from engine.spec import RelabelSpec, TrainingSpec
from engine.store.workspace import Workspace

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


def selections(at: Snapshot) -> pd.DataFrame:
    """The networks of relabelings that learned from a selection, see fetch_selections."""
    return frame(few(at, "fetch_selections"))


def selecting_seconds(at: Snapshot) -> pd.DataFrame:
    """What it takes to choose by each score, see fetch_selecting_seconds."""
    return frame(few(at, "fetch_selecting_seconds"))


def command_like(at: Snapshot, run_id: str, **changes: Any) -> str:
    """The command of a relabeling with the options of another one, but for some."""
    given = Workspace(Path(at.root)).read_record(run_id).spec
    training = given.get("training")
    training = training if isinstance(training, dict) else {}
    words = ["winnow", "relabel", at.dataset, "--method", str(given.get("method"))]
    keep = given.get("keep")
    if isinstance(keep, (list, tuple)) and keep:
        words += ["--keep", ",".join(f"{share:g}" for share in keep if isinstance(share, (int, float)))]
    for name, setting in settings_of(RelabelSpec).items():
        value = changes.get(name, given.get(name, setting.default))
        words += _words(setting, value) if value != setting.default else []
    settings = given.get("settings")
    for text in settings if isinstance(settings, (list, tuple)) else ():
        words += ["--set", str(text)]
    trained = {"model", "epochs", "seeds", "batch_size", "lr", "optimizer", "schedule", "weight_decay", "augment"}
    for name, setting in settings_of(TrainingSpec).items():
        words += _words(setting, training[name]) if name in trained & set(training) else []
    return shlex.join(words)


def _words(setting: Setting, value: Any) -> list[str]:
    """An option as it is written; nothing for a value of another type, which a copied spec may hold."""
    if isinstance(setting.default, bool):
        return [setting.flag] if value is True else []
    kinds = (int, float) if isinstance(setting.default, (int, float)) else (str,)
    return [setting.flag, str(value)] if isinstance(value, kinds) and not isinstance(value, bool) else []
