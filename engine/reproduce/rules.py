"""What published runs and datasets say of the training samples, as tensors by position."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.errors import SpecError, unknown_name
from engine.queries.connection import connected
from engine.queries.frames import Run
from engine.store.workspace import Workspace


def kept_by_rule(run: Run, rule: str) -> Tensor:
    """Positions (K,) int64 of the training samples that a rule of a run does not flag, ascending.

    Raises: SpecError for a rule that the run does not have
    """
    flags = run.flags(long=True)
    found = flags[flags["rule"] == rule].sort_values("sample_id")
    if found.empty:
        raise SpecError(unknown_name(f"rule of run {run.id}", rule, sorted(set(flags["rule"]))))
    return torch.from_numpy(np.flatnonzero(~found["flagged"].to_numpy(bool)))


def given_labels(workspace: Workspace, dataset: str) -> Tensor:
    """The labels (N,) int64 of the training samples as they are given."""
    with connected(workspace, dataset, []) as connection:
        rows = connection.execute("SELECT label FROM samples WHERE split = 'train' ORDER BY sample_id").fetchnumpy()
    return torch.from_numpy(np.asarray(rows["label"], np.int64))


def wrong_labels(workspace: Workspace, dataset: str) -> Tensor:
    """Whether the label of each training sample is wrong (N,) bool: for measuring, and for oracles.

    Raises: SpecError where the true label of any is unknown
    """
    with connected(workspace, dataset, []) as connection:
        rows = connection.execute(
            "SELECT label, coalesce(true_label, -1) AS truth FROM samples WHERE split = 'train' ORDER BY sample_id"
        ).fetchnumpy()
    labels, truth = (np.asarray(rows[name], np.int64) for name in ("label", "truth"))
    if (truth < 0).any():
        raise SpecError(f"dataset '{dataset}' has samples without a true label, so nothing can be measured against it")
    return torch.from_numpy(labels != truth)
