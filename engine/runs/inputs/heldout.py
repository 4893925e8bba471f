"""Inputs of networks that were not trained on the sample: cross-validation, and published C-scores."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from engine.data.cscores import read_cscores
from engine.runs.crossval import (
    FOLDS,
    REPEATS,
    ROUNDS,
    CrossValidation,
    compute_heldout_correct,
    compute_heldout_probs,
    compute_incv,
)
from engine.runs.inputs.computed import At, Inputs, provides
from engine.scores.heldout import estimate_consistency


@provides(heavy=True, seconds=lambda work: work.networks(FOLDS, 1 - 1 / FOLDS) + work.passing())
def heldout_probs(run: Inputs, at: At) -> Tensor:
    """(N, C) softmax output of networks not trained on the sample."""
    return compute_heldout_probs(_cross_validation(run, at), run.generator("folds"))


@provides(heavy=True, seconds=lambda work: ROUNDS * (work.networks(2, 1 / 2) + work.passing()))
def incv_selected(run: Inputs, at: At) -> Tensor:
    """(N,) bool, kept by iterative cross-validation."""
    selected, rate = compute_incv(_cross_validation(run, at), run.generator("rounds"))
    run.notes.append(f"iterative cross-validation estimates that {rate:.1%} of the labels are wrong")
    return selected


@provides(
    from_file="cscores",
    heavy=True,
    seconds=lambda work: 0.0 if work.spec.cscores else work.networks(2 * REPEATS, 1 / 2) + REPEATS * work.passing(),
)
def cscores(run: Inputs, at: At) -> Tensor:
    """(N,) share of networks not trained on a sample that predict its label."""
    if run.spec.cscores:
        samples = run.samples
        labels = samples.labels if samples.true_labels is None else samples.true_labels
        return torch.from_numpy(read_cscores(Path(run.spec.cscores), labels.cpu().numpy()))
    return estimate_consistency(*compute_heldout_correct(_cross_validation(run, at), run.generator("halves")))


def _cross_validation(run: Inputs, at: At) -> CrossValidation:
    return CrossValidation(
        run.shared_samples.value, run.training, at.epoch, run.normalization, run.partial, run.progress, run.tasks
    )
