"""The one training loop.

Everything random in an epoch (the permutation, the augmentation, dropout) follows from (seed, epoch) alone, so a
resumed run needs the weights and the optimizer's state and nothing else to go on exactly as if never broken.
"""

from __future__ import annotations

import inspect
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.data.loader import Samples, epoch_batches, read_batches, to_float
from engine.errors import SpecError
from engine.spec import TrainingSpec
from engine.training.augment import augment
from engine.training.device import available_bytes
from engine.training.dropout import draw_from
from engine.training.models import RANDOM
from engine.training.precision import precision_of, prepare_inputs, prepare_network
from engine.training.recording import DynamicsRecorder

EVAL_VALUES = 1 << 22
"""Input values in one batch of an evaluation pass."""

SMALLEST_WINDOW = 1 << 26
"""Bytes of inputs that are read at a time at least, where memory does not take all: the whole file is read for each."""

EVAL_PIXELS = 1 << 18
"""The same of images on a processor: what a convolution makes of more does not stay in its cache, and takes twice as
long."""


@dataclass(frozen=True)
class Normalization:
    """What every input is shifted and scaled by before the network sees it."""

    mean: Tensor
    std: Tensor


def learning_rate(training: TrainingSpec, progress: float) -> float:
    """The learning rate at a progress in [0, 1): constant, cosine to 0, or a tenth from 1/2 and again from 3/4 on."""
    if training.schedule == "cosine":
        return training.lr * (1 + math.cos(math.pi * progress)) / 2
    if training.schedule == "step":
        return training.lr * (0.1 ** ((progress >= 0.5) + (progress >= 0.75)))
    return training.lr


def epochs_before_first_drop(training: TrainingSpec) -> int:
    """How many epochs run at the first learning rate: where the AUM rule stops training."""
    return max(1, training.epochs // 2) if training.schedule == "step" else training.epochs


def _uncompiled(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """An optimizer whose methods are not wrapped for torch.compile, which nothing here uses.

    The wrappers of the first optimizer of a process import torch's compiler, which takes longer than small networks do.
    """
    methods = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in methods}
    return type(kind.__name__, (kind,), plain | {"step": torch.no_grad()(inspect.unwrap(kind.step))})


_Adam, _SGD = _uncompiled(torch.optim.Adam), _uncompiled(torch.optim.SGD)


def build_optimizer(network: nn.Module, training: TrainingSpec) -> torch.optim.Optimizer:
    """Adam, or SGD with Nesterov momentum 0.9. Fused: on a CPU that halves the time of a step of the MLP."""
    given: dict[str, Any] = {"lr": training.lr, "weight_decay": training.weight_decay, "fused": True}
    parameters = [p for p in network.parameters() if p.requires_grad]
    if training.optimizer == "adam":
        return _Adam(parameters, **given)
    return _SGD(parameters, **given, momentum=0.9, nesterov=True)


def train_epochs(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    samples: Samples,
    normalization: Normalization,
    training: TrainingSpec,
    seed: int,
    *,
    first_epoch: int = 0,
    recorder: DynamicsRecorder | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, float]]:
    """Train, and yield (epoch, seconds) after each epoch, 0-based, from first_epoch on.

    Args:
        samples: what is trained on; its labels are the given ones
        recorder: takes the logits of every epoch: those of the training pass (observe="train", augmentation and
            batch statistics included), or those of an evaluation pass after it (observe="eval"). The caller ends the
            epoch.
        heartbeat: called at every batch; may raise to stop
    """
    device = samples.device
    if training.augment != "none" and not samples.are_images:
        raise SpecError(f"--augment {training.augment} takes images; this dataset holds vectors: use none")
    prepare_network(network, training)
    batches = batches_per_epoch(len(samples.labels), training.batch_size)
    for epoch in range(first_epoch, training.epochs):
        started = time.perf_counter()
        generator = epoch_generator(seed, epoch)
        draw_from(network, generator)
        with RANDOM:
            torch.manual_seed(_mix(seed, epoch))
        network.train()
        batches_read = read_batches(samples, epoch_batches(samples, training.batch_size, seed, epoch), _window(samples))
        for i, (positions, inputs) in enumerate(batches_read):
            heartbeat()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(training, (epoch + i / batches) / training.epochs)
            inputs = to_float(inputs, normalization.mean, normalization.std)
            inputs = prepare_inputs(augment(inputs, training.augment, generator), training)
            labels = samples.labels[positions]
            with precision_of(training, device):
                logits = network(inputs)
            loss = functional.cross_entropy(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if recorder and training.observe == "train":
                recorder.log(logits, labels, positions)
        if recorder and training.observe == "eval":
            for positions, logits in evaluation_pass(network, samples, normalization, heartbeat=heartbeat):
                recorder.log(logits, samples.labels[positions], positions)
        yield epoch, time.perf_counter() - started


def _window(samples: Samples) -> int:
    """How many inputs are read at a time; 0: those of a batch, where memory takes all or they are not in a file."""
    if not samples.mapped or samples.stored.nbytes <= (free := available_bytes("cpu")):
        return 0
    at_once = free // (2 * (os.cpu_count() or 1))  # as many networks may be trained side by side
    return max(at_once, SMALLEST_WINDOW) // samples.stored[0].nbytes


def batches_per_epoch(n: int, batch_size: int) -> int:
    """Optimizer steps in one epoch: a last batch of a single sample joins the one before it."""
    return max(1, math.ceil((n - 1) / batch_size) if n % batch_size == 1 else math.ceil(n / batch_size))


@torch.no_grad()
def evaluation_pass(
    network: nn.Module,
    samples: Samples,
    normalization: Normalization,
    function: Callable[[nn.Module, Tensor], Tensor] = lambda network, inputs: network(inputs),
    *,
    heartbeat: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (positions, function(network, inputs)) over all samples in order, in evaluation mode and float32."""
    network.eval()
    device = samples.device
    width = max(1, math.prod(samples.shape))
    cached = device.type == "cpu" and samples.are_images
    step = max(1, min(8192, (EVAL_PIXELS if cached else EVAL_VALUES) // width))
    parts = (slice(start, min(start + step, len(samples))) for start in range(0, len(samples), step))
    batches = (torch.arange(part.start, part.stop, device=device) for part in parts)
    for positions, inputs in read_batches(samples, batches, _window(samples)):
        heartbeat()
        yield positions, function(network, to_float(inputs, normalization.mean, normalization.std))


def compute_accuracy(
    network: nn.Module, samples: Samples, normalization: Normalization, heartbeat: Callable[[], None] = lambda: None
) -> float:
    """Share of samples whose largest logit is their label, 0..1."""
    hits = torch.zeros((), dtype=torch.int64, device=samples.labels.device)
    for positions, logits in evaluation_pass(network, samples, normalization, heartbeat=heartbeat):
        hits += (logits.argmax(1) == samples.labels[positions]).sum()
    return int(hits) / len(samples.labels)


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """What augmentation and dropout draw from in an epoch: a function of (seed, epoch) alone, on the CPU."""
    return torch.Generator().manual_seed(_mix(seed, epoch))


def _mix(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % (1 << 63)
