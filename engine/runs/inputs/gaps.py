"""The complexity gap's inputs: solutions on the kernel of the samples' own inputs, or of their features."""

from __future__ import annotations

import math
import time
from functools import partial

import torch
from torch import Tensor

from engine.data.loader import Samples, normalization, to_float
from engine.errors import ScoreInputError, SpecError
from engine.runs.cluster import map_tasks
from engine.runs.inputs.computed import At, Inputs, provides
from engine.runs.work import Work
from engine.scores.gap import Gap, gap_bytes, solve_gap, solve_stochastic_gap, stochastic_gap_bytes
from engine.spec import RunSpec
from engine.training.device import available_bytes

RUNS = 10
"""Random subsets of the stochastic complexity gap, per class (appendix A.2 of the paper)."""


def has_direction(inputs: Tensor) -> Tensor:
    """Which inputs are not all zeros, (N,) bool."""
    return (inputs.flatten(1) != 0).any(1)


def _negatives_per_positive(samples: Samples) -> int:
    """The paper's 4 for color images, 3 for all else."""
    return 4 if samples.are_images and samples.shape[0] == 3 else 3


def _gap_seconds(work: Work) -> float:
    return work.samples**3 * 2e-11


def _check_memory(spec: RunSpec, samples: Samples) -> None:
    """Raise SpecError where the complexity gap does not fit; on a GPU it may fall back to float32."""
    device, n, width = samples.device, len(samples), math.prod(samples.shape)
    subsets = stochastic_gap_bytes(samples.labels, width, _negatives_per_positive(samples))
    dtype = torch.float32 if device.type == "cuda" else torch.float64
    exact = spec.complexity == "exact"
    needed = gap_bytes(n, width, samples.classes, dtype) if exact else subsets
    free = available_bytes(device)
    if needed > free:
        way = f"--complexity stochastic needs {subsets / 1e9:.1f} GB; or " if exact and subsets <= free else ""
        raise SpecError(
            f"the complexity gap of {n:,} samples needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB is free; "
            f"{way}leave out the scores that begin with cg"
        )


def _check_inputs(spec: RunSpec, samples: Samples) -> None:
    _check_memory(spec, samples)
    blank = ~has_direction(samples.inputs)
    if not spec.standardize and bool(blank.any()):
        raise ScoreInputError(
            f"the input of sample {int(blank.nonzero()[0])} is all zeros, so it has no direction; add --standardize, or "
            "leave out the scores that begin with cg"
        )


@provides(
    cost="inputs",
    own_inputs=True,
    heavy=True,
    seconds=_gap_seconds,
    check=_check_inputs,
    along={
        "inverse_diagonal": "(R, N) float64 diagonal of the same H^-1, > 0",
        "kernel_labels": "(R, N) float64 H y of the same",
    },
)
def alpha(run: Inputs, at: At | None) -> tuple[Tensor, Tensor, Tensor]:
    """(R, N) float64 H^-1 y of the samples' own inputs (scores.gap), R runs."""
    inputs = run.own.inputs
    rows = to_float(inputs, *normalization(run.own)) if run.spec.standardize else inputs
    gap = _gap(run, rows.flatten(1), "inputs")
    return gap.alpha, gap.inverse_diagonal, gap.kernel_labels


@provides(
    from_file="features",
    heavy=True,
    seconds=_gap_seconds,
    check=_check_memory,
    along={"feature_inverse_diagonal": "(R, N) float64 diagonal of the same H^-1, > 0"},
)
def feature_alpha(run: Inputs, at: At | None) -> tuple[Tensor, Tensor]:
    """(R, N) float64 H^-1 y of the features of one network at one epoch."""
    what = f"features after epoch {at.epoch}" if at else f"features of {run.spec.features}"
    gap = _gap(run, run.get("features", at).to(run.device), what)
    return gap.alpha, gap.inverse_diagonal


def _gap(run: Inputs, rows: Tensor, what: str) -> Gap:
    started = time.perf_counter()
    labels, n = run.own.labels, len(rows)
    if run.spec.complexity == "stochastic":
        negatives = _negatives_per_positive(run.samples)
        generator = run.generator(f"complexity gap of the {what}")
        mapped = partial(map_tasks, run.tasks, progress=run.progress)
        gap = solve_stochastic_gap(rows, labels, negatives, RUNS, generator, mapped=mapped)
        form = f"stochastic, {RUNS} runs of {negatives} negatives per positive"
    else:
        needed, dtype = gap_bytes(n, rows.shape[1], run.samples.classes), torch.float64
        if needed > available_bytes(run.device):
            dtype = torch.float32  # a GPU's way out; on a CPU the run was refused before it started
        gap = solve_gap(rows, labels, dtype=dtype, report=run.progress.step)
        form = f"exact, {dtype}".replace("torch.", "")
    seconds = time.perf_counter() - started
    note = f"complexity gap of the {what}: {form}, {seconds:.1f} s"
    if gap.copies:
        note += f"; {gap.copies} exact copies of other samples, each scored against its own label"
        if gap.contradicting:
            note += f" ({gap.contradicting} labeled otherwise than most of their copies)"
    if gap.ridge:
        note += f"; a ridge of {gap.ridge:g} was needed"
    run.notes.append(note)
    return gap
