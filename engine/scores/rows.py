"""Rows that are checked and scaled before they are compared, and the median of some."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.errors import ScoreInputError


def unit_rows(features: Tensor, what: str = "features") -> Tensor:
    """Rows scaled to unit length. ScoreInputError names the first row that is zero or not finite."""
    unit: Tensor = features / row_norms(features, what)
    return unit


def row_norms(features: Tensor, what: str = "features") -> Tensor:
    """The lengths (N, 1) of rows (N, D). ScoreInputError names the first row that is zero or not finite."""
    norms: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    bad = ~torch.isfinite(norms[:, 0]) | (norms[:, 0] == 0)
    if bool(bad.any()):
        i = int(bad.nonzero()[0])
        raise ScoreInputError(
            f"the {what} of sample {i} have norm {float(norms[i]):g}; cosine similarity needs a finite non-zero one"
        )
    return norms


def median_row(rows: Tensor) -> Tensor:
    """The median of rows (N, ...) in each dimension; of an even number the mean of the middle two."""
    ordered = rows.sort(0).values
    median: Tensor = (ordered[(len(rows) - 1) // 2] + ordered[len(rows) // 2]) / 2
    return median
