"""Training the networks of a run one after another, so that a killed run goes on where it was.

One checkpoint covers them all: which network, which epoch, its weights and its optimiser. Dynamics grow in one
spill file per network beside it; what a spill holds beyond the checkpoint is overwritten on resume.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.data.loader import Samples
from engine.errors import StorageError
from engine.progress import Progress
from engine.spec import TrainingSpec
from engine.training.dynamics import DynamicsRecorder, Spill
from engine.training.loop import (
    Normalisation,
    batches_per_epoch,
    build_optimizer,
    compute_accuracy,
    epochs_before_first_drop,
    learning_rate,
    train_epochs,
)
from engine.training.models import build_model
from engine.workspace import load_tensors, save_tensors

CHECKPOINT_SECONDS = 5.0
"""A run writes its state at the end of an epoch, but not more often than this."""


@dataclass(frozen=True)
class Task:
    """One network to train: labels (N,) it is trained on, the number of its outputs, and the epochs (1 .. T) after
    which its weights are kept beside the last."""

    name: str
    seed: int
    labels: Tensor
    classes: int
    training: TrainingSpec
    keep_logits: bool
    test: bool
    keep_epochs: tuple[int, ...] = ()


def seed_tasks(samples: Samples, training: TrainingSpec, kept: Mapping[int, int]) -> list[Task]:
    """One network per seed on the given labels. kept: epoch -> how many seeds keep their weights after it."""
    return [
        Task(
            f"seed{s}",
            s,
            samples.labels,
            samples.classes,
            training,
            s < training.logit_seeds,
            True,
            tuple(epoch for epoch, seeds in sorted(kept.items()) if s < seeds and epoch < training.epochs),
        )
        for s in range(training.seeds)
    ]


def round_tasks(samples: Samples, training: TrainingSpec, member: Tensor) -> list[Task]:
    """One network per threshold round: its threshold samples get the extra class C, at the first learning rate."""
    training = replace(training, epochs=epochs_before_first_drop(training), schedule="constant")
    return [
        Task(
            f"round{r}",
            r,
            torch.where(row.to(samples.labels.device), samples.classes, samples.labels),
            samples.classes + 1,
            training,
            False,
            False,
        )
        for r, row in enumerate(member)
    ]


def spill_of(folder: Path, task: Task) -> Spill:
    """Where a task's dynamics grow."""
    return Spill(folder / "partial" / f"{task.name}.dynamics", len(task.labels), task.classes, task.keep_logits)


def load_weights(folder: Path, task: Task, epoch: int | None = None) -> dict[str, np.ndarray[Any, Any]]:
    """The weights of a finished task: the final ones, or those kept after an epoch."""
    found = load_tensors(_weights_path(folder, task, epoch or task.training.epochs))
    if found is None:
        raise StorageError(f"the weights of {task.name} are missing in {folder}; remove the run and ask again")
    return found[0]


def _weights_path(folder: Path, task: Task, epoch: int) -> Path:
    kept = "" if epoch == task.training.epochs else f"-epoch{epoch}"
    return folder / "partial" / f"{task.name}{kept}.safetensors"


def train_tasks(
    folder: Path,
    tasks: Sequence[Task],
    samples: Samples,
    test: Samples | None,
    normalisation: Normalisation,
    progress: Progress,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> list[dict[str, Any]]:
    """Train every task from where the run's checkpoint left off.

    Returns: one row per epoch of the tasks with test=True: seed, epoch (1-based), train_loss, train_accuracy,
             test_accuracy (None without a test split), lr, seconds
    """
    (folder / "partial").mkdir(exist_ok=True)
    found = load_tensors(folder / "checkpoint.safetensors")
    names = [task.name for task in tasks]
    tensors, meta = found or ({}, {})
    if meta.get("tasks") != names:  # nothing yet, or a published run made some of the old tasks needless
        tensors, meta = {}, {"tasks": names, "task": 0, "epoch": 0, "rows": []}
    rows: list[dict[str, Any]] = meta["rows"]
    total = sum(task.training.epochs for task in tasks)
    before = sum(task.training.epochs for task in tasks[: meta["task"]])
    progress.resumed("training", (before + meta["epoch"]) / total)
    for number in range(meta["task"], len(tasks)):
        task, first = tasks[number], int(meta["epoch"]) if number == meta["task"] else 0
        data = replace(samples, labels=task.labels, classes=task.classes)
        network = build_model(task.training.model, tuple(samples.inputs.shape[1:]), task.classes, task.seed)
        network.to(samples.inputs.device)
        optimizer = build_optimizer(network, task.training)
        recorder = DynamicsRecorder(spill_of(folder, task), samples.inputs.device)
        recorder.restore(first)
        if first:
            _restore(network, optimizer, tensors)
        last_checkpoint = time.monotonic()
        batches = task.training.epochs * batches_per_epoch(len(task.labels), task.training.batch_size)
        seen = itertools.count(first * batches // task.training.epochs)

        def pulse(task: Task = task, batches: int = batches, seen: Iterator[int] = seen, before: int = before) -> None:
            progress.step(before + task.training.epochs * min(1.0, next(seen) / batches), total, task.name)

        for epoch, seconds in train_epochs(
            network,
            optimizer,
            data,
            normalisation,
            task.training,
            task.seed,
            first_epoch=first,
            recorder=recorder,
            pulse=pulse,
        ):
            row: dict[str, Any] = {"seed": task.seed, "epoch": epoch + 1, **recorder.end_epoch(epoch)}
            if task.test:
                row["test_accuracy"] = compute_accuracy(network, test, normalisation) if test else None
                row["lr"] = learning_rate(task.training, epoch / task.training.epochs)
                row["seconds"] = seconds
                rows.append(row)
            last = epoch + 1 == task.training.epochs
            if last or epoch + 1 in task.keep_epochs:
                save_tensors(_weights_path(folder, task, epoch + 1), _numpy(network.state_dict()), {})
            if last or time.monotonic() - last_checkpoint >= checkpoint_seconds:
                recorder.spill.sync()
                at = {"tasks": names, "task": number + last, "epoch": 0 if last else epoch + 1, "rows": rows}
                state = {} if last else _state(network, optimizer)
                save_tensors(folder / "checkpoint.safetensors", state, at)
                last_checkpoint = time.monotonic()
        before += task.training.epochs
    return rows


def _numpy(tensors: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.ascontiguousarray(t.detach().cpu().numpy()) for name, t in tensors.items()}


def _state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, np.ndarray[Any, Any]]:
    state = {f"model.{name}": t for name, t in network.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        state.update({f"optimizer.{index}.{key}": t for key, t in values.items() if isinstance(t, Tensor)})
    return _numpy(state)


def _restore(network: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    loaded = {name: torch.from_numpy(values) for name, values in tensors.items()}
    network.load_state_dict({n.removeprefix("model."): t for n, t in loaded.items() if n.startswith("model.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, t in loaded.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = t
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
