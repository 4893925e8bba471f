"""SOP+: label noise as a sparse term of its own, learned beside the network (Liu et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.data.loader import epoch_batches
from engine.relabel.learner_settings import SOP_ON_FEATURES, SopSettings
from engine.relabel.problem import Learned, Problem, Report
from engine.relabel.registry import learner
from engine.relabel.steps import (
    begin_epoch,
    check_problem,
    classes_present,
    draw_view,
    forward,
    new_network,
    probabilities,
)
from engine.training.loop import batches_per_epoch, build_optimizer, learning_rate

EPS = 1e-4
"""No probability is smaller than this before its logarithm is taken."""


def sop_loss(logits: Tensor, labels: Tensor, u: Tensor, v: Tensor, prior: Tensor, settings: SopSettings) -> Tensor:
    """The loss of SOP+ over a batch (Liu et al. 2022, section 2 and `overparametrization_loss` of their code).

    With y the one-hot label, U = u^2 y and V = v^2 (1 - y), both cut at 1, p = softmax(z) and
    q = max(p + U - V, eps) / its sum:

        cross-entropy   -log q_y           trains the network and u; V is a constant in it
        squared error   |h + U - V - y|^2  h = one-hot argmax z, a constant: trains v, and u again
        balance         -sum_k prior_k log mean(q_k), over the batch
        consistency     KL(softmax(z) || softmax(z')), softmax(z) a constant

    Args:    logits (B, C), or (2B, C) with those of the second views z' behind; labels (B,) int64; u (B, 1) and v (B, C)
             the batch's; prior (C,), sums to 1
    Returns: (), the mean over the batch; where there is no second view it has no consistency term
    Departs from the paper: the squared error trains u as well, as it does in its authors' code; the paper has it train v
    alone, and the cross-entropy u.
    """
    first, second = logits[: len(labels)], logits[len(labels) :]
    y = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    added, taken = (u.square() * y).clamp(0, 1), (v.square() * (1 - y)).clamp(0, 1)
    raised = (torch.softmax(first, 1) + added - taken.detach()).clamp_min(EPS)
    q = (raised / raised.sum(1, keepdim=True)).clamp(EPS, 1)
    hard = functional.one_hot(first.detach().argmax(1), logits.shape[1]).to(logits.dtype)
    loss = -(y * q.log()).sum(1).mean() + (hard + added - taken - y).square().sum(1).mean()
    if settings.balance:
        loss = loss - settings.balance * (prior * q.mean(0).clamp(EPS, 1).log()).sum()
    if settings.consistency and len(second):
        target = torch.softmax(first.detach(), 1)
        loss = loss + settings.consistency * functional.kl_div(
            torch.log_softmax(second, 1), target, reduction="batchmean"
        )
    return loss


def draw_start(n: int, classes: int, settings: SopSettings, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """u (N, 1) and v (N, C) float32 as their authors start them: normal, mean 0, deviation `start`.

    Only their squares are read, so that a sign does not matter.
    """
    generator = torch.Generator().manual_seed(seed)
    u = settings.start * torch.randn(n, 1, generator=generator)
    return u.to(device), (settings.start * torch.randn(n, classes, generator=generator)).to(device)


@dataclass(frozen=True)
class SopFit:
    """What SOP+ has trained: the network, u (N, 1) and v (N, C) of the samples, and the numbers of every epoch."""

    network: nn.Module
    u: Tensor
    v: Tensor
    trace: dict[str, list[float]]


@learner(name="sop+", source="Liu et al. 2022", cost=2.5, epochs=30)
def learn_sop(problem: Problem, seed: int, report: Report, settings: SopSettings | None = None) -> Learned:
    """Train a network by SOP+; what it predicts for a sample is the label that it suggests.

    Args:    problem, seed, report: as `engine.relabel.problem` says; settings: None = the defaults, of features SOP_ON_FEATURES
    Returns: the softmax of the network after the last epoch; trace: as `fit_sop` gives it
    Raises:  SpecError for fewer than 2 samples, or an augmentation of vectors; whatever report raises
    """
    defaults = SopSettings() if problem.samples.are_images else SOP_ON_FEATURES
    fit = fit_sop(problem, seed, report, settings or defaults)
    train, test = probabilities([fit.network], problem, lambda: report(1.0))
    return Learned(train, test, fit.trace)


def fit_sop(problem: Problem, seed: int, report: Report, settings: SopSettings) -> SopFit:
    """Train a network, u and v by SOP+.

    u and v take steps of plain gradient descent, lr_u and lr_v long, at a constant rate, without decay or momentum. The
    network's optimizer, rate and schedule are those of the training.

    Returns: with a trace of, per epoch, the mean `loss` and the means of u^2 (`u`) and of v^2 (`v`) over samples and classes
    Raises:  as `learn_sop`
    Departs from the paper: both views are drawn by the same augmentation, where its second view is AutoAugment's (of
    features: engine.relabel.steps.draw_view); the network's momentum is Nesterov's; the cosine falls to 0 at every step, not
    to a hundredth at every epoch; where labels name fewer classes than there are, the balance is over those.
    """
    check_problem(problem)
    samples, training = problem.samples, problem.training
    network = new_network(problem, seed)
    optimizer = build_optimizer(network, training)
    u, v = draw_start(len(samples), samples.classes, settings, seed, samples.device)
    prior, batches = classes_present(problem), batches_per_epoch(len(samples), training.batch_size)
    trace: dict[str, list[float]] = {"loss": [], "u": [], "v": []}
    for epoch in range(training.epochs):
        generator = begin_epoch(network, seed, epoch)
        total = torch.zeros((), device=u.device)
        for i, positions in enumerate(epoch_batches(samples, training.batch_size, seed, epoch)):
            progress = (epoch + i / batches) / training.epochs
            report(progress)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(training, progress)
            seen = 2 if settings.consistency else 1
            views = [draw_view(problem, positions, settings.view_noise, generator) for _ in range(seen)]
            logits = forward(network, torch.cat(views), training)
            batch_u, batch_v = u[positions].requires_grad_(), v[positions].requires_grad_()
            loss = sop_loss(logits, samples.labels[positions], batch_u, batch_v, prior, settings)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            assert batch_u.grad is not None and batch_v.grad is not None
            u[positions] -= settings.lr_u * batch_u.grad
            v[positions] -= settings.lr_v * batch_v.grad
            optimizer.step()
            total += loss.detach() * len(positions)
        means = torch.stack(
            [total / len(samples), u.square().mean(), v.square().mean()]
        ).tolist()  # one transfer an epoch
        for name, value in zip(trace, means, strict=True):
            trace[name].append(value)
    return SopFit(network, u, v, trace)
