"""What held-out predictions say of the given labels: the share that is wrong, and of each its probability.

No truth is read. The networks' softmax is brought to the scale on which it is right as often as it says, and noise is
what remains: labels that appear far more often where the predictions exclude them than any error of theirs explains.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.errors import ScoreInputError
from engine.scores.heldout import confident_class
from engine.scores.registry import check_rows

LIKELY = 1.92
"""Half the 95 % quantile of chi-squared with one degree of freedom: how far the log likelihood of all samples may fall
within the interval."""

MOST_NOISE = 0.95
"""Of the estimate, as a share of (C - 1) / C: beyond it labels say nothing."""

FITTED_VALUES = 1 << 21
"""Probabilities that the fit reads: of more samples it takes every second, third, ... one, and the interval is wider."""

NEIGHBOR_POWER = 0.4
"""Of the neighbors' vote beside a network: between .2 and .7 it makes little difference on photographs and textures."""

SMALLEST = 1e-30


@dataclass(frozen=True)
class Noise:
    """An estimated share of wrong labels, 0..1, with its 95 % interval, and the scale of the log probabilities at it."""

    share: float
    low: float
    high: float
    scale: float


def fit_noise(heldout_probs: Tensor, labels: Tensor) -> Noise:
    """The share of wrong labels under which the given labels are most likely, by held-out predictions.

    p(y_i) = (1 - e) q_i + e / (C - 1) (1 - q_i), with q_i = softmax(a log p_i)_{y_i}: a sample of class k has label k, or
    with probability e one of the others. e in [0, 1) and a > 0 maximize sum_i log p(y_i); the interval has the e whose
    profile likelihood is within 1.92 of that.

    Args:    heldout_probs (N, C) of networks not trained on the sample, rows sum to 1; labels (N,) int64 in [0, C)
    Returns: the estimate; deterministic
    Raises:  ScoreInputError for another shape, or fewer than two classes
    Source:  label noise as in Natarajan et al. 2013; the scale is a temperature (Guo et al. 2017), fitted with it
    """
    _check(heldout_probs, labels)
    n, classes = heldout_probs.shape
    every = max(1, math.ceil(n * classes / FITTED_VALUES))
    heldout_probs, labels = heldout_probs[::every], labels[::every]
    logs = heldout_probs.double().clamp_min(SMALLEST).log()
    most = MOST_NOISE * (classes - 1) / classes

    def likelihood(share: float, log_scale: float) -> float:
        q = _scaled(logs, labels, math.exp(log_scale))
        return float(_given_label(q, share, classes).log().sum())

    def best_scale(share: float) -> float:
        return _maximize(lambda s: likelihood(share, s), -2.5, 2.0)

    def profile(share: float) -> float:
        return likelihood(share, best_scale(share))

    share = _maximize(profile, 0.0, most)
    best = profile(share)
    if profile(0.0) >= best:
        share, best = 0.0, profile(0.0)

    def within(share: float) -> bool:
        return profile(share) >= best - LIKELY

    low = 0.0 if within(0.0) else _edge(within, share, 0.0)
    high = most if within(most) else _edge(within, share, most)
    return Noise(share, low, high, math.exp(best_scale(share)))


def rescale(noise: Noise, heldout_probs: Tensor, labels: Tensor) -> Noise:
    """The same share of wrong labels with the scale of other predictions: that which makes the labels most likely."""
    logs = heldout_probs.double().clamp_min(SMALLEST).log()
    classes = heldout_probs.shape[1]

    def likelihood(log_scale: float) -> float:
        return float(_given_label(_scaled(logs, labels, math.exp(log_scale)), noise.share, classes).log().sum())

    return replace(noise, scale=math.exp(_maximize(likelihood, -2.5, 2.0)))


def with_neighbors(probs: Tensor, neighbor_ids: Tensor, similarities: Tensor, labels: Tensor) -> Tensor:
    """Held-out probabilities, and what the given labels of the nearest other samples say.

    p_ic v_ic^0.4, scaled to add up to 1, with v_ic = (1/2 + sum of the positive similarities of neighbors labeled c),
    scaled alike

    Args:    probs (N, C); neighbor_ids (N, K) and similarities (N, K) as `compute_neighbors` gives them; labels (N,)
    Returns: (N, C) float32
    """
    votes = torch.full(probs.shape, 0.5)
    votes.scatter_add_(1, labels[neighbor_ids], similarities.clamp_min(0).float())
    votes /= votes.sum(1, keepdim=True)
    return torch.softmax(probs.clamp_min(SMALLEST).log() + NEIGHBOR_POWER * votes.log(), 1)


