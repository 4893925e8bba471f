"""The table of scores: what each one needs, which way it points, and where it comes from.

A score is a function with the decorator below, in any module of this package. The names of its parameters without a
default say which inputs it reads (`engine.runs.inputs` declares and computes them); parameters with a default are its
options. The catalog, the command line and the pages read this table, so there is no list to extend.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from engine import scores
from engine.errors import ScoreInputError, SpecError, unknown_name
from engine.scores.inputs import COSTS, INPUTS, Input, find_input

Direction = Literal["harder", "easier"]

Evidence = Literal["label", "hardness", "outlier", "duplicate", "picture", "none"]
"""What the suspicious end of a score is evidence of (`EVIDENCE`)."""

EVIDENCE: dict[Evidence, str] = {
    "label": "the label: it holds the given label against what networks, neighbors or the kernel say; only these "
    "scores may rank suspected labels",
    "hardness": "hardness alone: how uncertain, late or changing a prediction is, or how far a sample moves one; "
    "wrong labels need not lie at its end",
    "outlier": "a sample unlike the others, whatever its label",
    "duplicate": "a sample that is there twice",
    "picture": "how the picture looks: dark, blurred, of an odd shape",
    "none": "nothing: a baseline",
}
"""The kinds of evidence, and what they mean."""

CHECKED = 1 << 24
"""Values of an input that are checked at a time: what is made of all of them would take as much memory as they do."""

F = TypeVar("F", bound=Callable[..., Tensor])


@dataclass(frozen=True)
class Score:
    """One row of the catalog. `recorded` is set for scores whose value the recorder keeps at every epoch."""

    name: str
    title: str
    function: Callable[..., Tensor]
    higher_means: Direction
    evidence: Evidence
    value_range: tuple[float, float]
    source: str
    family: str
    inputs: tuple[str, ...]
    recorded: str | None
    epoch: int | None
    every_seed: bool
    flags_above: float | None
    flags_by: Callable[..., Tensor] | None
    version: int

    @property
    def cost(self) -> str:
        """What it needs, in one word: the dearest of its inputs."""
        return max((declared.cost for declared in self.declared), key=COSTS.index)

    @property
    def heavy(self) -> bool:
        """Whether one of its inputs may take longer than the training."""
        return any(find_input(name).heavy for name in self.all_inputs)

    @property
    def declared(self) -> tuple[Input, ...]:
        """The declarations of its inputs."""
        return tuple(find_input(name) for name in self.inputs)

    @property
    def rule(self) -> str:
        """The name of its rule, where it has one."""
        return self.flags_by.__name__ if self.flags_by else self.name

    @property
    def rule_inputs(self) -> tuple[str, ...]:
        """What its rule reads, where that is something else than its value."""
        return parameters_of(self.flags_by) if self.flags_by else ()

    @property
    def all_inputs(self) -> tuple[str, ...]:
        """What it and its rule read."""
        return tuple(dict.fromkeys((*self.inputs, *self.rule_inputs)))

    @property
    def needs_training(self) -> bool:
        return self.trains(())

    @property
    def reads_features(self) -> bool:
        """Whether it reads features, which may be another network's."""
        return any(declared.from_file == "features" for declared in self.declared)

    @property
    def features_suffice(self) -> bool:
        """Whether features of any network are all that it needs of training."""
        return self.needs_training and not self.trains({"features"})

    def trains(self, files: Collection[str]) -> bool:
        """Whether it needs a trained network where these options (`Input.from_file`) name files."""
        return any(i.cost == "training" and i.from_file not in files for i in self.declared)

    @property
    def needs_test(self) -> bool:
        """Whether it is held against the test split."""
        return any(declared.test for declared in self.declared)

    @property
    def dynamics(self) -> tuple[str, ...]:
        """Those of its inputs that are read from the recorded dynamics, some samples at a time."""
        return tuple(declared.name for declared in self.declared if declared.dynamics)

    @property
    def over_dynamics(self) -> bool:
        """Whether it reads the recorded dynamics, some samples at a time."""
        return bool(self.recorded) or bool(self.dynamics)

    @property
    def compares_classes(self) -> bool:
        """Whether it needs two classes, and two samples or more of each (`check_classes`)."""
        return self.family in ("geometry", "complexity")

    @property
    def on_device(self) -> bool:
        """Whether it is computed where the networks are, which is a GPU where there is one: those of neighborhoods."""
        return self.family == "geometry"

    @property
    def per_seed(self) -> bool:
        """Whether it is computed in each seed and averaged."""
        return self.over_dynamics or self.every_seed

    @property
    def takes_epoch(self) -> bool:
        """Whether it is of one epoch, so that name@epoch means something."""
        return bool(self.recorded) or (self.needs_training and not self.over_dynamics)

    def at(self, epochs: int) -> int:
        """The epoch (1 .. epochs) at which a single-epoch score is taken; the last where fewer were trained."""
        return min(self.epoch or epochs, epochs)


