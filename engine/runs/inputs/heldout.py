"""Inputs of networks that were not trained on the sample: cross-validation, and published C-scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from engine.data.cscores import read_cscores
from engine.features.own_probs import read_probs
from engine.runs.crossval import (
    REPEATS,
    ROUNDS,
    CrossValidation,
    compute_heldout_correct,
    compute_heldout_probs,
    compute_incv,
    folds_of,
    refine_heldout_probs,
)
from engine.runs.inputs.computed import At, Inputs, provides
from engine.runs.work import Work
from engine.scores.heldout import estimate_consistency
from engine.text import percent


def _fold_seconds(work: Work) -> float:
    if not work.spec.training:
        return 0.0
    n = work.samples + work.test
    folds, repeats, rounds = folds_of(work.spec.training, n)
    share = (1 - 1 / folds) * n / work.samples
    return work.networks((repeats + rounds) * folds, share) + (repeats + rounds) * work.passing(n)


@provides(
    from_file="probs",
    own_networks=True,
    seconds=_fold_seconds,
    along={
        "test_heldout_probs": "(M, C) softmax output of the same kind of networks for the test split",
        "refined_probs": "(N + M, C) the same of both splits, with networks that were not trained on suspects either",
    },
)
def heldout_probs(run: Inputs, at: At | None) -> tuple[Tensor, Tensor, Tensor]:
    """(N, C) softmax output of networks not trained on the sample."""
    if at is None:
        probs = read_probs(run.workspace, run.spec.dataset, run.spec.probs, run.spec.probs_hash)
        return probs[: len(run.own)], probs[len(run.own) :], probs
    everything = _cross_validation(run, at)
    if run.test is not None:
        everything = replace(everything, samples=run.judged())
    generator, n = run.generator("folds"), len(run.samples)
    probs = compute_heldout_probs(everything, generator)
    return probs[:n], probs[n:], refine_heldout_probs(everything, generator, probs)


@provides(heavy=True, own_networks=True, seconds=lambda work: ROUNDS * (work.networks(2, 1 / 2) + work.passing()))
def incv_selected(run: Inputs, at: At) -> Tensor:
    """(N,) bool, kept by iterative cross-validation."""
    selected, rate = compute_incv(_cross_validation(run, at), run.generator("rounds"))
    run.notes.append(f"iterative cross-validation estimates that {percent(rate, 1)} of the labels are wrong")
    return selected


@provides(
    from_file="cscores",
    heavy=True,
    own_networks=True,
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
