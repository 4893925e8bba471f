"""DivideMix: two networks that divide the samples for each other, and learn half supervised (Li et al. 2020).

Equations are numbered as in the paper. Where its text and its authors' code differ the code is followed, with which the
paper's results were made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.data.loader import batch_ends, epoch_batches
from engine.errors import SpecError
from engine.relabel.learner_settings import DIVIDEMIX_ON_FEATURES, DivideMixSettings
from engine.relabel.problem import Learned, Problem, Report
from engine.relabel.registry import learner
from engine.relabel.steps import (
    begin_epoch,
    check_problem,
    classes_present,
    draw_view,
    forward,
    mean_logits,
    new_network,
    probabilities,
)
from engine.scores.mixture import fit_gaussian_mixture
from engine.training.loop import batches_per_epoch, build_optimizer, learning_rate

DIVIDED_COST = 4.0
"""How much longer an epoch on divided samples takes than one of the warm-up, for the share done that is reported."""


# The parts of a step -----------------------------------------------------------------------------------------------


def clean_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """How likely the given label is right, of every sample: the posterior of the Gaussian with the smaller mean loss.

    The losses -log softmax(z)_y are scaled to [0, 1] and fitted by a mixture of two Gaussians (section 3.1).

    Args:    logits (N, C), of an evaluation pass; labels (N,)
    Returns: (N,) float32 on the CPU, in [0, 1]; 1 for all where the losses do not differ
    Departs from the paper: as the score `gmm` does, whose mixture it is; and where its authors average the losses of five
    epochs, at 90 % noise, it reads those of one.
    """
    losses = functional.cross_entropy(logits.float(), labels, reduction="none")
    return 1 - fit_gaussian_mixture(losses.cpu())


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """p_k^(1/T) / sum_j p_j^(1/T) (equation 4). p (..., C), each row sums to 1; T = 1 leaves it as it is."""
    smallest = torch.finfo(p.dtype).tiny
    return torch.softmax(p.clamp_min(smallest).log() / temperature, -1)


def refine(labels: Tensor, clean: Tensor, predicted: Tensor, temperature: float) -> Tensor:
    """Targets of labeled samples: sharpened w y + (1 - w) p (equations 3 and 4).

    Args:    labels (B,) int64; clean (B,) = w, from the other network; predicted (M, B, C), of the own network for M views
    Returns: (B, C), rows sum to 1
    """
    y = functional.one_hot(labels, predicted.shape[2]).to(predicted.dtype)
    w = clean[:, None]
    return sharpen(w * y + (1 - w) * predicted.mean(0), temperature)


def guess(own: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Targets of unlabeled samples: the sharpened mean of both networks' predictions for M views each.

    Args:    own, other (M, B, C), rows sum to 1
    Returns: (B, C), rows sum to 1
    """
    return sharpen(torch.cat([own, other]).mean(0), temperature)


def mix_up(inputs: Tensor, targets: Tensor, share: float, order: Tensor) -> tuple[Tensor, Tensor]:
    """Each sample mixed with another one of the batch, of which it keeps at least half (equations 5 to 8).

    l' = max(l, 1 - l); x' = l' x + (1 - l') x_order, and the targets likewise

    Args:    inputs (B, ...); targets (B, C); share = l in [0, 1], one for the batch, as the authors' code draws it; order: a
             permutation (B,)
    """
    kept = max(share, 1 - share)
    return kept * inputs + (1 - kept) * inputs[order], kept * targets + (1 - kept) * targets[order]


def unlabeled_weight(epoch: float, settings: DivideMixSettings) -> float:
    """lambda_u after some epochs: 0 until the warm-up ends, then up in a straight line within `ramp` epochs."""
    return settings.lambda_u * min(max((epoch - settings.warm_up) / settings.ramp, 0.0), 1.0)


def mixed_loss(logits: Tensor, targets: Tensor, labeled: int, weight: float, prior: Tensor) -> Tensor:
    """L_X + lambda_u L_U + L_reg of mixed samples, of which the first were labeled (equations 9 to 12).

    L_X = -mean sum_k t_k log p_k over the labeled; L_U = mean (p_k - t_k)^2 over the unlabeled and the classes;
    L_reg = sum_k prior_k log(prior_k / mean p_k) over all

    Args:    logits, targets (B, C); labeled: how many of the rows, from the first on; weight: lambda_u; prior (C,), sums
             to 1, 0 for a class that counts for nothing
    Returns: ()
    Departs from the paper: L_U is the mean over the classes as well, as in the code that lambda_u = 25 is of; equation 10
    has their sum.
    """
    log_p = torch.log_softmax(logits, 1)
    loss = -(targets[:labeled] * log_p[:labeled]).sum(1).mean()
    if labeled < len(logits):
        loss = loss + weight * (log_p[labeled:].exp() - targets[labeled:]).square().mean()
    mean = log_p.exp().mean(0).clamp_min(torch.finfo(logits.dtype).tiny)
    return loss + (torch.xlogy(prior, prior) - prior * mean.log()).sum()


