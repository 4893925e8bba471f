"""Scores from two-component mixtures of the losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine.scores.registry import check_rows, score

BETA_ITERATIONS = 10
"""EM steps of the beta mixture, as its authors take them."""

GAUSSIAN_ITERATIONS = 2000
"""The most EM steps of the Gaussian mixture; it stops when a step changes the mean log-likelihood by less than
CONVERGED."""

CONVERGED = 1e-9

EDGE = 1e-4
"""A beta density may be infinite at 0 and 1, so scaled losses stay this far away from both."""

SMALLEST_SHARE = 1e-3
"""A component that holds a smaller share of the samples has collapsed: there are no two groups."""

SMALLEST_VARIANCE = 1e-4
"""Of a beta distribution on [0, 1]: one that shrinks onto a single value, such as many losses of 0, goes no further."""


@score(
    higher_means="harder",
    evidence="label",
    version=2,
    value_range=(0.0, 1.0),
    source="Arazo et al. 2019; AUM, section 4",
    every_seed=True,
    flags_above=0.5,
)
def bmm(logits: Tensor, labels: Tensor) -> Tensor:
    """Posterior of the high-loss component of a mixture of two beta distributions on the last losses.

    l_i = -log softmax(z_i)_{y_i}, scaled so that its 5..95 percentile is [0, 1]; fitted to the losses in that range
    by EM of 10 iterations, the M-step by weighted moments; s_i = P(component with the larger mean | l_i), which does
    not fall as the loss rises

    Args:    logits (N, C), an evaluation pass of the trained network; labels (N,) int64 in [0, C)
    Returns: (N,) float32 in [0, 1]; higher = harder; 0 everywhere when the losses do not fall into two groups; > 1/2
             flags it
    Departs from the paper: losses of an evaluation pass after the last epoch, not of the training pass. The authors'
    code makes the posterior constant behind its peak, over a table of 100 losses, and turns the fall of a posterior
    that is highest at the smallest loss into 1 for all; here it is exact, and constant before a dip as well.
    """
    return fit_beta_mixture(_losses(logits, labels))


@score(
    higher_means="harder",
    evidence="label",
    version=2,
    value_range=(0.0, 1.0),
    source="Li et al. 2020 (DivideMix); AUM, section 4",
    every_seed=True,
    flags_above=0.5,
)
def gmm(logits: Tensor, labels: Tensor) -> Tensor:
    """Posterior of the high-loss component of a mixture of two Gaussians on the last losses.

    l_i = -log softmax(z_i)_{y_i}, scaled to [0, 1]; EM from a k-means start to convergence; s_i = P(component with
    the larger mean | l_i), which does not fall as the loss rises

    Args:    logits (N, C), an evaluation pass of the trained network; labels (N,) int64 in [0, C)
    Returns: (N,) float32 in [0, 1]; higher = harder; 0 everywhere when the losses do not differ; > 1/2 flags it
    Departs from the paper: losses of an evaluation pass after the last epoch, not of the training pass. The authors
    stop after ten iterations; and their posterior rises again below the lower mean, and falls again above the upper
    one, where the other component is the wider.
    """
    return fit_gaussian_mixture(_losses(logits, labels))


@dataclass(frozen=True)
class _Groups:
    """Two components, the one with the lower mean first, and where the posterior of the other one turns.

    density: (N,) -> (N, 2) log densities; low, high: left and right of them the posterior is constant
    """

    density: Callable[[Tensor], Tensor]
    weight: Tensor
    low: float
    high: float

    def posterior(self, x: Tensor) -> Tensor:
        """Of the component with the larger mean: (N,) float32, not falling in x."""
        joint = self.density(x.clamp(self.low, self.high)) + self.weight.log()
        return torch.softmax(joint, 1)[:, 1].float()


def fit_beta_mixture(losses: Tensor) -> Tensor:
    """The posterior that `bmm` is, of losses (N,) finite.

    0 everywhere where a component keeps less than a thousandth of the samples: there is one group then.
    """
    low, high = _percentiles(losses)
    if not high > low:
        return torch.zeros(len(losses))
    scaled = ((losses.double() - low) / (high - low)).clamp(EDGE, 1 - EDGE)
    x = scaled[(losses.double() >= low) & (losses.double() <= high)]
    a, b = torch.tensor([1.0, 2.0]).double(), torch.tensor([2.0, 1.0]).double()
    weight = torch.full((2,), 0.5).double()
    for _ in range(BETA_ITERATIONS):
        share = torch.softmax(_beta_density(x, a, b) + weight.log(), 1)
        mass = share.sum(0)
        weight = mass / len(x)
        if float(weight.min()) < SMALLEST_SHARE:
            return torch.zeros(len(losses))
        mean = (share * x[:, None]).sum(0) / mass
        variance = (share * (x[:, None] - mean).square()).sum(0) / mass
        # A beta distribution has a variance below mean (1 - mean); at 0 its density would be infinite.
        limit = mean * (1 - mean)
        size = limit / variance.clamp_min(SMALLEST_VARIANCE).minimum(0.999 * limit) - 1
        a, b = mean * size, (1 - mean) * size
    order = torch.argsort(a / (a + b))
    a, b, weight = a[order], b[order], weight[order]
    # The log ratio of the densities, da log x + db log(1 - x), has its peak or dip where da / x = db / (1 - x).
    da, db = float(a[1] - a[0]), float(b[1] - b[0])
    turn = da / (da + db) if da * db > 0 else 0.0
    dip = turn if da < 0 else 0.0
    peak = turn if da > 0 and db > 0 else 1.0
    return _Groups(lambda at: _beta_density(at, a, b), weight, dip, peak).posterior(scaled)


def _beta_density(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Logarithms (N, 2) of the densities of two beta distributions at x (N,) in (0, 1)."""
    log_beta = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
    return (a - 1) * x[:, None].log() + (b - 1) * (-x[:, None]).log1p() - log_beta


