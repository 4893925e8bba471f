"""How fast a network is trained here: one step of it is timed before the training begins."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch

from engine.data.loader import Samples
from engine.spec import TrainingSpec
from engine.store.progress import Unheard
from engine.training.loop import Normalization, batches_per_epoch, build_optimizer, evaluation_pass, train_epochs
from engine.training.models import build_model
from engine.training.together import train_together, workers_for

FEW = 2
"""Samples of the first steps, which warm up and say how many more can be timed."""

STEP_SECONDS = 1.0
"""A step that would take longer is timed on fewer samples."""

REPEATS = 3


@dataclass(frozen=True)
class Shape:
    """What a network reads and gives: inputs (N, *inputs) of a dtype, and the number of its classes."""

    inputs: tuple[int, ...]
    dtype: torch.dtype
    classes: int
    samples: int


@dataclass(frozen=True)
class Speed:
    """How fast one network is while `workers` of them are trained side by side, in seconds.

    start: of a step, whatever its samples; sample: what every sample adds to a step; passing: of a sample in evaluation;
    parameters: how many of them are trained
    """

    start: float
    sample: float
    passing: float
    batch_size: int
    workers: int
    parameters: int

    def training(self, samples: float, epochs: float = 1) -> float:
        """Seconds of training one network on so many samples."""
        return epochs * (
            batches_per_epoch(max(1, round(samples)), self.batch_size) * self.start + samples * self.sample
        )


def measure_speed(training: TrainingSpec, shape: Shape, device: torch.device, networks: int) -> Speed:
    """Time a step of as many networks as will be trained side by side, on drawn inputs. A second or a few.

    Args:    shape: of the training set; networks: how many will be trained in all
    Raises:  SpecError as `build_model` and `train_epochs`
    """
    one = replace(training, epochs=1, seeds=1, logit_seeds=0, observe="train", schedule="constant")
    workers = workers_for(training.model, max(1, networks), device, training.threads)
    return _measured(one, replace(shape, samples=max(FEW, min(shape.samples, training.batch_size))), device, workers)


@lru_cache(maxsize=64)
def _measured(training: TrainingSpec, shape: Shape, device: torch.device, workers: int) -> Speed:
    work = [partial(_time_network, training, shape, device, seed) for seed in range(workers)]
    found = train_together(work, workers, Unheard(), training.threads)
    start, sample, passing = (sum(times) / workers for times in zip(*(times for times, _ in found), strict=True))
    return Speed(start, sample, passing, training.batch_size, workers, found[0][1])


def _time_network(
    training: TrainingSpec, shape: Shape, device: torch.device, seed: int
) -> tuple[tuple[float, float, float], int]:
    """Seconds (start, sample, passing) as in Speed, and the parameters."""
    network = build_model(training.model, shape.inputs, shape.classes, seed).to(device)
    optimizer = build_optimizer(network, training)
    drawn = _draw(shape, device)
    scale = Normalization(torch.tensor(128.0, device=device), torch.tensor(64.0, device=device))
    if shape.dtype != torch.uint8:
        scale = Normalization(torch.zeros((), device=device), torch.ones((), device=device))

    def timed(count: int, train: bool = True) -> float:
        part = drawn.subset(torch.arange(count))
        of = replace(training, batch_size=count)
        _wait(device)
        started = time.perf_counter()
        steps = train_epochs(network, optimizer, part, scale, of, 0) if train else evaluation_pass(network, part, scale)
        for _ in steps:
            pass
        _wait(device)
        return time.perf_counter() - started

    timed(FEW)
    few = many = timed(FEW)
    count, whole = FEW, len(drawn)
    while count < whole and many < STEP_SECONDS / 2:
        count = min(whole, max(2 * count, int(count * STEP_SECONDS / many)))
        many = _shortest(partial(timed, count))
    passing = _shortest(partial(timed, count, False)) / count
    if FEW < count == whole:
        sample = max(0.0, (many - few) / (count - FEW))
        start = max(0.0, many - sample * count)
    else:  # too slow for a whole batch: what a step takes in any case is next to nothing of it
        start, sample = 0.0, many / count
    return (start, sample, passing), sum(p.numel() for p in network.parameters() if p.requires_grad)


def _shortest(timed: Callable[[], float]) -> float:
    """The shortest of a few times, one where it is long: the first of a shape prepares for it."""
    times = [timed()]
    while len(times) < REPEATS and sum(times) < STEP_SECONDS / 2:
        times.append(timed())
    return min(times)


def _draw(shape: Shape, device: torch.device) -> Samples:
    generator, n = torch.Generator().manual_seed(0), shape.samples
    if shape.dtype == torch.uint8:
        inputs = torch.randint(0, 256, (n, *shape.inputs), generator=generator, dtype=torch.uint8)
    else:
        inputs = torch.randn(n, *shape.inputs, generator=generator)
    labels = torch.arange(n) % shape.classes
    return Samples(inputs.to(device), labels.to(device), torch.arange(n, device=device), shape.classes, None)


def _wait(device: torch.device) -> None:
    """Let a GPU finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
