"""The losses of the robust learners that AUM is held against, as functions of a batch, and the parts of which they are made.

Logits (B, C) float32, labels (B,) int64 in [0, C); a loss is a mean over the batch unless its docstring says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

DETERMINANT_EPS = 1e-3
"""Added to the determinant before its logarithm, as the authors of L_DMI do: a batch without some class has 0."""


def bootstrap_loss(logits: Tensor, labels: Tensor, beta: float, hard: bool) -> Tensor:
    """Cross-entropy with a target that is partly the prediction (Reed et al. 2014, equations 6 and 7).

    -sum_k (beta y_k + (1 - beta) z_k) log q_k, q = softmax(logits); hard: z = one-hot argmax q; soft: z = q, through which
    the gradient goes as well: the second term is then the entropy of q.
    """
    q, log_q = torch.softmax(logits, 1), torch.log_softmax(logits, 1)
    z = functional.one_hot(q.argmax(1), q.shape[1]).to(q.dtype) if hard else q
    given = functional.cross_entropy(logits, labels)
    return beta * given - (1 - beta) * (z * log_q).sum(1).mean()


def dynamic_bootstrap_loss(logits: Tensor, labels: Tensor, noisy: Tensor) -> Tensor:
    """Hard bootstrapping whose weight is each sample's own (Arazo et al. 2019, equation 8).

    mean_i of -((1 - w_i) y_i + w_i z_i)^T log softmax(z), z_i the one-hot prediction. noisy (B,): w_i, the probability that
    the label of sample i is wrong
    """
    predicted = logits.detach().argmax(1)
    own = functional.cross_entropy(logits, labels, reduction="none")
    other = functional.cross_entropy(logits, predicted, reduction="none")
    return ((1 - noisy) * own + noisy * other).mean()


def randomly_weighted_loss(losses: Tensor, drawn: Tensor) -> Tensor:
    """A weighted mean of the losses (B,) whose weights are the positive part of what is drawn (B,) (Ren et al. 2018).

    sum_i max(z_i, 0) l_i / sum_i max(z_i, 0); 0 where nothing that is drawn is positive
    """
    weights = drawn.clamp_min(0)
    return (weights * losses).sum() / weights.sum().clamp_min(1e-10)


def small_losses(losses: Tensor, keep: float) -> Tensor:
    """The positions of the share `keep` of a batch (B,) with the smallest losses, at least one, in order of the loss."""
    count = max(1, math.floor(keep * len(losses) + 1e-9))
    return torch.sort(losses.detach(), stable=True).indices[:count]


def remember_rate(noise: float, epoch: int, gradual: int) -> float:
    """R(T) = 1 - noise min(T / T_k, 1): the share of a batch that co-teaching learns from (Han et al. 2018, line 11)."""
    return 1 - noise * min(epoch / gradual, 1.0)


def dmi_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """-log(|det(Y^T softmax(z))| + 0.001), Y the one-hot labels (Xu et al. 2019, equation 6 and their code).

    The determinant based mutual information of prediction and label; in float64, for a determinant of many classes is small.
    The paper divides the matrix by B, which adds a constant to the logarithm.
    """
    y = functional.one_hot(labels, logits.shape[1]).double()
    joint = y.T @ torch.softmax(logits.double(), 1)
    return -torch.log(torch.linalg.det(joint).abs() + DETERMINANT_EPS).to(logits.dtype)


def local_dimensionality(features: Tensor, neighbors: int) -> Tensor:
    """The mean local intrinsic dimensionality of a batch (Ma et al. 2018, equation 3).

    LID_i = -1 / (1/k sum_j log(r_ij / r_ik)) with r_ij the distance of sample i to its j-th nearest other sample of the
    batch, r_ik to the farthest of the k

    Args:    features (B, D); neighbors: k, cut at B - 1
    Returns: () float64; samples with a copy among their neighbors, or with all neighbors equally far, are left out; NaN where
             none is left
    """
    distances = torch.cdist(features.double(), features.double())
    distances.fill_diagonal_(math.inf)
    nearest = distances.topk(min(neighbors, len(features) - 1), largest=False).values
    mean = (nearest / nearest[:, -1:]).log().mean(1)
    each = -1 / mean
    return each[torch.isfinite(each)].mean()


def turns_at(dimensions: Sequence[float], window: int) -> bool:
    """Whether the last of the epochs' dimensionalities lies two standard deviations above the mean of the `window` before.

    There a network begins to fit wrong labels (Ma et al. 2018, section 4.2).
    """
    if len(dimensions) <= window:
        return False
    before = torch.tensor(dimensions[-window - 1 : -1], dtype=torch.float64)
    return bool(dimensions[-1] > before.mean() + 2 * before.std(correction=0))


def trust_of_labels(dimensions: Sequence[float], epoch: int, epochs: int) -> float:
    """alpha = exp(-(i / T) LID_i / min_{j < i} LID_j): the weight of the given labels in epoch i of T (Ma et al. 2018,
    equation 6). dimensions: those of the epochs before i, and of i."""
    return math.exp(-(epoch / epochs) * dimensions[-1] / min(dimensions[:-1]))


def self_paced_weights(losses: Tensor, threshold: Tensor | float, softness: float) -> Tensor:
    """v_i = min(max(0, 1 - (l_i - threshold) / softness), 1); 1 or 0 where softness is 0 (Jiang et al. 2018, equation 5)."""
    losses = losses.detach()
    if softness == 0:
        return (losses <= threshold).to(losses.dtype)
    return (1 - (losses - threshold) / softness).clamp(0, 1)


def temperature_loss(logits: Tensor, labels: Tensor, log_temperature: Tensor) -> Tensor:
    """Cross-entropy of logits / exp(log_temperature_i), a parameter of each sample (Saxena et al. 2019, equation 2).

    log_temperature (B,): learned with the network; a sample whose label is not believed gets a large one
    """
    return functional.cross_entropy(logits / log_temperature.exp()[:, None], labels)
