"""The trial: which network suits a dataset, and for how many epochs, by held-out accuracy on a part of it, in seconds.

Photographs are told apart best by a head on the features of a pretrained network, digits by a small network of their own,
and no rule about sizes and colors says which. So each candidate is trained on some two thousand samples and judged on
others, against their given labels: nobody needs true ones, and wrong labels lower the figures of all candidates alike.

The choice is kept beside the dataset, because it decides the spec of a run: the same command is the same run.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.data.loader import Samples, load_split, normalization
from engine.data.splits import stratified
from engine.errors import Cancelled, StorageError
from engine.features.stored import compute_part
from engine.queries.connection import fetch_fingerprint
from engine.runs.cluster import HERE, Tasks
from engine.spec import TrainingSpec
from engine.store.atomic import write_text
from engine.store.documents import read_json
from engine.store.progress import Listener, Reporter
from engine.store.workspace import Workspace
from engine.training.loop import Normalization, batches_per_epoch, build_optimizer, evaluation_pass, train_epochs
from engine.training.models import build_model
from engine.training.together import train_together, workers_for

PART = 2_500
"""Samples of a trial at most. Their features take some 8 seconds on two cores."""

HELD_OUT = 0.2
"""Share of them that judges."""

EPOCHS = 10
"""Epochs of a trial at least."""

STEPS = 80
"""Steps of a trial at least: small sets are seen for more epochs until they have this many."""

SIDE = 32
"""Images of a trial have sides up to this: of 64 pixels they would take four times as long, to much the same figures."""

SEEDS = 2
"""Networks of each candidate, whose accuracies are averaged."""

FEWEST_EPOCHS = 4
"""Of a run: means over fewer epochs depend on when in the first one a sample was seen."""

FEWEST_HELD_OUT = 10
"""With fewer samples to judge, nothing can be measured."""

VERSION = 1
"""Of the file with a choice; one of another version is measured anew."""

SETTINGS: dict[str, dict[str, Any]] = {
    "lenet": {"batch_size": 128, "lr": 0.002},
    "head": {"batch_size": 256, "lr": 0.001},
    "linear": {"batch_size": 64, "lr": 0.01},
    "mlp": {"batch_size": 256, "lr": 0.002},
}
"""How each candidate is trained, in a trial and where the choice decides the run."""

FEATURES = "efficientnet_lite0"
"""What a head is tried on."""

ON_FEATURES: dict[str, Any] = {"model": "head", "epochs": FEWEST_EPOCHS, **SETTINGS["head"]}
"""How a run is trained where it names features and no model."""

FeaturesOf = Callable[[Tensor, Reporter], Tensor]
"""Ids (M,) int64 of samples, ascending, and what to report to -> their features (M, D) float32."""


@dataclass(frozen=True)
class Candidate:
    """A model, and the features that it is trained on; "" = the dataset's own inputs."""

    model: str
    features: str = ""

    def __str__(self) -> str:
        return f"{self.model} on {self.features}" if self.features else self.model


@dataclass(frozen=True)
class Choice:
    """What the trial of a dataset decided.

    epochs: of a run on the whole training set; accuracies: held-out accuracy 0..1 of each candidate by its name, empty
    where there were too few samples to measure; samples, held_out: of the trial
    """

    model: str
    features: str
    epochs: int
    accuracies: dict[str, float]
    samples: int
    held_out: int

    @property
    def training(self) -> dict[str, Any]:
        """The options of TrainingSpec that follow."""
        return {"model": self.model, "epochs": self.epochs, **SETTINGS[self.model]}

    @property
    def sentence(self) -> str:
        """The figures and the choice, for people."""
        chosen = f"{Candidate(self.model, self.features)}, {self.epochs} epochs"
        if not self.accuracies:
            return f"too few samples to try networks on a part of them: {chosen}"
        figures = ", ".join(f"{name} {100 * share:.1f} %" for name, share in self.accuracies.items())
        return (
            f"held-out accuracy on {self.held_out:,} of {self.samples:,} samples, by their given labels: {figures}; "
            f"so {chosen}"
        )


