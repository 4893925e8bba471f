"""Exact nearest neighbors by cosine similarity: blocked matrix products and a two-step top-k, on any device.

A processor takes tiles of both sides (`engine.features.tiles`), a GPU many samples against all others at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import ScoreInputError
from engine.features.scratch import fill_rows
from engine.features.tiles import TILE, merge_tiles, search_tiles
from engine.scores.rows import row_norms, unit_rows

ROWS = 1024
BLOCK_VALUES = 1 << 26
"""Samples whose similarities to all others are held at a time: as many, and no more than 256 MB of them."""

CHUNK = 32
"""Similarities of which only the largest is looked at in the first step of the top-k."""


def compute_neighbors(
    features: Tensor, k: int, report: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Tensor, Tensor]:
    """The k nearest other samples of every sample by cosine similarity, nearest first. Exact.

    Args:    features (N, D) float; k in 1 .. N-1
    Returns: ids (N, k) int64 and similarities (N, k) float32 in [-1, 1]
    Raises:  ScoreInputError when k >= N, or features of a sample are zero or not finite
    """
    unit = checked_rows(features, k)
    return search_rows(unit, k, 0, len(unit), report)


def checked_rows(features: Tensor, k: int, folder: Path | None = None) -> Tensor:
    """The rows (N, D) float32 that `search_rows` takes, of unit length; errors as `compute_neighbors`.

    folder: of a disk that takes them where they are many (`engine.features.scratch`); None: they stay in memory
    """
    n = len(features)
    if not 1 <= k < n:
        raise ScoreInputError(f"{k} neighbors per sample, of {n} samples; allowed: 1 to {n - 1}")
    if folder is None:
        return unit_rows(features.float())
    features, norms = features.float(), row_norms(features.float())
    return fill_rows(n, features.shape[1], lambda part: features[part] / norms[part], folder, features.device)


def block_rows(unit: Tensor) -> int:
    """How many samples have their similarities to others computed at a time."""
    n = len(unit)
    return TILE if unit.device.type == "cpu" else max(1, min(ROWS, BLOCK_VALUES // n, n))


def search_rows(
    unit: Tensor, k: int, first: int, last: int, report: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Tensor, Tensor]:
    """`compute_neighbors` of the samples first .. last-1 among all.

    Args:    unit (N, D) as `checked_rows` gives them
    Returns: ids (last - first, k) and similarities
    """
    if unit.device.type == "cpu":
        ids, similarities = search_tiles(unit, k, first, last, report)
    else:
        ids, similarities = search_among(unit[first:last], first, unit, 0, *no_neighbors(last - first, k, unit), report)
    return ids, similarities.clamp_(-1.0, 1.0)


def no_neighbors(rows: int, k: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """What `search_among` takes before anything is found: ids (rows, k) and similarities, on the device of a tensor."""
    ids = torch.zeros(rows, k, dtype=torch.int64, device=like.device)
    return ids, torch.full((rows, k), -torch.inf, device=like.device)


def search_among(
    rows: Tensor,
    first: int,
    columns: Tensor,
    begin: int,
    ids: Tensor,
    similarities: Tensor,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Tensor, Tensor]:
    """The k nearest others of some samples, the rows, among those found before and some more samples, the columns.

    Args:    rows (R, D), columns (C, D): the samples first .. first + R - 1 and begin .. begin + C - 1 as `checked_rows`
             gives them; ids, similarities (R, k): among the samples before begin, as this or `no_neighbors` gives them
    Returns: ids (R, k) and similarities, nearest first
    """
    ids, similarities = ids.clone(), similarities.clone()
    merge = merge_tiles if rows.device.type == "cpu" else merge_blocks
    merge(rows, first, columns, begin, ids, similarities, report)
    return ids, similarities


def merge_blocks(
    rows: Tensor,
    first: int,
    columns: Tensor,
    begin: int,
    ids: Tensor,
    similarities: Tensor,
    report: Callable[[int, int], None],
) -> None:
    """`merge_tiles` for a GPU: many rows at once."""
    n, count, k = len(columns), len(rows), ids.shape[1]
    chunks = -(-n // CHUNK)
    # One buffer for all blocks: fresh memory for each would cost as much as half the product. Columns beyond n pad.
    buffer = torch.full((block_rows(columns), chunks * CHUNK), -torch.inf, device=rows.device)
    for start in range(0, count, len(buffer)):
        place = slice(start, min(start + len(buffer), count))
        block = buffer[: place.stop - start]
        torch.mm(rows[place], columns.T, out=block[:, :n])
        block.diagonal(first + start - begin).fill_(-torch.inf)
        values, found = _top(block, min(k, n))
        if begin or n < k:
            best = torch.cat([similarities[place], values], 1).topk(k, dim=1)
            values, found = best.values, torch.cat([ids[place], found + begin], 1).gather(1, best.indices)
        similarities[place], ids[place] = values, found
        report(place.stop, count)


def _top(block: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Row-wise top-k. The k best values of a row lie in the k chunks with the best maxima, so only those are sorted.

    Chunk c holds the columns c, c + chunks, c + 2 chunks, ...: so the maxima of all chunks are a few maxima of long
    contiguous rows, which a processor finds many times faster than the maximum of a short run.
    """
    rows, width = block.shape
    chunks = width // CHUNK
    if chunks <= 2 * k:
        best = block.topk(k, dim=1)
        return best.values, best.indices
    chunked = block.view(rows, CHUNK, chunks)
    chosen = chunked.amax(1).topk(k, dim=1, sorted=False).indices
    candidates = chunked.gather(2, chosen[:, None, :].expand(-1, CHUNK, -1)).flatten(1)
    best = candidates.topk(k, dim=1)
    return best.values, best.indices // k * chunks + chosen.gather(1, best.indices % k)
