"""Samplers by a score's ranks or values, at random, by the truth, or by the distance to the class."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.errors import SpecError
from engine.scores.rows import median_row
from engine.selection import orders
from engine.selection.samplers import sampler, sorted_positions


@sampler()
def ascending(budget: int, ranks: Tensor) -> Tensor:
    """Prune the easiest first: the hardest stay (the papers' default order)."""
    return sorted_positions(orders.ascending(ranks)[len(ranks) - budget :])


@sampler()
def descending(budget: int, ranks: Tensor) -> Tensor:
    """Prune the hardest first: the easiest stay (the paper's *; ROP is descending by nli)."""
    return sorted_positions(orders.descending(ranks)[len(ranks) - budget :])


@sampler()
def random(budget: int, n: int, generator: torch.Generator) -> Tensor:
    """A uniform draw without replacement: the baseline."""
    return sorted_positions(orders.random_order(n, generator)[n - budget :])


@sampler()
def oracle(budget: int, mislabeled: Tensor, generator: torch.Generator) -> Tensor:
    """Prune the mislabeled first, then at random; needs the truth (PRUNE)."""
    return sorted_positions(orders.oracle(mislabeled, generator)[len(mislabeled) - budget :])


@sampler()
def window(budget: int, ranks: Tensor, offset: float = 0.0) -> Tensor:
    """Keep the ranks from an offset on: a window as wide as the budget (CG, window experiment).

    Args:    ranks (N,), 0 = easiest; offset: share of the samples below the window, 0 = the easiest stay
    Raises:  SpecError when the window ends above 1
    """
    n = len(ranks)
    start = round(offset * n)
    if start + budget > n and offset * n + budget < n + 1:  # the offset and the budget were both rounded up
        start = n - budget
    if offset < 0 or start + budget > n:
        raise SpecError(
            f"a window of {budget} of {n} samples at offset {offset:g}; allowed: 0 to {1 - budget / n:g}, "
            "so that it ends within the samples"
        )
    return sorted_positions(torch.argsort(ranks)[start : start + budget])


@sampler()
def ccs(
    budget: int, hardness: Tensor, ranks: Tensor, generator: torch.Generator, beta: float = 0.0, strata: int = 50
) -> Tensor:
    """Coverage-centric sampling: drop the hardest, then draw evenly over the range of the score.

    The floor(N beta) hardest are dropped (fewer where the budget needs them); the remaining range of the score is
    cut into strata of equal width, and from the smallest stratum up min(size, budget left / strata left) samples
    are drawn at random.

    Args:    hardness (N,), infinities count as the largest finite value; ranks (N,) decide ties among the hardest;
             beta in [0, 1]; strata >= 1
    Source:  Zheng et al. 2023, algorithm 1; ROP_B is ccs(nli). ROP's printed loop has misprints.
    """
    if not 0 <= beta <= 1 or strata < 1:
        raise SpecError(f"ccs with beta {beta:g} and {strata} strata; allowed: beta 0 to 1, strata 1 or more")
    n = len(hardness)
    dropped = min(int(n * beta), n - budget)
    left = torch.argsort(ranks)[: n - dropped]
    values = hardness[left].double()
    finite = values[torch.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    place = (values.clamp(low, high) - low) / max(high - low, torch.finfo(torch.float64).tiny)
    stratum = (place * strata).long().clamp_max(strata - 1)
    sizes = torch.bincount(stratum, minlength=strata)
    kept, remaining = [], budget
    filled = [int(s) for s in torch.argsort(sizes, stable=True) if sizes[s]]
    for done, s in enumerate(filled):
        members = left[stratum == s].sort().values
        take = min(len(members), remaining // (len(filled) - done))
        kept.append(members[torch.randperm(len(members), generator=generator)[:take]])
        remaining -= take
    return sorted_positions(torch.cat(kept)) if kept else left[:0]


@sampler()
def moderate(budget: int, features: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Keep the samples whose distance to the median of their class is next to the median distance, as many on each side.

    d_i = ||h_i - median of the features of class y_i||_2; in the order of d the middle ones stay. Where both sides
    cannot have the same number, the odd one is whichever of the two candidates is nearer to the median of d.

    Source: Xia et al. 2023. Ties are broken at random; a median of an even number is the mean of the middle two.
    """
    features = features.float()
    n, distance = len(labels), torch.empty(len(labels))
    for label in torch.unique(labels):
        members = (labels == label).nonzero()[:, 0]
        rows = features[members]
        distance[members] = (rows - median_row(rows)).norm(dim=1).cpu()
    shuffled = torch.randperm(n, generator=generator)
    order = shuffled[torch.argsort(distance[shuffled], stable=True)]
    start, odd = divmod(n - budget, 2)
    if odd:
        off = (distance[order[[start, start + budget]]] - median_row(distance)).abs()
        start += int(off[1] < off[0])
    return sorted_positions(order[start : start + budget])