def choose_epochs(accuracies: Sequence[float], held_out: int) -> int:
    """The epoch to stop at, before a network memorizes: the first whose held-out accuracy is as good as the best.

    As good is within one standard error sqrt(a (1 - a) / n) of the best accuracy a on n samples (the rule of Breiman et
    al. 1984): what later epochs gain cannot be told from chance, and they rank wrong labels worse.

    Args:    accuracies: after epochs 1, 2, ..., of the predictions averaged over the epochs so far, as `aum` averages;
             held_out: n, the samples they were measured on
    Returns: 1 .. len(accuracies)
    """
    best = max(accuracies)
    enough = best - math.sqrt(best * (1 - best) / held_out)
    return next(epoch for epoch, accuracy in enumerate(accuracies, 1) if accuracy >= enough)


def epochs_of_whole(epochs: int, part: int, whole: int) -> int:
    """Epochs on the whole training set that do what so many do on a part of it.

    An epoch of a larger set has more steps to learn in, and shows each sample as often: with the same steps a network
    learns as much, with the same epochs it memorizes as much. Between the two lies the root of the ratio.
    """
    return max(FEWEST_EPOCHS, round(epochs * math.sqrt(part / whole)))


def choose_network(
    workspace: Workspace,
    dataset: str,
    device: torch.device,
    listener: Listener | None = None,
    *,
    features: str = FEATURES,
    tasks: Tasks = HERE,
    features_of: FeaturesOf | None = None,
) -> Choice:
    """The network of a dataset's runs where none is named: kept, or measured now and kept.

    Images: `lenet` on the images against `head` on features. Vectors: `linear`, `head` and `mlp` on themselves.

    Args:   features: as in --features, for images; tasks: where they are computed; features_of: computes them instead
    Raises: StorageError when the kept choice is damaged or cannot be written; Cancelled when the listener raises it;
            what computing the features raises
    """
    path, fingerprint = workspace.trial_path(dataset), fetch_fingerprint(workspace, dataset)
    if path.exists():
        kept = _read(path, fingerprint)
        if kept is not None:
            return kept

    def stored(ids: Tensor, progress: Reporter) -> Tensor:
        return compute_part(workspace, dataset, features, ids.tolist(), device, progress, tasks)

    samples = load_split(workspace, dataset, "train", device)
    choice = try_networks(samples, features, features_of or stored, listener)
    write_text(path, json.dumps({"version": VERSION, "fingerprint": fingerprint, **asdict(choice)}, indent=1) + "\n")
    return choice


def try_networks(samples: Samples, features: str, features_of: FeaturesOf, listener: Listener | None = None) -> Choice:
    """Measure the candidates on a part of a training split; the first of the best is chosen."""
    labels = samples.labels.cpu().numpy()
    part = stratified(labels, min(PART, len(labels)), 0)
    held = stratified(labels[part], round(HELD_OUT * len(part)), 1, keep_one=True)
    images = samples.are_images
    candidates = (
        [Candidate("lenet"), Candidate("head", features)] if images else [*map(Candidate, ("linear", "head", "mlp"))]
    )
    if len(held) < FEWEST_HELD_OUT:
        first = candidates[-1] if images else candidates[0]
        return Choice(first.model, first.features, EPOCHS, {}, len(part), len(held))
    test = torch.from_numpy(held)
    train = torch.from_numpy(np.setdiff1d(np.arange(len(part)), held))
    trainings = [_training(candidate.model, len(train)) for candidate in candidates]
    whole = SEEDS * sum(t.epochs * batches_per_epoch(len(train), t.batch_size) for t in trainings)
    steps = _Steps(listener, whole, 0.5 if images else 0.0)
    positions = torch.from_numpy(part)
    of_part = samples.subset(positions)
    seen = {"": of_part}
    if images:
        seen[""] = of_part.with_inputs(shrink(of_part.inputs))
        rows = features_of(of_part.sample_ids.cpu(), steps).to(samples.device)
        seen[features] = of_part.with_inputs(rows)
    work = [
        partial(_measure, seen[candidate.features], train, test, training, seed, steps)
        for candidate, training in zip(candidates, trainings, strict=True)
        for seed in range(SEEDS)
    ]
    workers = workers_for(candidates[0].model, len(work), samples.device)
    found = train_together(work, workers, steps)
    curves = [torch.stack(found[i : i + SEEDS]).mean(0).tolist() for i in range(0, len(found), SEEDS)]
    best = [max(curve) for curve in curves]
    winner = best.index(max(best))
    epochs = choose_epochs(curves[winner], len(held))
    return Choice(
        candidates[winner].model,
        candidates[winner].features,
        epochs_of_whole(epochs, len(train), len(samples)),
        {str(candidate): round(share, 4) for candidate, share in zip(candidates, best, strict=True)},
        len(part),
        len(held),
    )


