"""What the steps of every learner share: an epoch's random numbers, views of a batch, and a network's probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from engine.data.loader import Samples, to_float
from engine.errors import SpecError
from engine.relabel.problem import Problem
from engine.spec import TrainingSpec
from engine.training.augment import augment
from engine.training.dropout import draw_from
from engine.training.loop import epoch_generator, evaluation_pass
from engine.training.models import RANDOM, build_model
from engine.training.precision import precision_of, prepare_inputs, prepare_network


def check_problem(problem: Problem) -> None:
    """Raise SpecError for what no learner can train on."""
    samples, training = problem.samples, problem.training
    if len(samples) < 2:
        raise SpecError(f"a learner was given {len(samples)} samples; it needs at least 2")
    if training.augment != "none" and not samples.are_images:
        raise SpecError(f"--augment {training.augment} takes images; a learner was given vectors: use none")


def new_network(problem: Problem, seed: int) -> nn.Module:
    """The problem's network, freshly drawn from a seed, on the device of its samples."""
    samples = problem.samples
    network = build_model(problem.training.model, samples.shape, samples.classes, seed).to(samples.device)
    prepare_network(network, problem.training)
    return network


def begin_epoch(network: nn.Module, seed: int, epoch: int) -> torch.Generator:
    """Put a network in training mode; what an epoch of it draws from, on the CPU: a function of (seed, epoch) alone."""
    generator = epoch_generator(seed, epoch)
    draw_from(network, generator)
    with RANDOM:  # for networks with dropout of another kind than this package's
        torch.manual_seed(generator.initial_seed())
    network.train()
    return generator


def draw_view(problem: Problem, positions: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """One random view of the samples at some positions (B,), as a network takes them: (B, ...) float32.

    An image is augmented as the training says. Where it says `none`, as it must for features, Gaussian noise is added: a
    frozen feature has no picture to crop, and its dimensions are scaled to the deviation 1, so that one number, `noise`, says
    how far a view lies from its sample in all of them. Unlike dropout of features it leaves their mean and their sparseness
    as the network will see them when it is evaluated, for both views alike.
    """
    training, scale = problem.training, problem.normalization
    inputs = to_float(problem.samples.inputs_at(positions), scale.mean, scale.std)
    if training.augment != "none":
        inputs = augment(inputs, training.augment, generator)
    elif noise:
        inputs = inputs + noise * torch.randn(inputs.shape, generator=generator).to(inputs.device)
    return prepare_inputs(inputs, training)


def forward(network: nn.Module, inputs: Tensor, training: TrainingSpec) -> Tensor:
    """The logits (B, C) float32 of a training step, in the precision of a training."""
    with precision_of(training, inputs.device):
        logits: Tensor = network(inputs)
    return logits.float()


def classes_present(problem: Problem) -> Tensor:
    """The prior of a learner that wants classes to be predicted equally often: (C,) float32, sums to 1.

    Uniform over the classes that some label names. A subset may have lost a class, and nothing should be pushed into it.
    """
    samples = problem.samples
    present = torch.bincount(samples.labels, minlength=samples.classes) > 0
    return present.float() / present.sum()


def probabilities(
    networks: Sequence[nn.Module], problem: Problem, heartbeat: Callable[[], None]
) -> tuple[Tensor, Tensor | None]:
    """What networks say of the samples learned from and of the test split: (N, C) and (M, C) float32 on the CPU.

    The softmax of their mean logits, in evaluation mode, of inputs as they are.
    """

    def of(samples: Samples) -> Tensor:
        return torch.softmax(mean_logits(networks, problem, samples, heartbeat), 1).float().cpu()

    return of(problem.samples), None if problem.test is None else of(problem.test)


def mean_logits(
    networks: Sequence[nn.Module], problem: Problem, samples: Samples, heartbeat: Callable[[], None]
) -> Tensor:
    """The mean logits (N, C) float64 of networks for samples as they are, in evaluation mode, on their device."""
    scale = problem.normalization
    each = [
        torch.cat([logits for _, logits in evaluation_pass(network, samples, scale, heartbeat=heartbeat)])
        for network in networks
    ]
    return torch.stack(each).double().mean(0)
