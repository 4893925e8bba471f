"""The recorded columns of a batch of logits, all together.

Each is what its score in `engine.scores.prediction` says of the same logits, to rounding, which a test holds them to. One
after another the scores would look for the largest logits four times and take three exponentials of every one.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from engine.scores.registry import recorded_scores

LANES = 64
"""Samples are taken in multiples of this on a processor: the widest step that torch sums by. So a sample's sums have the
same bits whichever samples are beside it."""

LOWEST = -87.0
"""Exponentials are taken of no less: e^-87 is the smallest that float32 holds in full, and a processor takes up to twenty
times as long at those below. So what should be 0 may be 2e-38."""


def recorded_columns() -> dict[str, str]:
    """The recorded columns and their numpy types: what the scores of one epoch need, and the predictions."""
    floats = ["p_given", *recorded_scores(), "logit_given"]
    return {**dict.fromkeys(floats, "float32"), "other": "int16", "predicted": "int16"}


def compute_columns(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The recorded columns of a batch.

    Args:    logits (B, C) finite float32, C >= 2; labels (B,) int64 in [0, C)
    Returns: column -> (B,): float32; int16 for `other` (class of the largest other logit) and `predicted`
    """
    size, classes = logits.shape
    padded = -size % LANES if logits.device.type == "cpu" else 0
    by_class = torch.empty(classes, size + padded, device=logits.device)
    by_class[:, :size] = logits.T
    if padded:
        by_class[:, size:] = 0.0
    found = _columns(by_class, functional.pad(labels, (0, padded)) if padded else labels)
    columns = {name: values[:size] for name, values in found.items()}
    for column, score in recorded_scores().items():
        if column not in columns:
            inputs = {"logits": logits, "probs": logits.softmax(1), "labels": labels}
            columns[column] = score.function(**{name: inputs[name] for name in score.inputs})
    return columns


def _columns(z: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The columns (B,) of logits z (C, B), contiguous, which are overwritten, and labels y (B,)."""
    classes, size = z.shape
    flat, samples, down = z.view(-1), *_counted(size, classes, z.device)
    place = torch.add(samples, y, alpha=size)  # torch is faster at gathers and scatters along a single axis
    given = flat.gather(0, place)
    flat.scatter_(0, place, -math.inf)
    other = z.amax(0)
    # The first class whose logit is the largest: read as a whole number, a difference of 0 is 0 and one below it less than
    # -2^22, so that the largest of those and the classes counted down is at that class.
    other_class = classes - (z - other).view(torch.int32).add_(down).amax(0).long()
    top = torch.maximum(given, other)
    shifted = (z - top).clamp_min_(LOWEST)
    flat.scatter_(0, torch.add(samples, other_class, alpha=size), -math.inf)
    second = torch.maximum(torch.minimum(given, other), z.amax(0))

    # Of the other classes alone, since 1 - p_given would lose its digits where it is small.
    powers = shifted.exp()
    wrong, weighted = powers.sum(0), shifted.mul_(powers).sum(0)
    squares = powers.square_().sum(0)
    shifted_given = given - top
    power_given = shifted_given.exp()
    total = wrong + power_given
    log_total = total.log()
    margin = given - other
    ours, theirs = y.short(), other_class.short()
    # A tie between the given and another class counts as argmax does: the smaller class number wins.
    tied = torch.where(margin == 0, torch.minimum(ours, theirs), theirs)
    return {
        "p_given": power_given / total,
        "margin": margin,
        "loss": (log_total - shifted_given).clamp_min_(0.0),
        "el2n": torch.addcmul(squares, wrong, wrong).sqrt_().div_(total),
        "entropy": (log_total - weighted.addcmul_(power_given, shifted_given).div_(total)).clamp_min_(0.0),
        "top2_gap": (top - second).neg_().expm1_().neg_().div_(total),
        "logit_given": given,
        "other": theirs,
        "predicted": torch.where(margin > 0, ours, tied),
    }


@lru_cache(maxsize=8)
def _counted(size: int, classes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The samples counted up (B,), and the classes down (C, 1)."""
    down = torch.arange(classes, 0, -1, dtype=torch.int32, device=device)
    return torch.arange(size, device=device), down[:, None]