def fit_gaussian_mixture(losses: Tensor) -> Tensor:
    """The posterior that `gmm` is, of losses (N,) finite.

    The two groups of k-means are the start; 5e-4 is added to the variances, as in DivideMix. Between the lower mean
    and the peak it is the posterior of scikit-learn's GaussianMixture(2, reg_covar=5e-4) at convergence.
    """
    low, high = losses.min().double(), losses.max().double()
    if not high > low:
        return torch.zeros(len(losses))
    x = (losses.double() - low) / (high - low)
    upper = (x > _split_in_two(x)).double()
    share, before = torch.stack([1 - upper, upper], 1), -torch.inf
    for _ in range(GAUSSIAN_ITERATIONS):
        mass = share.sum(0).clamp_min(1e-12)
        mean = (share * x[:, None]).sum(0) / mass
        variance = (share * (x[:, None] - mean).square()).sum(0) / mass + 5e-4
        weight = mass / len(x)
        joint = _gaussian_density(x, mean, variance) + weight.log()
        share, likelihood = torch.softmax(joint, 1), float(joint.logsumexp(1).mean())
        if abs(likelihood - before) < CONVERGED:
            break
        before = likelihood
    order = torch.argsort(mean)
    mean, variance, weight = mean[order], variance[order], weight[order]
    peak = torch.inf
    if variance[0] > variance[1]:  # the log ratio of the densities is a parabola that opens downwards
        peak = float((mean[1] * variance[0] - mean[0] * variance[1]) / (variance[0] - variance[1]))
    groups = _Groups(lambda at: _gaussian_density(at, mean, variance), weight, float(mean[0]), peak)
    return groups.posterior(x)


def _gaussian_density(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Logarithms (N, 2) of the densities of two Gaussians at x (N,)."""
    return -0.5 * ((x[:, None] - mean).square() / variance + (2 * math.pi * variance).log())


def _split_in_two(x: Tensor) -> float:
    """The largest value (of (N,), not all equal) in the lower of the two groups with the least squared deviations.

    In one dimension the groups of k-means are the values up to one of them and the rest, so all can be tried.
    """
    ordered = x.sort().values
    sums, n = ordered.cumsum(0), len(ordered)
    count = torch.arange(1, n, dtype=torch.float64)
    # The squared deviations are least where these sums of squared group means are largest.
    between = sums[:-1].square() / count + (sums[-1] - sums[:-1]).square() / (n - count)
    between[ordered[1:] == ordered[:-1]] = -torch.inf  # equal values are never parted
    return float(ordered[int(between.argmax())])


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    check_rows("logits", logits, 2)
    return functional.cross_entropy(logits.float(), labels, reduction="none")


def _percentiles(losses: Tensor) -> tuple[float, float]:
    """The 5th and 95th percentile, linearly interpolated; torch.quantile refuses more than 16 million values."""
    ordered = losses.double().sort().values
    place = torch.tensor([0.05, 0.95], dtype=torch.float64) * (len(ordered) - 1)
    below = place.floor().long()
    above = place.ceil().long()
    low, high = torch.lerp(ordered[below], ordered[above], place - below)
    return float(low), float(high)
