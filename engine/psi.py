"""psi-curves: prune by an order, train afresh, test (PRUNE, algorithm 1).

Every finished network is one durable line in the journal, so that a killed curve goes on after its last one.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import duckdb
import torch
from torch import Tensor

from engine.data.loader import Samples, load_split, normalisation
from engine.environment import describe_environment
from engine.errors import SpecError, unknown_name
from engine.jobs import computing, seconds_spent
from engine.pipeline import describe_training, load_test
from engine.progress import Listener, Progress
from engine.queries import connected, fetch_fingerprint, runs_of
from engine.schema import RESULT_TABLES
from engine.selection.orders import ascending, descending, oracle, parse_order, random_order
from engine.spec import PsiSpec, PsiSteps, RunSpec, TrainingSpec, run_id, spec_from_json, spec_hash, spec_to_json
from engine.training.loop import (
    Normalisation,
    batches_per_epoch,
    build_optimizer,
    compute_accuracy,
    train_epochs,
)
from engine.training.models import build_model
from engine.training.together import train_together, workers_for
from engine.workspace import Workspace, append_journal, read_journal


@dataclass(frozen=True)
class Network:
    """One point of one curve: an order, how many are pruned, and the seed. order "" is the unpruned set."""

    order: str
    pruned: int
    seed: int

    @property
    def key(self) -> tuple[str, int, int]:
        return self.order, self.pruned, self.seed


def find_scores_run(workspace: Workspace, dataset: str, orders: Sequence[str]) -> str | None:
    """The latest published run that has every score the orders name; None when they name none.

    Raises: SpecError when no run has them, saying which command makes one
    """
    wanted = {base for base, _ in map(parse_order, orders)} - {"random", "oracle"}
    if not wanted:
        return None
    with connected(workspace, dataset) as connection:
        rows = connection.execute("SELECT run_id, list(DISTINCT score) FROM scores GROUP BY run_id").fetchall()
    having: dict[str, set[str]] = {run: set(names) for run, names in rows}
    for candidate in reversed(runs_of(workspace, dataset)):
        if wanted <= having.get(candidate, set()):
            return candidate
    known = set().union(*having.values()) if having else set()
    missing = sorted(wanted - known)
    if missing and known:
        message = unknown_name("order", missing[0], known | {"random", "oracle"})
        raise SpecError(f"{message}; or `winnow run {dataset} --scores {','.join(missing)}` first")
    raise SpecError(
        f"no published run of '{dataset}' has the scores {', '.join(sorted(wanted))}; "
        f"make one: winnow run {dataset} --scores {','.join(sorted(wanted))}"
    )


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
) -> PsiSpec:
    """The spec of a psi-curve: the same model and training as those of the scores, unless epochs are asked for.

    Raises: SpecError for an order that is not there, saying which command makes it
    """
    orders = tuple(dict.fromkeys(orders))
    scores_run = find_scores_run(workspace, dataset, orders)
    trained = [scores_run] if scores_run else runs_of(workspace, dataset)
    training = TrainingSpec()
    for candidate in trained:
        spec = spec_from_json(workspace.read_spec(candidate)["spec"])
        if isinstance(spec, RunSpec) and spec.training:
            training = spec.training
    # What a psi-curve does not record must not make two equal curves different.
    training = replace(training, epochs=epochs or training.epochs, seeds=seeds, observe="train", logit_seeds=0)
    fingerprint = fetch_fingerprint(workspace, dataset)
    return PsiSpec(dataset, fingerprint, orders, points, training, scores_run, steps, seed)


def run_psi(
    workspace: Workspace, spec: PsiSpec, device: torch.device, listener: Listener | None = None
) -> tuple[str, bool]:
    """Compute and publish a psi-curve, or find it published.

    Returns: (run id, whether it was there already)
    Raises:  SpecError when the dataset has no test split, is smaller than the points, or an order needs a score
             or a truth that is not there; Cancelled when somebody asked the run to stop
    """
    wanted = run_id(spec)
    if workspace.is_published(wanted):
        return wanted, True
    samples = load_split(workspace, spec.dataset, "train", device)
    test = load_test(workspace, spec.dataset, device)
    if test is None:
        raise SpecError(f"dataset '{spec.dataset}' has no test split; ingest it with --test or --test-fraction")
    n = len(samples.labels)
    if spec.points > n:
        raise SpecError(f"--points is {spec.points}; allowed: 2 to {n}, the number of training samples")
    orders = {name: make_order(workspace, spec, samples, name) for name in spec.orders}
    title = f"psi: {', '.join(spec.orders)}; {describe_training(spec.training)}"
    environment = describe_environment(device)
    with computing(workspace, wanted, spec_to_json(spec), title, environment) as folder:
        progress = Progress(folder, {"psi": 1.0}, listener)
        progress.stage("psi")
        networks = plan_networks(spec, n)
        done: dict[tuple[str, int, int], dict[str, Any]] = {
            (e["order"], e["pruned"], e["seed"]): e for e in read_journal(folder) if e["event"] == "psi_point"
        }
        # The work of a network goes with the samples it is trained on; the constant stands for starting one.
        costs = [n - network.pruned + 0.02 * n for network in networks]
        finished = sum(c for c, network in zip(costs, networks, strict=True) if network.key in done)
        progress.resumed("psi", finished / sum(costs))
        scale = Normalisation(*normalisation(samples))
        fractions = dict.fromkeys((network.key for network in networks), 0.0)
        fractions.update(dict.fromkeys(done, 1.0))

        def report(network: Network, fraction: float) -> None:
            fractions[network.key] = fraction
            spent = sum(c * fractions[n.key] for c, n in zip(costs, networks, strict=True))
            progress.step(spent, sum(costs), f"{network.order or 'all'}, {network.pruned} pruned")

        def train(network: Network) -> None:
            started = time.perf_counter()
            kept = orders[network.order or spec.orders[0]][network.pruned :].sort().values.to(device)
            training = _with_steps(spec, n, len(kept))
            steps = training.epochs * batches_per_epoch(len(kept), training.batch_size)
            seen = itertools.count(1)
            accuracy = _train_and_test(
                samples, test, kept, scale, training, network.seed, lambda: report(network, next(seen) / steps)
            )
            point = {
                "order": network.order,
                "pruned": network.pruned,
                "seed": network.seed,
                "accuracy": accuracy,
                "seconds": time.perf_counter() - started,
            }
            append_journal(folder, "psi_point", durable=True, kept_fraction=1 - network.pruned / n, **point)
            done[network.key] = point

        left = [network for network in networks if network.key not in done]
        workers = workers_for(spec.training.model, len(left), device)
        train_together([partial(train, network) for network in left], workers, progress)
        with (
            workspace.building_run(wanted) as target,
            duckdb.connect(str(target / "results.duckdb")) as connection,
        ):
            connection.execute(RESULT_TABLES)
            for order in spec.orders:
                for network in networks:
                    if network.order in ("", order):
                        point = done[network.key]
                        row = [
                            order,
                            network.seed,
                            network.pruned,
                            1 - network.pruned / n,
                            point["accuracy"],
                            point["seconds"],
                        ]
                        connection.execute("INSERT INTO psi VALUES (?, ?, ?, ?, ?, ?)", row)
            remainder = n % spec.points
            notes = (
                [f"{spec.points} points do not divide {n} samples: each prunes {n // spec.points} more"]
                if remainder
                else []
            )
            connection.execute(
                "INSERT INTO run (run_id, kind, title, dataset, fingerprint, spec, environment, created_at, seconds, "
                "notes) VALUES (?, 'psi', ?, ?, ?, ?, ?, now() AT TIME ZONE 'UTC', ?, ?)",
                [
                    wanted,
                    title,
                    spec.dataset,
                    spec.fingerprint,
                    json.dumps(spec_to_json(spec)),
                    json.dumps(environment),
                    seconds_spent(folder),
                    json.dumps(notes),
                ],
            )
    return wanted, False


def plan_networks(spec: PsiSpec, n: int) -> list[Network]:
    """Every network to train: exactly i * floor(n / points) samples dropped at point i; point 0 once for all orders."""
    step = n // spec.points
    seeds = range(spec.training.seeds)
    unpruned = [Network("", 0, seed) for seed in seeds]
    return unpruned + [
        Network(order, i * step, seed) for i in range(1, spec.points) for order in spec.orders for seed in seeds
    ]


def make_order(workspace: Workspace, spec: PsiSpec, samples: Samples, name: str) -> Tensor:
    """The positions in the training set, first pruned first."""
    base, reverse = parse_order(name)
    n = len(samples.labels)
    generator = torch.Generator().manual_seed(int(spec_hash([spec.seed, "order", base]), 16))
    if base == "random":
        return random_order(n, generator)
    if base == "oracle":
        if samples.true_labels is None:
            raise SpecError(
                f"order 'oracle' needs true labels; dataset '{spec.dataset}' has none (use --noise or --labels)"
            )
        return oracle((samples.true_labels != samples.labels).cpu(), generator)
    assert spec.scores_run is not None
    with connected(workspace, spec.dataset, [spec.scores_run]) as connection:
        ranks = connection.execute("SELECT rank FROM scores WHERE score = ? ORDER BY sample_id", [base]).fetchnumpy()
    by_rank = torch.from_numpy(ranks["rank"].astype("int64"))
    return descending(by_rank) if reverse else ascending(by_rank)


def _with_steps(spec: PsiSpec, n: int, kept: int) -> TrainingSpec:
    """steps="fixed" trains a pruned set for as many optimiser steps as the full set, in whole epochs."""
    if spec.steps == "epochs":
        return spec.training
    size = spec.training.batch_size
    steps = spec.training.epochs * batches_per_epoch(n, size)
    return replace(spec.training, epochs=max(1, round(steps / batches_per_epoch(kept, size))))


def _train_and_test(
    samples: Samples,
    test: Samples,
    kept: Tensor,
    scale: Normalisation,
    training: TrainingSpec,
    seed: int,
    pulse: Callable[[], None],
) -> float:
    subset = replace(
        samples,
        inputs=samples.inputs[kept],
        labels=samples.labels[kept],
        sample_ids=samples.sample_ids[kept],
        true_labels=None,
    )
    network = build_model(training.model, tuple(samples.inputs.shape[1:]), samples.classes, seed)
    network.to(samples.inputs.device)
    for _ in train_epochs(network, build_optimizer(network, training), subset, scale, training, seed, pulse=pulse):
        pass
    return compute_accuracy(network, test, scale)
