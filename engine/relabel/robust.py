"""The robust learners that the AUM paper is held against (its tables 1 to 3), one function each.

Each trains the network of the problem, as long and with the optimizer, rate and views of plain training; only the loss, or
the samples that it is taken over, differs. Losses and their equations: engine.relabel.robust_losses.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from engine.data.loader import epoch_batches
from engine.features.penultimate import compute_features
from engine.relabel.problem import Learned, Problem, Report
from engine.relabel.registry import learner
from engine.relabel.robust_losses import (
    bootstrap_loss,
    dmi_loss,
    dynamic_bootstrap_loss,
    local_dimensionality,
    randomly_weighted_loss,
    remember_rate,
    self_paced_weights,
    small_losses,
    temperature_loss,
    trust_of_labels,
    turns_at,
)
from engine.relabel.steps import (
    begin_epoch,
    check_problem,
    draw_view,
    forward,
    mean_logits,
    new_network,
    probabilities,
)
from engine.scores.mixture import fit_beta_mixture
from engine.training.loop import batches_per_epoch, build_optimizer, evaluation_pass, learning_rate

BatchLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits, labels, positions) of a batch -> its loss, a mean."""

WARM_UP = 0.35
"""Share of the epochs that plain training takes before dynamic bootstrapping: 105 of 300 (Arazo et al. 2019)."""

LONGEST_WINDOW = 12
"""Epochs whose dimensionalities show a turn (Ma et al. 2018), of 120: a tenth of shorter trainings."""


