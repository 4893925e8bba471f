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

FAMILIES = ("prediction", "dynamics", "geometry", "complexity", "gradient", "mixture", "lstm", "baseline")
"""The modules of this package that hold scores."""

Direction = Literal["harder", "easier"]

COSTS = ("free", "inputs", "training")
"""What an input needs, the cheapest first: nothing, the samples' own inputs, trained networks."""


@dataclass(frozen=True)
class Input:
    """Something a score may ask for.

    axis: the one along which the samples lie; None where none does. heavy: it takes longer than the training itself
    may: N^3, a backward pass for each sample, or networks of its own.
    """

    what: str
    cost: str
    axis: int | None = 0
    heavy: bool = False


INPUTS: dict[str, Input] = {
    "labels": Input("(N,) int64 given labels", "free"),
    "generator": Input("a seeded torch.Generator", "free", None),
    "logits": Input("(N, C) logits of one network at one epoch", "training"),
    "probs": Input("(N, C) softmax of the logits", "training"),
    "p_given": Input("(T, N) probability of the given label per epoch of one seed", "training", 1),
    "margin": Input("(T, N) margin per epoch of one seed", "training", 1),
    "loss": Input("(T, N) cross-entropy per epoch of one seed", "training", 1),
    "correct": Input("(T, N) bool, predicted = given label, per epoch of one seed", "training", 1),
    "features": Input("(N, D) penultimate features of one network at one epoch", "training"),
    "neighbor_ids": Input("(N, K) int64 nearest other samples by cosine of the features, nearest first", "training"),
    "similarities": Input("(N, K) their cosines, -1..1", "training"),
    "head_weight": Input("(C, D) weight of the network's last linear layer", "training", None),
    "head_bias": Input("(C,) bias of the network's last linear layer, zeros where it has none", "training", None),
    "validation_features": Input("(M, D) features of the test split in the same network", "training", None),
    "alpha": Input(
        "(R, N) float64 H^-1 y of the samples' own inputs (scores.complexity), R runs", "inputs", 1, heavy=True
    ),
    "inverse_diagonal": Input("(R, N) float64 diagonal of the same H^-1, > 0", "inputs", 1, heavy=True),
    "kernel_labels": Input("(R, N) float64 H y of the same", "inputs", 1, heavy=True),
    "feature_alpha": Input(
        "(R, N) float64 H^-1 y of the features of one network at one epoch", "training", 1, heavy=True
    ),
    "feature_inverse_diagonal": Input("(R, N) float64 diagonal of the same H^-1, > 0", "training", 1, heavy=True),
    "gradient_norms": Input(
        "(N,) norm of each sample's loss gradient in one network at one epoch", "training", heavy=True
    ),
    "checkpoint_probs": Input("(E, N, C) softmax output of one network at some epochs", "training", 1),
    "checkpoint_squares": Input("(E, N) squared norms of its features at them", "training", 1),
    "checkpoint_rates": Input("(E,) learning rates at them", "training", None),
    "validation_influence": Input("(N,) mean over the test split of the influence on its losses", "training"),
    "heldout_probs": Input("(N, C) softmax output of networks not trained on the sample", "training", heavy=True),
    "incv_selected": Input("(N,) bool, kept by iterative cross-validation", "training", heavy=True),
    "cscores": Input("(N,) share of networks not trained on a sample that predict its label", "training", heavy=True),
    "detector": Input("a noise detector (scores.detector)", "free", None),
    "validation_labels": Input("(M,) int64 labels of the test split", "free", None),
}
"""What a score may ask for. T epochs, N samples, C classes, D features, K neighbours, M test samples.

`engine.runs.inputs` computes them, one function each; those of a network come from one seed at one epoch.
"""

FEATURE_INPUTS = {
    "features",
    "neighbor_ids",
    "similarities",
    "validation_features",
    "feature_alpha",
    "feature_inverse_diagonal",
}
"""Those that any features will do for, also of a network trained elsewhere."""

