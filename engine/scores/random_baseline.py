"""Scores that know nothing, to hold the others against."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.scores.registry import score


@score(higher_means="harder", evidence="none", value_range=(0.0, 1.0), source="baseline")
def random(labels: Tensor, generator: torch.Generator) -> Tensor:
    """A seeded uniform random number: the baseline of every comparison.

    Args:    labels (N,), for their number alone; generator: seeded by the run
    Returns: (N,) float32 in [0, 1)
    """
    return torch.rand(len(labels), generator=generator)
