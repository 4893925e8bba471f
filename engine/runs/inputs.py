"""What the scores of a run read, computed when the first of them asks and kept for the others.

Scores name their inputs (`engine.scores.registry.INPUTS` says what each is). Those of the recorded dynamics come
some samples at a time from the results file; every other one is a function below, under the input's own name.
A new input is one line in INPUTS and one function here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from engine.data.cscores import read_cscores
from engine.data.loader import Samples, to_float
from engine.errors import SpecError, StorageError
from engine.features.neighbors import block_rows, checked_rows, search_rows
from engine.features.penultimate import compute_features, head_of
from engine.features.pretrained import compute_pretrained_features, file_hash, load_pretrained, parse_source
from engine.runs.checks import DEFAULT_NEIGHBORS, negatives_per_positive, require_test
from engine.runs.cluster import HERE, Report, Shared, Tasks, map_tasks
from engine.runs.crossval import (
    CrossValidation,
    compute_heldout_correct,
    compute_heldout_probs,
    compute_incv,
)
from engine.runs.detectors import load_detector
from engine.scores.complexity import (
    Gap,
    gap_bytes,
    solve_gap,
    solve_stochastic_gap,
)
from engine.scores.gradient import checkpoint_epochs, compute_gradient_norms, compute_influence
from engine.scores.lstm import Detector
from engine.scores.mixture import estimate_consistency
from engine.scores.registry import INPUTS, TRAJECTORY_INPUTS, Score, all_scores
from engine.spec import RunSpec, TrainingSpec
from engine.store.progress import Reporter
from engine.store.tensors import load_tensors
from engine.store.workspace import Workspace
from engine.training.device import available_bytes
from engine.training.loop import Normalisation, clean_pass, learning_rate
from engine.training.models import build_model

RUNS = 10
"""Random subsets of the stochastic complexity gap, per class (appendix A.2 of the paper)."""

GRADIENT_ROWS = 1024
"""Samples whose inputs are turned into floats at a time for their gradients."""


class At(NamedTuple):
    """One network: a seed, after an epoch (1 .. T)."""

    seed: int
    epoch: int


Key = tuple[str, At | None]
"""An input, and the network that it is of."""


@dataclass
class Inputs:
    """The inputs of one run.

    folder: where the weights are; partial: where finished pieces are kept for a run that goes on; generator: one for
    each purpose; tasks: where they are computed; notes: what a reader of the run should know.
    """

    workspace: Workspace
    spec: RunSpec
    samples: Samples
    test: Samples | None
    normalisation: Normalisation
    folder: Path
    partial: Path
    generator: Callable[[str], torch.Generator]
    progress: Reporter
    tasks: Tasks = HERE
    notes: list[str] = field(default_factory=list)
    _known: dict[Key, Any] = field(default_factory=dict)
    _beside: dict[Key, Any] = field(default_factory=dict)
    _seconds: dict[Key, float] = field(default_factory=dict)
    _read: dict[Key, set[Key]] = field(default_factory=dict)
    _asking: list[Key] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return self.samples.inputs.device

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

    @cached_property
    def pretrained(self) -> nn.Module:
        """The network whose features are used instead of the trained one's."""
        if file_hash(parse_source(self.spec.features)[1]) != self.spec.features_hash:
            raise SpecError(f"the file of {self.spec.features} has changed since this run was asked; ask it again")
        return load_pretrained(self.spec.features)

    def get(self, name: str, at: At | None = None) -> Any:
        """One input, of the network `at` where it is a network's. Computed once."""
        key = _key(name, at)
        if self._asking:
            self._read[self._asking[-1]].add(key)
        if key not in self._known:
            self._read[key] = set()
            self._asking.append(key)
            started, before = time.perf_counter(), sum(self._seconds.values())
            self._known[key] = PROVIDERS[name](self, at)
            self._asking.pop()
            others = sum(self._seconds.values()) - before
            self._seconds[key] = time.perf_counter() - started - others
        return self._known[key]

    def keep(self, at: At | None, **values: Any) -> None:
        """Keep inputs that were computed together with another one, for `_together`."""
        self._beside.update({_key(name, at): value for name, value in values.items()})

    def of_score(self, found: Score, seed: int = 0) -> dict[str, Any]:
        """Everything a score and its rule read, in one seed, but for the recorded dynamics."""
        at, own = self._place(found, seed), {"generator": self.generator(found.name)}
        asked = [name for name in found.all_inputs if name not in TRAJECTORY_INPUTS]
        return {name: own[name] if name in own else self.get(name, at) for name in asked}

    def seconds_of(self, found: Score, seed: int = 0) -> float:
        """What the inputs of a score took, those that it shares with others included, the training not."""
        at = self._place(found, seed)
        left = [_key(name, at) for name in found.all_inputs]
        counted: set[Key] = set()
        while left:
            key = left.pop()
            if key not in counted:
                counted.add(key)
                left += self._read.get(key, ())
        return sum(self._seconds.get(key, 0.0) for key in counted)

    def _place(self, found: Score, seed: int) -> At | None:
        return At(seed, found.at(self.training.epochs)) if needs_training(found, self.spec) else None

    def network(self, at: At) -> nn.Module:
        """The trained network, on the run's device, in evaluation mode."""
        prefix = f"seed{at.seed}."
        found = load_tensors(self.folder / weights_file(at.epoch, self.training.epochs), prefix)
        if not found or not found[0]:
            raise StorageError(f"{self.folder} lacks the weights of {at}; remove the run (winnow remove) and run again")
        shape = tuple(self.samples.inputs.shape[1:])
        network = build_model(self.training.model, shape, self.samples.classes, 0).to(self.device)
        network.load_state_dict({n.removeprefix(prefix): torch.from_numpy(v) for n, v in found[0].items()})
        return network.eval()

    def passed(self, samples: Samples, at: At, function: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        """function(network, batch of inputs) over all samples, in order and in evaluation mode, float32 on the CPU."""
        parts = clean_pass(self.network(at), samples, self.normalisation, function, pulse=self.progress.pulse)
        return torch.cat([values.float().cpu() for _, values in parts])

    def validation(self) -> Samples:
        """The test split; SpecError where there is none."""
        return require_test(self.spec, self.test)


def _key(name: str, at: At | None) -> Key:
    return name, at if INPUTS[name].cost == "training" else None


def needs_training(found: Score, spec: RunSpec) -> bool:
    """Whether a score needs a network trained in this run."""
    from_file = (spec.features and found.features_suffice) or (spec.cscores and found.inputs == ("cscores",))
    return found.needs_training and not from_file


def weights_file(epoch: int, epochs: int) -> str:
    """Where a run publishes the weights after an epoch: tensors seed<s>.<name>."""
    return "weights.safetensors" if epoch == epochs else f"weights-epoch{epoch}.safetensors"


def kept_epochs(scores: Sequence[Score], training: TrainingSpec) -> dict[int, int]:
    """The epochs whose weights a training keeps, and of how many seeds.

    They are those that the scores asked for read, and those that any score of the catalogue reads, so that one
    training serves all of them later.
    """
    kept = {training.epochs: training.seeds}
    for found in (*scores, *all_scores().values()):
        if found.needs_training and not found.over_dynamics:
            epoch = found.at(training.epochs)
            kept[epoch] = max(kept.get(epoch, 0), training.seeds if found.every_seed else 1)
        if {"checkpoint_probs", "validation_influence"} & set(found.inputs):
            kept = dict.fromkeys(checkpoint_epochs(training.epochs), 1) | kept
    return kept


def required_epochs(scores: Sequence[Score], training: TrainingSpec) -> dict[int, int]:
    """The epochs whose weights these scores read, and of how many seeds."""
    kept = {training.epochs: training.seeds}
    for found in scores:
        if found.needs_training and not found.over_dynamics:
            epoch = found.at(training.epochs)
            kept[epoch] = max(kept.get(epoch, 0), training.seeds if found.every_seed else 1)
        if {"checkpoint_probs", "validation_influence"} & set(found.inputs):
            kept = dict.fromkeys(checkpoint_epochs(training.epochs), 1) | kept
    return kept


def _labels(run: Inputs, at: At | None) -> Tensor:
    return run.samples.labels.cpu()


def _logits(run: Inputs, at: At) -> Tensor:
    return run.passed(run.samples, at, lambda network, inputs: network(inputs))


def _probs(run: Inputs, at: At) -> Tensor:
    return torch.softmax(run.get("logits", at), 1)


def network_features(run: Inputs, at: At) -> Tensor:
    """Penultimate features of a network of the training itself."""
    if at == At(0, run.training.epochs) and (found := load_tensors(run.folder / "features.safetensors")):
        return torch.from_numpy(found[0]["features"])
    return run.passed(run.samples, at, compute_features)


def _features(run: Inputs, at: At | None) -> Tensor:
    return _any_features(run, run.samples) if at is None else network_features(run, at)


def _any_features(run: Inputs, samples: Samples) -> Tensor:
    return compute_pretrained_features(run.pretrained, samples, run.progress.pulse)


def _neighbor_ids(run: Inputs, at: At | None) -> Tensor:
    k = run.spec.neighbors or DEFAULT_NEIGHBORS
    unit = checked_rows(run.get("features", at).to(run.device), k)
    ranges = [(k, first, last) for first, last in run.tasks.ranges(len(unit), block_rows(len(unit)))]
    ids, similarities = (
        torch.cat(parts) for parts in zip(*map_tasks(run.tasks, _search, unit, ranges, run.progress), strict=True)
    )
    run.keep(at, similarities=similarities.cpu())
    return ids.cpu()


def _search(unit: Tensor, asked: tuple[int, int, int], report: Report) -> tuple[Tensor, Tensor]:
    return search_rows(unit, *asked, lambda done, total: report(done / total))


def _together(first: str, name: str) -> Callable[[Inputs, At | None], Tensor]:
    """An input that is computed with another one."""

    def found(run: Inputs, at: At | None) -> Tensor:
        run.get(first, at)
        value: Tensor = run._beside[_key(name, at)]
        return value

    return found


def _head_weight(run: Inputs, at: At) -> Tensor:
    return head_of(run.network(at)).weight.detach().float().cpu()


def _head_bias(run: Inputs, at: At) -> Tensor:
    head = head_of(run.network(at))
    return torch.zeros(head.out_features) if head.bias is None else head.bias.detach().float().cpu()


def _validation_features(run: Inputs, at: At | None) -> Tensor:
    return _any_features(run, run.validation()) if at is None else run.passed(run.validation(), at, compute_features)


def _alpha(run: Inputs, at: At | None) -> Tensor:
    inputs = run.samples.inputs
    rows = to_float(inputs, run.normalisation.mean, run.normalisation.std) if run.spec.standardize else inputs
    gap = _gap(run, rows.flatten(1), "inputs")
    run.keep(None, inverse_diagonal=gap.inverse_diagonal, kernel_labels=gap.kernel_labels)
    return gap.alpha


def _feature_alpha(run: Inputs, at: At | None) -> Tensor:
    what = f"features after epoch {at.epoch}" if at else f"features of {run.spec.features}"
    gap = _gap(run, run.get("features", at).to(run.device), what)
    run.keep(at, feature_inverse_diagonal=gap.inverse_diagonal)
    return gap.alpha


def _gap(run: Inputs, rows: Tensor, what: str) -> Gap:
    started = time.perf_counter()
    labels, n = run.samples.labels, len(rows)
    if run.spec.complexity == "stochastic":
        negatives = negatives_per_positive(run.samples)
        generator = run.generator(f"complexity gap of the {what}")
        mapped = partial(map_tasks, run.tasks, progress=run.progress)
        gap = solve_stochastic_gap(rows, labels, negatives, RUNS, generator, mapped=mapped)
        form = f"stochastic, {RUNS} runs of {negatives} negatives per positive"
    else:
        needed, dtype = gap_bytes(n, rows.shape[1], run.samples.classes), torch.float64
        if needed > available_bytes(run.device):
            dtype = torch.float32  # a GPU's way out; on a CPU the run was refused before it started
        gap = solve_gap(rows, labels, dtype=dtype, report=run.progress.step)
        form = f"exact, {dtype}".replace("torch.", "")
    seconds = time.perf_counter() - started
    note = f"complexity gap of the {what}: {form}, {seconds:.1f} s"
    if gap.copies:
        note += f"; {gap.copies} exact copies of other samples share their scores"
    if gap.ridge:
        note += f"; a ridge of {gap.ridge:g} was needed"
    run.notes.append(note)
    return gap


def _gradient_norms(run: Inputs, at: At) -> Tensor:
    network, samples, scale = run.network(at), run.samples, run.normalisation
    parts = []
    for start in range(0, len(samples), GRADIENT_ROWS):
        rows = slice(start, start + GRADIENT_ROWS)
        inputs = to_float(samples.inputs[rows], scale.mean, scale.std)
        norms = compute_gradient_norms(network, inputs, samples.labels[rows], run.progress.pulse)
        parts.append(norms.cpu())
        run.progress.step(start, len(samples))
    return torch.cat(parts)


def _checkpoint_probs(run: Inputs, at: At) -> Tensor:
    epochs = checkpoint_epochs(run.training.epochs)
    places = [At(0, epoch) for epoch in epochs]
    rates = [learning_rate(run.training, epoch / run.training.epochs) for epoch in epochs]
    squares = torch.stack([_features(run, place).square().sum(1) for place in places])
    run.keep(at, checkpoint_squares=squares, checkpoint_rates=torch.tensor(rates))
    return torch.stack([run.get("probs", place) for place in places])


def _validation_influence(run: Inputs, at: At) -> Tensor:
    labels, total = run.samples.labels.cpu(), torch.zeros(len(run.samples))
    for epoch in checkpoint_epochs(run.training.epochs):
        rate, place = learning_rate(run.training, epoch / run.training.epochs), At(0, epoch)
        if rate:
            logits = run.passed(run.validation(), place, lambda network, inputs: network(inputs))
            others = torch.softmax(logits, 1), _validation_features(run, place), _validation_labels(run, None)
            total += rate * compute_influence(run.get("probs", place), _features(run, place), labels, *others)
    return total


def _cross_validation(run: Inputs, at: At) -> CrossValidation:
    return CrossValidation(
        run.shared_samples.value, run.training, at.epoch, run.normalisation, run.partial, run.progress, run.tasks
    )


def _heldout_probs(run: Inputs, at: At) -> Tensor:
    return compute_heldout_probs(_cross_validation(run, at), run.generator("folds"))


def _incv_selected(run: Inputs, at: At) -> Tensor:
    selected, rate = compute_incv(_cross_validation(run, at), run.generator("rounds"))
    run.notes.append(f"iterative cross-validation estimates that {rate:.1%} of the labels are wrong")
    return selected


def _cscores(run: Inputs, at: At) -> Tensor:
    if run.spec.cscores:
        samples = run.samples
        labels = samples.labels if samples.true_labels is None else samples.true_labels
        return torch.from_numpy(read_cscores(Path(run.spec.cscores), labels.cpu().numpy()))
    return estimate_consistency(*compute_heldout_correct(_cross_validation(run, at), run.generator("halves")))


def _detector(run: Inputs, at: At | None) -> Detector | None:
    return load_detector(run.workspace, run.spec.detector)[0] if run.spec.detector else None


def _validation_labels(run: Inputs, at: At | None) -> Tensor:
    return run.validation().labels.cpu()


PROVIDERS: dict[str, Callable[[Inputs, Any], Any]] = {
    "labels": _labels,
    "logits": _logits,
    "probs": _probs,
    "features": _features,
    "neighbor_ids": _neighbor_ids,
    "similarities": _together("neighbor_ids", "similarities"),
    "head_weight": _head_weight,
    "head_bias": _head_bias,
    "validation_features": _validation_features,
    "validation_labels": _validation_labels,
    "gradient_norms": _gradient_norms,
    "checkpoint_probs": _checkpoint_probs,
    "checkpoint_squares": _together("checkpoint_probs", "checkpoint_squares"),
    "checkpoint_rates": _together("checkpoint_probs", "checkpoint_rates"),
    "validation_influence": _validation_influence,
    "heldout_probs": _heldout_probs,
    "incv_selected": _incv_selected,
    "cscores": _cscores,
    "detector": _detector,
    "alpha": _alpha,
    "inverse_diagonal": _together("alpha", "inverse_diagonal"),
    "kernel_labels": _together("alpha", "kernel_labels"),
    "feature_alpha": _feature_alpha,
    "feature_inverse_diagonal": _together("feature_alpha", "feature_inverse_diagonal"),
}
"""Input -> the function that computes it for a run; its second argument is the network, None for inputs of none."""
