"""Training the networks of a run, so that a killed run goes on where it was.

Each network has a checkpoint of its own (epoch, weights, optimizer) and a spill file that its dynamics grow in; what
the spill holds beyond the checkpoint is overwritten on resume. A finished network is its weights.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.data.loader import Samples
from engine.errors import StorageError
from engine.spec import TrainingSpec
from engine.store.progress import Progress
from engine.store.tensors import load_tensors, save_tensors
from engine.training.loop import (
    Normalization,
    batches_per_epoch,
    build_optimizer,
    compute_accuracy,
    epochs_before_first_drop,
    learning_rate,
    train_epochs,
)
from engine.training.models import build_model
from engine.training.recording import DynamicsRecorder, Spill
from engine.training.stacked import (
    Batch,
    Member,
    Stack,
    can_stack,
    compute_accuracies,
    evaluate_stack,
    stack_size,
    train_stacked,
)
from engine.training.together import train_together, workers_for

CHECKPOINT_SECONDS = 5.0
"""A run writes its state at the end of an epoch, but not more often than this."""


@dataclass(frozen=True)
class Task:
    """One network to train: labels (N,) it is trained on, the number of its outputs, and the epochs (1 .. T) after
    which its weights are kept in addition to the last."""

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


Arrays = dict[str, np.ndarray[Any, Any]]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Splits:
    """The data that all networks of a run read. The labels of the samples are the given ones, those of a task its own."""

    samples: Samples
    test: Samples | None
    normalization: Normalization


@dataclass(frozen=True)
class State:
    """Where a network was left: after so many epochs, with a row of each; the tensors of the network and its optimizer."""

    epochs: int
    rows: Rows
    tensors: Arrays


Train = Callable[[Path, Task, Splits, Callable[[float], None], float], Rows]
Together = Callable[[Sequence[Callable[[], Rows]], int, Progress, int | None], list[Rows]]
"""How one task is trained, as `train_here` does it, and how several are, as `train_together` does it."""


def spill_of(folder: Path, task: Task) -> Spill:
    """Where a task's dynamics grow."""
    return Spill(folder / "partial" / f"{task.name}.dynamics", len(task.labels), task.classes, task.keep_logits)


def load_weights(folder: Path, task: Task, epoch: int | None = None) -> dict[str, np.ndarray[Any, Any]]:
    """The weights of a finished task: the final ones, or those kept after an epoch."""
    found = load_tensors(weights_path(folder, task, epoch))
    if found is None:
        raise StorageError(f"the weights of {task.name} are missing in {folder}; remove the run and start it again")
    return found[0]


def train_tasks(
    folder: Path,
    tasks: Sequence[Task],
    splits: Splits,
    progress: Progress,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    stacked: bool | None = None,
    train: Train | None = None,
    together: Together = train_together,
) -> list[dict[str, Any]]:
    """Train every task from where its checkpoint left off, on a CPU several at once, on a GPU small seeds as one stack.

    Args:    stacked: whether seeds are trained as a stack where they can be; None: on a GPU. A stack that is stopped starts
             again; train: how one is trained, if not in this process, where none are stacked; together: how several are
    Returns: one row per epoch of the tasks with test=True: seed, epoch (1-based), train_loss, train_accuracy,
             test_accuracy (None without a test split), lr, seconds
    """
    (folder / "partial").mkdir(exist_ok=True)
    total = sum(task.training.epochs for task in tasks)
    done = {task.name: float(_epochs_done(folder, task)) for task in tasks}
    progress.resumed(sum(done.values()) / total)
    running: dict[str, Task] = {}

    def report(name: str, epochs: float) -> None:
        done[name] = epochs
        progress.step(sum(done.values()), total, describe_position(list(running.values()), done))

    def work(task: Task) -> Rows:
        running[task.name] = task
        rows = (train or train_here)(folder, task, splits, partial(report, task.name), checkpoint_seconds)
        del running[task.name]
        report(task.name, task.training.epochs)
        return rows

    training, device = tasks[0].training, splits.samples.device
    stacks = not train and (device.type == "cuda" if stacked is None else stacked)
    for stack in _stacks(folder, tasks, splits.samples) if stacks else ():
        running.update({task.name: task for task in stack})
        _train_stack(folder, stack, splits, report)
        running.clear()
    workers = workers_for(training.model, len(tasks), device, training.threads)
    rows = together([partial(work, task) for task in tasks], workers, progress, training.threads)
    return [row for task, of_task in zip(tasks, rows, strict=True) if task.test for row in of_task]


