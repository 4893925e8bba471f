"""The nearest neighbors of each sample, by cosine of its features."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.data.loader import Samples
from engine.errors import ScoreInputError, SpecError
from engine.features.approximate import LARGEST_EXACT, bytes_needed, search_all
from engine.features.neighbors import block_rows, checked_rows, search_rows
from engine.runs.cluster import Report, map_tasks
from engine.runs.inputs.computed import At, Inputs, provides
from engine.spec import RunSpec
from engine.training.device import available_bytes

DEFAULT_NEIGHBORS = 15
"""K of the neighborhood scores in a run that stores no neighbors of its own (10 to 15 is ROP's plateau)."""


def check_neighbors(spec: RunSpec, samples: Samples) -> None:
    """Raise ScoreInputError where a sample has fewer others than neighbors are wanted."""
    k, n = spec.neighbors or DEFAULT_NEIGHBORS, len(samples)
    if k >= n:
        raise ScoreInputError(f"--neighbors is {k}; this dataset has {n} training samples, so allowed: 1 to {n - 1}")


@provides(from_file="features", check=check_neighbors, along={"similarities": "(N, K) their cosines, -1..1"})
def neighbor_ids(run: Inputs, at: At | None) -> tuple[Tensor, Tensor]:
    """(N, K) int64 nearest other samples by cosine of the features, nearest first."""
    k = run.spec.neighbors or DEFAULT_NEIGHBORS
    unit = checked_rows(run.get("features", at).to(run.device), k)
    exact = len(unit) <= LARGEST_EXACT or unit.device.type != "cpu"
    parts = run.tasks.ranges(len(unit), block_rows(unit)) if exact else [(0, len(unit))]
    if not exact:
        check_memory(len(unit), unit.shape[1], k)
    ranges = [(k, first, last) for first, last in parts]
    found = map_tasks(run.tasks, _search, unit, ranges, run.progress)
    ids, similarities = (torch.cat(parts).cpu() for parts in list(zip(*found, strict=True))[:2])
    run.notes += dict.fromkeys(note for _, _, note in found if note)
    return ids, similarities


def check_memory(samples: int, width: int, k: int) -> None:
    """Raise SpecError where an approximate search does not fit in memory; it says how many samples would."""
    needed, free = bytes_needed(samples, width, k), available_bytes("cpu")
    if needed > free:
        raise SpecError(
            f"the neighbors of {samples:,} samples of {width:,} features need {needed / 1e9:.1f} GB; {free / 1e9:.1f} GB "
            f"are free, enough for {samples * free // needed:,} samples. Free memory, leave out --neighbors, or give "
            "features of fewer columns (--features FILE)"
        )


def _search(unit: Tensor, part: tuple[int, int, int], report: Report) -> tuple[Tensor, Tensor, str]:
    k, first, last = part
    if last - first == len(unit):
        return search_all(unit, k, lambda done, total: report(done / total))
    return *search_rows(unit, k, first, last, lambda done, total: report(done / total)), ""