def warm_up_loss(logits: Tensor, labels: Tensor, penalty: float) -> Tensor:
    """Cross-entropy, and where penalty is not 0 as many times the mean of sum_k p_k log p_k (equations 1 and 2)."""
    loss = functional.cross_entropy(logits, labels)
    if penalty:
        log_p = torch.log_softmax(logits, 1)
        loss = loss + penalty * (log_p.exp() * log_p).sum(1).mean()
    return loss


# The learner -------------------------------------------------------------------------------------------------------


@learner(name="dividemix", source="Li et al. 2020", cost=8.0, epochs=30, least=DivideMixSettings.warm_up + 1)
def learn_dividemix(problem: Problem, seed: int, report: Report, settings: DivideMixSettings | None = None) -> Learned:
    """Train two networks by DivideMix; what they predict together for a sample is the label that it suggests.

    After a warm-up, at the start of every epoch the losses of each network say which labels are likely clean, for the other
    network to learn from (algorithm 1). Its optimizer, rate and schedule are those of the training, of whose epochs the
    warm-up is a part; its batches hold as many labeled samples as a batch of the training has, and as many unlabeled ones; a
    batch of the warm-up twice as many.

    Args:    problem, seed, report: as `engine.relabel.problem` says; settings: None = the defaults, of features
             DIVIDEMIX_ON_FEATURES
    Returns: the softmax of the mean logits of both networks after the last epoch, which rank as the sum does that their
             authors read; trace: per epoch the mean `loss` of the steps, the share taken as clean (`clean`, 1 in the
             warm-up) and `lambda_u` at its end
    Raises:  SpecError for fewer than 2 samples, an augmentation of vectors, or a warm-up of all epochs; whatever report
             raises
    Departs from the paper: the network's momentum is Nesterov's; views of a step go through a network in one batch, where
    the authors' go one by one, so that batch normalization reads more of them at once; where labels name fewer classes than
    there are, the prior is over those; an epoch in which no label is taken as clean is one more of the warm-up. Views of
    features: engine.relabel.steps.draw_view.
    """
    check_problem(problem)
    defaults = DivideMixSettings() if problem.samples.are_images else DIVIDEMIX_ON_FEATURES
    settings = settings or defaults
    epochs = problem.training.epochs
    if settings.warm_up >= epochs:
        raise SpecError(
            f"--set warm_up is {settings.warm_up} of {epochs} epochs; it must be fewer, or nothing is ever divided"
        )
    # Networks of two seeds of this learner share nothing.
    pair = [_Trained(problem, settings, 2 * seed + k) for k in (0, 1)]
    work = 2 * (settings.warm_up + DIVIDED_COST * (epochs - settings.warm_up))
    trace: dict[str, list[float]] = {"loss": [], "clean": [], "lambda_u": []}
    done = 0.0
    for epoch in range(epochs):
        divided = epoch >= settings.warm_up
        cost = (DIVIDED_COST if divided else 1.0) / work
        clean = _divide(pair, problem, partial(report, done)) if divided else []
        losses = []
        for k, one in enumerate(pair):
            steps = partial(_report_within, report, done, cost)
            if divided:
                losses.append(one.train_divided(epoch, clean[1 - k], pair[1 - k].network, steps))
            else:
                losses.append(one.warm_up(epoch, steps))
            done += cost
        trace["loss"].append(sum(losses) / 2)
        trace["clean"].append(float((torch.stack(clean) > settings.threshold).float().mean()) if divided else 1.0)
        trace["lambda_u"].append(unlabeled_weight(epoch + 1, settings))
    train, test = probabilities([one.network for one in pair], problem, lambda: report(1.0))
    return Learned(train, test, trace)


def _divide(pair: list[_Trained], problem: Problem, heartbeat: Callable[[], None]) -> list[Tensor]:
    """How likely each label is right by the losses of each network, (N,) on the CPU."""
    found = []
    for one in pair:
        logits = mean_logits([one.network], problem, problem.samples, heartbeat)
        found.append(clean_probabilities(logits, problem.samples.labels))
    return found


def _report_within(report: Report, done: float, cost: float, share: float) -> None:
    report(min(1.0, done + cost * share))


