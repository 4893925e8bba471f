"""The nearest neighbors of each sample, by cosine of its features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.data.loader import Samples
from engine.errors import ScoreInputError, SpecError
from engine.features.approximate import LARGEST_EXACT, bytes_needed, search_all
from engine.features.neighbors import block_rows, checked_rows, no_neighbors, search_among
from engine.runs.cluster import Report, map_tasks
from engine.runs.inputs.computed import At, Inputs, provides
from engine.spec import RunSpec
from engine.store.progress import Piece
from engine.training.device import available_bytes

DEFAULT_NEIGHBORS = 15
"""K of the neighborhood scores in a run that stores no neighbors of its own (10 to 15 is ROP's plateau)."""

PART_BYTES = 1 << 28
"""Features of the samples among which a cluster searches at a time: a machine holds so many, and those of the samples whose
neighbors it looks for."""


def check_neighbors(spec: RunSpec, samples: Samples) -> None:
    """Raise ScoreInputError where a sample has fewer others than neighbors are wanted."""
    check_others(spec.neighbors or DEFAULT_NEIGHBORS, len(samples))


def check_others(k: int, n: int) -> None:
    """Raise ScoreInputError where each of n samples has fewer than k others."""
    if k >= n:
        raise ScoreInputError(f"--neighbors is {k}; this dataset has {n} training samples, so allowed: 1 to {n - 1}")


@provides(from_file="features", check=check_neighbors, along={"similarities": "(N, K) their cosines, -1..1"})
def neighbor_ids(run: Inputs, at: At | None) -> tuple[Tensor, Tensor]:
    """(N, K) int64 nearest other samples by cosine of the features, nearest first."""
    k = run.spec.neighbors or DEFAULT_NEIGHBORS
    unit = checked_rows(run.get("features", at).to(run.device), k, run.partial)
    exact = len(unit) <= LARGEST_EXACT or unit.device.type != "cpu"
    if not exact:
        check_memory(len(unit), unit.shape[1], k)
    rows = run.tasks.ranges(len(unit), block_rows(unit)) if exact else []
    if len(rows) > 1:
        return _search_in_parts(run, unit, k, rows)
    ((ids, similarities, note),) = map_tasks(run.tasks, _search, unit, [k], run.progress)
    run.notes += [note] if note else []
    return ids.cpu(), similarities.cpu()


def _search_in_parts(run: Inputs, unit: Tensor, k: int, rows: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """The neighbors of ranges of samples, each among one range of all samples after the other."""
    held = max(1, PART_BYTES // (unit.shape[1] * unit.element_size() * block_rows(unit))) * block_rows(unit)
    found: Sequence[tuple[Tensor, Tensor] | None] = [None] * len(rows)
    begins = range(0, len(unit), held)
    for i, begin in enumerate(begins):
        items = [(k, first, unit[first:last], best) for (first, last), best in zip(rows, found, strict=True)]
        progress = Piece(run.progress, i, len(begins))
        found = map_tasks(run.tasks, _search_part, (begin, unit[begin : begin + held]), items, progress)
    ids, similarities = (torch.cat(parts).cpu() for parts in zip(*filter(None, found), strict=True))
    return ids, similarities.clamp_(-1.0, 1.0)


def check_memory(samples: int, width: int, k: int) -> None:
    """Raise SpecError where an approximate search does not fit in memory; it says how many samples would."""
    needed, free = bytes_needed(samples, width, k), available_bytes("cpu")
    if needed > free:
        raise SpecError(
            f"the neighbors of {samples:,} samples of {width:,} features need {needed / 1e9:.1f} GB; {free / 1e9:.1f} GB "
            f"are free, enough for {samples * free // needed:,} samples. Free memory, leave out --neighbors, or give "
            "features of fewer columns (--features FILE)"
        )


def _search(unit: Tensor, k: int, report: Report) -> tuple[Tensor, Tensor, str]:
    return search_all(unit, k, lambda done, total: report(done / total))


def _search_part(
    held: tuple[int, Tensor], part: tuple[int, int, Tensor, tuple[Tensor, Tensor] | None], report: Report
) -> tuple[Tensor, Tensor]:
    """`search_among` a range of samples. held: where it begins, and its rows; part: k, where the rows begin that are searched
    for, these, and what was found among the samples before the range"""
    (begin, columns), (k, first, rows, best) = held, part
    best = best or no_neighbors(len(rows), k, rows)
    return search_among(rows, first, columns, begin, *best, lambda done, total: report(done / total))