def probability_wrong(heldout_probs: Tensor, labels: Tensor, noise: Noise) -> Tensor:
    """p_wrong: the probability that each given label is wrong, by Bayes' rule in the model of `fit_noise`.

    p_i = e / (C - 1) (1 - q_i) / ((1 - e) q_i + e / (C - 1) (1 - q_i))

    Args:    as `fit_noise`
    Returns: (N,) float32 in [0, 1]; 0 everywhere where the estimated share is 0
    """
    _check(heldout_probs, labels)
    classes = heldout_probs.shape[1]
    q = _scaled(heldout_probs.double().clamp_min(SMALLEST).log(), labels, noise.scale)
    wrong = noise.share / (classes - 1) * (1 - q)
    return (wrong / _given_label(q, noise.share, classes)).float()


def noise_of_joint(heldout_probs: Tensor, labels: Tensor, noise: Noise) -> float:
    """The share of wrong labels by the confident joint, less the errors of the predictions themselves, 0..1.

    The joint counts a sample off its diagonal where the class it is confidently of is not its label. Of a share e of
    wrong labels that is expected (1 - e) a + e b of the samples: a = mean of 1 - q_c where all labels are right, and
    b = mean of 1 - (1 - q_c) / (C - 1) where all are wrong, over the samples that are confidently of a class c.

    Args:   as `fit_noise`, whose scale makes q of the predictions
    Source: Northcutt et al. 2021, eq. 1, by moments: on photographs that a network tells apart two times of three,
            the joint as it is has three times as many as there are wrong
    """
    _check(heldout_probs, labels)
    classes = heldout_probs.shape[1]
    winner = confident_class(heldout_probs, labels)
    sure = winner >= 0
    q = torch.softmax(heldout_probs.double().clamp_min(SMALLEST).log() * noise.scale, 1)
    of_winner = q.gather(1, winner.clamp_min(0)[:, None])[:, 0]
    if classes < 2 or not bool(sure.any()):
        return 0.0
    seen = float((sure & (winner != labels)).double().mean())
    right = float(((1 - of_winner) * sure).mean())
    wrong = float(((1 - (1 - of_winner) / (classes - 1)) * sure).mean())
    return min(1.0, max(0.0, (seen - right) / (wrong - right))) if wrong > right else 0.0


def along_ranking(p_wrong: Tensor, suspicion: Tensor) -> Tensor:
    """Probabilities that rise with another ranking of the same samples, and mean the same: isotonic regression.

    Args:    p_wrong (N,) in [0, 1], of held-out predictions; suspicion (N,), higher = more suspicious
    Returns: (N,) float32 in [0, 1], the mean of p_wrong over the samples of about that suspicion
    """
    from sklearn.isotonic import IsotonicRegression  # a second to import

    rising = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    fitted = rising.fit_transform(suspicion.double().numpy(), p_wrong.double().numpy())
    return torch.from_numpy(np.asarray(fitted, np.float32))


def mean_rank(*suspicions: Tensor) -> Tensor:
    """The mean of the samples' ranks, 0..1, by several measures (N,), higher = more suspicious; ties share a rank."""
    from scipy.stats import rankdata

    ranks = [torch.from_numpy(rankdata(one.double().numpy())) / len(one) for one in suspicions]
    return torch.stack(ranks).mean(0)


def _scaled(logs: Tensor, labels: Tensor, scale: float) -> Tensor:
    return torch.softmax(logs * scale, 1).gather(1, labels[:, None])[:, 0]


def _given_label(q: Tensor, share: float, classes: int) -> Tensor:
    """The probability of the given label, where q is that of the true class being it."""
    return ((1 - share) * q + share / (classes - 1) * (1 - q)).clamp_min(SMALLEST)


def _maximize(function: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(lambda x: -function(x), bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return float(found.x)


def _edge(within: Callable[[float], bool], inside: float, outside: float) -> float:
    """Where a condition that holds inside ceases to, by halving."""
    for _ in range(12):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if within(middle) else (inside, middle)
    return inside


def _check(heldout_probs: Tensor, labels: Tensor) -> None:
    check_rows("heldout_probs", heldout_probs, 2)
    if heldout_probs.shape[1] < 2:
        raise ScoreInputError(f"{heldout_probs.shape[1]} class; which labels are wrong can be told from two on")
    if len(heldout_probs) != len(labels):
        raise ScoreInputError(f"{len(heldout_probs)} held-out predictions but {len(labels)} labels")
