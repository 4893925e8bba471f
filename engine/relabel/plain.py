"""Plain training, which believes every label: what the robust learners are held against."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from engine.data.loader import Samples
from engine.relabel.problem import Learned, Problem, Report
from engine.relabel.registry import learner
from engine.training.loop import batches_per_epoch, build_optimizer, evaluation_pass, train_epochs
from engine.training.models import build_model


@learner(name="cross-entropy", source="the baseline", cost=1.0)
def cross_entropy(problem: Problem, seed: int, report: Report) -> Learned:
    """Plain training on the labels as they are.

    loss = -log softmax(z)_y
    """
    network = train_plainly(problem, seed, report)

    def probabilities(some: Samples) -> torch.Tensor:
        passed = evaluation_pass(network, some, problem.normalization, heartbeat=lambda: report(1.0))
        return torch.cat([logits.float().softmax(1).cpu() for _, logits in passed])

    return Learned(probabilities(problem.samples), None if problem.test is None else probabilities(problem.test))


def train_plainly(problem: Problem, seed: int, report: Report) -> nn.Module:
    """A network that is trained on the labels as they are."""
    samples, training = problem.samples, problem.training
    network = build_model(training.model, tuple(samples.inputs.shape[1:]), samples.classes, seed)
    network.to(samples.inputs.device)
    optimizer = build_optimizer(network, training)
    total, seen = training.epochs * batches_per_epoch(len(samples), training.batch_size), itertools.count()
    heartbeat = lambda: report(min(1.0, next(seen) / total))  # noqa: E731
    for _ in train_epochs(network, optimizer, samples, problem.normalization, training, seed, heartbeat=heartbeat):
        pass
    return network
