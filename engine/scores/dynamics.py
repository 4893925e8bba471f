"""Scores of a sample's whole trajectory. Each reads (T, N) tensors of one seed; the pipeline averages seeds."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from engine.errors import ScoreInputError
from engine.scores.registry import score


@score(
    higher_means="harder", evidence="hardness", value_range=(0.0, math.inf), source="Toneva et al. 2019; PRUNE eq. 1"
)
def forgetting(correct: Tensor, never_learned: Literal["max", "inf"] = "max") -> Tensor:
    """Number of epochs at which a sample, correct the epoch before, is wrong.

    s_i = sum_{t=2..T} [correct_{t-1} and not correct_t]

    Args:    correct (T, N) bool; never_learned: what a sample never correct counts: "max" = T, "inf" = infinity
    Returns: (N,) float32 in [0, T] (or inf); higher = harder
    Departs from the paper: a sample never learned counts T by default, so that one bad seed does not make its
    mean infinite; the score `never_learned` stands beside it.
    """
    events = (correct[:-1] & ~correct[1:]).sum(0).float()
    worst = float(correct.shape[0]) if never_learned == "max" else math.inf
    return events.masked_fill(~correct.any(0), worst)


@score(higher_means="harder", evidence="label", value_range=(0.0, 1.0), source="Toneva et al. 2019")
def never_learned(correct: Tensor) -> Tensor:
    """Share of seeds in which a sample is wrong at every epoch.

    s_i = [no t with correct_t], in one seed

    Args:    correct (T, N) bool
    Returns: (N,) float32, 0 or 1 in a seed; higher = harder
    """
    return (~correct.any(0)).float()


@score(higher_means="easier", evidence="label", source="Pleiss et al. 2020, eq. 2")
def aum(margin: Tensor) -> Tensor:
    """Area under the margin: the mean margin over all epochs.

    AUM_i = 1/T sum_t M_i^(t)

    Args:    margin (T, N)
    Returns: (N,), unbounded; higher = easier; mislabeled samples are low
    """
    return margin.double().mean(0).float()


@score(higher_means="easier", evidence="label", value_range=(0.0, 1.0), source="Swayamdipta et al. 2020, data maps")
def confidence(p_given: Tensor) -> Tensor:
    """Mean probability of the given label over all epochs.

    mu_i = 1/T sum_t p_{y_i}^(t)

    Args:    p_given (T, N) in [0, 1]
    Returns: (N,) in [0, 1]; higher = easier
    """
    return p_given.mean(0)


@score(higher_means="harder", evidence="hardness", value_range=(0.0, 0.5), source="Swayamdipta et al. 2020, data maps")
def variability(p_given: Tensor) -> Tensor:
    """Standard deviation of the probability of the given label over all epochs.

    sigma_i = sqrt(1/T sum_t (p_{y_i}^(t) - mu_i)^2)

    Args:    p_given (T, N) in [0, 1]
    Returns: (N,) in [0, 0.5]; higher = harder (ambiguous)
    """
    return p_given.std(0, correction=0)


@score(higher_means="easier", evidence="label", value_range=(0.0, 1.0), source="Swayamdipta et al. 2020, data maps")
def correctness(correct: Tensor) -> Tensor:
    """Share of epochs at which a sample is predicted as its given label.

    c_i = 1/T sum_t [correct_t]

    Args:    correct (T, N) bool
    Returns: (N,) in [0, 1]; higher = easier
    """
    return correct.float().mean(0)


@score(
    higher_means="harder",
    evidence="hardness",
    value_range=(0.0, math.sqrt(0.5)),
    source="He et al. 2024 (Dyn-Unc), eq. 3 and 4",
)
def dyn_unc(p_given: Tensor, window: int = 10) -> Tensor:
    """Mean over sliding windows of the standard deviation of the probability of the given label.

    s_i = mean_k std(p_{y_i}^(k), ..., p_{y_i}^(k+J-1)), J = 10, with J - 1 in the denominator of the variance

    Args:    p_given (T, N) in [0, 1]; window: J epochs
    Returns: (N,) float32 in [0, sqrt 1/2]; higher = harder (uncertain); 0 after a single epoch
    Departs from the paper: where fewer than J epochs were trained, one window over all of them.
    """
    return _windows(p_given, window)[0].mean(0)


@score(
    higher_means="harder",
    evidence="hardness",
    value_range=(0.0, math.sqrt(0.5)),
    source="Cho et al. 2025 (DUAL), eq. 4",
)
def dual(p_given: Tensor, window: int = 10, epochs: int = 30) -> Tensor:
    """Uncertainty times difficulty, early in training.

    s_i = mean_k std_k (1 - mean_k) of p_{y_i} in window k of 10 epochs, over the first 30 epochs

    Args:    p_given (T, N) in [0, 1]; window: J epochs; epochs: how many are looked at
    Returns: (N,) float32 in [0, sqrt 1/2]; higher = harder; 0 after a single epoch
    Departs from the paper: where fewer epochs were trained, what there is.
    """
    deviation, mean = _windows(p_given[:epochs], window)
    return (deviation * (1 - mean)).mean(0)


def _windows(p_given: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean of every window (T - J + 1, N) of J epochs."""
    length = min(window, len(p_given))
    windows = p_given.unfold(0, length, 1)
    if length == 1:
        return torch.zeros_like(p_given), p_given
    return windows.std(2, correction=1), windows.mean(2)


def threshold_flags(aum_rounds: Tensor, member: Tensor, percentile: float = 99.0) -> tuple[Tensor, Tensor]:
    """The rule of the AUM paper: who behaves like samples that are certainly mislabeled.

    alpha_r is the percentile of the threshold samples' AUM in round r (linear interpolation). A sample is
    flagged when AUM_r <= alpha_r in every round r in which it was not itself a threshold sample.

    Args:    aum_rounds (R, N); member (R, N) bool, threshold samples of each round, no sample in all rounds;
             percentile in [0, 100]
    Returns: flagged (N,) bool and alpha (R,) float32
    Raises:  ScoreInputError when a round has no threshold sample or a sample is never judged
    Source:  Pleiss et al. 2020, section 3
    """
    if not bool(member.any(1).all()):
        raise ScoreInputError("a round has no threshold sample; the training set is smaller than its classes + 1")
    if bool(member.all(0).any()):
        raise ScoreInputError("a sample is a threshold sample in every round; the rounds' sets must be disjoint")
    alpha = torch.stack(
        [torch.quantile(row[m].double(), percentile / 100) for row, m in zip(aum_rounds, member, strict=True)]
    ).float()
    flagged = ((aum_rounds <= alpha[:, None]) | member).all(0)
    return flagged, alpha


def draw_threshold_samples(n: int, classes: int, rounds: int, generator: torch.Generator) -> Tensor:
    """Disjoint sets of floor(N / (C + 1)) threshold samples, from one seeded permutation.

    Returns: (rounds, N) bool
    Raises:  ScoreInputError when the training set is too small for a set of at least one
    """
    size = n // (classes + 1)
    if size < 1 or rounds * size > n:
        raise ScoreInputError(
            f"{n} training samples of {classes} classes give no threshold samples (N / (C + 1) < 1); "
            "use --threshold-rounds 0"
        )
    order = torch.randperm(n, generator=generator)
    member = torch.zeros(rounds, n, dtype=torch.bool)
    for r in range(rounds):
        member[r, order[r * size : (r + 1) * size]] = True
    return member
