"""Nearest neighbors of very many samples by NN-descent (Dong et al. 2011), and how many of them it found.

An exact search takes time with the square of the samples, this one little more than in proportion to them. What it misses is
measured on rows drawn at random, by an exact search for their neighbors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.features.neighbors import search_rows
from engine.features.numba_calls import calling_numba
from engine.text import percent

LARGEST_EXACT = 200_000
"""Samples up to which a processor searches exactly. A GPU always does."""

RECALL = 0.95
"""Share of the true neighbors that must be found; below it, the search is done again among more candidates."""

CANDIDATES = (2, 4)
"""Neighbors that a sample keeps while it looks for k, as multiples of k + 1, one search each until RECALL is reached."""

MEASURED = 1000
"""Rows on which the recall is measured."""

BLOCK = 1 << 25
"""Numbers held at a time: 128 MB."""

ROW_BYTES = 1500
"""What the search holds of each sample beside its features: an estimate, of 32 candidates with some three copies."""


def search_all(
    unit: Tensor, k: int, report: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Tensor, Tensor, str]:
    """The k nearest others of all samples: exactly, or beyond LARGEST_EXACT on a processor approximately.

    Args:    unit (N, D) as `checked_rows` gives them
    Returns: ids (N, k) int64, similarities (N, k) float32, nearest first, and a note on an approximate search, else ""
    """
    n = len(unit)
    if n <= LARGEST_EXACT or unit.device.type != "cpu":
        return *search_rows(unit, k, 0, n, report), ""
    ids, similarities, recall = search_approximately(unit, k, report)
    below = "" if recall >= RECALL else f", fewer than the {percent(RECALL)} that are aimed at"
    return (
        ids,
        similarities,
        f"the neighbors of {n:,} samples are approximate (NN-descent): it found {percent(recall, 1)} of the {k} nearest of "
        f"{min(MEASURED, n):,} samples drawn at random{below}",
    )


def bytes_needed(samples: int, width: int, k: int) -> int:
    """Memory that an approximate search of samples with so many features needs beside these."""
    return samples * (4 * width + ROW_BYTES * CANDIDATES[0] * (k + 1) // 32)


def search_approximately(
    unit: Tensor, k: int, report: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Tensor, Tensor, float]:
    """The k nearest others of all samples, most of them right: ids, similarities and the measured recall, 0..1."""
    with calling_numba():
        from pynndescent import NNDescent

    points, rows = unit.numpy(), len(unit)
    chosen = torch.randperm(rows, generator=torch.Generator().manual_seed(0))[:MEASURED].sort().values
    nearest = exact_rows(unit, chosen, k)[1]
    for step, factor in enumerate(CANDIDATES):
        wanted = min(rows, factor * (k + 1))
        with calling_numba():
            # Of rows of unit length the nearest by distance are the nearest by cosine.
            index = NNDescent(points, "euclidean", n_neighbors=wanted, random_state=0, n_jobs=torch.get_num_threads())
        found = torch.from_numpy(index.neighbor_graph[0])
        del index
        ids, similarities = nearest_of(unit, found, k)
        report(rows * (step + 1) // len(CANDIDATES), rows)
        hits = similarities[chosen] >= nearest[:, -1:] - 1e-6  # a copy of the last of the nearest is as near
        recall = float(hits.float().mean())
        if recall >= RECALL or wanted == rows:
            break
    report(rows, rows)
    return ids, similarities, recall


def nearest_of(unit: Tensor, found: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest of the candidates (N, W) of every sample; a sample that has fewer, with -1 for others, is searched for
    exactly."""
    n, width = found.shape
    ids, similarities = torch.empty(n, k, dtype=torch.int64), torch.empty(n, k)
    step = max(1, BLOCK // (width * unit.shape[1]))
    for start in range(0, n, step):
        rows = torch.arange(start, min(start + step, n))
        near = found[rows].long()
        values = torch.bmm(unit[near.clamp_min(0)], unit[rows][:, :, None])[:, :, 0]
        values[(near < 0) | (near == rows[:, None])] = -torch.inf
        best = values.topk(k, dim=1)
        similarities[rows], ids[rows] = best.values, near.gather(1, best.indices)
    few = torch.isinf(similarities[:, -1]).nonzero()[:, 0]
    if len(few):
        ids[few], similarities[few] = exact_rows(unit, few, k)
    return ids, similarities.clamp_(-1.0, 1.0)


def exact_rows(unit: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest others of some samples among all: ids (M, k) and similarities."""
    ids, similarities = torch.empty(len(rows), k, dtype=torch.int64), torch.empty(len(rows), k)
    step = max(1, BLOCK // len(unit))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        values = unit[part] @ unit.T
        values[torch.arange(len(part)), part] = -torch.inf
        similarities[start : start + step], ids[start : start + step] = values.topk(k, dim=1)
    return ids, similarities.clamp_(-1.0, 1.0)