@dataclass
class _Trained:
    """One of the two networks, with its optimizer and its own random numbers."""

    problem: Problem
    settings: DivideMixSettings
    seed: int

    def __post_init__(self) -> None:
        self.network = new_network(self.problem, self.seed)
        self.optimizer = build_optimizer(self.network, self.problem.training)
        self.prior = classes_present(self.problem)

    def warm_up(self, epoch: int, report: Report) -> float:
        """One epoch of plain cross-entropy; the mean loss of its steps."""
        problem, samples = self.problem, self.problem.samples
        size = 2 * problem.training.batch_size
        batches, total = batches_per_epoch(len(samples), size), torch.zeros((), device=samples.labels.device)
        generator = begin_epoch(self.network, self.seed, epoch)
        for i, positions in enumerate(epoch_batches(samples, size, self.seed, epoch)):
            report(i / batches)
            logits = forward(self.network, self._view(positions, generator), problem.training)
            loss = warm_up_loss(logits, samples.labels[positions], self.settings.confidence_penalty)
            self._step(loss, epoch + i / batches)
            total += loss.detach()
        return float(total) / batches

    def train_divided(self, epoch: int, clean: Tensor, other: nn.Module, report: Report) -> float:
        """One epoch of MixMatch on the samples as the other network divides them; the mean loss of its steps.

        clean: (N,) on the CPU, of the other network's losses
        """
        samples, settings = self.problem.samples, self.settings
        taken = clean > settings.threshold
        if not bool(taken.any()):
            return self.warm_up(epoch, report)
        device, size = samples.labels.device, self.problem.training.batch_size
        labeled, unlabeled = taken.nonzero()[:, 0], (~taken).nonzero()[:, 0]
        generator = begin_epoch(self.network, self.seed, epoch)
        other.eval()
        rng = np.random.default_rng([self.seed, epoch])
        weights, total = clean.to(device), torch.zeros((), device=device)
        rest = _endless(unlabeled, size, generator)
        batches = len(batch_ends(len(labeled), size))
        for i, positions in enumerate(_shuffled(labeled, size, generator)):
            report(i / batches)
            x, u = positions.to(device), next(rest).to(device)
            seen = [self._view(torch.cat([x, u]), generator) for _ in range(settings.views)]
            targets = self._targets(seen, samples.labels[x], weights[x], other)
            # labeled samples of every view in front
            inputs = torch.cat([view[: len(x)] for view in seen] + [view[len(x) :] for view in seen])
            targets = torch.cat([targets[: len(x)]] * settings.views + [targets[len(x) :]] * settings.views)
            order = torch.randperm(len(inputs), generator=generator).to(device)
            inputs, targets = mix_up(inputs, targets, float(rng.beta(settings.alpha, settings.alpha)), order)
            logits = forward(self.network, inputs, self.problem.training)
            weight = unlabeled_weight(epoch + i / batches, settings)
            loss = mixed_loss(logits, targets, settings.views * len(x), weight, self.prior)
            self._step(loss, epoch + i / batches)
            total += loss.detach()
        return float(total) / batches

    @torch.no_grad()
    def _targets(self, seen: list[Tensor], labels: Tensor, clean: Tensor, other: nn.Module) -> Tensor:
        """What the labeled samples of a step, then its unlabeled ones, are to be predicted as: (B, C)."""
        n, training, temperature = len(labels), self.problem.training, self.settings.temperature
        own = torch.stack(torch.softmax(forward(self.network, torch.cat(seen), training), 1).chunk(len(seen)))
        refined = refine(labels, clean, own[:, :n], temperature)
        if own.shape[1] == n:
            return refined
        logits = forward(other, torch.cat([view[n:] for view in seen]), training)
        others = torch.stack(torch.softmax(logits, 1).chunk(len(seen)))
        return torch.cat([refined, guess(own[:, n:], others, temperature)])

    def _view(self, positions: Tensor, generator: torch.Generator) -> Tensor:
        return draw_view(self.problem, positions, self.settings.view_noise, generator)

    def _step(self, loss: Tensor, epochs_done: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.problem.training, epochs_done / self.problem.training.epochs)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def _shuffled(positions: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The batches of one pass over some positions (N,), in a random sequence."""
    order = positions[torch.randperm(len(positions), generator=generator)]
    start = 0
    for end in batch_ends(len(order), size):
        yield order[start:end]
        start = end


def _endless(positions: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of pass after pass; empty ones where there are no positions."""
    while len(positions):
        yield from _shuffled(positions, size, generator)
    while True:
        yield positions
