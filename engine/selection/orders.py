"""Orders: in which sequence samples are pruned. Direction is data: a score declares what a high value means."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.errors import ScoreInputError


def compute_ranks(values: Tensor, higher_means: str, generator: torch.Generator) -> Tensor:
    """The rank of every sample by a score, 0 = easiest.

    Ties are broken by a seeded permutation, never by index, so that equal samples are pruned evenly.

    Args:    values (N,) float, infinities allowed; higher_means: "harder" or "easier"
    Returns: (N,) int64, a permutation of 0 .. N-1
    Raises:  ScoreInputError on NaN
    """
    if torch.isnan(values).any():
        raise ScoreInputError(
            f"the score of sample {int(torch.isnan(values).nonzero()[0])} is NaN; it cannot be ranked"
        )
    shuffled = torch.randperm(len(values), generator=generator)
    hardness = values if higher_means == "harder" else -values
    order = shuffled[torch.argsort(hardness[shuffled], stable=True)]
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    return ranks


def ascending(ranks: Tensor) -> Tensor:
    """Prune the easiest first (PRUNE's default). ranks (N,) -> (N,) positions, first pruned first."""
    return torch.argsort(ranks)


def descending(ranks: Tensor) -> Tensor:
    """Prune the hardest first (PRUNE's *). ranks (N,) -> (N,) positions, first pruned first."""
    return torch.argsort(ranks, descending=True)


def random_order(n: int, generator: torch.Generator) -> Tensor:
    """One seeded permutation: the baseline. -> (N,) positions, first pruned first."""
    return torch.randperm(n, generator=generator)


def oracle(mislabeled: Tensor, generator: torch.Generator) -> Tensor:
    """Prune the mislabeled first in random order, then the rest in random order (PRUNE, figure 2).

    mislabeled (N,) bool -> (N,) positions, first pruned first.
    """
    shuffled = torch.randperm(len(mislabeled), generator=generator)
    wrong = mislabeled[shuffled]
    return torch.cat([shuffled[wrong], shuffled[~wrong]])