class _Training:
    """One network while a learner trains it."""

    def __init__(self, problem: Problem, seed: int) -> None:
        check_problem(problem)
        self.problem, self.seed = problem, seed
        self.network = new_network(problem, seed)
        self.optimizer = build_optimizer(self.network, problem.training)
        self.epochs = problem.training.epochs
        self.slowed = 1.0
        """What the learning rate is multiplied by."""

    def epoch(self, epoch: int, report: Report, loss: BatchLoss) -> float:
        """Take the steps of one epoch. Returns: the mean loss"""
        samples, training = self.problem.samples, self.problem.training
        generator = begin_epoch(self.network, self.seed, epoch)
        batches = batches_per_epoch(len(samples), training.batch_size)
        total = torch.zeros((), device=samples.device)
        for i, positions in enumerate(epoch_batches(samples, training.batch_size, self.seed, epoch)):
            progress = (epoch + i / batches) / training.epochs
            report(progress)
            self.set_rate(progress)
            logits = forward(self.network, draw_view(self.problem, positions, 0.0, generator), training)
            found = loss(logits, samples.labels[positions], positions)
            self.step(found)
            total += found.detach() * len(positions)
        return float(total) / len(samples)

    def set_rate(self, progress: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.slowed * learning_rate(self.problem.training, progress)

    def step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def losses(self, report: Report) -> Tensor:
        """(N,) float32: of every sample as it is, in evaluation mode."""
        samples = self.problem.samples
        logits = mean_logits([self.network], self.problem, samples, lambda: report(0.0))
        return functional.cross_entropy(logits, samples.labels, reduction="none").float()

    def learned(self, report: Report, trace: dict[str, list[float]]) -> Learned:
        train, test = probabilities([self.network], self.problem, lambda: report(1.0))
        return Learned(train, test, trace)


def _plain(logits: Tensor, labels: Tensor, positions: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels)


def _by(problem: Problem, seed: int, report: Report, loss: BatchLoss) -> Learned:
    """Train by one loss from the first epoch to the last."""
    training = _Training(problem, seed)
    means = [training.epoch(epoch, report, loss) for epoch in range(training.epochs)]
    return training.learned(report, {"loss": means})


@learner(name="bootstrap-hard", source="Reed et al. 2014", cost=1.05, epochs=2)
def bootstrap_hard(problem: Problem, seed: int, report: Report) -> Learned:
    """Targets of 0.8 the label and 0.2 the class predicted."""
    return _by(problem, seed, report, lambda logits, labels, _: bootstrap_loss(logits, labels, 0.8, hard=True))


@learner(name="bootstrap-soft", source="Reed et al. 2014", cost=1.05, epochs=2)
def bootstrap_soft(problem: Problem, seed: int, report: Report) -> Learned:
    """Targets of 0.95 the label and 0.05 the probabilities predicted."""
    return _by(problem, seed, report, lambda logits, labels, _: bootstrap_loss(logits, labels, 0.95, hard=False))


@learner(name="random-weights", source="Ren et al. 2018; AUM, section 4.2", cost=1.05, epochs=2)
def random_weights(problem: Problem, seed: int, report: Report) -> Learned:
    """Samples of weights that are drawn anew in every epoch: the positive part of a standard normal variable.

    A batch's weights sum to 1.
    """
    generator = torch.Generator().manual_seed(seed)

    def loss(logits: Tensor, labels: Tensor, positions: Tensor) -> Tensor:
        each = functional.cross_entropy(logits, labels, reduction="none")
        return randomly_weighted_loss(each, torch.randn(len(labels), generator=generator).to(each.device))

    return _by(problem, seed, report, loss)


@learner(name="dy-bootstrap", source="Arazo et al. 2019", cost=1.4, epochs=10)
def dynamic_bootstrap(problem: Problem, seed: int, report: Report) -> Learned:
    """Hard bootstrapping, each sample by its probability of a wrong label under a beta mixture of the losses.

    Plain training for 35 % of the epochs, then the mixture is fitted anew before every epoch. Without MixUp, as AUM's tables
    have it.
    """
    training = _Training(problem, seed)
    trace: dict[str, list[float]] = {"loss": [], "noisy": []}
    for epoch in range(training.epochs):
        loss: BatchLoss = _plain
        noisy = torch.zeros(len(problem.samples))
        if epoch >= max(1, round(WARM_UP * training.epochs)):
            noisy = fit_beta_mixture(training.losses(report).cpu()).clamp(1e-4, 1 - 1e-4)
            loss = partial(_dynamic, noisy.to(problem.samples.device))
        trace["loss"].append(training.epoch(epoch, report, loss))
        trace["noisy"].append(float(noisy.mean()))
    return training.learned(report, trace)


def _dynamic(noisy: Tensor, logits: Tensor, labels: Tensor, positions: Tensor) -> Tensor:
    return dynamic_bootstrap_loss(logits, labels, noisy[positions])


@learner(name="co-teaching", source="Han et al. 2018", cost=2.1, epochs=10)
def co_teaching(
    problem: Problem, seed: int, report: Report, noise: float | None = None, gradual: int | None = None
) -> Learned:
    """Two networks; each learns from the samples of a batch on which the other has the smallest losses.

    Args: noise: share of wrong labels, of which R(T) forgets; None = the mean of the beta mixture's posterior over the losses
          of the first network after T_k epochs, from when on it is forgotten, for a person does not know it (the paper takes
          the true share); gradual: T_k; None = a twentieth of the epochs, 10 of the paper's 200
    """
    first, second = _Training(problem, seed), _Training(problem, seed + 1_000_003)
    samples, spec = problem.samples, problem.training
    gradual = gradual or max(1, round(spec.epochs / 20))
    batches = batches_per_epoch(len(samples), spec.batch_size)
    trace: dict[str, list[float]] = {"loss": [], "kept": []}
    for epoch in range(spec.epochs):
        if noise is None and epoch == gradual:
            noise = min(0.9, float(fit_beta_mixture(first.losses(report).cpu()).mean()))
        keep = 1.0 if noise is None else remember_rate(noise, epoch, gradual)
        drawn = [begin_epoch(one.network, one.seed, epoch) for one in (first, second)]
        total = torch.zeros((), device=samples.device)
        for i, positions in enumerate(epoch_batches(samples, spec.batch_size, seed, epoch)):
            progress = (epoch + i / batches) / spec.epochs
            report(progress)
            labels = samples.labels[positions]
            losses = []
            for one, generator in zip((first, second), drawn, strict=True):
                one.set_rate(progress)
                logits = forward(one.network, draw_view(problem, positions, 0.0, generator), spec)
                losses.append(functional.cross_entropy(logits, labels, reduction="none"))
            chosen = [small_losses(found, keep) for found in losses]
            first.step(losses[0][chosen[1]].mean())
            second.step(losses[1][chosen[0]].mean())
            total += losses[0].detach().sum()
        trace["loss"].append(float(total) / len(samples))
        trace["kept"].append(keep)
    train, test = probabilities([first.network, second.network], problem, lambda: report(1.0))
    return Learned(train, test, trace)


@learner(name="d2l", source="Ma et al. 2018", cost=1.2, epochs=10)
def d2l(problem: Problem, seed: int, report: Report) -> Learned:
    """Labels that are believed less once the features' local dimensionality begins to rise.

    LID from the 20 nearest of a batch in up to ten batches of 128, after each epoch; at its turn the weights of the epoch
    before come back, and targets become alpha label + (1 - alpha) class predicted.
    """
    training = _Training(problem, seed)
    window = max(3, min(LONGEST_WINDOW, training.epochs // 10))
    dimensions: list[float] = []
    trace: dict[str, list[float]] = {"loss": [], "dimensionality": [], "alpha": []}
    alpha, turned = 1.0, False
    before = copy.deepcopy(training.network.state_dict())
    for epoch in range(training.epochs):
        if turned:
            alpha = trust_of_labels(dimensions, epoch, training.epochs)
        trace["loss"].append(training.epoch(epoch, report, partial(_believing, alpha)))
        dimensions.append(_dimensionality(training, epoch, report))
        if not turned and turns_at(dimensions, window):
            turned = True
            training.network.load_state_dict(before)
        before = copy.deepcopy(training.network.state_dict())
        trace["dimensionality"].append(dimensions[-1])
        trace["alpha"].append(alpha)
    return training.learned(report, trace)


def _believing(alpha: float, logits: Tensor, labels: Tensor, positions: Tensor) -> Tensor:
    return bootstrap_loss(logits, labels, alpha, hard=True)


def _dimensionality(training: _Training, epoch: int, report: Report) -> float:
    """The mean over up to ten batches of 128 samples; 1 where all of them are copies of each other."""
    samples = training.problem.samples
    generator = torch.Generator().manual_seed(training.seed + epoch)
    chosen = torch.randperm(len(samples), generator=generator)[: 10 * 128].to(samples.device)
    passed = evaluation_pass(
        training.network,
        samples.subset(chosen),
        training.problem.normalization,
        compute_features,
        heartbeat=lambda: report(0.0),
    )
    features = torch.cat([found for _, found in passed])
    parts = torch.split(features, 128)
    each = torch.stack([local_dimensionality(part, 20) for part in parts if len(part) > 2])
    found = float(each.nanmean())
    return 1.0 if math.isnan(found) else found


@learner(name="dmi", source="Xu et al. 2019", cost=1.2, epochs=10)
def dmi(problem: Problem, seed: int, report: Report) -> Learned:
    """Determinant based mutual information of prediction and label, after plain training for half of the epochs.

    A hundredth of the rate, for the loss is as steep as its determinant is small; a batch smaller than twice the classes is
    passed over: without some class its determinant is 0. The authors take 1e-6 and keep the best epoch by noisy accuracy.
    """
    training = _Training(problem, seed)
    means = []
    for epoch in range(training.epochs):
        half = epoch >= training.epochs // 2
        training.slowed = 0.01 if half else 1.0
        means.append(training.epoch(epoch, report, _informed if half else _plain))
    return training.learned(report, {"loss": means})


def _informed(logits: Tensor, labels: Tensor, positions: Tensor) -> Tensor:
    return dmi_loss(logits, labels) if len(labels) >= 2 * logits.shape[1] else 0 * logits.sum()


@learner(name="data-parameters", source="Saxena et al. 2019", cost=1.1, epochs=10)
def data_parameters(problem: Problem, seed: int, report: Report, rate: float | None = None) -> Learned:
    """A temperature for every sample, learned beside the network.

    It stays between 1/20 and 20.

    Args: rate: of the logarithm of the temperature, by descent along the gradient of the sample's own loss; None = so that
          the steps of the whole training add up to those of its authors' 160 epochs (rate 0.2 for the mean of a batch of 128,
          momentum 0.9), whatever the epochs and the batch size
    """
    training = _Training(problem, seed)
    device = problem.samples.device
    rate = rate or 160 * 0.2 / 128 / (1 - 0.9) / training.epochs
    temperature = torch.zeros(len(problem.samples), device=device)
    bound = float(torch.tensor(20.0).log())

    def loss(logits: Tensor, labels: Tensor, positions: Tensor) -> Tensor:
        own = temperature[positions].requires_grad_()
        (slope,) = torch.autograd.grad(temperature_loss(logits.detach(), labels, own), own)
        found = temperature_loss(logits, labels, own.detach())
        temperature[positions] = (own.detach() - rate * len(positions) * slope).clamp(-bound, bound)
        return found

    trace: dict[str, list[float]] = {"loss": [], "temperature": []}
    for epoch in range(training.epochs):
        trace["loss"].append(training.epoch(epoch, report, loss))
        trace["temperature"].append(float(temperature.exp().mean()))
    return training.learned(report, trace)


@learner(name="mentornet", source="Jiang et al. 2018", cost=1.1, epochs=10)
def mentornet(
    problem: Problem, seed: int, report: Report, percentile: float = 0.7, decay: float = 0.5, softness: float = 1.0
) -> Learned:
    """Predefined curriculum: samples weigh less the farther their loss lies above a moving percentile of the losses.

    All weigh the same in the first fifth of the epochs, 18 of the paper's 90.

    Args: percentile, decay: of the losses of a batch, and of its moving average, which is lambda_1; softness: lambda_2
    Departs from the paper: the curriculum is computed, where its authors train a network to give it, and no sample's weight is
    dropped at random.
    """
    training = _Training(problem, seed)
    threshold: list[Tensor] = []

    def loss(logits: Tensor, labels: Tensor, positions: Tensor) -> Tensor:
        each = functional.cross_entropy(logits, labels, reduction="none")
        now = torch.quantile(each.detach(), percentile)
        threshold[:] = [now if not threshold else decay * threshold[0] + (1 - decay) * now]
        if burning_in:
            return each.mean()
        weights = self_paced_weights(each, threshold[0], softness)
        return (weights * each).sum() / weights.sum().clamp_min(1e-8)

    means = []
    for epoch in range(training.epochs):
        burning_in = epoch < max(1, training.epochs // 5)
        means.append(training.epoch(epoch, report, loss))
    return training.learned(report, {"loss": means})
