"""Training the networks of a run on other machines, leg by leg.

A leg is some epochs of one network: it begins with where the network was left, and gives back the recorded dynamics of
its epochs and where it left the network. Only the process of the run writes: after every leg it puts into the folder of
the run what training here would have put there. So a run goes on where it was, here or elsewhere, whichever dies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engine.features.computing import Tasks
from engine.store.tensors import load_tensors, save_tensors
from engine.training.recording import Array, DynamicsRecorder, Spill
from engine.training.tasks import (
    Arrays,
    Rows,
    Splits,
    State,
    Task,
    Training,
    load_state,
    save_state,
    spill_of,
    weights_path,
)

LEG = 4
"""How many times as long as from checkpoint to checkpoint a leg is: its network is built anew, and its state travels."""

LEG_BYTES = 1 << 26
"""Recorded dynamics of a leg, which its machine holds in memory until it ends; one epoch may be more."""


@dataclass(frozen=True)
class Leg:
    """A network to train on from where it was left, until the end of the epoch in which so many seconds are over."""

    task: Task
    state: State
    seconds: float


@dataclass(frozen=True)
class Passed:
    """What a leg gives back: the dynamics of its epochs as they lie in a spill, the weights that are kept of them, and
    where it left the network; after the last epoch that is its weights alone."""

    dynamics: list[Array]
    kept: dict[int, Arrays]
    state: State


@dataclass(frozen=True)
class _Held(Spill):
    """A spill in memory: its file lies on another machine."""

    parts: list[Array] = field(default_factory=list)

    def put(self, epoch: int, parts: Sequence[Array]) -> None:
        # copies, here and of weights: what goes on writes into the same memory
        self.parts.extend(np.array(part).reshape(-1).view(np.uint8) for part in parts)


def train_leg(splits: Splits, leg: Leg, report: Callable[[float], None]) -> Passed:
    """Train one leg. report: called with the share of all epochs that is done; may raise to stop"""
    task, samples, started = leg.task, splits.samples, time.monotonic()
    held = _Held(Path(), len(samples), task.classes, task.keep_logits)
    training, kept = Training(task, splits, leg.state), dict[int, Arrays]()
    recorder, last, epochs = DynamicsRecorder(held, samples.device), task.training.epochs, leg.state.epochs
    for epochs in training.epochs(recorder, lambda done: report(done / last)):
        if epochs in task.keep_epochs:
            kept[epochs] = {name: np.array(values) for name, values in training.weights().items()}
        full = (epochs + 1 - leg.state.epochs) * held.epoch_bytes > LEG_BYTES
        if full or time.monotonic() - started >= leg.seconds:
            break
    tensors = training.tensors() if epochs < last else training.weights()
    return Passed(held.parts, kept, State(epochs, training.rows, tensors))


def train_away(
    tasks: Tasks,
    shared: Any,
    folder: Path,
    task: Task,
    splits: Splits,
    report: Callable[[float], None],
    checkpoint_seconds: float,
) -> Rows:
    """`train_here` on the machines of a cluster. tasks: where legs run; shared: the splits there"""
    spill = spill_of(folder, task)
    while (finished := load_tensors(weights_path(folder, task))) is None:
        state = load_state(folder, task)
        spill.truncate(state.epochs)
        leg = Leg(task, state, LEG * checkpoint_seconds)
        passed = tasks.call(train_leg, shared, leg, partial(_advance, report, leg))
        spill.put(state.epochs, passed.dynamics)
        for epoch, weights in passed.kept.items():
            save_tensors(weights_path(folder, task, epoch), weights, {})
        spill.sync()
        save_state(folder, task, passed.state)
    return list(finished[1]["rows"])


def _advance(report: Callable[[float], None], leg: Leg, share: float) -> None:
    # a cluster knows no share before a leg is over
    report(max(leg.state.epochs, share * leg.task.training.epochs))
