"""Inputs of a trained network: what it gives for the samples, its last layer, gradients of its loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from engine.data.loader import Samples, to_float
from engine.features.penultimate import compute_features, features_and_logits, head_of
from engine.features.stored import load_stored
from engine.runs.inputs.computed import At, Inputs, provides
from engine.runs.work import Work
from engine.scores.gradient import checkpoint_epochs, compute_gradient_norms, compute_influence
from engine.store.tensors import load_tensors
from engine.store.verified import file_of
from engine.training.loop import learning_rate

SMALLEST = 1e-30
"""What a probability of 0 counts as where its logarithm is taken."""

GRADIENT_ROWS = 1024
"""Samples whose inputs are turned into floats at a time for their gradients."""


@provides(from_file="probs", seconds=Work.passing)
def logits(run: Inputs, at: At | None) -> Tensor:
    """(N, C) logits of one network at one epoch."""
    if at is None:
        return torch.log(run.get("heldout_probs").clamp_min(SMALLEST))
    return run.passed(run.samples, at, lambda network, inputs: network(inputs))


@provides(from_file="probs", seconds=Work.passing)
def probs(run: Inputs, at: At | None) -> Tensor:
    """(N, C) softmax of the logits."""
    if at is None:
        given: Tensor = run.get("heldout_probs")
        return given
    return torch.softmax(run.get("logits", at), 1)


@provides(from_file="features", seconds=lambda work: 0.0 if work.spec.features else work.passing())
def features(run: Inputs, at: At | None) -> Tensor:
    """(N, D) penultimate features of one network at one epoch."""
    return _stored(run, "train") if at is None else network_features(run, at)


@provides(from_file="features", test=True, seconds=lambda work: work.passing(work.test))
def validation_features(run: Inputs, at: At | None) -> Tensor:
    """(M, D) features of the test split in the same network."""
    samples = run.validation()
    return _stored(run, "test") if at is None else run.passed(samples, at, compute_features)


def network_features(run: Inputs, at: At) -> Tensor:
    """Penultimate features of a network of the training itself."""
    kept = run.folder / "features.safetensors"
    if at == At(0, run.training.epochs) and kept.exists() and (found := load_tensors(file_of(run.folder, kept.name))):
        return torch.from_numpy(found[0]["features"])
    return run.passed(run.samples, at, compute_features)


def _stored(run: Inputs, split: Literal["train", "test"]) -> Tensor:
    return load_stored(run.workspace, run.spec.dataset, run.spec.features_hash, split)


@provides()
def head_weight(run: Inputs, at: At) -> Tensor:
    """(C, D) weight of the network's last linear layer."""
    return head_of(run.network(at)).weight.detach().float().cpu()


@provides()
def head_bias(run: Inputs, at: At) -> Tensor:
    """(C,) bias of the network's last linear layer, zeros where it has none."""
    head = head_of(run.network(at))
    return torch.zeros(head.out_features) if head.bias is None else head.bias.detach().float().cpu()


@provides(heavy=True, seconds=Work.gradients)
def gradient_norms(run: Inputs, at: At) -> Tensor:
    """(N,) norm of each sample's loss gradient in one network at one epoch."""
    network, samples, scale = run.network(at), run.samples, run.normalization
    parts = []
    for start in range(0, len(samples), GRADIENT_ROWS):
        rows = slice(start, start + GRADIENT_ROWS)
        inputs = to_float(samples.inputs_at(rows), scale.mean, scale.std)
        norms = compute_gradient_norms(network, inputs, samples.labels[rows], run.progress.heartbeat)
        parts.append(norms.cpu())
        run.progress.step(start, len(samples))
    return torch.cat(parts)


def _features_and_probs(run: Inputs, samples: Samples, at: At) -> tuple[Tensor, Tensor]:
    """Features (B, D) and softmax output (B, C) of one network, of one pass."""
    both = run.passed(samples, at, lambda network, inputs: torch.cat(features_and_logits(network, inputs), 1))
    return both[:, : -samples.classes], torch.softmax(both[:, -samples.classes :], 1)


def _checkpoints(work: Work) -> int:
    """Networks of the first seed that TracIn reads."""
    return len(checkpoint_epochs(work.spec.training.epochs)) if work.spec.training else 0


@provides(
    checkpoints=True,
    seconds=lambda work: _checkpoints(work) * work.passing(),
    along={
        "checkpoint_squares": "(E, N) squared norms of its features at them",
        "checkpoint_rates": "(E,) learning rates with which those epochs were trained",
    },
)
def checkpoint_probs(run: Inputs, at: At) -> tuple[Tensor, Tensor, Tensor]:
    """(E, N, C) softmax output of one network at some epochs."""
    places = [At(0, epoch) for epoch in checkpoint_epochs(run.training.epochs)]
    rates = [_rate_at(run, place) for place in places]
    squares, probs = [], []
    for i, place in enumerate(places):
        with run.piece(i, len(places)):
            rows, found = _features_and_probs(run, run.samples, place)
        squares.append(rows.square().sum(1))
        probs.append(found)
    return torch.stack(probs), torch.stack(squares), torch.tensor(rates)


def _rate_at(run: Inputs, at: At) -> float:
    """The learning rate with which the epoch was trained, as the view `epochs` has it. After the last epoch, that of a
    next one would be 0 or a tenth."""
    return learning_rate(run.training, (at.epoch - 1) / run.training.epochs)


@provides(
    checkpoints=True,
    test=True,
    seconds=lambda work: _checkpoints(work) * (work.passing() + work.passing(work.test)),
)
def validation_influence(run: Inputs, at: At) -> Tensor:
    """(N,) mean over the test split of the influence on its losses."""
    samples, total = run.validation(), torch.zeros(len(run.samples))
    truth, own = samples.labels.cpu(), run.samples.labels.cpu()
    epochs = checkpoint_epochs(run.training.epochs)
    for i, epoch in enumerate(epochs):
        place = At(0, epoch)
        if rate := _rate_at(run, place):
            with run.piece(2 * i, 2 * len(epochs)):
                rows, others = _features_and_probs(run, samples, place)
            with run.piece(2 * i + 1, 2 * len(epochs)):
                ours, probs = _features_and_probs(run, run.samples, place)
            total += rate * compute_influence(probs, ours, own, others, rows, truth)
    return total
