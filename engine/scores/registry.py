"""The table of scores: what each one needs, which way it points, and where it comes from.

A score is a function with the decorator below. The names of its parameters without a default say which inputs
the pipeline has to compute; parameters with a default are its options. Nothing else has to be told: the
catalogue, the command line and the pages follow.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from engine.errors import ScoreInputError, SpecError, unknown_name

FAMILIES = ("prediction", "dynamics", "baseline")
"""The modules of this package that hold scores."""

Direction = Literal["harder", "easier"]

INPUTS: dict[str, tuple[str, str]] = {
    # name: (what it is, what computing it costs)
    "logits": ("(N, C) logits at one epoch of one seed", "training"),
    "probs": ("(N, C) softmax of the logits", "training"),
    "labels": ("(N,) int64 given labels", "free"),
    "p_given": ("(T, N) probability of the given label per epoch of one seed", "training"),
    "margin": ("(T, N) margin per epoch of one seed", "training"),
    "loss": ("(T, N) cross-entropy per epoch of one seed", "training"),
    "correct": ("(T, N) bool, predicted = given label, per epoch of one seed", "training"),
    "generator": ("a seeded torch.Generator", "free"),
}
"""What a score may ask for. T epochs, N samples, C classes."""

PREDICTION_INPUTS = {"logits", "probs", "labels"}
TRAJECTORY_INPUTS = {"p_given", "margin", "loss", "correct"}

F = TypeVar("F", bound=Callable[..., Tensor])


@dataclass(frozen=True)
class Score:
    """One row of the catalogue. `recorded` and `epoch` are set for scores of a single epoch's prediction."""

    name: str
    title: str
    function: Callable[..., Tensor]
    higher_means: Direction
    value_range: tuple[float, float]
    source: str
    family: str
    inputs: tuple[str, ...]
    recorded: str | None
    epoch: int | None

    @property
    def cost(self) -> str:
        """What it needs, in one word: the dearest of its inputs."""
        return "training" if any(INPUTS[i][1] == "training" for i in self.inputs) else "free"

    @property
    def needs_training(self) -> bool:
        return self.cost == "training"

    @property
    def per_seed(self) -> bool:
        """Whether it is computed in each seed and averaged."""
        return bool(self.recorded) or bool(set(self.inputs) & TRAJECTORY_INPUTS)

    def at(self, epochs: int) -> int:
        """The epoch (1 .. epochs) at which a single-epoch score is taken; the last where fewer were trained."""
        return min(self.epoch or epochs, epochs)


_REGISTRY: dict[str, Score] = {}


def score(
    *,
    higher_means: Direction,
    value_range: tuple[float, float] = (-math.inf, math.inf),
    source: str,
    recorded: str | None = None,
    epoch: int | None = None,
) -> Callable[[F], F]:
    """Put a function into the catalogue under its own name.

    Args:
        higher_means: what a larger value says of the sample
        value_range: smallest and largest possible value
        source: paper and equation
        recorded: for a function of one epoch's logits or probs: the column of the dynamics its values are
            recorded in, every epoch
        epoch: for the same: the epoch whose value is the score; None = the last one trained
    """

    def add(function: F) -> F:
        name = function.__name__
        parameters = inspect.signature(function).parameters
        inputs = tuple(p.name for p in parameters.values() if p.default is p.empty)
        unknown = [i for i in inputs if i not in INPUTS]
        title = (function.__doc__ or "").strip().split("\n")[0].rstrip(".")
        if unknown:
            raise TypeError(f"score {name} asks for {unknown}; the pipeline knows {sorted(INPUTS)}")
        if not title:
            raise TypeError(f"score {name} has no docstring")
        if name in _REGISTRY and _REGISTRY[name].function.__module__ != function.__module__:
            raise TypeError(f"score {name} is defined twice")
        family = function.__module__.rpartition(".")[2]
        _REGISTRY[name] = Score(
            name, title, function, higher_means, value_range, source, family, inputs, recorded, epoch
        )
        return function

    return add


@cache
def _load() -> None:
    for family in FAMILIES:
        importlib.import_module(f"engine.scores.{family}")


def all_scores() -> dict[str, Score]:
    """Every score by name, in the order of the families and of their files."""
    _load()
    return dict(sorted(_REGISTRY.items(), key=lambda item: FAMILIES.index(item[1].family)))


def find_score(name: str) -> Score:
    """The score of that name; `el2n@5` is el2n after epoch 5. SpecError for an unknown name.

    Only scores of a single epoch's prediction take an epoch.
    """
    base, at, epoch = name.partition("@")
    scores = all_scores()
    if base not in scores:
        raise SpecError(unknown_name("score", base, scores, "winnow scores lists them"))
    found = scores[base]
    if not at:
        return found
    if found.recorded is None:
        movable = ", ".join(s.name for s in scores.values() if s.recorded)
        raise SpecError(f"score '{name}': {base} reads all epochs; '@epoch' goes with {movable}")
    if not epoch.isdigit() or int(epoch) < 1:
        raise SpecError(f"score '{name}': '{epoch}' is no epoch; write it like {base}@5")
    return Score(**{**found.__dict__, "name": name, "epoch": int(epoch), "title": f"{found.title} (epoch {epoch})"})


def resolve_scores(names: Sequence[str]) -> tuple[Score, ...]:
    """The scores asked for, once each; `all` stands for every one of the catalogue."""
    expanded = [n for name in names for n in (all_scores() if name == "all" else [name])]
    if not expanded:
        raise SpecError("no score was asked; allowed: all, or names from `winnow scores`")
    return tuple({n: find_score(n) for n in expanded}.values())


def recorded_scores() -> dict[str, Score]:
    """The single-epoch scores by the column of the dynamics that holds their values."""
    return {s.recorded: s for s in all_scores().values() if s.recorded}


def catalog_row(found: Score) -> dict[str, Any]:
    """One row of the view score_catalog."""
    low, high = found.value_range
    return {
        "score": found.name,
        "title": found.title,
        "higher_means": found.higher_means,
        "value_min": low,
        "value_max": high,
        "source": found.source,
        "cost": found.cost,
    }


def compute_score(found: Score, inputs: Mapping[str, Any]) -> Tensor:
    """Call a score with the inputs it names. ScoreInputError when the result is not one finite-or-inf value each."""
    value = found.function(**{name: inputs[name] for name in found.inputs})
    if value.ndim != 1 or torch.isnan(value).any():
        raise ScoreInputError(f"score '{found.name}' gave shape {tuple(value.shape)} or NaN; it must give (N,) numbers")
    return value.float()


def check_rows(name: str, values: Tensor, dims: int) -> None:
    """Raise ScoreInputError unless values has that many axes and only finite numbers; names the first bad sample."""
    if values.ndim != dims:
        raise ScoreInputError(f"{name} has shape {tuple(values.shape)}; expected {dims} axes")
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        rows = finite.all(-1) if name in ("logits", "probs") else finite.all(0)
        bad = int((~rows).nonzero()[0])
        raise ScoreInputError(f"{name} of sample {bad} is not finite; lower the learning rate or check its input")