TRAJECTORY_INPUTS = {"p_given", "margin", "loss", "correct"}
"""Read from the recorded dynamics, some samples at a time."""

F = TypeVar("F", bound=Callable[..., Tensor])


@dataclass(frozen=True)
class Score:
    """One row of the catalogue. `recorded` is set for scores whose value the recorder keeps at every epoch."""

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
    every_seed: bool
    flags_above: float | None
    flags_by: Callable[..., Tensor] | None
    version: int = 1

    @property
    def cost(self) -> str:
        """What it needs, in one word: the dearest of its inputs."""
        return max((INPUTS[i].cost for i in self.inputs), key=COSTS.index)

    @property
    def heavy(self) -> bool:
        """Whether one of its inputs may take longer than the training."""
        return any(INPUTS[i].heavy for i in self.all_inputs)

    @property
    def rule(self) -> str:
        """The name of its rule, where it has one."""
        return self.flags_by.__name__ if self.flags_by else self.name

    @property
    def rule_inputs(self) -> tuple[str, ...]:
        """What its rule reads, where that is something else than its value."""
        return _parameters(self.flags_by) if self.flags_by else ()

    @property
    def all_inputs(self) -> tuple[str, ...]:
        """What it and its rule read."""
        return tuple(dict.fromkeys((*self.inputs, *self.rule_inputs)))

    @property
    def needs_training(self) -> bool:
        return COSTS.index(self.cost) >= COSTS.index("training")

    @property
    def reads_features(self) -> bool:
        """Whether it reads features."""
        return bool(set(self.inputs) & FEATURE_INPUTS)

    @property
    def features_suffice(self) -> bool:
        """Whether features of any network are all that it needs of training."""
        asked = {name for name in self.inputs if COSTS.index(INPUTS[name].cost) >= COSTS.index("training")}
        return bool(asked) and asked <= FEATURE_INPUTS

    @property
    def needs_test(self) -> bool:
        """Whether it is held against the test split."""
        return any(name.startswith("validation_") for name in self.inputs)

    @property
    def over_dynamics(self) -> bool:
        """Whether it reads the recorded dynamics, some samples at a time."""
        return bool(self.recorded) or bool(set(self.inputs) & TRAJECTORY_INPUTS)

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
    value_range: tuple[float, float] = (-math.inf, math.inf),
    source: str,
    recorded: str | None = None,
    epoch: int | None = None,
    every_seed: bool = False,
    flags_above: float | None = None,
    flags_by: Callable[..., Tensor] | None = None,
    version: int = 1,
) -> Callable[[F], F]:
    """Put a function into the catalogue under its own name.

    Args:
        higher_means: what a larger value says of the sample
        value_range: smallest and largest possible value
        source: paper and equation
        recorded: for a function of one epoch's logits or probs: the column of the dynamics its values are
            recorded in, every epoch
        epoch: for a function of one epoch: which; None = the last one trained
        every_seed: for a function of a network's inputs that is not recorded: mean over the networks of all seeds,
            not the network of the first seed alone
        flags_above: larger values flag a sample as mislabelled, by a rule of the score's name
        flags_by: a function of inputs, named by its parameters, whose values (N,) a rule of that function's name
            looks at instead
    """

    def add(function: F) -> F:
        name = function.__name__
        inputs = _parameters(function)
        unknown = [i for i in (*inputs, *(_parameters(flags_by) if flags_by else ())) if i not in INPUTS]
        title = (function.__doc__ or "").strip().split("\n")[0].rstrip(".")
        if unknown:
            raise TypeError(f"score {name} asks for {unknown}; the pipeline knows {sorted(INPUTS)}")
        if not title:
            raise TypeError(f"score {name} has no docstring")
        if name in _REGISTRY and _REGISTRY[name].function.__module__ != function.__module__:
            raise TypeError(f"score {name} is defined twice")
        family = function.__module__.rpartition(".")[2]
        _REGISTRY[name] = Score(
            name,
            title,
            function,
            higher_means,
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


def _parameters(function: Callable[..., Tensor]) -> tuple[str, ...]:
    return tuple(p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty)


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

    Only scores of a single epoch take one.
    """
    base, at, epoch = name.partition("@")
    scores = all_scores()
    if base not in scores:
        raise SpecError(unknown_name("score", base, scores, "winnow scores lists them"))
    found = scores[base]
    if not at:
        return found
    if not found.takes_epoch:
        movable = ", ".join(s.name for s in scores.values() if s.takes_epoch)
        raise SpecError(f"score '{name}': {base} is of no single epoch; '@epoch' goes with {movable}")
    if not epoch.isdigit() or int(epoch) < 1:
        raise SpecError(f"score '{name}': '{epoch}' is no epoch; write it like {base}@5")
    return Score(**{**found.__dict__, "name": name, "epoch": int(epoch), "title": f"{found.title} (epoch {epoch})"})


def resolve_scores(names: Sequence[str]) -> tuple[Score, ...]:
    """The scores asked for, once each.

    `all` stands for every one of the catalogue, `standard` for those that take no longer than the training.
    """
    groups = {"all": list(all_scores()), "standard": [s.name for s in all_scores().values() if not s.heavy]}
    expanded = [n for name in names for n in groups.get(name, [name])]
    if not expanded:
        raise SpecError("no score was asked; allowed: standard, all, or names from `winnow scores`")
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
        "cost": found.cost + (" (heavy)" if found.heavy else ""),
        "version": found.version,
    }


def compute_score(found: Score, inputs: Mapping[str, Any]) -> Tensor:
    """Call a score with the inputs it names.

    Raises: ScoreInputError when an input has a non-finite value (the first sample is named), when inputs are of
            different numbers of samples, or when the result is not one number, finite or infinite, for each sample
    """
    n = check_inputs({name: inputs[name] for name in found.inputs})
    value = found.function(**{name: inputs[name] for name in found.inputs})
    if value.shape != (n,) or torch.isnan(value).any():
        raise ScoreInputError(f"score '{found.name}' gave shape {tuple(value.shape)} or NaN; it must be ({n},) numbers")
    return value.float()


def check_inputs(inputs: Mapping[str, Any]) -> int:
    """The number of samples of a score's inputs; ScoreInputError when they differ or a value is not finite."""
    counts: dict[str, int] = {}
    for name, values in inputs.items():
        if not isinstance(values, Tensor):
            continue
        axis = INPUTS[name].axis
        if axis is not None:
            counts[name] = values.shape[axis]
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            row = (~torch.isfinite(values)).movedim(axis or 0, 0).reshape(values.shape[axis or 0], -1).any(1)
            what = "sample" if axis is not None else "row"
            raise ScoreInputError(
                f"{name} of {what} {int(row.nonzero()[0])} is not finite; lower the learning rate or check its input"
            )
    if len(set(counts.values())) != 1:
        raise ScoreInputError(f"the inputs of a score are of different numbers of samples: {counts}")
    return next(iter(counts.values()))


def check_rows(name: str, values: Tensor, dims: int) -> None:
    """Raise ScoreInputError unless values has that many axes and only finite numbers; names the first bad sample."""
    if values.ndim != dims:
        raise ScoreInputError(f"{name} has shape {tuple(values.shape)}; expected {dims} axes")
    check_inputs({name: values})


def check_classes(labels: Tensor) -> None:
    """Raise ScoreInputError unless there are two classes or more, and two samples or more of each that occurs."""
    present, counts = torch.unique(labels, return_counts=True)
    if len(present) < 2:
        raise ScoreInputError(f"all {len(labels)} samples have the label {int(present[0])}; two classes are needed")
    if int(counts.min()) < 2:
        raise ScoreInputError(
            f"class {int(present[counts.argmin()])} has a single sample, so nothing can be said about it against its "
            "own class; add samples or leave the class out"
        )
