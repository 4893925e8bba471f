"""Training on parts of the training set and predicting the rest: what cross-validated scores read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from engine.data.loader import Samples
from engine.scores.mixture import draw_folds
from engine.spec import TrainingSpec
from engine.training.loop import Normalisation, build_optimizer, clean_pass, train_epochs
from engine.training.models import build_model

FOLDS = 5
"""Networks behind the held-out probabilities, each trained on all folds but one."""

REPEATS = 5
"""Times the samples are halved for the consistency score; every half trains one network and tests on the other."""


def predict_rest(
    samples: Samples,
    train: Tensor,
    test: Tensor,
    training: TrainingSpec,
    epochs: int,
    seed: int,
    normalisation: Normalisation,
    pulse: Callable[[], None],
) -> Tensor:
    """Softmax output (M, C) on the test positions of a network trained on the training positions for some epochs."""
    part = _subset(samples, train)
    network = build_model(training.model, tuple(samples.inputs.shape[1:]), samples.classes, seed)
    network.to(samples.inputs.device)
    optimizer = build_optimizer(network, training)
    for epoch, _ in train_epochs(network, optimizer, part, normalisation, training, seed, pulse=pulse):
        if epoch + 1 >= epochs:
            break
    outputs = clean_pass(network, _subset(samples, test), normalisation, pulse=pulse)
    return torch.cat([torch.softmax(logits.float(), 1).cpu() for _, logits in outputs])


def compute_heldout_probs(
    samples: Samples,
    training: TrainingSpec,
    epochs: int,
    normalisation: Normalisation,
    generator: torch.Generator,
    pulse: Callable[[], None],
    folds: int = FOLDS,
) -> Tensor:
    """Predictions of networks that were not trained on the sample: K-fold cross-validation, classes spread evenly.

    Returns: (N, C), rows sum to 1
    Raises:  ScoreInputError when there are fewer samples than folds
    """
    fold = draw_folds(samples.labels.cpu(), folds, generator)
    probs = torch.empty(len(samples), samples.classes)
    for k in range(folds):
        test = (fold == k).nonzero()[:, 0]
        train = (fold != k).nonzero()[:, 0]
        probs[test] = predict_rest(samples, train, test, training, epochs, k, normalisation, pulse)
    return probs


def compute_heldout_correct(
    samples: Samples,
    training: TrainingSpec,
    epochs: int,
    normalisation: Normalisation,
    generator: torch.Generator,
    pulse: Callable[[], None],
    repeats: int = REPEATS,
) -> tuple[Tensor, Tensor]:
    """Whether networks trained on random halves without a sample predict its given label.

    Both halves of a split are used, so that every sample is held out equally often.

    Returns: heldout (R, N) and correct (R, N) bool, R = 2 repeats networks
    """
    labels = samples.labels.cpu()
    held, correct = [], []
    for repeat in range(repeats):
        half = draw_folds(labels, 2, generator)
        for k in range(2):
            test, train = (half == k).nonzero()[:, 0], (half != k).nonzero()[:, 0]
            probs = predict_rest(samples, train, test, training, epochs, 2 * repeat + k, normalisation, pulse)
            right = torch.zeros(len(labels), dtype=torch.bool)
            right[test] = probs.argmax(1) == labels[test]
            held.append(half == k)
            correct.append(right)
    return torch.stack(held), torch.stack(correct)


def _subset(samples: Samples, positions: Tensor) -> Samples:
    positions = positions.to(samples.inputs.device)
    true_labels = None if samples.true_labels is None else samples.true_labels[positions]
    return replace(
        samples,
        inputs=samples.inputs[positions],
        labels=samples.labels[positions],
        sample_ids=samples.sample_ids[positions],
        true_labels=true_labels,
    )
