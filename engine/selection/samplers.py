"""Samplers: which samples stay. A sampler is one function with the decorator below, in any module of this package.

Its first parameter is the budget, how many samples stay; the names of the others without a default say what it
reads (SAMPLER_INPUTS), those with a default are its options. Every sampler gives exactly the budget, and the same
inputs and seed give the same set. The command line's help and the guide read this table.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from engine import selection
from engine.errors import ScoreInputError, SpecError, unknown_name
from engine.scores.registry import parameters_of

F = TypeVar("F", bound=Callable[..., Tensor])

SAMPLER_INPUTS: dict[str, str] = {
    "n": "number of samples",
    "labels": "(N,) int64 given labels",
    "ranks": "(N,) ranks of a score, 0 = easiest",
    "hardness": "(N,) a score's values, turned so that higher = harder",
    "mislabeled": "(N,) bool, where the truth is known",
    "features": "(N, D) penultimate features",
    "probs": "(N, C) softmax output",
    "shares": "of a class-balanced choice how many samples of each class stay, else None",
    "parts": "what computes parts of the samples side by side",
    "generator": "a seeded torch.Generator",
}
"""What a sampler may read."""

Part = Callable[[Any, Any, Callable[[float], None]], Any]
"""What is computed of a part: (what it holds, what it is given, a report of the share done, which may raise)."""


class Parts(Protocol):
    """What computes parts of the samples, here or on other machines."""

    def ranges(self, n: int, multiple: int) -> list[tuple[int, int]]:
        """0 .. n in as many ranges as it pays to compute apart, which begin at multiples of a number."""

    def hold(self, value: Any) -> Any:
        """What a part holds, as `each` takes it: sent to where it is computed once. Nothing may change it."""

    def each(self, part: Part, held: Sequence[Any], given: Sequence[Any]) -> list[Any]:
        """What a function finds for each part, in order."""


class Whole:
    """All samples in one part, here."""

    def ranges(self, n: int, multiple: int) -> list[tuple[int, int]]:
        return [(0, n)]

    def hold(self, value: Any) -> Any:
        return value

    def each(self, part: Part, held: Sequence[Any], given: Sequence[Any]) -> list[Any]:
        return [part(value, item, lambda share: None) for value, item in zip(held, given, strict=True)]


@dataclass(frozen=True)
class Sampler:
    """One row of the table. inputs: what it reads of SAMPLER_INPUTS; options: what can be set, with defaults;
    weights: a function of some of SAMPLER_INPUTS and of `kept` that weighs the samples it keeps, None for none."""

    name: str
    title: str
    function: Callable[..., Tensor]
    inputs: tuple[str, ...]
    options: Mapping[str, Any]
    weights: Callable[..., Tensor] | None

    @property
    def reads_score(self) -> bool:
        """Whether it is a sampler of a score, written NAME(SCORE)."""
        return bool({"ranks", "hardness"} & set(self.inputs))

    @property
    def reads_network(self) -> bool:
        """Whether it reads what a trained network gives."""
        return bool({"features", "probs"} & set(self.inputs))


_REGISTRY: dict[str, Sampler] = {}


def sampler(*, weights: Callable[..., Tensor] | None = None) -> Callable[[F], F]:
    """Put a function into the table of samplers under its own name.

    Args: weights: for a sampler whose samples count differently in training: see `Sampler`
    """

    def add(function: F) -> F:
        name = function.__name__
        budget, *inputs = parameters_of(function)
        title = (function.__doc__ or "").strip().split("\n")[0].rstrip(".")
        unknown = [i for i in inputs if i not in SAMPLER_INPUTS]
        if budget != "budget" or unknown:
            raise TypeError(f"sampler {name} reads {unknown or budget}; allowed: budget, {', '.join(SAMPLER_INPUTS)}")
        if not title:
            raise TypeError(f"sampler {name} has no docstring")
        if name in _REGISTRY and _REGISTRY[name].function.__module__ != function.__module__:
            raise TypeError(f"sampler {name} is defined twice")
        parameters = inspect.signature(function).parameters.values()
        options = {p.name: p.default for p in parameters if p.default is not p.empty}
        _REGISTRY[name] = Sampler(name, title, function, tuple(inputs), options, weights)
        return function

    return add


@cache
def _load() -> None:
    for module in pkgutil.iter_modules(selection.__path__):
        importlib.import_module(f"{selection.__name__}.{module.name}")


def all_samplers() -> dict[str, Sampler]:
    """Every sampler by name, file by file in the order of their names, and as they stand in their files."""
    _load()
    return dict(sorted(_REGISTRY.items(), key=lambda item: item[1].function.__module__))


def find_sampler(name: str) -> Sampler:
    """The sampler of that name; SpecError with the nearest one when there is none."""
    known = all_samplers()
    if name not in known:
        raise SpecError(unknown_name("sampler", name, known))
    return known[name]


def select(
    name: str,
    budget: int,
    inputs: Mapping[str, Any],
    *,
    class_balanced: bool = False,
    parts: Parts | None = None,
    **options: Any,
) -> Tensor:
    """The samples that stay.

    Args:    budget in 1 .. N; inputs: those the sampler names, and labels when class_balanced: the same share of
             each given class stays then (the rounding goes to the classes with the largest remainders, CG's
             protocol), each class sampled on its own, unless the sampler reads the shares; parts: where a sampler that
             computes in parts does so, None = here; options: those of the sampler
    Returns: (budget,) int64 positions, ascending
    Raises:  SpecError for an unknown sampler, option or budget; ScoreInputError when an input is missing
    """
    found = find_sampler(name)
    for option in options:
        if option not in found.options:
            raise SpecError(unknown_name(f"option of {name}", option, found.options))
    needed = (*found.inputs, *(["labels"] if class_balanced else []))
    missing = [i for i in needed if i not in inputs and i not in ("n", "shares", "parts")]
    if missing:
        raise ScoreInputError(f"sampler '{name}' needs {missing[0]}: {SAMPLER_INPUTS[missing[0]]}")
    n = _count(inputs)
    if not 1 <= budget <= n:
        raise SpecError(f"the budget is {budget} of {n} samples; allowed: 1 to {n}")
    given = {i: inputs[i] for i in found.inputs if i not in ("n", "shares", "parts")}
    given |= {"parts": parts or Whole()} if "parts" in found.inputs else {}
    shares = proportional(torch.bincount(inputs["labels"]), budget) if class_balanced else None
    if "shares" in found.inputs:
        return found.function(budget, **given, shares=shares, **options)
    if shares is None:
        return found.function(budget, **given, **({"n": n} if "n" in found.inputs else {}), **options)
    labels = inputs["labels"]
    kept = []
    for label, share in enumerate(shares):
        members = (labels == label).nonzero()[:, 0]
        if share:
            own = {i: v[members] if isinstance(v, Tensor) else v for i, v in given.items()}
            own.update({"n": len(members)} if "n" in found.inputs else {})
            kept.append(members[found.function(share, **own, **options)])
    return sorted_positions(torch.cat(kept))


def proportional(sizes: Tensor, budget: int) -> list[int]:
    """The budget split in proportion to sizes, by largest remainders: exact, and never more than a size."""
    total = int(sizes.sum())
    # In whole numbers, so that a remainder is not a matter of rounding.
    shares, remainder = sizes * budget // total, sizes * budget % total
    shares[torch.argsort(remainder, descending=True, stable=True)[: budget - int(shares.sum())]] += 1
    return [int(s) for s in shares]


def _count(inputs: Mapping[str, Any]) -> int:
    for value in inputs.values():
        if isinstance(value, Tensor):
            return len(value)
    if "n" in inputs:
        return int(inputs["n"])
    raise ScoreInputError("a sampler was given no samples; it needs at least n or labels")


def sorted_positions(positions: Tensor) -> Tensor:
    """Positions in the order in which every sampler gives them: ascending."""
    return positions.sort().values