def _stacks(folder: Path, tasks: Sequence[Task], samples: Samples) -> list[list[Task]]:
    """The seeds that have not begun, in stacks that fit into the device's memory; none where they cannot be stacked."""
    begun = [weights_path(folder, task).exists() or checkpoint_path(folder, task).exists() for task in tasks]
    seeds = [task for task, has_begun in zip(tasks, begun, strict=True) if task.test and not has_begun]
    if len(seeds) < 2 or seeds[0].training.augment != "none":
        return []
    training = seeds[0].training
    network = build_model(training.model, samples.shape, seeds[0].classes, 0)
    if not can_stack(network):
        return []
    size = stack_size(network, training, samples, samples.device)
    return [seeds[i : i + size] for i in range(0, len(seeds), size)]


def _train_stack(folder: Path, tasks: Sequence[Task], splits: Splits, report: Callable[[str, float], None]) -> None:
    """Train the networks of some seeds as one, and leave what each would have left alone."""
    samples, test, normalization = splits.samples, splits.test, splits.normalization
    training, data = tasks[0].training, replace(samples, labels=tasks[0].labels, classes=tasks[0].classes)
    recorders = [DynamicsRecorder(spill_of(folder, task), samples.device) for task in tasks]
    for recorder in recorders:
        recorder.restore(0)
    rows: list[list[dict[str, Any]]] = [[] for _ in tasks]
    batches, started = batches_per_epoch(len(data), training.batch_size), time.perf_counter()

    def end_epoch(epoch: int, stack: Stack) -> None:
        nonlocal started
        if training.observe == "eval":
            positions = torch.arange(len(data), device=data.labels.device)
            for part, logits in evaluate_stack(stack, data, normalization):
                for recorder, own in zip(recorders, logits, strict=True):
                    recorder.log(own, data.labels[part], positions[part])
        seconds = (time.perf_counter() - started) / len(tasks)
        reached = compute_accuracies(stack, test, normalization) if test else [None] * len(tasks)
        for k, task in enumerate(tasks):
            row = {"seed": task.seed, "epoch": epoch + 1, **recorders[k].end_epoch(epoch)}
            lr = learning_rate(training, epoch / training.epochs)
            rows[k].append({**row, "test_accuracy": reached[k], "lr": lr, "seconds": seconds})
            if epoch + 1 in task.keep_epochs:
                save_tensors(weights_path(folder, task, epoch + 1), _numpy(stack.member(k).state_dict()), {})
        started = time.perf_counter()

    def watch(step: int, batch: Batch, logits: Tensor, stack: Stack) -> None:
        if training.observe == "train":
            (count,) = batch.groups  # as many of each: all have the same samples
            for recorder, positions, own in zip(recorders, batch.positions[:, :count], logits, strict=True):
                recorder.log(own[:count], data.labels[positions], positions)
        if step % batches == 0:
            stack.count(step)
            end_epoch(step // batches - 1, stack)
        report(tasks[step % len(tasks)].name, step / batches)

    everyone = torch.arange(len(data), device=data.labels.device)
    members = [Member(everyone, task.seed, training.epochs) for task in tasks]
    stack = train_stacked(members, data, normalization, training, watch=watch)
    for k, task in enumerate(tasks):
        recorders[k].spill.sync()
        save_tensors(weights_path(folder, task), _numpy(stack.member(k).state_dict()), {"rows": rows[k]})


def describe_position(running: Sequence[Task], done: Mapping[str, float]) -> str:
    """Which networks are being trained and in which epoch the first of them is. done: epochs of each, by name."""
    if not running:
        return ""
    names = [task.name for task in running]
    few = ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]}"
    last = min(running, key=lambda task: done[task.name])
    epoch = min(last.training.epochs, int(done[last.name]) + 1)
    return f"{few}: epoch {epoch} of {last.training.epochs}"


def train_here(
    folder: Path, task: Task, splits: Splits, report: Callable[[float], None], checkpoint_seconds: float
) -> Rows:
    """Train one task in this process, and keep what it leaves in the folder of its run.

    Args:    report: called with the epochs done, may raise to stop; checkpoint_seconds: between two states that are kept
    Returns: one row per epoch
    """
    finished = load_tensors(weights_path(folder, task))
    if finished is not None:
        return list(finished[1]["rows"])
    state = load_state(folder, task)
    recorder = DynamicsRecorder(spill_of(folder, task), splits.samples.device)
    recorder.restore(state.epochs)
    training = Training(task, splits, state)
    last_checkpoint = time.monotonic()
    for epochs in training.epochs(recorder, report):
        if epochs in task.keep_epochs:
            save_tensors(weights_path(folder, task, epochs), training.weights(), {})
        if epochs < task.training.epochs and time.monotonic() - last_checkpoint >= checkpoint_seconds:
            recorder.spill.sync()
            save_state(folder, task, State(epochs, training.rows, training.tensors()))
            last_checkpoint = time.monotonic()
    recorder.spill.sync()
    save_state(folder, task, State(task.training.epochs, training.rows, training.weights()))
    return training.rows


