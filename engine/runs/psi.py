"""psi-curves: prune by an order, train again, test (PRUNE, algorithm 1).

The points come coarse to fine, so that whatever is done at any moment is a figure. Every finished stack of networks
is one durable line in the journal: a killed curve goes on after its last one, with the same members in every stack.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.data.loader import Samples, normalization
from engine.errors import SpecError, StorageError, unknown_name
from engine.features.seen import load_seen
from engine.queries.connection import connected, fetch_fingerprint, runs_of
from engine.runs.choose import Selection, find_scores_run
from engine.runs.cluster import HERE, PartsThere, Tasks
from engine.runs.feasible import psi_seconds
from engine.runs.pipeline import load_test
from engine.runs.planning import describe_training
from engine.runs.points import (
    Network,
    Study,
    check_points,
    network_id,
    plan_networks,
    plan_stacks,
    step_of,
    train_networks,
    training_of,
)
from engine.runs.publishing import find_run, publishing
from engine.runs.results import Results
from engine.selection.names import parse_order, split_orders
from engine.spec import PsiSpec, PsiSteps, RunSpec, TrainingSpec
from engine.store.documents import number, read_json
from engine.store.journal import append_journal, psi_points, read_journal
from engine.store.progress import Listener, Progress
from engine.store.verified import checked_file
from engine.store.workspace import Workspace
from engine.text import percent
from engine.training.loop import Normalization, batches_per_epoch
from engine.training.models import build_model
from engine.training.own_models import allow_trusted
from engine.training.stacked import Member, can_stack, stack_size
from engine.training.together import workers_for

POINTS_FILE = "networks.json"
"""What a curve publishes for others: its networks by what they were trained on."""

COLUMNS = ("seed", "pruned", "kept_fraction", "accuracy", "seconds")
"""What is measured of a point."""

Point = dict[str, Any]


def plan_psi(
    workspace: Workspace,
    dataset: str,
    orders: Sequence[str],
    *,
    points: int,
    seeds: int,
    epochs: int | None = None,
    steps: PsiSteps = "epochs",
    seed: int = 0,
    class_balanced: bool = False,
    window: bool = False,
    around: str = "",
    training: TrainingSpec | None = None,
) -> PsiSpec:
    """The spec of a psi-curve: trained as its scores were, unless a training or epochs are given.

    around: a rule that flags samples; the curve then ends at twice as many as it flags, with the rule in the middle
            (AUM, figure 5)

    Raises: SpecError for an order that is not there, saying which command makes it
    """
    orders = split_orders(",".join(orders))
    for order in map(parse_order, orders) if window else ():
        if order.sampler not in ("ascending", "random"):
            raise SpecError("a window takes scores, without *, and random; leave out the other orders or --window")
    scores_run = find_scores_run(workspace, dataset, orders)
    if training is None:
        training = TrainingSpec()
        specs = {record.run_id: spec for record, spec in workspace.known_runs()}
        for candidate in [scores_run] if scores_run else runs_of(workspace, dataset):
            spec = specs.get(candidate)
            if isinstance(spec, RunSpec) and spec.training:
                training = spec.training
    # What a psi-curve does not record must not make two equal curves different.
    training = replace(training, epochs=epochs or training.epochs, seeds=seeds, observe="train", logit_seeds=0)
    until = _twice_flagged(workspace, dataset, around) if around else 1.0
    fingerprint = fetch_fingerprint(workspace, dataset)
    return PsiSpec(
        dataset, fingerprint, orders, points, training, scores_run, steps, seed, class_balanced, window, until
    )


def _twice_flagged(workspace: Workspace, dataset: str, rule: str) -> float:
    """Twice the share of samples that a rule flags in the latest run that has it, at most 0.95."""
    with connected(workspace, dataset) as connection:
        rows = connection.execute("SELECT run_id, rule, avg(flagged::INT) FROM flags GROUP BY ALL").fetchall()
    shares = {(run, name): float(share) for run, name, share in rows}
    for run in reversed(runs_of(workspace, dataset)):
        if (run, rule) in shares:
            if not shares[run, rule]:
                raise SpecError(f"rule '{rule}' flags no sample of '{dataset}'; there is nothing to look around")
            return min(0.95, 2 * shares[run, rule])
    hint = f"winnow run {dataset} --scores aum brings aum_threshold"
    raise SpecError(unknown_name("rule", rule, {name for _, name in shares}, hint))


def run_psi(
    workspace: Workspace,
    spec: PsiSpec,
    device: torch.device,
    listener: Listener | None = None,
    *,
    stacked: bool | None = None,
    tasks: Tasks = HERE,
) -> tuple[str, bool]:
    """Compute and publish a psi-curve, or find it published.

    stacked: train small networks as one; None: on a GPU, where it pays. On a CPU networks side by side are faster.
    tasks: where they are trained

    Returns: (run id, whether it was there already)
    Raises:  SpecError when the dataset has no test split, is smaller than the points, or an order needs a score,
             a trained network or a truth that is not there; ClusterError as `Tasks.call`; Cancelled when the
             run is stopped
    """
    wanted = find_run(workspace, spec)
    if workspace.is_complete(wanted):
        return wanted, True
    allow_trusted(workspace, spec.training.model)
    on = spec.training.trained_on
    samples = load_seen(workspace, spec.dataset, "train", on, device)
    test = load_test(workspace, spec.dataset, device, on)
    if test is None:
        raise SpecError(f"dataset '{spec.dataset}' has no test split; ingest it with --test or --test-fraction")
    check_points(spec, len(samples))
    selection = Selection(
        workspace,
        spec.dataset,
        samples,
        spec.orders,
        spec.scores_run,
        seed=spec.seed,
        class_balanced=spec.class_balanced,
    )
    network = build_model(spec.training.model, samples.shape, samples.classes, 0)
    one = can_stack(network) and spec.training.augment == "none" and (device.type == "cuda" or bool(stacked))
    size = stack_size(network, spec.training, samples, device) if one and stacked is not False else 0
    with publishing(workspace, wanted, spec, _title(spec), device) as draft:
        seconds = 0.0 if size else psi_seconds(workspace, spec, device)
        progress = Progress(draft.folder, {"psi": seconds}, listener)
        progress.stage("psi")
        curve = _Curve(workspace, spec, samples, test, selection, draft.folder, progress, size > 0, tasks)
        curve.train(max(1, size))
        curve.write(draft.results, draft.target)
        draft.notes += curve.notes()
    return wanted, False


def _title(spec: PsiSpec) -> str:
    parts = [", ".join(spec.orders), describe_training(spec.training)]
    parts += ["as many steps at every point"] if spec.steps == "fixed" else []
    parts += ["class-balanced"] if spec.class_balanced else []
    parts += [f"up to {percent(spec.until)} pruned"] if spec.until < 1 else []
    return f"{'window' if spec.window else 'psi'}: {'; '.join(parts)}"


@dataclass
class _Curve:
    """One process's work on one curve. stacked: whether the networks of a stack are trained as one."""

    workspace: Workspace
    spec: PsiSpec
    samples: Samples
    test: Samples
    selection: Selection
    folder: Path
    progress: Progress
    stacked: bool
    tasks: Tasks
    done: dict[tuple[str, int, int], Point] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.n = len(self.samples)
        scale = Normalization(*normalization(self.samples))
        self.study = self.tasks.share(Study(self.samples, (self.test,), scale, self.spec.training, self.stacked))
        self.parts = None if self.tasks is HERE else PartsThere(self.tasks, self.progress)
        self.networks = [network for level in plan_networks(self.spec, self.n) for network in level]
        # The work of a network goes with its steps; the constant stands for starting one.
        steps = {x.pruned: self._steps(self.n - x.pruned) for x in self.networks}
        self._costs = {x.key: steps[x.pruned] + 0.02 * max(steps.values()) for x in self.networks}
        self._whole = sum(self._costs.values())
        self._shares: dict[tuple[str, int, int], float] = {}
        self._last_report = 0.0
        self._lock = threading.Lock()

    def train(self, size: int) -> None:
        """Train what the journal does not hold yet, in stacks of up to `size` unless an earlier attempt chose."""
        journal = read_journal(self.folder)
        plan = next((event for event in journal if event["event"] == "psi_plan" and _is_plan(event)), None)
        if plan is None:
            # Written before the first stack and followed by every resume: the memory that is free and what others have
            # published may differ by then, and with them the members of the stacks.
            plan = {"stack": size, "reads": self._others()}
            append_journal(self.folder, "psi_plan", durable=True, **plan)
        for point in psi_points(journal):
            self.done[point["order"], point["pruned"], point["seed"]] = point
        self._shares = dict.fromkeys(self.done, 1.0)
        self.progress.resumed(self._spent() / self._whole)
        stacks = plan_stacks(self.spec, self.n, int(plan["stack"]))
        left = [stack for stack in stacks if stack[0].key not in self.done]
        known = _published(self.workspace, plan["reads"])
        device = self.samples.device
        threads = self.spec.training.threads
        workers = 1 if self.stacked else workers_for(self.spec.training.model, len(left), device, threads)
        work = [partial(self._train_stack, stack, known) for stack in left]
        self.tasks.together(work, workers, self.progress, None if self.stacked else threads)

    def _train_stack(self, stack: Sequence[Network], known: dict[str, Point]) -> None:
        """Train a stack, but for those that another curve has trained, and journal its points in one line."""
        started = time.perf_counter()
        points, fresh = [], []
        for network in stack:
            self.progress.heartbeat()
            kept = self.selection.kept(network.order, network.pruned, self.parts)
            training = training_of(self.spec, self.n, len(kept))
            same = network_id(self.spec, training, kept, network.seed)
            point = {"order": network.order, "pruned": network.pruned, "seed": network.seed, "network": same}
            point["kept_fraction"] = 1 - network.pruned / self.n
            points.append(point)
            if same in known:
                point |= known[same]
            else:
                fresh.append((network, Member(kept.to(self.samples.device), network.seed, training.epochs), point))
        members = [member for _, member, _ in fresh]
        keys = [network.key for network, _, _ in fresh]
        report = partial(self._report, keys)
        accuracies = self.tasks.call(train_networks, self.study, members, report) if members else []
        seconds = time.perf_counter() - started
        steps = [self._steps(len(member.kept), member.epochs) for member in members]
        for (_, _, point), (accuracy,), count in zip(fresh, accuracies, steps, strict=True):
            point |= {"accuracy": accuracy, "seconds": seconds * count / sum(steps)}
        append_journal(self.folder, "psi_points", durable=True, points=points)
        self.done.update(zip([network.key for network in stack], points, strict=True))
        self._report([network.key for network in stack], 1.0)

    def _steps(self, kept: int, epochs: int | None = None) -> int:
        epochs = epochs or training_of(self.spec, self.n, kept).epochs
        return epochs * batches_per_epoch(kept, self.spec.training.batch_size)

    def _spent(self) -> float:
        return sum(self._costs[key] * share for key, share in self._shares.items())

    def _report(self, keys: Sequence[tuple[str, int, int]], share: float) -> None:
        """Report that a share 0..1 of these networks is done; Cancelled when the run is stopped."""
        self.progress.heartbeat()
        now = time.monotonic()
        if share < 1 and now - self._last_report < 0.1:
            return
        with self._lock:  # networks side by side report here
            self._last_report = now
            self._shares.update(dict.fromkeys(keys, share))
            spent = self._spent()
        order, pruned, _ = keys[0]
        self.progress.step(spent, self._whole, f"{order or 'all'}, {pruned} pruned")

    def _others(self) -> list[str]:
        """The published curves on the same data, whose networks may be the same as some of this one's."""
        ours = self.spec.fingerprint
        alike = (
            r.run_id
            for r, spec in self.workspace.known_runs()
            if isinstance(spec, PsiSpec) and spec.fingerprint == ours
        )
        return [run for run in alike if self.workspace.is_published(run)]

    def write(self, results: Results, target: Path) -> None:
        """Write the points, those of the unpruned set once for each order, and the networks for other curves."""
        rows = []
        for network in self.networks:
            point = self.done[network.key]
            for order in [network.order] if network.order else self.spec.orders:
                rows.append({"order": order, **{name: point[name] for name in COLUMNS}})
        results.write_psi(rows)
        shared = {p["network"]: {"accuracy": p["accuracy"], "seconds": p["seconds"]} for p in self.done.values()}
        (target / POINTS_FILE).write_text(json.dumps(shared) + "\n")

    def notes(self) -> list[str]:
        """What a reader of the curve should know."""
        spec, until = self.spec, int(self.n * self.spec.until + 1e-9)
        if spec.window or until % spec.points == 0:
            return []
        of = f"{self.n} samples" if spec.until == 1 else f"the {until} samples of which some are pruned"
        return [f"{spec.points} points do not divide {of}: each prunes {step_of(spec, self.n)} more"]


def _is_plan(event: Mapping[str, Any]) -> bool:
    """Whether an event of a journal is how the networks are stacked, as `Curve.train` wrote it."""
    stack, reads = event.get("stack"), event.get("reads")
    return type(stack) is int and stack > 0 and isinstance(reads, list) and all(isinstance(run, str) for run in reads)


def _published(workspace: Workspace, runs: Sequence[str]) -> dict[str, Point]:
    """The networks that published curves hold, by what they were trained on: accuracy and seconds."""
    known: dict[str, Point] = {}
    for run in set(workspace.run_ids()).intersection(runs):
        folder = workspace.published_dir(run)
        if not (folder / POINTS_FILE).exists():  # curves of earlier versions hold none, and a run may have been removed
            continue
        with contextlib.suppress(StorageError):  # then its networks are trained here
            content = read_json(checked_file(folder, POINTS_FILE))
            for key, point in content.items() if isinstance(content, dict) else ():
                if isinstance(point, dict) and 0 <= number(point.get("accuracy"), -1) <= 1:
                    known[str(key)] = {name: number(point.get(name)) for name in ("accuracy", "seconds")}
    return known
