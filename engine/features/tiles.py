"""Exact nearest neighbors on a processor: tiles of similarities that stay in its cache, each used for both of its sides.

The similarity of a and b is that of b and a, so a search among all samples computes half of the products. Of a tile, only
the largest of each run of values is held against the worst neighbor known so far; what no run beats is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

TILE = 1024
"""Samples on each side of a tile: 4 MB of similarities."""

RUN = 32
"""Similarities of which only the largest is looked at first."""

SPARSE = 64
"""Up to so many neighbors, few runs of a tile have one; more are taken from whole tiles."""


def search_tiles(
    unit: Tensor, k: int, first: int, last: int, report: Callable[[int, int], None]
) -> tuple[Tensor, Tensor]:
    """The k nearest others of the samples first .. last-1 among all; the same bits from any range that starts at a multiple
    of TILE.

    Args:    unit (N, D) float32 rows of unit length on the CPU
    Returns: ids (last - first, k) int64 and similarities, nearest first
    """
    n = len(unit)
    similarities = torch.full((last - first, k), -torch.inf)
    ids = torch.zeros(last - first, k, dtype=torch.int64)
    whole = (first, last) == (0, n)
    done, total = 0, -(-(last - first) // TILE) * -(-n // TILE)
    for start, left in _grid(n, first, last, whole):
        stop, right = min(start + TILE, last), min(left + TILE, n)
        # Of two blocks the one with the smaller ids is always the left factor: so a tile has the same bits in any range.
        near = unit[start:stop] @ unit[left:right].T if start <= left else (unit[left:right] @ unit[start:stop].T).T
        near.diagonal(start - left).fill_(-torch.inf)
        place = slice(start - first, stop - first)
        _merge(similarities[place], ids[place], near, left)
        if whole and left > start:
            _merge(similarities[left:right], ids[left:right], near.T, start)
        done += 2 if whole and left > start else 1
        report(done * (last - first) // total, last - first)
    return ids, similarities


def _grid(n: int, first: int, last: int, whole: bool) -> Iterator[tuple[int, int]]:
    """The first row and column of each tile: those on and above the diagonal for a search among all."""
    for start in range(first, last, TILE):
        for left in range(start if whole else 0, n, TILE):
            yield start, left


def _merge(similarities: Tensor, ids: Tensor, near: Tensor, left: int) -> None:
    """Put what is nearer in a tile into the neighbors of its rows, in place.

    Args: similarities, ids (R, k), nearest first; near (R, W): similarities to the samples left .. left + W - 1
    """
    k, width = ids.shape[1], near.shape[1]
    worst = similarities[:, -1:]
    if k > SPARSE or width % RUN or not bool(torch.isfinite(worst).all()):
        found, columns = near, torch.arange(left, left + width).expand(len(near), -1)
    else:
        runs = width // RUN
        if near.is_contiguous():
            largest = near.unflatten(1, (RUN, runs)).amax(1)
        else:  # a transposed tile: the same along its other axis, which torch takes 40 times as long to see by itself
            largest = near.T.unflatten(0, (RUN, runs)).amax(0).T
        row, run = (largest > worst).nonzero(as_tuple=True)
        if not len(row):
            return
        inside = run[:, None] + runs * torch.arange(RUN)
        values = near[row[:, None], inside]
        at, place = (values > worst[row]).nonzero(as_tuple=True)
        found, columns = _by_row(len(near), row[at], values[at, place], inside[at, place] + left)
    best = torch.cat([similarities, found], 1).topk(k, dim=1)
    ids.copy_(torch.cat([ids, columns], 1).gather(1, best.indices))
    similarities.copy_(best.values)


def _by_row(rows: int, row: Tensor, values: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Values and columns of given rows, ascending, as two matrices, filled up with -inf and 0."""
    counts = torch.bincount(row, minlength=rows)
    place = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    found = torch.full((rows, int(counts.max())), -torch.inf)
    where = torch.zeros(found.shape, dtype=torch.int64)
    found[row, place], where[row, place] = values, columns
    return found, where
