"""Scores from networks that were not trained on the sample: cross-validation, confident learning, C-scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.errors import ScoreInputError
from engine.scores.registry import check_rows, score


def discarded_by_incv(incv_selected: Tensor) -> Tensor:
    """1 for the samples that iterative cross-validation did not keep."""
    return (~incv_selected).float()


@score(
    higher_means="harder",
    evidence="label",
    value_range=(0.0, 1.0),
    source="Chen et al. 2019 (INCV), algorithms 1 and 2",
    flags_above=0.5,
    flags_by=discarded_by_incv,
)
def incv(heldout_probs: Tensor, labels: Tensor) -> Tensor:
    """Whether networks that were not trained on a sample disagree with its label.

    s_i = ([argmax_c p_ic != y_i] + 1 - p_{i y_i}) / 2: at least 1/2 where they disagree, at most 1/2 where they
    agree; within both the probability of the given label ranks

    Args:    heldout_probs (N, C) from cross-validation; labels (N,) int64 in [0, C)
    Returns: (N,) float32 in [0, 1]; higher = harder; the rule `discarded_by_incv` flags what `select_incv` does
             not keep
    Departs from the paper: the value is of one round of more folds, graded, so that samples can be ranked.
    """
    _check_heldout(heldout_probs, labels)
    agrees = heldout_probs.argmax(1) == labels
    return ((~agrees).float() + 1 - _given(heldout_probs, labels)) / 2


def estimate_noise_rate(agreement: float, classes: int) -> float:
    """The share of symmetric noise behind an agreement of held-out predictions with the labels.

    Solves (1 - e)^2 + e^2 / (C - 1) = agreement for the smaller e: a network trained on noisy labels gives a
    label as wrong as they are. An agreement of less than chance, 1 / C, counts as chance.

    Args:    agreement in [0, 1]; classes >= 2
    Returns: e in [0, (C - 1) / C]
    Source:  Chen et al. 2019, equation 4
    """
    ratio = classes / (classes - 1)
    return (1 - math.sqrt(max(0.0, 1 - (1 - agreement) * ratio))) / ratio


def select_incv(
    predict: Callable[[Sequence[tuple[Tensor, Tensor]]], Sequence[Tensor]],
    labels: Tensor,
    generator: torch.Generator,
    rounds: int = 4,
) -> tuple[Tensor, float]:
    """Iterative noisy cross-validation: the samples whose held-out prediction agrees, round after round.

    Each round halves the candidates; on each half a network trained on the selected and the other half predicts,
    the samples that agree are selected, and of those that do not the rate / (1 - rate) (at most 2) times as many
    with the largest loss are thrown out for good.

    Args:    predict: for each of the pairs (training positions, test positions) the probabilities (M, C) of the test
             positions; labels (N,); rounds >= 1
    Returns: selected (N,) bool, and the noise rate estimated from the first round
    Raises:  ScoreInputError when there are fewer than 4 samples
    Source:  Chen et al. 2019, algorithm 2
    """
    if len(labels) < 4:
        raise ScoreInputError(f"{len(labels)} samples; cross-validation in halves needs at least 4")
    selected = torch.zeros(len(labels), dtype=torch.bool)
    candidate = torch.ones(len(labels), dtype=torch.bool)
    rate = 0.0
    for done in range(rounds):
        left = candidate.nonzero()[:, 0]
        if len(left) < 2:
            break
        halves = torch.tensor_split(left[torch.randperm(len(left), generator=generator)], 2)
        before = selected.nonzero()[:, 0]
        probs = predict([(torch.cat([before, halves[1 - h]]), halves[h]) for h in range(2)])
        agree = [p.argmax(1) == labels[half] for p, half in zip(probs, halves, strict=True)]
        if done == 0:
            rate = estimate_noise_rate(float(torch.cat(agree).float().mean()), probs[0].shape[1])
        for p, half, good in zip(probs, halves, agree, strict=True):
            chosen, others = half[good], half[~good]
            thrown_out = round(min(2.0, rate / (1 - rate)) * len(chosen))
            selected[chosen] = True
            candidate[chosen] = False
            candidate[others[torch.argsort(_given(p[~good], labels[others]), stable=True)[:thrown_out]]] = False
    return selected, rate


def confident_joint(heldout_probs: Tensor, labels: Tensor) -> Tensor:
    """How far the most probable class a sample is confidently of lies above its label, (N,): > 0 off the diagonal.

    Classes whose probability stays below their threshold count as 0.
    """
    confident = _confident_probs(heldout_probs, labels)
    own = _given(confident, labels)
    return confident.scatter(1, labels[:, None], 0.0).amax(1) - own


@score(
    higher_means="harder",
    evidence="label",
    version=2,
    value_range=(0.0, 1.0),
    source="Northcutt et al. 2021, eq. 1 and 2; self-confidence",
    flags_above=0.0,
    flags_by=confident_joint,
)
def confident_learning(heldout_probs: Tensor, labels: Tensor) -> Tensor:
    """How little networks that were not trained on a sample believe its label.

    s_i = 1 - p_{i y_i}

    Args:    heldout_probs (N, C) from cross-validation; labels (N,) int64 in [0, C)
    Returns: (N,) float32 in [0, 1]; higher = harder; the rule `confident_joint` flags the off-diagonal of the joint:
             samples that of the classes j with p_ij >= t_j are most probably of another than theirs
    Departs from the paper: it ranks by the margin or by self-confidence; here by self-confidence, and the margin is
    the score `heldout_margin`.
    """
    _check_heldout(heldout_probs, labels)
    return 1 - _given(heldout_probs, labels)


@score(
    higher_means="easier",
    evidence="label",
    value_range=(-1.0, 1.0),
    source="Northcutt et al. 2021, normalized margin",
)
def heldout_margin(heldout_probs: Tensor, labels: Tensor) -> Tensor:
    """Margin of networks that were not trained on the sample: its label's probability minus the largest other one.

    s_i = p_{i y_i} - max_{j != y_i} p_ij

    Args:    heldout_probs (N, C) from cross-validation, C >= 2; labels (N,) int64 in [0, C)
    Returns: (N,) float32 in [-1, 1]; negative = another class is more probable; higher = easier
    """
    _check_heldout(heldout_probs, labels)
    return _given(heldout_probs, labels) - heldout_probs.scatter(1, labels[:, None], -1.0).amax(1)


def count_confident_joint(heldout_probs: Tensor, labels: Tensor) -> Tensor:
    """How many samples of each given label are confidently of each class: the confident joint.

    C_{yj} = number of samples labeled y whose most probable class among those with p_ij >= t_j is j; a sample
    without such a class is in no cell; the diagonal is at least 1

    Args:    heldout_probs (N, C); labels (N,) int64 in [0, C)
    Returns: (C, C) int64, the rows are the given labels
    Source:  Northcutt et al. 2021, eq. 1. cleanlab 2.9 differs in a sample that reaches the thresholds of two or more
             classes while its most probable class stays below its own: it counts it there all the same.
    """
    classes = heldout_probs.shape[1]
    winner = confident_class(heldout_probs, labels)
    cells = (labels * classes + winner)[winner >= 0]
    joint = torch.bincount(cells, minlength=classes * classes).view(classes, classes)
    joint.diagonal().clamp_min_(1)
    return joint


def confident_class(heldout_probs: Tensor, labels: Tensor) -> Tensor:
    """The most probable class among those that a sample is confidently of, p_ij >= t_j; -1 where there is none. (N,) int64."""
    value, winner = _confident_probs(heldout_probs, labels).max(1)
    return torch.where(value > 0, winner, -1)


def estimate_joint(heldout_probs: Tensor, labels: Tensor) -> Tensor:
    """The share of the samples of each given label and true class: the confident joint, calibrated.

    Q_{yj} = C_{yj} / sum_k C_{yk} * n_y / N: every row adds up to the share of the label it is of

    Args:    heldout_probs (N, C); labels (N,) int64 in [0, C)
    Returns: (C, C) float64, adds up to 1; 1 minus its trace is the estimated share of wrong labels (`joint_noise`)
    Source:  Northcutt et al. 2021, eq. 3. cleanlab 2.9 rounds N Q to whole samples, which moves a cell by less than
             one of them.
    """
    joint = count_confident_joint(heldout_probs, labels).double()
    given = torch.bincount(labels, minlength=len(joint)).double()
    return joint / joint.sum(1, keepdim=True) * given[:, None] / len(labels)


def joint_noise(heldout_probs: Tensor, labels: Tensor) -> float:
    """The share of wrong labels by the joint, 0..1: 1 minus the trace of `estimate_joint`."""
    return 1 - float(estimate_joint(heldout_probs, labels).trace())


def class_thresholds(heldout_probs: Tensor, labels: Tensor) -> Tensor:
    """t_j (C,), the mean held-out probability of class j over the samples labeled j; infinite for an empty class."""
    _check_heldout(heldout_probs, labels)
    classes = heldout_probs.shape[1]
    sums = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, _given(heldout_probs, labels).double())
    counts = torch.bincount(labels, minlength=classes)
    return torch.where(counts > 0, sums / counts.clamp_min(1), torch.inf).float()


@score(higher_means="easier", evidence="label", value_range=(0.0, 1.0), source="Jiang et al. 2021, eq. 1")
def consistency(cscores: Tensor) -> Tensor:
    """Accuracy on a sample over the networks that were trained on random subsets without it: the C-score.

    s_i = share of the networks not trained on i that predict y_i, see `estimate_consistency`

    Args:    cscores (N,), estimated, or read from a published file (--cscores)
    Returns: (N,) float32 in [0, 1]; higher = easier
    Departs from the paper: estimated from subsets of one half, not averaged over sizes.
    """
    return cscores.float()


def estimate_consistency(heldout: Tensor, heldout_correct: Tensor) -> Tensor:
    """The share of the networks not trained on a sample that predict its given label.

    Args:    heldout (R, N) bool, not trained on in run r; heldout_correct (R, N) bool, predicted as its given label
    Returns: (N,) float32 in [0, 1]
    Raises:  ScoreInputError names a sample that no run held out
    """
    runs = heldout.sum(0)
    if not bool((runs > 0).all()):
        missed = int((runs == 0).nonzero()[0])
        raise ScoreInputError(f"sample {missed} was in every random subset; use more subsets or smaller ones")
    return (heldout & heldout_correct).sum(0) / runs


def draw_folds(labels: Tensor, folds: int, generator: torch.Generator) -> Tensor:
    """The fold (0 .. K-1) of every sample, each class spread evenly over all folds. (N,) int64.

    Raises: ScoreInputError unless 2 <= folds <= N
    """
    if not 2 <= folds <= len(labels):
        raise ScoreInputError(
            f"cross-validation of {len(labels)} samples in {folds} folds; allowed: 2 to {len(labels)}"
        )
    order = torch.randperm(len(labels), generator=generator)
    order = order[torch.argsort(labels[order], stable=True)]
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order)) % folds
    return fold


def _confident_probs(heldout_probs: Tensor, labels: Tensor) -> Tensor:
    """The probabilities (N, C) of the classes that a sample is confidently of, 0 elsewhere.

    A probability that differs from its threshold by rounding alone, as where all of a class are equal, reaches it.
    """
    return heldout_probs * (heldout_probs >= class_thresholds(heldout_probs, labels) - 1e-6)


def _given(probs: Tensor, labels: Tensor) -> Tensor:
    return probs.gather(1, labels[:, None])[:, 0]


def _check_heldout(heldout_probs: Tensor, labels: Tensor) -> None:
    check_rows("heldout_probs", heldout_probs, 2)
    if len(heldout_probs) != len(labels):
        raise ScoreInputError(f"{len(heldout_probs)} held-out predictions but {len(labels)} labels")
