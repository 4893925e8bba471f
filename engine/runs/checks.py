"""What a run is refused for before anything is trained, and how long its scores will roughly take."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from engine.data.loader import Samples
from engine.errors import ScoreInputError, SpecError
from engine.runs.crossval import FOLDS, REPEATS, ROUNDS
from engine.scores.complexity import gap_bytes, stochastic_gap_bytes
from engine.scores.registry import Score, check_classes
from engine.spec import RunSpec
from engine.training.device import available_bytes

DEFAULT_NEIGHBORS = 15
"""K of the neighbourhood scores in a run that keeps no neighbours of its own (10 to 15 is ROP's plateau)."""


def negatives_per_positive(samples: Samples) -> int:
    """Negatives per positive: the paper's 4 for colour images, 3 for all else."""
    return 4 if samples.inputs.ndim == 4 and samples.inputs.shape[1] == 3 else 3


def estimate_seconds(scores: Sequence[Score], spec: RunSpec, n: int) -> dict[str, float]:
    """Rough seconds of each score with the inputs that it is the first to ask for, to share out the progress by.

    Those of the recorded dynamics are one entry, "dynamics".
    """
    epochs, seeds = (spec.training.epochs, spec.training.seeds) if spec.training else (0, 0)
    network = epochs * n * 3e-5
    heavy = {
        "alpha": n**3 * 2e-11,
        "feature_alpha": n**3 * 2e-11,
        "gradient_norms": seeds * n * 1e-3,
        "heldout_probs": FOLDS * network,
        "cscores": 0.0 if spec.cscores else 2 * REPEATS * network / 2,
        "incv_selected": 2 * ROUNDS * network / 2,
    }
    out = {"dynamics": 0.05 + n * 1e-5 * sum(found.over_dynamics for found in scores)}
    for found in scores:
        if not found.over_dynamics:
            out[found.name] = 0.05 + n * 1e-5 + sum(heavy.pop(name, 0.0) for name in found.all_inputs)
    return out


def has_direction(inputs: Tensor) -> Tensor:
    """Which inputs are not all zeros, (N,) bool."""
    return (inputs.flatten(1) != 0).any(1)


def check_inputs_exist(scores: Sequence[Score], spec: RunSpec, samples: Samples, test: Samples | None) -> None:
    """Refuse before anything is trained what would fail after it.

    Raises: ScoreInputError when more neighbours are asked than there are, or when classes are missing; SpecError when
            a score needs a test split and there is none, or more memory than is free
    """
    asked = {name for found in scores for name in found.all_inputs}
    mixed = [found.name for found in scores if found.reads_features and not found.features_suffice]
    if spec.features and mixed:
        raise SpecError(
            f"{', '.join(mixed)} reads the trained network's last layer, which features of {spec.features} do not fit; "
            "leave it out or leave out --features"
        )
    k, n = spec.neighbors or DEFAULT_NEIGHBORS, len(samples)
    if (spec.neighbors or asked & {"neighbor_ids", "similarities"}) and k >= n:
        raise ScoreInputError(f"{k} neighbours were asked of {n} samples; allowed: 1 to {n - 1} (--neighbors)")
    gaps = {"alpha", "inverse_diagonal", "kernel_labels", "feature_alpha", "feature_inverse_diagonal"}
    if any(found.family in ("geometry", "complexity") for found in scores):
        check_classes(samples.labels)
    if asked & gaps:
        _check_memory(spec, samples)
    blank = ~has_direction(samples.inputs)
    if asked & {"alpha", "inverse_diagonal", "kernel_labels"} and not spec.standardize and bool(blank.any()):
        raise ScoreInputError(
            f"the input of sample {int(blank.nonzero()[0])} is all zeros, so it has no direction; ask --standardize, or "
            "leave out the scores that begin with cg"
        )
    if any(found.needs_test for found in scores):
        require_test(spec, test)


def _check_memory(spec: RunSpec, samples: Samples) -> None:
    """Tell before it starts that the complexity gap does not fit; on a GPU it may fall back to float32."""
    device, n, width = samples.inputs.device, len(samples), math.prod(samples.inputs.shape[1:])
    subsets = stochastic_gap_bytes(samples.labels, width, negatives_per_positive(samples))
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


def require_test(spec: RunSpec, test: Samples | None) -> Samples:
    if test is None or not len(test):
        raise SpecError(
            f"dataset '{spec.dataset}' has no test split to validate against; ingest it with --test or "
            "--test-fraction, or leave out the scores that need one (winnow scores lists them)"
        )
    return test
