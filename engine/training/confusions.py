"""What networks confuse each sample with: held-out predictions for `--noise instance:RATE` (engine.data.noise)."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from engine.data.loader import Samples, dataset_shape, load_split, normalization
from engine.data.noise import Labels, Matrix
from engine.data.writing import Report
from engine.errors import Cancelled, SpecError
from engine.scores.heldout import draw_folds
from engine.spec import TrainingSpec
from engine.store.workspace import Workspace
from engine.training.loop import Normalization, batches_per_epoch, build_optimizer, evaluation_pass, train_epochs
from engine.training.models import build_model
from engine.training.speed import Shape, measure_speed
from engine.training.together import train_together, workers_for

FOLDS = 3
"""Networks, each trained on all folds but one. Which samples are hard shows with few."""

EPOCHS, STEPS = 10, 80
"""Passes of a network, and more of small sets until it has made so many steps: enough to tell the classes apart."""

BATCH = 128
"""Samples per step."""

FEWEST = 10
"""Samples that it takes."""


def compute_confusions(workspace: Workspace, dataset: str, labels: Labels, seed: int, report: Report) -> Matrix:
    """The probability of each class for each training sample of a dataset, by networks that were not trained on it.

    The softmax output is averaged over the epochs, and the class of the sample itself is set to 0. On the processor, a
    thread to a network, so that the same seed gives the same numbers: `lenet` on images, `mlp` on vectors.

    Args:    labels (N,) int64, of the training samples in the order of their ids: what the networks learn
    Returns: (N, C) float64 in [0, 1]
    Raises:  SpecError for fewer than FEWEST samples; StorageError when the dataset does not hold their inputs
    Source:  Chen et al. 2021 ("Beyond class-conditional assumption"), algorithm 1
    Departs from the paper: predictions of samples that were held out. Those of samples that were trained on tell how
             soon a network has memorized them.
    """
    samples = load_split(workspace, dataset, "train")
    if len(samples) < FEWEST:
        raise SpecError(
            f"dataset '{dataset}' has {len(samples)} training samples; instance noise trains networks on them and needs "
            f"at least {FEWEST}"
        )
    learned = torch.from_numpy(np.asarray(labels, np.int64))
    fold = draw_folds(learned, FOLDS, torch.Generator().manual_seed(seed))
    parts = [((fold != k).nonzero()[:, 0], (fold == k).nonzero()[:, 0]) for k in range(FOLDS)]
    model = "lenet" if samples.are_images else "mlp"
    trainings = [_training(model, len(train)) for train, _ in parts]
    whole = sum(t.epochs * batches_per_epoch(len(p[0]), BATCH) for t, p in zip(trainings, parts, strict=True))
    steps = _Steps(report, whole)
    given = replace(samples, labels=learned, true_labels=None)
    seeds = np.random.default_rng(seed).integers(0, 2**31, FOLDS).tolist()
    work = [partial(_predict, given, *part, t, s, steps) for part, t, s in zip(parts, trainings, seeds, strict=True)]
    found = np.empty((len(samples), samples.classes), np.float64)
    predicted = train_together(work, workers_for(model, FOLDS, torch.device("cpu")), steps)
    for (_, test), probs in zip(parts, predicted, strict=True):
        found[test.numpy()] = probs.numpy()
    found[np.arange(len(found)), learned.numpy()] = 0
    return found


def confusion_seconds(workspace: Workspace, dataset: str) -> float:
    """Rough seconds of `compute_confusions`: a step of its networks is timed."""
    found = dataset_shape(workspace, dataset)
    model = "lenet" if len(found.shape) == 3 else "mlp"
    kept = found.train * (FOLDS - 1) // FOLDS
    training = _training(model, kept)
    shape = Shape(found.shape, getattr(torch, found.dtype), found.classes, kept)
    speed = measure_speed(training, shape, torch.device("cpu"), FOLDS)
    each = speed.training(kept, training.epochs) + training.epochs * speed.passing * (found.train - kept)
    return FOLDS * each / speed.workers


def _training(model: str, n: int) -> TrainingSpec:
    """How a network is trained on n samples."""
    epochs = max(EPOCHS, math.ceil(STEPS / batches_per_epoch(n, BATCH)))
    return TrainingSpec(model=model, batch_size=BATCH, epochs=epochs, seeds=1)


def _predict(samples: Samples, train: Tensor, test: Tensor, training: TrainingSpec, seed: int, steps: _Steps) -> Tensor:
    """Softmax output (M, C) float64 on the test positions, averaged over the epochs of a network trained on the others."""
    kept, tested = samples.subset(train), samples.subset(test)
    scale = Normalization(*normalization(kept))
    network = build_model(training.model, kept.shape, kept.classes, seed)
    total = torch.zeros(len(test), kept.classes, dtype=torch.float64)
    for _ in train_epochs(
        network, build_optimizer(network, training), kept, scale, training, seed, heartbeat=steps.take
    ):
        for positions, logits in evaluation_pass(network, tested, scale, heartbeat=steps.heartbeat):
            total[positions] += logits.double().softmax(1)
    return total / training.epochs


class _Steps:
    """Tells a report how many steps of the networks that are trained side by side are done."""

    def __init__(self, report: Report, whole: int) -> None:
        self._report, self._whole, self._taken, self._stopped = report, whole, 0, False
        self._lock = threading.Lock()

    def take(self) -> None:
        """One step of one network."""
        self.heartbeat()
        with self._lock:
            self._taken += 1
            self._report("networks for the noise", self._taken, self._whole)

    def step(self, done: float, total: float, detail: str = "") -> None:
        self.heartbeat()

    def heartbeat(self) -> None:
        if self._stopped:
            raise Cancelled()

    def stop(self, stopped: bool = True) -> None:
        self._stopped = stopped