_REGISTRY: dict[str, Score] = {}


def score(
    *,
    higher_means: Direction,
    evidence: Evidence = "hardness",
    version: int = 1,
    value_range: tuple[float, float] = (-math.inf, math.inf),
    source: str,
    recorded: str | None = None,
    epoch: int | None = None,
    every_seed: bool = False,
    flags_above: float | None = None,
    flags_by: Callable[..., Tensor] | None = None,
) -> Callable[[F], F]:
    """Put a function into the catalog under its own name.

    Args:
        higher_means: what a larger value means: a harder or an easier sample
        evidence: what its hard end is evidence of, a key of EVIDENCE; without a word, never of a wrong label
        version: 1, and one more whenever the same inputs give other values: the next run computes them anew
        value_range: smallest and largest possible value
        source: paper and equation
        recorded: for a function of one epoch's logits or probs: the column of the dynamics its values are
            recorded in, every epoch
        epoch: for a function of one epoch: which; None = the last one trained
        every_seed: for a function of a network's inputs that is not recorded: mean over the networks of all seeds,
            not the network of the first seed alone
        flags_above: larger values flag a sample as mislabeled, by a rule of the score's name
        flags_by: a function of inputs, named by its parameters, whose values (N,) a rule of that function's name
            looks at instead
    """

    def add(function: F) -> F:
        name = function.__name__
        inputs = parameters_of(function)
        title = (function.__doc__ or "").strip().split("\n")[0].rstrip(".")
        if not title:
            raise TypeError(f"score {name} has no docstring")
        if evidence not in EVIDENCE:
            raise TypeError(f"score {name} is evidence of {evidence!r}; allowed: {', '.join(EVIDENCE)}")
        if version < 1:
            raise TypeError(f"score {name} has version {version}; allowed: 1 or more")
        if name in _REGISTRY and _REGISTRY[name].function.__module__ != function.__module__:
            raise TypeError(f"score {name} is defined twice")
        family = function.__module__.rpartition(".")[2]
        _REGISTRY[name] = Score(
            name,
            title,
            function,
            higher_means,
            evidence,
            value_range,
            source,
            family,
            inputs,
            recorded,
            epoch,
            every_seed,
            flags_above,
            flags_by,
            version,
        )
        return function

    return add


def parameters_of(function: Callable[..., Tensor]) -> tuple[str, ...]:
    """The names of a function's parameters without a default: what it reads."""
    return tuple(p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty)


@cache
def _load() -> None:
    for module in pkgutil.iter_modules(scores.__path__):
        importlib.import_module(f"{scores.__name__}.{module.name}")


def all_scores() -> dict[str, Score]:
    """Every score by name, family by family in the order of their names, and as they stand in their files."""
    _load()
    return dict(sorted(_REGISTRY.items(), key=lambda item: item[1].family))


def find_score(name: str) -> Score:
    """The score of that name; `el2n@5` is el2n after epoch 5. SpecError for an unknown name.

    Only scores of a single epoch take one.
    """
    base, at, epoch = name.partition("@")
    known = all_scores()
    if base not in known:
        raise SpecError(unknown_name("score", base, known, "winnow scores lists them"))
    found = known[base]
    if not at:
        return found
    if not found.takes_epoch:
        movable = ", ".join(s.name for s in known.values() if s.takes_epoch)
        raise SpecError(f"score '{name}': {base} is of no single epoch; '@epoch' goes with {movable}")
    if not epoch.isdigit() or int(epoch) < 1:
        raise SpecError(f"score '{name}': '{epoch}' is no epoch; write it like {base}@5")
    return replace(found, name=name, epoch=int(epoch), title=f"{found.title} (epoch {epoch})")


