"""Kernel velocity per group of a score's ranks, from the networks that a run has kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from engine.data.loader import normalization, to_float
from engine.errors import NotFoundError
from engine.features.seen import load_seen
from engine.queries.connection import connected, fetch_sql, latest_run, source_run
from engine.runs.cluster import HERE, Report, Tasks, map_tasks
from engine.scores.kernel import (
    BLOCK_VALUES,
    GROUP_SIZE,
    GROUPS,
    compute_kernel_velocity,
    compute_ntk,
    decile_groups,
)
from engine.spec import RunSpec, spec_from_json
from engine.store.progress import Unheard
from engine.store.workspace import Workspace
from engine.training.device import available_bytes
from engine.training.kept import load_network, stored_epochs
from engine.training.models import build_model
from engine.training.own_models import allow_trusted

BYTES_PER_VALUE = 16
"""Of the memory that is free, for each value of the Jacobian: itself four bytes, and as much again for what makes it, twice."""


@dataclass(frozen=True)
class Prepared:
    """What kernel velocity reads. networks: of a model, after successive epochs; groups: inputs of the samples of each
    decile; classes: outputs of the networks"""

    networks: Sequence[nn.Module]
    epochs: Sequence[int]
    groups: Sequence[Tensor]
    model: str
    classes: int


def velocity_by_decile(
    workspace: Workspace,
    dataset: str,
    score: str,
    run_id: str | None = None,
    size: int = GROUP_SIZE,
    device: torch.device | str = "cpu",
    report: Callable[[float, float], None] = lambda done, total: None,
    tasks: Tasks = HERE,
) -> pd.DataFrame:
    """How fast the tangent kernel of each decile of a score turns while the first network trains (CG, appendix I).

    Args:    run_id: whose scores; None = the newest run that has the score; size: samples of a decile, from its
             easiest on, at most N / 10; device: where the kernels are computed; tasks: on which machines, a decile each
    Returns: decile (0 = easiest), epoch, until (the epochs whose kernels are compared), velocity 0..1
    Raises:  NotFoundError when no run has the score, or its training kept fewer than two networks
    """
    found, rows = prepare_velocity(workspace, dataset, score, run_id, size, device), []
    stages = _Stages(found.model, found.classes, [network.state_dict() for network in found.networks])
    for decile, speeds in enumerate(map_tasks(tasks, _turn, stages, found.groups, _Heard(report))):
        rows += [(decile, a, b, v) for a, b, v in zip(found.epochs[:-1], found.epochs[1:], speeds, strict=True)]
    return pd.DataFrame(rows, columns=["decile", "epoch", "until", "velocity"])


def kernel_seconds(found: Prepared) -> float:
    """Rough seconds of the kernel of one group in one network, from those of a few of its samples.

    Of m samples a m + b m^2: their gradients, and the products of these.
    """
    inputs = found.groups[0]
    small, large = min(4, len(inputs)), min(12, len(inputs))
    times = []
    for count in (small, small, large):  # the first warms up
        started = time.perf_counter()
        float(compute_ntk(found.networks[0], inputs[:count]).sum())  # which waits for a GPU
        times.append(time.perf_counter() - started)
    if small == large:
        return times[2]
    squared = max(0.0, (times[2] / large - times[1] / small) / (large - small))
    linear = max(0.0, times[2] / large - squared * large)
    return linear * len(inputs) + squared * len(inputs) ** 2


def prepare_velocity(
    workspace: Workspace, dataset: str, score: str, run_id: str | None, size: int, device: torch.device | str = "cpu"
) -> Prepared:
    """The networks and the samples of `velocity_by_decile`, which raises the same."""
    with connected(workspace, dataset) as connection:
        found = run_id or latest_run(connection, "scores", score)
        ranks = fetch_sql(
            connection,
            "SELECT rank FROM scores WHERE run_id = ? AND score = ? ORDER BY sample_id",
            [found, score],
        )["rank"].to_numpy(np.int64)
        if not found or not len(ranks):
            raise NotFoundError(
                f"no run of '{dataset}' has the score '{score}'; make one: winnow run {dataset} --scores {score}"
            )
        trained = source_run(connection, "epochs", found)
    spec = spec_from_json(workspace.read_spec(trained)["spec"])
    training = spec.training if isinstance(spec, RunSpec) else None
    folder = workspace.published_dir(trained)
    epochs = stored_epochs(folder, training.epochs) if training else []
    if training is None or len(epochs) < 2 or epochs[-1] != training.epochs:
        raise NotFoundError(f"run {found} has kept no networks of several epochs; make one: winnow run {dataset}")
    allow_trusted(workspace, training.model)
    samples = load_seen(workspace, dataset, "train", training.trained_on, device)
    mean, std = normalization(samples)
    shape = samples.shape
    networks = [load_network(folder, training, shape, samples.classes, 0, epoch, device) for epoch in epochs]
    groups = decile_groups(torch.from_numpy(ranks), GROUPS, min(size, len(ranks) // GROUPS))
    on = samples.device
    inputs = [to_float(samples.inputs_at(members.to(on)), mean, std) for members in groups]
    return Prepared(networks, epochs, inputs, training.model, samples.classes)


@dataclass(frozen=True)
class _Stages:
    """One network after successive epochs, as every machine can make it."""

    model: str
    classes: int
    weights: list[dict[str, Tensor]]


def _turn(stages: _Stages, inputs: Tensor, report: Report) -> list[float]:
    """How far the kernel of a group turns from each network to the next. inputs: of the group, where it is computed"""
    networks = []
    for weights in stages.weights:
        network = build_model(stages.model, tuple(inputs.shape[1:]), stages.classes, 0)
        network.load_state_dict(weights)
        networks.append(network.to(inputs.device).eval())
    values = max(BLOCK_VALUES, available_bytes(inputs.device) // BYTES_PER_VALUE)
    return [float(speed) for speed in compute_kernel_velocity(networks, inputs, values)]


class _Heard(Unheard):
    """Progress that is reported to a function."""

    def __init__(self, heard: Callable[[float, float], None]) -> None:
        self._heard = heard

    def step(self, done: float, total: float, detail: str = "") -> None:
        self._heard(done, total)