class Training:
    """A network in training, from where it was left. rows: one of every epoch"""

    def __init__(self, task: Task, splits: Splits, state: State) -> None:
        samples = splits.samples
        self.task, self.splits, self.first, self.rows = task, splits, state.epochs, list(state.rows)
        self.network = build_model(task.training.model, samples.shape, task.classes, task.seed)
        self.network.to(samples.device)
        self.optimizer = build_optimizer(self.network, task.training)
        if state.epochs:
            _restore(self.network, self.optimizer, state.tensors)

    def epochs(self, recorder: DynamicsRecorder, report: Callable[[float], None]) -> Iterator[int]:
        """Train, and yield after each epoch how many are done. report: called at every batch with the epochs done"""
        task, training, splits = self.task, self.task.training, self.splits
        data = replace(splits.samples, labels=task.labels, classes=task.classes)
        batches = batches_per_epoch(len(task.labels), training.batch_size)
        begun, seen = self.first, itertools.count()

        def heartbeat() -> None:
            report(begun + min(1.0, next(seen) / batches))

        for epoch, seconds in train_epochs(
            self.network,
            self.optimizer,
            data,
            splits.normalization,
            training,
            task.seed,
            first_epoch=self.first,
            recorder=recorder,
            heartbeat=heartbeat,
        ):
            begun, seen = epoch + 1, itertools.count()
            row: dict[str, Any] = {"seed": task.seed, "epoch": epoch + 1, **recorder.end_epoch(epoch)}
            if task.test:
                test = splits.test
                row["test_accuracy"] = compute_accuracy(self.network, test, splits.normalization) if test else None
                row["lr"] = learning_rate(training, epoch / training.epochs)
                row["seconds"] = seconds
            self.rows.append(row)
            yield epoch + 1

    def weights(self) -> Arrays:
        """Those of the network."""
        return _numpy(self.network.state_dict())

    def tensors(self) -> Arrays:
        """What a `State` holds of the network and its optimizer."""
        return _state(self.network, self.optimizer)


def load_state(folder: Path, task: Task) -> State:
    """Where an unfinished task was left: before its first epoch, when nothing was kept."""
    tensors, meta = load_tensors(checkpoint_path(folder, task)) or ({}, {"epochs": 0, "rows": []})
    return State(int(meta["epochs"]), list(meta["rows"]), tensors)


def save_state(folder: Path, task: Task, state: State) -> None:
    """Keep where a task was left; after the last epoch that is its weights alone."""
    if state.epochs < task.training.epochs:
        meta = {"epochs": state.epochs, "rows": state.rows}
        save_tensors(checkpoint_path(folder, task), state.tensors, meta)
    else:
        save_tensors(weights_path(folder, task), state.tensors, {"rows": state.rows})


def weights_path(folder: Path, task: Task, epoch: int | None = None) -> Path:
    """Where weights are: of the final weights, whose presence says that the task is finished, or of those kept after an epoch."""
    kept = f"-epoch{epoch}" if epoch and epoch < task.training.epochs else ""
    return folder / "partial" / f"{task.name}{kept}.safetensors"


def checkpoint_path(folder: Path, task: Task) -> Path:
    """Where an unfinished task keeps its state."""
    return folder / "partial" / f"{task.name}.checkpoint.safetensors"


def _epochs_done(folder: Path, task: Task) -> int:
    if weights_path(folder, task).exists():
        return task.training.epochs
    found = load_tensors(checkpoint_path(folder, task))
    return int(found[1]["epochs"]) if found else 0


def _numpy(tensors: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    # not ascontiguousarray, which makes one dimension of none: the count of an optimizer's steps has none
    return {name: np.require(t.detach().cpu().numpy(), requirements="C") for name, t in tensors.items()}


def _state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, np.ndarray[Any, Any]]:
    state = {f"model.{name}": t for name, t in network.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        state.update({f"optimizer.{index}.{key}": t for key, t in values.items() if isinstance(t, Tensor)})
    return _numpy(state)


def _restore(network: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    loaded = {name: torch.from_numpy(values) for name, values in tensors.items()}
    network.load_state_dict({n.removeprefix("model."): t for n, t in loaded.items() if n.startswith("model.")})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, t in loaded.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            like = parameters[int(index)]
            # In the memory format of its parameter: the fused optimizers walk through both side by side.
            state.setdefault(int(index), {})[key] = torch.empty_like(like).copy_(t) if t.shape == like.shape else t
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
