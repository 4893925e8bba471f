"""Exact nearest neighbors on a processor: tiles of similarities that stay in its cache, each used for both of its sides.

The similarity of a and b is that of b and a, so a search among all samples computes half of the products. Of a tile, only
the largest of each run of values is compared with the worst neighbor known so far; runs that are no better are skipped.
"""

from __future__ import annotations

from collections.abc import Callable

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
    if (first, last) != (0, n):
        merge_tiles(unit[first:last], first, unit, 0, ids, similarities, report)
        return ids, similarities
    tiles = -(-n // TILE)
    for row, start in enumerate(range(0, n, TILE)):
        stop = min(start + TILE, n)
        for left in range(start, n, TILE):
            right = min(left + TILE, n)
            near = _tile(unit[start:stop], start, unit[left:right], left)
            _merge(similarities[start:stop], ids[start:stop], near, left)
            if left > start:
                _merge(similarities[left:right], ids[left:right], near.T, start)
            done = row * (2 * tiles - row) + 2 * (left - start) // TILE + 1
            report(done * n // tiles**2, n)
    return ids, similarities


def merge_tiles(
    rows: Tensor,
    first: int,
    columns: Tensor,
    begin: int,
    ids: Tensor,
    similarities: Tensor,
    report: Callable[[int, int], None],
) -> None:
    """Put what is nearer among some samples, the columns, into the neighbors of others, the rows, in place.

    Column ranges one after the other, ascending, give the same bits as all columns at once.

    Args: rows (R, D), columns (C, D): the samples first .. first + R - 1 and begin .. begin + C - 1 as `search_tiles` takes
          them, begin a multiple of TILE; ids, similarities (R, k), nearest first
    """
    done, total = 0, -(-len(rows) // TILE) * -(-len(columns) // TILE)
    for start in range(0, len(rows), TILE):
        place = slice(start, start + TILE)
        for left in range(0, len(columns), TILE):
            near = _tile(rows[place], first + start, columns[left : left + TILE], begin + left)
            _merge(similarities[place], ids[place], near, begin + left)
            done += 1
            report(done * len(rows) // total, len(rows))


def _tile(rows: Tensor, start: int, columns: Tensor, left: int) -> Tensor:
    """The similarities (R, C) of the samples from start on to those from left on; -inf of a sample to itself."""
    # Of two blocks the one with the smaller ids is always the left factor: so a tile has the same bits in any range.
    near = rows @ columns.T if start <= left else (columns @ rows.T).T
    near.diagonal(start - left).fill_(-torch.inf)
    return near


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
            largest = near.view(len(near), RUN, runs).amax(1)
        else:  # a transposed tile: the same along its other axis, which torch takes 40 times as long to see by itself
            largest = near.T.reshape(RUN, runs, len(near)).amax(0).T
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
