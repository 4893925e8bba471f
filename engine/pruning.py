"""What a psi-curve trains: which networks, in which sequence, and on which samples."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.data.loader import Samples, normalisation
from engine.errors import SpecError, StorageError
from engine.queries import connected
from engine.selection.names import Order, parse_order
from engine.selection.samplers import SAMPLERS, select
from engine.spec import PsiSpec, TrainingSpec, spec_hash
from engine.training.loop import Normalisation, batches_per_epoch, clean_pass
from engine.training.models import build_model
from engine.training.stacked import batch_width
from engine.workspace import Workspace, load_tensors

KEPT_SETS = 64
"""Sets of samples that a selection holds, so that the seeds of a point need not choose theirs again."""


@dataclass(frozen=True)
class Network:
    """One point of one curve: an order, how many are pruned, and the seed. order "" is the unpruned set."""

    order: str
    pruned: int
    seed: int

    @property
    def key(self) -> tuple[str, int, int]:
        return self.order, self.pruned, self.seed


def coarse_to_fine(points: int) -> list[list[int]]:
    """0 .. points-1 in levels, each of which halves the gaps of those before it: 0 and 1/2, then 1/4 and 3/4, ...

    >>> coarse_to_fine(8)
    [[0, 4], [2, 6], [1, 3, 5, 7]]
    """
    levels, seen, parts = [[0]], {0}, 2
    while len(seen) < points:
        level = sorted({points * k // parts for k in range(1, parts, 2)} - seen)
        seen.update(level)
        levels.append(level)
        parts *= 2
    return [levels[0] + levels[1], *(level for level in levels[2:] if level)]


def plan_networks(spec: PsiSpec, n: int) -> list[list[Network]]:
    """Every network to train, coarse to fine: in levels, each point with all its orders and seeds.

    Point i drops exactly i * floor(n * until / points) samples; point 0 is the same for all orders. A window drops
    half at every point, and is named window(SCORE,offset=SHARE); `random` beside it is one point.
    """
    seeds = range(spec.training.seeds)
    if spec.window:
        half = n - n // 2
        levels = coarse_to_fine(spec.points + 1)
        found = []
        for number, level in enumerate(levels):
            names = ["random"] if number == 0 and "random" in spec.orders else []
            offsets = [i / (2 * spec.points) for i in level]
            names += [f"window({o},offset={x:g})" for x in offsets for o in spec.orders if o != "random"]
            found.append([Network(name, half, seed) for name in names for seed in seeds])
        return found
    step = step_of(spec, n)
    return [
        [
            Network(order, i * step, seed)
            for i in level
            for order in (spec.orders if i else ("",))
            for seed in seeds
        ]
        for level in coarse_to_fine(spec.points)
    ]  # fmt: skip


def step_of(spec: PsiSpec, n: int) -> int:
    """How many samples more each point prunes."""
    return int(n * spec.until + 1e-9) // spec.points


def plan_stacks(spec: PsiSpec, n: int, size: int) -> list[list[Network]]:
    """The networks in stacks of up to `size`, coarse to fine.

    A stack is of one level, so that the first, coarse figure is soon there; and of one batch width, so that the
    numbers of a network do not depend on its stack.
    """
    stacks = []
    for level in plan_networks(spec, n):
        by_width: dict[int, list[Network]] = {}
        for network in level:
            width = batch_width(n - network.pruned, spec.training.batch_size)
            by_width.setdefault(width, []).append(network)
        stacks += [same[i : i + size] for same in by_width.values() for i in range(0, len(same), size)]
    return stacks


def training_of(spec: PsiSpec, n: int, kept: int) -> TrainingSpec:
    """How a network on that many samples is trained.

    steps="fixed": for as many optimiser steps as the full set, in whole epochs.
    """
    if spec.steps == "epochs":
        return spec.training
    size = spec.training.batch_size
    steps = spec.training.epochs * batches_per_epoch(n, size)
    return replace(spec.training, epochs=max(1, round(steps / batches_per_epoch(kept, size))))


def network_id(spec: PsiSpec, training: TrainingSpec, kept: Tensor, seed: int) -> str:
    """What two networks share exactly when they are trained on the same samples in the same way."""
    content = {k: v for k, v in asdict(training).items() if k not in ("seeds", "observe", "logit_seeds")}
    samples = hashlib.sha256(kept.cpu().numpy().astype("<i8").tobytes()).hexdigest()
    return spec_hash({"fingerprint": spec.fingerprint, "training": content, "kept": samples, "seed": seed})


class Selection:
    """Which samples each order of a curve keeps.

    samples: the training set; trained: the published folder with the features and weights that samplers read, if any

    Raises: SpecError when an order needs a truth, features or classes that are not there
    """

    def __init__(self, workspace: Workspace, spec: PsiSpec, samples: Samples, trained: Path | None) -> None:
        self.workspace, self.spec, self.samples, self.trained = workspace, spec, samples, trained
        self.n = len(samples)
        self._kept: dict[tuple[str, int], Tensor] = {}
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {"labels": samples.labels.cpu(), "n": self.n}
        for name in spec.orders:
            reads = SAMPLERS[parse_order(name).sampler].inputs
            if "mislabelled" in reads and samples.true_labels is None:
                raise SpecError(
                    f"order '{name}' needs true labels; dataset '{spec.dataset}' has none (use --noise or --labels)"
                )
            if {"features", "probs"} & set(reads) and trained is None:
                raise SpecError(
                    f"order '{name}' reads the features of a trained network; no run of '{spec.dataset}' has one: "
                    f"winnow run {spec.dataset} makes one"
                )

    def kept(self, order: str, pruned: int) -> Tensor:
        """Positions in the training set that stay, (n - pruned,) int64, ascending, on the CPU."""
        with self._lock:  # networks side by side ask for the same sets, and some samplers are slow
            if len(self._kept) > KEPT_SETS:
                self._kept.clear()
            if (order, pruned) not in self._kept:
                self._kept[order, pruned] = self._select(order, pruned)
            return self._kept[order, pruned]

    def _select(self, order: str, pruned: int) -> Tensor:
        if not order:
            return torch.arange(self.n)
        asked = parse_order(order)
        base = order.rstrip("*")
        generator = torch.Generator().manual_seed(int(spec_hash([self.spec.seed, "order", base]), 16))
        inputs = {name: self._input(name, asked) for name in SAMPLERS[asked.sampler].inputs if name != "generator"}
        inputs |= {"generator": generator, "labels": self._known["labels"]}
        balanced = self.spec.class_balanced
        return select(asked.sampler, self.n - pruned, inputs, class_balanced=balanced, **asked.options)

    def _input(self, name: str, asked: Order) -> Any:
        key = f"{name} of {asked.score}" if asked.score and name in ("ranks", "hardness") else name
        if key not in self._known:
            self._known[key] = getattr(self, f"_{name}")(asked)
        return self._known[key]

    def _mislabelled(self, asked: Order) -> Tensor:
        assert self.samples.true_labels is not None
        return (self.samples.true_labels != self.samples.labels).cpu()

    def _ranks(self, asked: Order) -> Tensor:
        return torch.from_numpy(self._score(asked.score)["rank"].astype("int64"))

    def _hardness(self, asked: Order) -> Tensor:
        found = self._score(asked.score)
        values = torch.from_numpy(found["value"].astype("float32"))
        return values if found["higher_means"][0] == "harder" else -values

    def _score(self, score: str) -> dict[str, Any]:
        assert self.spec.scores_run is not None
        with connected(self.workspace, self.spec.dataset, [self.spec.scores_run]) as connection:
            return connection.execute(
                "SELECT value, rank, higher_means FROM scores JOIN score_catalog USING (score) WHERE score = ? "
                "ORDER BY sample_id",
                [score],
            ).fetchnumpy()

    def _features(self, asked: Order) -> Tensor:
        return self._tensors("features.safetensors")["features"].float()

    def _probs(self, asked: Order) -> Tensor:
        prefix, samples = "seed0.", self.samples
        weights = self._tensors("weights.safetensors", prefix)
        network = build_model(self._model(), tuple(samples.inputs.shape[1:]), samples.classes, 0)
        network.load_state_dict({name.removeprefix(prefix): values for name, values in weights.items()})
        network.to(samples.inputs.device)
        scale = Normalisation(*normalisation(samples))
        return torch.cat([z.float().softmax(1).cpu() for _, z in clean_pass(network, samples, scale)])

    def _model(self) -> str:
        assert self.spec.scores_run is not None
        return str(self.workspace.read_spec(self.spec.scores_run)["spec"]["training"]["model"])

    def _tensors(self, name: str, prefix: str = "") -> dict[str, Tensor]:
        assert self.trained is not None
        found = load_tensors(self.trained / name, prefix)
        if found is None:
            raise StorageError(f"{self.trained / name} is missing; remove that run (winnow remove) and run it again")
        return {key: torch.from_numpy(values) for key, values in found[0].items()}


def check_points(spec: PsiSpec, n: int) -> None:
    """Raise SpecError unless every point prunes at least one sample more than the last and leaves two to train on."""
    most = min(int(n * spec.until + 1e-9), n - 1)  # batch normalisation cannot train on one sample
    if spec.points > most:
        what = f"for {n} training samples" + (f" of which {spec.until:g} are pruned" if spec.until < 1 else "")
        raise SpecError(f"--points is {spec.points}; allowed: 2 to {most} {what}")
