"""Scores of one epoch's prediction. The recorder keeps their value at every epoch as a column of the dynamics, which
`engine.training.columns` computes together."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engine.scores.registry import score


@score(
    higher_means="harder",
    evidence="label",
    value_range=(0.0, math.sqrt(2)),
    source="Paul et al. 2021, eq. 2",
    recorded="el2n",
    epoch=20,
)
def el2n(probs: Tensor, labels: Tensor) -> Tensor:
    """L2 error of the softmax output, early in training.

    s_i = ||p_i - onehot(y_i)||_2

    Args:    probs (N, C), rows sum to 1; labels (N,) int64 in [0, C)
    Returns: (N,) float32 in [0, sqrt 2]; higher = harder
    Departs from the paper: one epoch of one network; the pipeline averages seeds, and takes the last epoch
    where fewer than 20 were trained. `el2n@5` is the value after epoch 5: on small sets a late epoch has
    memorised the noise.
    """
    errors = probs.clone()
    errors.scatter_add_(1, labels[:, None], errors.new_full((len(errors), 1), -1.0))
    return errors.square_().sum(1).sqrt()


@score(higher_means="easier", evidence="label", source="Pleiss et al. 2020, eq. 1", recorded="margin")
def margin_last(logits: Tensor, labels: Tensor) -> Tensor:
    """Margin of the last epoch: the given logit minus the largest other.

    M_i = z_{y_i} - max_{j != y_i} z_j

    Args:    logits (N, C), C >= 2; labels (N,) int64 in [0, C)
    Returns: (N,), unbounded; negative = another class is preferred; higher = easier
    """
    index = labels[:, None]
    return logits.gather(1, index)[:, 0] - logits.clone().scatter_(1, index, -math.inf).amax(1)


@score(
    higher_means="harder",
    evidence="label",
    value_range=(0.0, math.inf),
    source="small-loss criterion; Jiang et al. 2018",
    recorded="loss",
)
def loss_last(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the last epoch against the given label (Small-loss).

    l_i = -log softmax(z_i)_{y_i}, in nats

    Args:    logits (N, C); labels (N,) int64 in [0, C)
    Returns: (N,) in [0, inf); higher = harder
    """
    return -logits.log_softmax(1).gather(1, labels[:, None])[:, 0].clamp_max(0.0)


@score(
    higher_means="harder",
    evidence="hardness",
    value_range=(0.0, math.inf),
    source="Coleman et al. 2020, entropy",
    recorded="entropy",
)
def entropy(probs: Tensor) -> Tensor:
    """Entropy of the softmax output of the last epoch.

    H_i = -sum_c p_ic log p_ic, in nats; 0 log 0 = 0

    Args:    probs (N, C), rows sum to 1
    Returns: (N,) in [0, log C]; higher = harder
    """
    logs = probs.clamp_min(torch.finfo(probs.dtype).tiny).log_()
    return -logs.mul_(probs).sum(1).clamp_max(0.0)


@score(
    higher_means="easier",
    evidence="hardness",
    value_range=(0.0, 1.0),
    source="Coleman et al. 2020, margin",
    recorded="top2_gap",
)
def top2_gap(probs: Tensor) -> Tensor:
    """Gap between the two largest probabilities of the last epoch (Coleman's margin).

    g_i = p_(1) - p_(2); the given label plays no part

    Args:    probs (N, C), C >= 2, rows sum to 1
    Returns: (N,) in [0, 1]; higher = easier
    """
    largest, second = probs.topk(2, 1).values.unbind(1)
    return largest - second
