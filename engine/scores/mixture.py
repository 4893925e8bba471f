"""Scores from two-component mixtures of the losses, and from cross-validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from engine.errors import ScoreInputError
from engine.scores.registry import check_rows, score

EM_ITERATIONS = 10

Posterior = Callable[[Tensor], Tensor]


@score(
    higher_means="harder",
    value_range=(0.0, 1.0),
    source="Arazo et al. 2019; AUM, section 4",
    every_seed=True,
    flags_above=0.5,
)
def bmm(logits: Tensor, labels: Tensor) -> Tensor:
    """Posterior of the high-loss component of a mixture of two beta distributions on the last losses.

    l_i = -log softmax(z_i)_{y_i}, clipped to its 5..95 percentile and scaled to [0, 1]; EM 10 iterations, the
    M-step by weighted moments; s_i = P(component with the larger mean | l_i)

    Args:    logits (N, C), a evaluation pass of the trained network; labels (N,) int64 in [0, C)
    Returns: (N,) float32 in [0, 1]; higher = harder; 0 everywhere when the losses do not differ; > 1/2 flags it
    Departs from the paper: losses of a evaluation pass after the last epoch, not of the training pass.
    """
    return fit_beta_mixture(_losses(logits, labels))


@score(
    higher_means="harder",
    value_range=(0.0, 1.0),
    source="Li et al. 2020 (DivideMix); AUM, section 4",
    every_seed=True,
    flags_above=0.5,
)
def gmm(logits: Tensor, labels: Tensor) -> Tensor:
    """Posterior of the high-loss component of a mixture of two Gaussians on the last losses.

    l_i = -log softmax(z_i)_{y_i}, scaled to [0, 1]; EM 10 iterations; s_i = P(component with the larger mean | l_i)

    Args:    logits (N, C), a evaluation pass of the trained network; labels (N,) int64 in [0, C)
    Returns: (N,) float32 in [0, 1]; higher = harder; 0 everywhere when the losses do not differ; > 1/2 flags it
    Departs from the paper: losses of a evaluation pass after the last epoch, not of the training pass.
    """
    return fit_gaussian_mixture(_losses(logits, labels))


def fit_beta_mixture(losses: Tensor) -> Tensor:
    """The posterior that `bmm` is, of losses (N,) finite. A component that empties keeps the shape it had."""
    low, high = _percentiles(losses)
    if not high > low:
        return torch.zeros(len(losses))
    x = ((losses.double().clamp(low, high) - low) / (high - low)).clamp(1e-4, 1 - 1e-4)
    a, b = torch.tensor([1.0, 2.0]).double(), torch.tensor([2.0, 1.0]).double()
    weight = torch.full((2,), 0.5).double()

    def posterior() -> Tensor:
        log_beta = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
        density = (a - 1) * x[:, None].log() + (b - 1) * (-x[:, None]).log1p() - log_beta
        return torch.softmax(density + weight.log(), 1)

    for _ in range(EM_ITERATIONS):
        share = posterior()
        mass = share.sum(0)
        alive = mass > 1e-6 * len(x)
        mean = (share * x[:, None]).sum(0) / mass.clamp_min(1e-12)
        variance = (share * (x[:, None] - mean).square()).sum(0) / mass.clamp_min(1e-12)
        # A beta distribution has a variance below mean (1 - mean); at 0 its density would be infinite.
        limit = mean * (1 - mean)
        size = limit / variance.clamp(1e-6, None).minimum(0.999 * limit) - 1
        a, b = torch.where(alive, mean * size, a), torch.where(alive, (1 - mean) * size, b)
        weight = (mass / len(x)).clamp_min(1e-12)
    return posterior()[:, int((a / (a + b)).argmax())].float()


def fit_gaussian_mixture(losses: Tensor) -> Tensor:
    """The posterior that `gmm` is, of losses (N,) finite.

    The components start at the smallest and the largest loss; 5e-4 is added to their variances, as in DivideMix.
    """
    low, high = losses.min().double(), losses.max().double()
    if not high > low:
        return torch.zeros(len(losses))
    x = (losses.double() - low) / (high - low)
    mean = torch.tensor([0.0, 1.0], dtype=torch.float64)
    variance = x.var(correction=0).expand(2) + 5e-4
    weight = torch.full((2,), 0.5, dtype=torch.float64)

    def posterior() -> Tensor:
        density = -0.5 * ((x[:, None] - mean).square() / variance + variance.log())
        return torch.softmax(density + weight.log(), 1)

    for _ in range(EM_ITERATIONS):
        share = posterior()
        mass = share.sum(0).clamp_min(1e-12)
        mean = (share * x[:, None]).sum(0) / mass
        variance = (share * (x[:, None] - mean).square()).sum(0) / mass + 5e-4
        weight = mass / len(x)
    return posterior()[:, int(mean.argmax())].float()


def discarded_by_incv(incv_selected: Tensor) -> Tensor:
    """1 for the samples that iterative cross-validation did not keep."""
    return (~incv_selected).float()


@score(
    higher_means="harder",
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
    confident = heldout_probs * (heldout_probs >= class_thresholds(heldout_probs, labels))
    own = _given(confident, labels)
    return confident.scatter(1, labels[:, None], 0.0).amax(1) - own


@score(
    higher_means="harder",
    value_range=(-1.0, 1.0),
    source="Northcutt et al. 2021, eq. 1 and 2",
    flags_above=0.0,
    flags_by=confident_joint,
)
def confident_learning(heldout_probs: Tensor, labels: Tensor) -> Tensor:
    """How far the held-out probability of the given label stays below what is usual for its class.

    s_i = t_{y_i} - p_{i y_i}, t_j = mean of p_ij over the samples labeled j

    Args:    heldout_probs (N, C) from cross-validation; labels (N,) int64 in [0, C)
    Returns: (N,) float32 in [-1, 1]; higher = harder; the rule `confident_joint` flags its off-diagonal:
             samples that of the classes j with p_ij >= t_j are most probably of another than theirs
    """
    thresholds = class_thresholds(heldout_probs, labels)
    return thresholds[labels] - _given(heldout_probs, labels)


def class_thresholds(heldout_probs: Tensor, labels: Tensor) -> Tensor:
    """t_j (C,), the mean held-out probability of class j over the samples labeled j; infinite for an empty class."""
    _check_heldout(heldout_probs, labels)
    classes = heldout_probs.shape[1]
    sums = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, _given(heldout_probs, labels).double())
    counts = torch.bincount(labels, minlength=classes)
    return torch.where(counts > 0, sums / counts.clamp_min(1), torch.inf).float()


@score(higher_means="easier", value_range=(0.0, 1.0), source="Jiang et al. 2021, eq. 1")
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


def _given(probs: Tensor, labels: Tensor) -> Tensor:
    return probs.gather(1, labels[:, None])[:, 0]


def _check_heldout(heldout_probs: Tensor, labels: Tensor) -> None:
    check_rows("heldout_probs", heldout_probs, 2)
    if len(heldout_probs) != len(labels):
        raise ScoreInputError(f"{len(heldout_probs)} held-out predictions but {len(labels)} labels")
