"""Rows that are checked and scaled before they are compared."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.errors import ScoreInputError


def unit_rows(features: Tensor, what: str = "features") -> Tensor:
    """Rows scaled to unit length. ScoreInputError names the first row that is zero or not finite."""
    norms: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    bad = ~torch.isfinite(norms[:, 0]) | (norms[:, 0] == 0)
    if bool(bad.any()):
        i = int(bad.nonzero()[0])
        raise ScoreInputError(
            f"the {what} of sample {i} have norm {float(norms[i]):g}; cosine similarity needs a finite non-zero one"
        )
    unit: Tensor = features / norms
    return unit
