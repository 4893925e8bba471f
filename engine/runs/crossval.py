"""Training on parts of the training set and predicting the rest: what cross-validated scores read.

Networks are trained side by side on a CPU, or on a cluster, and each one's predictions are kept in the run's folder
as soon as it is finished, so that a killed run goes on with those that are left.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from engine.data.loader import Samples
from engine.runs.cluster import HERE, Report, Tasks
from engine.scores.heldout import draw_folds, select_incv
from engine.scores.verdict import SMALLEST, fit_noise, probability_wrong
from engine.spec import TrainingSpec
from engine.store.progress import Reporter
from engine.store.tensors import load_tensors, save_tensors
from engine.training.loop import Normalization, batches_per_epoch, build_optimizer, evaluation_pass, train_epochs
from engine.training.models import build_model
from engine.training.together import workers_for

FOLDS = 5
"""Networks behind the held-out probabilities, each trained on all folds but one."""

HEAD_FOLDS, HEAD_REPEATS = 10, 2
"""The same of a head on features, which trains in a second."""

MANY = 20_000
"""Samples from which on the folds of a head are drawn once: then nine tenths of them are enough."""

FEWEST = 2
"""Trusted samples that a network can be trained on. Where inputs tell nothing of the labels none may be; then all are."""

REPEATS = 5
"""Times the samples are halved for the consistency score; every half trains one network and tests on the other."""

ROUNDS = 4
"""Of the iterative cross-validation, two networks each."""

Part = tuple[Tensor, Tensor]
"""Positions to train on, and positions to predict."""


@dataclass(frozen=True)
class CrossValidation:
    """How the networks of all parts are trained: like the seeds of a run, for so many epochs.

    folder: where finished predictions are kept, under the number of their network; tasks: where networks are trained
    """

    samples: Samples
    training: TrainingSpec
    epochs: int
    normalization: Normalization
    folder: Path
    progress: Reporter
    tasks: Tasks = HERE

    def predict(self, parts: Sequence[Part], name: str, first_seed: int = 0, whole: int | None = None) -> list[Tensor]:
        """For every part the softmax output (M, C) on its test positions, of a network trained on the others.

        name: of the purpose; whole: networks of that purpose in all, of which first_seed are done
        """
        networks = whole or len(parts)
        fractions = [0.0] * len(parts)
        shared = self.tasks.share(self.samples)

        def advance(k: int, fraction: float) -> None:
            fractions[k] = fraction
            running = [first_seed + i + 1 for i, share in enumerate(fractions) if 0 < share < 1]
            detail = f"network {', '.join(map(str, running))} of {networks}" if running else ""
            self.progress.step(first_seed + sum(fractions), networks, detail)

        def report(k: int, fraction: float) -> None:
            self.progress.heartbeat()
            advance(k, fraction)

        def work(k: int) -> Tensor:
            path = self.folder / f"{name}{first_seed + k}.safetensors"
            if found := load_tensors(path):
                advance(k, 1.0)
                return torch.from_numpy(found[0]["probs"])
            network = Network(*parts[k], first_seed + k, self.training, self.epochs, self.normalization)
            probs = self.tasks.call(predict_rest, shared, network, partial(report, k))
            advance(k, 1.0)
            path.parent.mkdir(exist_ok=True)
            save_tensors(path, {"probs": probs.numpy()}, {})
            return probs

        threads = self.training.threads
        workers = workers_for(self.training.model, len(parts), self.samples.device, threads)
        return self.tasks.together([partial(work, k) for k in range(len(parts))], workers, self.progress, threads)


@dataclass(frozen=True)
class Network:
    """One network of a cross-validation: positions to train on and to predict, and how it is trained."""

    train: Tensor
    test: Tensor
    seed: int
    training: TrainingSpec
    epochs: int
    normalization: Normalization


def predict_rest(samples: Samples, part: Network, report: Report) -> Tensor:
    """Train a network on its part and predict the others.

    Returns: softmax output (M, C) float32 on the CPU, rows as part.test
    """
    training, scale = part.training, part.normalization
    network = build_model(training.model, samples.shape, samples.classes, part.seed)
    network.to(samples.device)
    optimizer = build_optimizer(network, training)
    kept = samples.subset(part.train)
    total, seen = part.epochs * batches_per_epoch(len(kept), training.batch_size), itertools.count()
    heartbeat = lambda: report(next(seen) / (total + 1))  # noqa: E731
    for epoch, _ in train_epochs(network, optimizer, kept, scale, training, part.seed, heartbeat=heartbeat):
        if epoch + 1 >= part.epochs:
            break
    tested = partial(report, total / (total + 1))
    outputs = evaluation_pass(network, samples.subset(part.test), scale, heartbeat=tested)
    return torch.cat([torch.softmax(logits.float(), 1).cpu() for _, logits in outputs])


def folds_of(training: TrainingSpec, n: int) -> tuple[int, int, int]:
    """How held-out probabilities of n samples are made: folds, how often they are drawn, and rounds without suspects."""
    if not training.trained_on:
        return min(FOLDS, n), 1, 0
    return min(HEAD_FOLDS, n), 1 if n > MANY else HEAD_REPEATS, 1


def compute_heldout_probs(how: CrossValidation, generator: torch.Generator) -> Tensor:
    """Predictions of networks that were not trained on the sample: K-fold cross-validation, classes spread evenly.

    Where folds are drawn more than once, the probabilities of a sample are averaged as logarithms.

    Returns: (N, C), rows sum to 1
    Raises:  ScoreInputError when there are fewer than two samples
    """
    n = len(how.samples)
    _, repeats, rounds = folds_of(how.training, n)
    everyone = torch.ones(n, dtype=torch.bool)
    logs = [_predict_folds(how, generator, everyone, done, repeats + rounds) for done in range(repeats)]
    return torch.softmax(torch.stack(logs).mean(0), 1)


def refine_heldout_probs(how: CrossValidation, generator: torch.Generator, probs: Tensor) -> Tensor:
    """The same with further folds, of networks that are not trained on samples whose label is more likely wrong than right.

    Wrong labels that no network learns from stand out the more; their share is underestimated then, so it is estimated
    from the probabilities before. Only heads on features are trained again: they take a second.

    Args:    probs (N, C) as `compute_heldout_probs` gave them, from the same samples
    Returns: (N, C), the logarithms averaged over all folds of a sample
    """
    labels = how.samples.labels.cpu()
    _, repeats, rounds = folds_of(how.training, len(labels))
    trusted = probability_wrong(probs, labels, fit_noise(probs, labels)) <= 0.5
    logs = [repeats * probs.clamp_min(SMALLEST).log()]
    logs += [_predict_folds(how, generator, trusted, repeats + done, repeats + rounds) for done in range(rounds)]
    return torch.softmax(torch.stack(logs).sum(0) / (repeats + rounds), 1)


def _predict_folds(how: CrossValidation, generator: torch.Generator, trusted: Tensor, done: int, rounds: int) -> Tensor:
    """Log probabilities (N, C) of networks trained on the trusted samples of all folds but the sample's own.

    done: of so many rounds
    """
    labels = how.samples.labels.cpu()
    folds = folds_of(how.training, len(labels))[0]
    fold = draw_folds(labels, folds, generator)
    parts = []
    for k in range(folds):
        others = trusted & (fold != k)
        if int(others.sum()) < FEWEST:
            others = fold != k
        parts.append((others.nonzero()[:, 0], (fold == k).nonzero()[:, 0]))
    found = torch.empty(len(labels), how.samples.classes)
    for (_, test), predicted in zip(parts, how.predict(parts, "fold", done * folds, rounds * folds), strict=True):
        found[test] = predicted
    return found.clamp_min(SMALLEST).log()


def compute_heldout_correct(
    how: CrossValidation, generator: torch.Generator, repeats: int = REPEATS
) -> tuple[Tensor, Tensor]:
    """Whether networks trained on random halves without a sample predict its given label.

    Both halves of a split are used, so that every sample is held out equally often.

    Returns: heldout (R, N) and correct (R, N) bool, R = 2 repeats networks
    """
    labels = how.samples.labels.cpu()
    halves = [draw_folds(labels, 2, generator) for _ in range(repeats)]
    held = torch.stack([half == k for half in halves for k in range(2)])
    parts = [((~out).nonzero()[:, 0], out.nonzero()[:, 0]) for out in held]
    correct = torch.zeros_like(held)
    for row, (_, test), probs in zip(correct, parts, how.predict(parts, "half"), strict=True):
        row[test] = probs.argmax(1) == labels[test]
    return held, correct


def compute_incv(how: CrossValidation, generator: torch.Generator, rounds: int = ROUNDS) -> tuple[Tensor, float]:
    """Iterative noisy cross-validation, see `select_incv`.

    Returns: selected (N,) bool, and the estimated noise rate
    """
    done = 0

    def predict(parts: Sequence[Part]) -> list[Tensor]:
        nonlocal done
        found = how.predict(parts, "incv", done, 2 * rounds)
        done += len(parts)
        return found

    return select_incv(predict, how.samples.labels.cpu(), generator, rounds)
