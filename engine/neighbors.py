"""Exact nearest neighbours by cosine similarity: blocked matrix products and a two-step top-k, on any device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.errors import ScoreInputError

BLOCK_VALUES = 1 << 26
"""Similarities held at a time (256 MB)."""

CHUNK = 64
"""Columns of which only the best is looked at in the first step of the top-k."""


def unit_rows(features: Tensor) -> Tensor:
    """Rows scaled to unit length. ScoreInputError names the first row that is zero or not finite."""
    norms: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    bad = ~torch.isfinite(norms[:, 0]) | (norms[:, 0] == 0)
    if bool(bad.any()):
        i = int(bad.nonzero()[0])
        raise ScoreInputError(
            f"the features of sample {i} have norm {float(norms[i]):g}; cosine similarity needs a finite non-zero one"
        )
    unit: Tensor = features / norms
    return unit


def compute_neighbors(
    features: Tensor, k: int, report: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Tensor, Tensor]:
    """The k nearest other samples of every sample by cosine similarity, nearest first. Exact.

    Args:    features (N, D) float; k in 1 .. N-1
    Returns: ids (N, k) int64 and similarities (N, k) float32 in [-1, 1]
    Raises:  ScoreInputError when k >= N, or features of a sample are zero or not finite
    """
    n = len(features)
    if not 1 <= k < n:
        raise ScoreInputError(f"{k} neighbours were asked of {n} samples; allowed: 1 to {n - 1}")
    unit = unit_rows(features.float())
    ids = torch.empty(n, k, dtype=torch.int64, device=features.device)
    similarities = torch.empty(n, k, device=features.device)
    rows = max(1, min(4096, BLOCK_VALUES // n))
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        block = unit[start:stop] @ unit.T
        block[torch.arange(stop - start), torch.arange(start, stop)] = -torch.inf
        similarities[start:stop], ids[start:stop] = _top(block, k)
        report(stop, n)
    return ids, similarities.clamp_(-1.0, 1.0)


def _top(block: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Row-wise top-k. The k best values of a row lie in the k chunks with the best maxima, so only those are sorted."""
    n = block.shape[1]
    chunks = -(-n // CHUNK)
    if chunks <= 2 * k:
        best = block.topk(k, dim=1)
        return best.values, best.indices
    whole = chunks * CHUNK
    if whole != n:
        block = torch.nn.functional.pad(block, (0, whole - n), value=-torch.inf)
    chunked = block.view(len(block), chunks, CHUNK)
    chosen = chunked.amax(2).topk(k, dim=1, sorted=False).indices
    candidates = chunked.gather(1, chosen[:, :, None].expand(-1, -1, CHUNK)).flatten(1)
    best = candidates.topk(k, dim=1)
    chunk = chosen.gather(1, best.indices // CHUNK)
    return best.values, chunk * CHUNK + best.indices % CHUNK
