"""The tables of methods that propose labels, and of the learners behind some of them.

A method is a function with the decorator `relabel`, a learner one with `learner`, in any module of this package. The
parameters of a method say what it reads (RELABEL_INPUTS); the runs compute that (engine.runs.relabel). The help of the
command line and the guide read these tables, so there is no list to extend.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from engine import relabel as package
from engine.errors import ScoreInputError, SpecError, unknown_name
from engine.relabel.problem import Learned, Learner
from engine.scores.registry import parameters_of

F = TypeVar("F", bound=Callable[..., Tensor])
L = TypeVar("L", bound=Learner)

RELABEL_INPUTS: dict[str, str] = {
    "votes": "(N, C) share of the predictions of a run's networks, over seeds and epochs, that are each class",
    "neighbor_ids": "(N, K) nearest other samples by features",
    "labels": "(N,) given labels",
    "classes": "number of classes",
    "learned": "(S, N, C) probabilities by each seed's network, zeros for samples that it does not predict",
    "reached": "(S, N) bool, whether a seed's network predicts the sample",
}
"""What a method may read. No true label is among it."""

TOLERANCE = 1e-4
"""By which rounding may bring a confidence beyond 0 or 1."""


@dataclass(frozen=True)
class Relabeling:
    """One row of the table of methods.

    learner: the learner that it always trains; "" for one that trains none, or whose spec names it; options: those of a
    RelabelSpec that go with it
    """

    name: str
    title: str
    function: Callable[..., Tensor]
    source: str
    learner: str
    options: tuple[str, ...]
    inputs: tuple[str, ...]

    @property
    def trains(self) -> bool:
        """Whether networks are trained for it."""
        return "learned" in self.inputs


@dataclass(frozen=True)
class RobustLearner:
    """One row of the table of learners.

    cost: times as long as plain training of one network takes it; epochs: where none are given, for with fewer it hardly
    corrects labels; least: it takes no fewer
    """

    name: str
    title: str
    function: Callable[..., Learned]
    source: str
    cost: float
    epochs: int
    least: int


_METHODS: dict[str, Relabeling] = {}
_LEARNERS: dict[str, RobustLearner] = {}


def relabel(*, source: str, name: str = "", learner: str = "", options: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Put a function that gives probabilities (N, C) into the table of methods; a row of zeros proposes nothing.

    Args: source: where it comes from; name: "" = that of the function; learner, options: see `Relabeling`
    """

    def add(function: F) -> F:
        known, inputs = name or function.__name__, parameters_of(function)
        unknown = [i for i in inputs if i not in RELABEL_INPUTS]
        if unknown:
            raise TypeError(f"method {known} reads {unknown[0]}; allowed: {', '.join(RELABEL_INPUTS)}")
        if known in _METHODS and _METHODS[known].function.__module__ != function.__module__:
            raise TypeError(f"method {known} is defined twice")
        _METHODS[known] = Relabeling(known, _title(known, function), function, source, learner, options, inputs)
        return function

    return add


def learner(*, name: str, source: str, cost: float, epochs: int = 1, least: int = 1) -> Callable[[L], L]:
    """Put a function `(problem, seed, report) -> Learned` into the table of learners. Args: see `RobustLearner`"""

    def add(function: L) -> L:
        if name in _LEARNERS and _LEARNERS[name].function.__module__ != function.__module__:
            raise TypeError(f"learner {name} is defined twice")
        _LEARNERS[name] = RobustLearner(name, _title(name, function), function, source, cost, epochs, least)
        return function

    return add


def _title(name: str, function: Callable[..., Any]) -> str:
    title = (function.__doc__ or "").strip().split("\n")[0].rstrip(".")
    if not title:
        raise TypeError(f"{name} has no docstring")
    return title


@cache
def _load() -> None:
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def all_methods() -> dict[str, Relabeling]:
    """Every method by name, as they stand in their files."""
    _load()
    return dict(_METHODS)


def all_learners() -> dict[str, RobustLearner]:
    """Every learner by name, the cheapest first."""
    _load()
    return dict(sorted(_LEARNERS.items(), key=lambda item: item[1].cost))


def find_method(name: str) -> Relabeling:
    """The method of that name; SpecError with the nearest one when there is none."""
    known = all_methods()
    if name not in known:
        raise SpecError(unknown_name("method", name, known))
    return known[name]


def find_learner(name: str) -> RobustLearner:
    """The learner of that name; SpecError with the nearest one when there is none."""
    known = all_learners()
    if name not in known:
        raise SpecError(unknown_name("learner", name, known))
    return known[name]


def propose(method: Relabeling, inputs: Mapping[str, Any], labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The labels that a method proposes, where its most probable class is one alone and not the given one.

    Args:    inputs: those that the method names; labels (N,) the given ones
    Returns: positions (B,), ascending; the proposed labels (B,); confidence (B,) float32 in [0, 1]
    Raises:  ScoreInputError for an opinion of another shape, not finite, or with a probability outside [0, 1]
    """
    opinion = method.function(**{name: inputs[name] for name in method.inputs}).float()
    if opinion.ndim != 2 or len(opinion) != len(labels):
        raise ScoreInputError(
            f"method '{method.name}' gave shape {tuple(opinion.shape)} for {len(labels)} samples; it must be (N, C)"
        )
    outside = ~((opinion >= -TOLERANCE) & (opinion <= 1 + TOLERANCE)).all(1)
    if outside.any():
        i = int(outside.nonzero()[0])
        raise ScoreInputError(
            f"method '{method.name}' gave sample {i} the confidence {float(opinion[i].max()):g}; allowed: 0 to 1"
        )
    best = opinion.topk(2, dim=1)
    sure = best.values[:, 0] > best.values[:, 1]  # the smaller class number is no reason
    at = (sure & (best.indices[:, 0] != labels)).nonzero()[:, 0]
    return at, best.indices[at, 0], best.values[at, 0].clamp(0, 1)


def mean_of(learned: Tensor, reached: Tensor) -> Tensor:
    """The mean of the seeds' probabilities (S, N, C) over those that predict a sample (S, N); zeros where none does."""
    count = reached.sum(0).clamp_min(1)
    return torch.where(reached[:, :, None], learned, 0.0).sum(0) / count[:, None]