def resolve_scores(names: Sequence[str]) -> tuple[Score, ...]:
    """The scores of these names, once each.

    `all` stands for every one of the catalog, `standard` for those that take no longer than the training.
    """
    groups = {"all": list(all_scores()), "standard": [s.name for s in all_scores().values() if not s.heavy]}
    expanded = [n for name in names for n in groups.get(name, [name])]
    if not expanded:
        raise SpecError("no score was given; allowed: standard, all, or names from `winnow scores`")
    return tuple({n: find_score(n) for n in expanded}.values())


def recorded_scores() -> dict[str, Score]:
    """The single-epoch scores by the column of the dynamics that holds their values."""
    return {s.recorded: s for s in all_scores().values() if s.recorded}


def catalog_row(found: Score) -> dict[str, Any]:
    """What is stored of a score in score_catalog."""
    low, high = found.value_range
    return {
        "score": found.name,
        "title": found.title,
        "higher_means": found.higher_means,
        "evidence": found.evidence,
        "value_min": low,
        "value_max": high,
        "source": found.source,
        "cost": found.cost + (" (heavy)" if found.heavy else ""),
        "version": found.version,
    }


def compute_score(found: Score, inputs: Mapping[str, Any]) -> Tensor:
    """Call a score with the inputs it names.

    Raises: ScoreInputError when an input has a non-finite value (the first sample is named), when inputs are of
            different numbers of samples, or when the result is not one number, finite or infinite, for each sample
    """
    counts = check_inputs({name: inputs[name] for name in found.inputs})
    value = found.function(**{name: inputs[name] for name in found.inputs})
    shape = (counts,) if counts is not None else (value.numel(),)
    if value.shape != shape or torch.isnan(value).any():
        raise ScoreInputError(
            f"score '{found.name}' gave shape {tuple(value.shape)} or NaN; it must be {shape} numbers"
        )
    return value.float()


def check_inputs(inputs: Mapping[str, Any]) -> int | None:
    """The number of samples of a score's inputs; None where no input is declared, so that its shape cannot be checked.

    Raises: ScoreInputError when the numbers differ or a value is not finite
    """
    counts: dict[str, int] = {}
    for name, values in inputs.items():
        if not isinstance(values, Tensor):
            continue
        axis = INPUTS[name].axis if name in INPUTS else None
        if axis is not None:
            counts[name] = values.shape[axis]
        _check_finite(name, values, axis)
    if len(set(counts.values())) > 1:
        raise ScoreInputError(f"the inputs of a score are of different numbers of samples: {counts}")
    return next(iter(counts.values()), None)


def check_rows(name: str, values: Tensor, dims: int) -> None:
    """Raise ScoreInputError unless values has that many axes and only finite numbers; names the first bad sample."""
    if values.ndim != dims:
        raise ScoreInputError(f"{name} has shape {tuple(values.shape)}; expected {dims} axes")
    _check_finite(name, values, 0)


def _check_finite(name: str, values: Tensor, axis: int | None) -> None:
    """Raise ScoreInputError naming the first sample along an axis (None: row) with a value that is not finite."""
    parts = torch.split(values.flatten(), CHECKED) if values.is_floating_point() else ()
    if not all(bool(torch.isfinite(part).all()) for part in parts):
        row = (~torch.isfinite(values)).movedim(axis or 0, 0).reshape(values.shape[axis or 0], -1).any(1)
        what = "sample" if axis is not None else "row"
        raise ScoreInputError(
            f"{name} of {what} {int(row.nonzero()[0])} is not finite; lower the learning rate or check its input"
        )


def check_classes(labels: Tensor) -> None:
    """Raise ScoreInputError unless there are two classes or more, and two samples or more of each that occurs."""
    present, counts = torch.unique(labels, return_counts=True)
    if len(present) < 2:
        raise ScoreInputError(f"all {len(labels)} samples have the label {int(present[0])}; two classes are needed")
    if int(counts.min()) < 2:
        raise ScoreInputError(
            f"class {int(present[counts.argmin()])} has a single sample, so it cannot be compared with others of "
            "its class; add samples or leave the class out"
        )
