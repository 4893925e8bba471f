"""The inputs of one run, each computed when a score first reads it and kept for the others; and how one is declared."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from engine.data.loader import Samples, joined
from engine.errors import SpecError
from engine.features.own_file import is_own_file
from engine.features.stored import open_stored
from engine.runs.cluster import HERE, Shared, Tasks
from engine.runs.work import Work
from engine.scores.gradient import checkpoint_epochs
from engine.scores.inputs import INPUTS, Input, declare_input, find_input
from engine.scores.registry import Score, all_scores
from engine.spec import RunSpec, TrainingSpec
from engine.store.progress import Piece, Reporter
from engine.store.workspace import Workspace
from engine.training.kept import load_network
from engine.training.loop import Normalization, evaluation_pass

F = TypeVar("F", bound=Callable[..., Any])


class At(NamedTuple):
    """One network: a seed, after an epoch (1 .. T)."""

    seed: int
    epoch: int


Key = tuple[str, At | None]
"""An input, and the network that it is of."""


def provides(
    *,
    cost: str = "training",
    heavy: bool = False,
    from_file: str = "",
    checkpoints: bool = False,
    test: bool = False,
    own_networks: bool = False,
    own_inputs: bool = False,
    along: Mapping[str, str] | None = None,
    seconds: Callable[[Work], float] | None = None,
    check: Callable[[RunSpec, Samples], None] | None = None,
) -> Callable[[F], F]:
    """Declare an input: a function (inputs of the run, network) -> value, under its own name.

    The first line of its docstring says what it is, the shape first: "(N, C) logits of one network". The network is
    an `At`, or None where the input is not of a network trained in this run. The fields are those of
    `engine.scores.registry.Input`.

    Args: along: other inputs that the function computes with its own, each with what it is. It then returns a tuple:
          its own value, and theirs in this order
    """

    def add(function: F) -> F:
        name = function.__name__
        what = (function.__doc__ or "").strip().split("\n")[0].rstrip(".")
        if not what:
            raise TypeError(f"input {name} has no docstring")
        for each, meaning in {name: what, **(along or {})}.items():
            declare_input(
                Input(
                    each,
                    meaning,
                    cost,
                    heavy,
                    from_file,
                    checkpoints=checkpoints,
                    test=test,
                    own_networks=own_networks,
                    own_inputs=own_inputs,
                    beside="" if each == name else name,
                    seconds=seconds,
                    check=check,
                    compute=function,
                )
            )
        return function

    return add


@dataclass
class Inputs:
    """The inputs of one run.

    own: the training set with the dataset's own inputs, on the device `meta` where no score reads them; samples, test: the
    splits as the networks see them, which may be by stored features; folder: where the weights are; partial: where finished
    pieces are kept for a run that is resumed; generator: one for each purpose; tasks: where they are computed; notes: what a
    reader of the run should know.
    """

    workspace: Workspace
    spec: RunSpec
    own: Samples
    samples: Samples
    test: Samples | None
    normalization: Normalization
    folder: Path
    partial: Path
    generator: Callable[[str], torch.Generator]
    progress: Reporter
    tasks: Tasks = HERE
    notes: list[str] = field(default_factory=list)
    _known: dict[Key, Any] = field(default_factory=dict)
    _along: dict[Key, Any] = field(default_factory=dict)
    _seconds: dict[Key, float] = field(default_factory=dict)
    _read: dict[Key, set[Key]] = field(default_factory=dict)
    _computing: list[Key] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return self.samples.device

    @property
    def training(self) -> TrainingSpec:
        assert self.spec.training is not None
        return self.spec.training

    @property
    def last(self) -> At | None:
        """The first seed's network at the end of training; None where the features are not of a trained network."""
        return None if self.spec.features else At(0, self.training.epochs)

    @cached_property
    def shared_samples(self) -> Shared[Samples]:
        """The training set where tasks run: held here, so that all cross-validations use it."""
        return self.tasks.share(self.samples)

    def get(self, name: str, at: At | None = None) -> Any:
        """One input, of the network `at` where it is a network's. Computed once."""
        key = _key(name, at)
        if self._computing:
            self._read[self._computing[-1]].add(key)
        if key not in self._known:
            self._read[key] = set()
            self._computing.append(key)
            started, before = time.perf_counter(), sum(self._seconds.values())
            self._known[key] = self._compute(find_input(name), at)
            self._computing.pop()
            others = sum(self._seconds.values()) - before
            self._seconds[key] = time.perf_counter() - started - others
        return self._known[key]

    def _compute(self, declared: Input, at: At | None) -> Any:
        if declared.beside:
            self.get(declared.beside, at)
            return self._along[_key(declared.name, at)]
        if declared.compute is None:
            raise TypeError(f"input {declared.name} is not computed for a run: no function provides it")
        value = declared.compute(self, at)
        along = _along_with(declared.name)
        if not along:
            return value
        own, *others = value
        self._along.update(zip((_key(name, at) for name in along), others, strict=True))
        return own

    def of_score(self, found: Score, seed: int = 0) -> dict[str, Any]:
        """Everything a score and its rule read, in one seed, but for the recorded dynamics."""
        at, own = self.place_of(found, seed), {"generator": self.generator(found.name)}
        own = {name: value for name, value in own.items() if name in found.all_inputs}
        names = [name for name in found.all_inputs if not find_input(name).dynamics and name not in own]
        costly = [name for name in names if _key(name, at) not in self._known and find_input(name).seconds]
        seeds = self.training.seeds if found.every_seed and at else 1
        for i, name in enumerate(costly):
            with self.piece(seed * len(costly) + i, seeds * len(costly)):
                self.get(name, at)
        read = {name: self.get(name, at) for name in names}
        if found.on_device:
            read = {name: value.to(self.device) if isinstance(value, Tensor) else value for name, value in read.items()}
        return own | read

    @contextlib.contextmanager
    def piece(self, index: int, count: int) -> Iterator[None]:
        """Report what is computed in this context as one of several pieces of equal length."""
        whole = self.progress
        self.progress = Piece(whole, index, count)
        try:
            yield
        finally:
            self.progress = whole

    def seconds_of(self, found: Score, seed: int = 0) -> float:
        """What the inputs of a score took, those that it shares with others included, the training not."""
        at = self.place_of(found, seed)
        left = [_key(name, at) for name in found.all_inputs]
        counted: set[Key] = set()
        while left:
            key = left.pop()
            if key not in counted:
                counted.add(key)
                left += self._read.get(key, ())
        return sum(self._seconds.get(key, 0.0) for key in counted)

    def place_of(self, found: Score, seed: int = 0) -> At | None:
        """The network whose inputs a score reads in a seed; None where it needs none of this run's."""
        return At(seed, found.at(self.training.epochs)) if needs_training(found, self.spec) else None

    def network(self, at: At) -> nn.Module:
        """The trained network, on the run's device, in evaluation mode."""
        shape = self.samples.shape
        return load_network(self.folder, self.training, shape, self.samples.classes, at.seed, at.epoch, self.device)

    def passed(self, samples: Samples, at: At, function: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        """function(network, batch of inputs) over all samples, in order and in evaluation mode, float32 on the CPU."""
        parts = []
        for positions, values in evaluation_pass(
            self.network(at), samples, self.normalization, function, heartbeat=self.progress.heartbeat
        ):
            parts.append(values.float().cpu())
            self.progress.step(int(positions[-1]) + 1, len(samples))
        return torch.cat(parts)

    def judged(self) -> Samples:
        """The training samples, and behind them those of the test split where there is one, as the networks see them."""
        if self.test is None:
            return self.samples
        key = self.training.trained_on  # of features that lie in one file, and need no copy
        rows = open_stored(self.workspace, self.spec.dataset, key) if key else None
        return joined(self.samples, self.test, rows)

    def validation(self) -> Samples:
        """The test split; SpecError where there is none."""
        return require_test(self.spec, self.test)


def _key(name: str, at: At | None) -> Key:
    return name, at if find_input(name).cost == "training" else None


def _along_with(name: str) -> list[str]:
    """The inputs that another one's function computes with its own, in the order in which they are declared."""
    return [declared.name for declared in INPUTS.values() if declared.beside == name]


def needs_training(found: Score, spec: RunSpec) -> bool:
    """Whether a score needs a network trained in this run."""
    files = {declared.from_file for declared in found.declared} - {""}
    return found.trains({option for option in files if getattr(spec, option)})


def reads_networks(found: Score, spec: RunSpec) -> bool:
    """Whether a score reads the networks of the run's seeds, and not only networks that are trained for it alone."""
    return any(
        declared.cost == "training"
        and not declared.own_networks
        and not (declared.from_file and getattr(spec, declared.from_file))
        for declared in map(find_input, found.all_inputs)
    )


def required_epochs(scores: Sequence[Score], training: TrainingSpec) -> dict[int, int]:
    """The epochs whose weights these scores read, and of how many seeds.

    The last one of the first seed is always among them: neighbors, the map and the samplers read it.
    """
    required = {training.epochs: 1}
    for found in scores:
        own = all(declared.own_networks for declared in found.declared if declared.cost == "training")
        if found.needs_training and not found.over_dynamics and not own:
            read = {found.at(training.epochs): training.seeds if found.every_seed else 1}
            if any(declared.checkpoints for declared in found.declared):
                read = dict.fromkeys(checkpoint_epochs(training.epochs), 1) | read
            for epoch, seeds in read.items():
                required[epoch] = max(required.get(epoch, 0), seeds)
    return required


def kept_epochs(scores: Sequence[Score], training: TrainingSpec) -> dict[int, int]:
    """The epochs whose weights a training keeps, and of how many seeds.

    They are those that the scores of this run read, those that any score of the catalog reads, so that one training
    serves all of them later, and the last one of every seed.
    """
    return required_epochs((*scores, *all_scores().values()), training) | {training.epochs: training.seeds}


def require_test(spec: RunSpec, test: Samples | None) -> Samples:
    """The test split; SpecError where the dataset, or the file of features, has none."""
    if test is None or not len(test):
        rows = ", or the file of --features has no rows of it" if is_own_file(spec.features) else ""
        raise SpecError(
            f"dataset '{spec.dataset}' has no test split to validate against{rows}; ingest it with --test or "
            "--test-fraction, or leave out the scores that need one (winnow scores lists them)"
        )
    return test