def shrink(images: Tensor) -> Tensor:
    """Images (N, C, H, W) uint8 whose sides are at most SIDE, of means over squares of pixels."""
    factor = math.ceil(max(images.shape[2:]) / SIDE)
    if factor == 1:
        return images
    return (
        functional.avg_pool2d(images.float(), factor, ceil_mode=True, count_include_pad=False).round().to(torch.uint8)
    )


def _training(model: str, n: int) -> TrainingSpec:
    """How a candidate is trained on n samples in a trial."""
    batches = batches_per_epoch(n, SETTINGS[model]["batch_size"])
    return TrainingSpec(model=model, epochs=max(EPOCHS, math.ceil(STEPS / batches)), seeds=1, **SETTINGS[model])


def _measure(samples: Samples, train: Tensor, test: Tensor, training: TrainingSpec, seed: int, steps: _Steps) -> Tensor:
    """Held-out accuracy after every epoch, of the predictions averaged over the epochs so far: (epochs,) float64."""
    kept, tested = samples.subset(train), samples.subset(test)
    scale = Normalization(*normalization(kept))
    network = build_model(training.model, kept.shape, kept.classes, seed).to(kept.device)
    probs, found = torch.zeros(len(test), kept.classes, device=kept.device), []
    optimizer = build_optimizer(network, training)
    for _ in train_epochs(network, optimizer, kept, scale, training, seed, heartbeat=steps.take):
        for positions, logits in evaluation_pass(network, tested, scale):
            probs[positions] += logits.float().softmax(1)
        found.append((probs.argmax(1) == tested.labels).double().mean())
    return torch.stack(found).cpu()


class _Steps:
    """Tells a listener how far a trial is: the features first, then the steps of networks trained side by side.

    features: share of the whole that the features are
    """

    def __init__(self, listener: Listener | None, whole: int, features: float) -> None:
        self._listener, self._whole, self._features, self._taken = listener, whole, features, 0
        self._began = time.monotonic()
        self._stopped = False
        self._lock = threading.Lock()

    def take(self) -> None:
        """One step of one network."""
        self.heartbeat()
        with self._lock:
            self._taken += 1
            self._tell(self._features + (1 - self._features) * self._taken / self._whole)

    def step(self, done: float, total: float, detail: str = "") -> None:
        """Features of so many samples are done."""
        self.heartbeat()
        with self._lock:
            self._tell(self._features * done / total)

    def _tell(self, share: float) -> None:
        if self._listener:
            seconds = time.monotonic() - self._began
            self._listener("trial", min(1.0, share), seconds * (1 - share) / share if share else None)

    def heartbeat(self) -> None:
        if self._stopped:
            raise Cancelled()

    def stop(self, stopped: bool = True) -> None:
        self._stopped = stopped


def _read(path: Path, fingerprint: str) -> Choice | None:
    """The kept choice; None when it is of other data or another version. StorageError when it is damaged."""
    content = read_json(path)
    if isinstance(content, dict) and (content.get("version"), content.get("fingerprint")) != (VERSION, fingerprint):
        return None
    try:
        choice = Choice(**{f.name: content[f.name] for f in fields(Choice)})
        whole = all(isinstance(n, int) for n in (choice.epochs, choice.samples, choice.held_out)) and choice.epochs > 0
        shares = all(0 <= share <= 1 for share in choice.accuracies.values())
        if not (whole and shares and choice.model in SETTINGS and isinstance(choice.features, str)):
            raise ValueError("out of range")
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise StorageError(f"{path} is damaged; remove it, and the next run tries the networks again") from error
    return choice
