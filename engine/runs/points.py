"""What a psi-curve trains: which networks, in which sequence, on which samples, and how."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from torch import Tensor

from engine.data.loader import Samples
from engine.errors import SpecError
from engine.runs.cluster import Report
from engine.spec import ProveSpec, PsiSpec, TrainingSpec, spec_hash
from engine.training.loop import Normalization, batches_per_epoch, build_optimizer, compute_accuracy, train_epochs
from engine.training.models import build_model
from engine.training.stacked import Member, batch_width, compute_accuracies, train_stacked


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
    half at every point, and is named window(SCORE,offset=SHARE); `random` is one point.
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


def training_of(spec: PsiSpec | ProveSpec, n: int, kept: int) -> TrainingSpec:
    """How a network on that many samples is trained.

    steps="fixed": for as many optimizer steps as the full set, in whole epochs.
    """
    if spec.steps == "epochs":
        return spec.training
    size = spec.training.batch_size
    steps = spec.training.epochs * batches_per_epoch(n, size)
    return replace(spec.training, epochs=max(1, round(steps / batches_per_epoch(kept, size))))


def network_id(spec: PsiSpec | ProveSpec, training: TrainingSpec, kept: Tensor, seed: int) -> str:
    """What two networks share exactly when they are trained on the same samples in the same way."""
    content = {k: v for k, v in asdict(training).items() if k not in ("seeds", "observe", "logit_seeds")}
    samples = hashlib.sha256(kept.cpu().numpy().astype("<i8").tobytes()).hexdigest()
    return spec_hash({"fingerprint": spec.fingerprint, "training": content, "kept": samples, "seed": seed})


def check_points(spec: PsiSpec, n: int) -> None:
    """Raise SpecError unless every point prunes at least one sample more than the last and leaves two to train on."""
    most = min(int(n * spec.until + 1e-9), n - 1)  # batch normalization cannot train on one sample
    if spec.points > most:
        what = f"for {n} training samples" + (f" of which {spec.until:g} are pruned" if spec.until < 1 else "")
        raise SpecError(f"--points is {spec.points}; allowed: 2 to {most} {what}")


ALMOST = 1 - 1e-6
"""What is reported of a network that is trained and being tested."""


@dataclass(frozen=True)
class Study:
    """What all networks of a curve read.

    tests: what each is tested on, one accuracy for each; stacked: whether the networks of a stack are trained as one
    """

    samples: Samples
    tests: tuple[Samples, ...]
    normalization: Normalization
    training: TrainingSpec
    stacked: bool


def train_networks(study: Study, members: Sequence[Member], report: Report) -> list[tuple[float, ...]]:
    """Train the networks of a stack and test them.

    Returns: the accuracy of each on every one of the study's tests, 0..1
    """
    if study.stacked:
        stack = train_stacked(members, study.samples, study.normalization, study.training, heartbeat=report)
        heartbeat = partial(report, ALMOST)
        return list(
            zip(*(compute_accuracies(stack, test, study.normalization, heartbeat) for test in study.tests), strict=True)
        )
    return [
        _train_network(study, member, lambda share, i=i: report((i + share) / len(members)))  # type: ignore[misc]
        for i, member in enumerate(members)
    ]


def _train_network(study: Study, member: Member, report: Report) -> tuple[float, ...]:
    samples, scale, training = study.samples, study.normalization, replace(study.training, epochs=member.epochs)
    subset = samples.subset(member.kept)
    network = build_model(training.model, samples.shape, samples.classes, member.seed)
    network.to(samples.device)
    optimizer = build_optimizer(network, training)
    total, seen = member.epochs * batches_per_epoch(len(member.kept), training.batch_size), itertools.count()
    heartbeat = lambda: report(next(seen) / total)  # noqa: E731
    for _ in train_epochs(network, optimizer, subset, scale, training, member.seed, heartbeat=heartbeat):
        pass
    return tuple(compute_accuracy(network, test, scale, partial(report, ALMOST)) for test in study.tests)
