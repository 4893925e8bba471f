"""Plain training, which believes every label: what the robust learners are held against."""

from __future__ import annotations

import itertools

from torch import nn

from engine.relabel.problem import Learned, Problem, Report
from engine.relabel.registry import learner
from engine.relabel.steps import new_network, probabilities
from engine.training.loop import batches_per_epoch, build_optimizer, train_epochs


@learner(name="cross-entropy", source="the baseline", cost=1.0)
def cross_entropy(problem: Problem, seed: int, report: Report) -> Learned:
    """Plain training on the labels as they are.

    loss = -log softmax(z)_y
    """
    network = train_plainly(problem, seed, report)
    return Learned(*probabilities([network], problem, lambda: report(1.0)))


def train_plainly(problem: Problem, seed: int, report: Report) -> nn.Module:
    """A network that is trained on the labels as they are."""
    samples, training = problem.samples, problem.training
    network = new_network(problem, seed)
    optimizer = build_optimizer(network, training)
    total, seen = training.epochs * batches_per_epoch(len(samples), training.batch_size), itertools.count()
    heartbeat = lambda: report(min(1.0, next(seen) / total))  # noqa: E731
    for _ in train_epochs(network, optimizer, samples, problem.normalization, training, seed, heartbeat=heartbeat):
        pass
    return network
