"""Published consistency scores, read from a file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import SourceError

Array = np.ndarray[Any, Any]


def cscores_file(path: str | Path) -> Path:
    """The path of a file of C-scores; SourceError when it is missing."""
    if not Path(path).is_file():
        raise SourceError(f"no file {path} (--cscores); it must be an .npz with an array 'scores'")
    return Path(path)


def read_cscores(path: Path, labels: Array) -> Array:
    """C-scores of a training set from an .npz file with `scores` and, to check the order by, `labels`.

    The published files are in the original order of their dataset, so the dataset must be in it, too.

    Args:    labels (N,) int64, the true labels of the training samples in the order of their ids
    Returns: (N,) float32 in [0, 1]; higher = easier, as the score `consistency`
    Raises:  SourceError when the file is missing or malformed, or is of other samples or another order
    """
    cscores_file(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files if name in ("scores", "labels")}
    except (ValueError, OSError, zipfile.BadZipFile, AttributeError) as error:
        raise SourceError(f"{path} is no .npz file of numbers; it must have an array 'scores'") from error
    if "scores" not in found:
        raise SourceError(f"{path} has no array 'scores'")
    scores = np.asarray(found["scores"], np.float32).reshape(-1)
    if len(scores) != len(labels):
        raise SourceError(f"{path} has {len(scores)} scores; the dataset has {len(labels)} training samples")
    bad = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
    if len(bad):
        raise SourceError(f"{path}: the score of sample {bad[0]} is {scores[bad[0]]:g}; allowed: 0 to 1")
    if "labels" in found:
        differ = np.flatnonzero(np.asarray(found["labels"]).reshape(-1) != labels)
        if len(differ):
            raise SourceError(
                f"{path}: the label of sample {differ[0]} differs from the dataset's, as do {len(differ) - 1} others; "
                "ingest the dataset in its original order"
            )
    return scores
