"""A file of held-out probabilities that a person's own model gave, as cleanlab takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.data.dataset_file import fetch_one, reading
from engine.data.sources.kinds import expanded
from engine.errors import SourceError, SpecError
from engine.features.own_file import read_rows
from engine.store.atomic import file_hash
from engine.store.workspace import Workspace

SUFFIXES = (".npy", ".csv", ".parquet")

SLACK = 0.05
"""By which a row may differ from adding up to 1: those of ten classes that are rounded to two digits do."""


def probs_file(text: str) -> Path:
    """The file that --probs names; SpecError for another kind of file, SourceError when it is not there."""
    path = Path(expanded(text))
    if path.suffix.lower() not in SUFFIXES:
        raise SpecError(f"--probs is '{text}'; allowed: a file of probabilities, {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise SourceError(f"there is no {path} (--probs); give a file of held-out probabilities: {', '.join(SUFFIXES)}")
    return path


def read_probs(workspace: Workspace, dataset: str, text: str, expected_hash: str = "") -> Tensor:
    """The probabilities of a dataset's samples, in the order of their ids.

    Rows are matched by a column of paths or sample ids, else they are in order; the test samples may be left out. The
    columns are the classes in label order, or are named by them.

    Args:    expected_hash: of the file when the run was planned, "" to read it as it is
    Returns: (N + M, C) or (N, C) float32; rows are scaled to add up to 1
    Raises:  SourceError for another number of classes, values outside 0..1, rows that do not add up to 1, or samples that
             are missing; SpecError when the file has changed
    """
    path = probs_file(text)
    if expected_hash and file_hash(path) != expected_hash:
        raise SpecError(f"the file {path} has changed since this run was planned; run it again")
    with reading(workspace.require_dataset(dataset)) as connection:
        places = connection.execute("SELECT source, split FROM samples ORDER BY sample_id").fetchall()
        names = [name for (name,) in connection.execute("SELECT class_name FROM classes ORDER BY label").fetchall()]
        (train,) = fetch_one(connection, "SELECT count(*) FROM samples WHERE split = 'train'")
    rows = read_rows(path, [str(place) for place, _ in places], int(train), names)
    if rows.shape[1] != len(names):
        raise SourceError(
            f"{path} has {rows.shape[1]:,} columns of probabilities; dataset '{dataset}' has {len(names):,} classes"
        )
    sums = rows.sum(1)
    bad = np.flatnonzero((rows < 0).any(1) | (rows > 1 + SLACK).any(1) | (np.abs(sums - 1) > SLACK))
    if len(bad):
        first = int(bad[0])
        raise SourceError(
            f"{path}: the probabilities of sample {first} run from {rows[first].min():g} to {rows[first].max():g} and add up "
            f"to {sums[first]:g}; allowed: 0 to 1, adding up to 1 (softmax output, not logits)"
        )
    return torch.from_numpy(rows / sums[:, None])
