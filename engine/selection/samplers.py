"""Samplers: which samples stay. A sampler is one function and one line in SAMPLERS.

The first parameter is the budget, how many samples stay; the names of the others without a default say what it
reads (SAMPLER_INPUTS), those with a default are its options. Every sampler gives exactly the budget, and the same
inputs and seed give the same set.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.errors import ScoreInputError, SpecError, unknown_name
from engine.selection import orders
from engine.selection.coverage import craig, fdmat, kcenter, pr4rel, proportional

SAMPLER_INPUTS: dict[str, str] = {
    "n": "number of samples",
    "labels": "(N,) int64 given labels",
    "ranks": "(N,) ranks of a score, 0 = easiest",
    "hardness": "(N,) a score's values, turned so that higher = harder",
    "mislabelled": "(N,) bool, where the truth is known",
    "features": "(N, D) penultimate features",
    "probs": "(N, C) softmax output",
    "generator": "a seeded torch.Generator",
}
"""What a sampler may read."""


def ascending(budget: int, ranks: Tensor) -> Tensor:
    """Prune the easiest first: the hardest stay (the papers' default order)."""
    return _sorted(orders.ascending(ranks)[len(ranks) - budget :])


def descending(budget: int, ranks: Tensor) -> Tensor:
    """Prune the hardest first: the easiest stay (the paper's *; ROP is descending by nli)."""
    return _sorted(orders.descending(ranks)[len(ranks) - budget :])


def random(budget: int, n: int, generator: torch.Generator) -> Tensor:
    """A uniform draw without replacement: the baseline."""
    return _sorted(orders.random_order(n, generator)[n - budget :])


def oracle(budget: int, mislabelled: Tensor, generator: torch.Generator) -> Tensor:
    """Prune the mislabelled first, then at random; needs the truth (PRUNE)."""
    return _sorted(orders.oracle(mislabelled, generator)[len(mislabelled) - budget :])


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
    return _sorted(torch.argsort(ranks)[start : start + budget])


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
    return _sorted(torch.cat(kept)) if kept else left[:0]


def moderate(budget: int, features: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Keep the samples whose distance to the median of their class is closest to the median distance.

    d_i = ||h_i - median of the features of class y_i||_2; the smallest |d_i - median(d)| stay.

    Source: Xia et al. 2023. Ties are broken at random.
    """
    features = features.float()
    distance = torch.empty(len(labels))
    for label in torch.unique(labels):
        members = (labels == label).nonzero()[:, 0]
        rows = features[members]
        distance[members] = (rows - rows.median(0).values).norm(dim=1).cpu()
    shuffled = torch.randperm(len(labels), generator=generator)
    off = (distance - distance.median()).abs()[shuffled]
    return _sorted(shuffled[torch.argsort(off, stable=True)[:budget]])


@dataclass(frozen=True)
class Sampler:
    """One row of the table. inputs: what it reads of SAMPLER_INPUTS; options: what can be set, with defaults."""

    name: str
    title: str
    function: Callable[..., Tensor]
    inputs: tuple[str, ...]
    options: Mapping[str, Any]


def _row(function: Callable[..., Tensor]) -> Sampler:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return Sampler(
        function.__name__,
        (function.__doc__ or "").strip().split("\n")[0].rstrip("."),
        function,
        tuple(p.name for p in parameters if p.default is p.empty),
        {p.name: p.default for p in parameters if p.default is not p.empty},
    )


_FUNCTIONS = (random, ascending, descending, oracle, window, ccs, moderate, kcenter, craig, pr4rel, fdmat)

SAMPLERS: dict[str, Sampler] = {function.__name__: _row(function) for function in _FUNCTIONS}
"""Every sampler by name."""


def find_sampler(name: str) -> Sampler:
    """The sampler of that name; SpecError with the nearest one when there is none."""
    if name not in SAMPLERS:
        raise SpecError(unknown_name("sampler", name, SAMPLERS))
    return SAMPLERS[name]


def select(
    name: str, budget: int, inputs: Mapping[str, Any], *, class_balanced: bool = False, **options: Any
) -> Tensor:
    """The samples that stay.

    Args:    budget in 1 .. N; inputs: those the sampler names, and labels when class_balanced: the same share of
             each given class stays then (the rounding goes to the classes with the largest remainders, CG's
             protocol), each class sampled on its own; options: those of the sampler
    Returns: (budget,) int64 positions, ascending
    Raises:  SpecError for an unknown sampler, option or budget; ScoreInputError when an input is missing
    """
    sampler = find_sampler(name)
    for option in options:
        if option not in sampler.options:
            raise SpecError(unknown_name(f"option of {name}", option, sampler.options))
    needed = (*sampler.inputs, *(["labels"] if class_balanced else []))
    missing = [i for i in needed if i not in inputs and i != "n"]
    if missing:
        raise ScoreInputError(f"sampler '{name}' needs {missing[0]}: {SAMPLER_INPUTS[missing[0]]}")
    n = _count(inputs)
    if not 1 <= budget <= n:
        raise SpecError(f"a budget of {budget} samples was asked of {n}; allowed: 1 to {n}")
    given = {i: inputs[i] for i in sampler.inputs if i != "n"}
    if not class_balanced:
        return sampler.function(budget, **given, **({"n": n} if "n" in sampler.inputs else {}), **options)
    labels = inputs["labels"]
    kept = []
    for label, share in enumerate(proportional(torch.bincount(labels), budget)):
        members = (labels == label).nonzero()[:, 0]
        if share:
            own = {i: v[members] if isinstance(v, Tensor) else v for i, v in given.items()}
            own.update({"n": len(members)} if "n" in sampler.inputs else {})
            kept.append(members[sampler.function(share, **own, **options)])
    return _sorted(torch.cat(kept))


def _count(inputs: Mapping[str, Any]) -> int:
    for value in inputs.values():
        if isinstance(value, Tensor):
            return len(value)
    if "n" in inputs:
        return int(inputs["n"])
    raise ScoreInputError("a sampler was given no samples; it needs at least n or labels")


def _sorted(positions: Tensor) -> Tensor:
    return positions.sort().values
