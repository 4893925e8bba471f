"""How fast psi-curves are: beside the plain loop, stacked against one by one, and seconds for whole figures.

`python tests/benchmarks psi` trains the networks of a curve as `winnow psi` does on this processor, side by side, and in the
loop that everyone writes: one network after another, a DataLoader of a TensorDataset, the same batch size and optimizer.

    python tests/benchmarks/bench_psi.py [--mnist FOLDER] [--cifar10 PARQUET_FOLDER] [--device auto]
                                        [--points 100]

On a GPU: PRUNE's synthetic figure (10,000 samples, 5 orders x 100 points x 3 seeds x 200 epochs), its MNIST figure
where --mnist gives the IDX files, and CIFAR-10 with its fast preset where --cifar10 gives a Parquet source of
`winnow ingest`. Without a GPU, smaller versions run, and a line says so. The orders are those that need no training
of their own (random, oracle, complexity gap), so that the seconds are those of the curve.
There the peer is Winnow's own loop, one network after another, on the same samples; each version is run twice, the first
time to warm up.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `winnow` itself does; read when torch is imported

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from machine import print_machine
from measuring import Row, Size, race
from torch.utils.data import DataLoader, TensorDataset

from engine.data.ingest import ingest
from engine.data.loader import Samples, load_split, normalization
from engine.data.request import IngestSpec
from engine.presets import find_preset
from engine.queries.connection import connected
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.runs.psi import plan_psi, run_psi
from engine.spec import TrainingSpec
from engine.store.journal import read_journal
from engine.store.progress import Progress
from engine.store.workspace import Workspace
from engine.training.device import pick_device
from engine.training.loop import Normalization, batches_per_epoch, build_optimizer, train_epochs
from engine.training.models import build_model
from engine.training.stacked import Member, train_stacked
from engine.training.together import train_together, workers_for

GOAL = 1 / 3
ORDERS = ("random", "oracle", "cg", "cg*", "cg_partial")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", help="folder with MNIST's IDX files")
    parser.add_argument("--cifar10", help="folder or glob of CIFAR-10's Parquet files")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--points", type=int, help="of each figure: 100 by default, 20 without a GPU")
    options = parser.parse_args()
    device = pick_device(options.device)
    gpu = device.type == "cuda"
    print_machine(device=device)
    print("1 warm-up, then 1 repeat of each version; whole figures run once")
    if not gpu:
        print("no GPU found: smaller versions on the CPU (2,000 samples, 3 seeds, 5 orders, 20 epochs)")
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(Path(folder) / "workspace", create=True)
        limit = None if gpu else 2_000
        ingest(workspace, IngestSpec(name="synthetic", source="synthetic", limit=limit, noise="symmetric:0.3"))
        compare(load_split(workspace, "synthetic", "train", device), Path(folder), 300 if gpu else 10)
        fast = "" if gpu else "-fast"
        figure(workspace, "synthetic", f"prune-synthetic{fast}", options.points or (100 if gpu else 20), device)
        others = (("mnist", options.mnist, "prune-mnist"), ("cifar10", options.cifar10, "prune-cifar10-fast"))
        for data, source, preset in others:
            if source and gpu:
                ingest(workspace, IngestSpec(name=data, source=source, noise="symmetric:0.3"))
                figure(
                    workspace, data, preset, options.points or int((find_preset(preset).psi or {})["points"]), device
                )
            else:
                print(f"{data}: not run, {'no files were given' if gpu else 'it needs a GPU'}")


def rows(size: Size) -> Iterator[Row]:
    """Networks of a curve side by side, beside the loop of a DataLoader."""
    n, networks = (200, 2) if size.small else (2_000, 10)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(Path(folder) / "workspace", create=True)
        ingest(workspace, IngestSpec(name="synthetic", source="synthetic", limit=n, noise="symmetric:0.3"))
        samples = load_split(workspace, "synthetic", "train", torch.device("cpu"))
        scale, training = Normalization(*normalization(samples)), TrainingSpec(epochs=2, batch_size=100, lr=0.01)
        members = _members(samples, training, networks)
        progress = Progress(Path(folder), {"psi": 1.0})
        workers = workers_for("mlp", networks, samples.inputs.device)

        def ours() -> None:
            work = [partial(_train, samples, scale, training, member) for member in members]
            train_together(work, workers, progress)

        def theirs() -> None:
            inputs = (samples.inputs.float() - scale.mean) / scale.std
            for member in members:
                network, data = (
                    _network(samples, member),
                    TensorDataset(inputs[member.kept], samples.labels[member.kept]),
                )
                optimizer, loader = (
                    torch.optim.Adam(network.parameters(), training.lr),
                    DataLoader(data, 100, shuffle=True),
                )
                for _ in range(training.epochs):
                    for batch, labels in loader:
                        optimizer.zero_grad()
                        torch.nn.functional.cross_entropy(network(batch), labels).backward()
                        optimizer.step()

        row = Row("psi-curve", f"{networks} mlp, to {len(samples):,} samples", "loop of a DataLoader")
        found = race(row, ours, theirs, size.repeats)
        wall = found.wall or (0.0, 1.0)
        share = wall[0] / wall[1]  # the goal is of the clock: networks side by side use all processors
        met = "met" if share <= GOAL else "not met"
        note = f"by the clock {wall[0]:.2f} s against {wall[1]:.2f} s, {share:.2f}; goal {GOAL:.2f}: {met}"
        yield replace(found, note=note)


def _members(samples: Samples, training: TrainingSpec, networks: int) -> list[Member]:
    """Networks on 1, 4/5, ... 1/5 of the samples, over and over."""
    n, device = len(samples), samples.inputs.device
    return [Member(torch.arange(n - n * (k % 5) // 5, device=device), k, training.epochs) for k in range(networks)]


def _network(samples: Samples, member: Member) -> torch.nn.Module:
    return build_model("mlp", tuple(samples.inputs.shape[1:]), samples.classes, member.seed).to(samples.inputs.device)


def _train(samples: Samples, scale: Normalization, training: TrainingSpec, member: Member) -> None:
    subset = replace(samples.with_inputs(samples.inputs[member.kept]), labels=samples.labels[member.kept])
    network = _network(samples, member)
    for _ in train_epochs(network, build_optimizer(network, training), subset, scale, training, member.seed):
        pass


def compare(samples: Samples, folder: Path, networks: int) -> None:
    """Steps of all networks per second: one after another, side by side, and stacked."""
    device = samples.inputs.device
    scale, training = Normalization(*normalization(samples)), TrainingSpec(epochs=2, batch_size=100, lr=0.01)
    members = _members(samples, training, networks)
    progress = Progress(folder, {"psi": 1.0})
    workers = workers_for("mlp", networks, device)
    few = members[: min(networks, 10)]  # one after another, more of them only take longer

    def steps(some: list[Member]) -> int:
        return sum(training.epochs * batches_per_epoch(len(member.kept), training.batch_size) for member in some)

    plain = partial(_train, samples, scale, training)
    forms: dict[str, tuple[Callable[[], object], int]] = {
        "plain loop, one after another": (lambda: [plain(member) for member in few], steps(few)),
        f"side by side, {workers}": (
            lambda: train_together([partial(plain, member) for member in few], workers, progress),
            steps(few),
        ),
        f"stacked, {networks}": (lambda: train_stacked(members, samples, scale, training), steps(members)),
    }
    print(f"\n{'mlp, batch 100, Adam, 2 epochs':32}{'networks x steps / s':>22}{'ratio':>8}")
    first = 0.0
    for form, (function, count) in forms.items():
        for _ in range(2):
            started = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            rate = count / (time.perf_counter() - started)
        first = first or rate
        print(f"{form:32}{rate:22,.0f}{rate / first:8.1f}")


def figure(workspace: Workspace, dataset: str, preset: str, points: int, device: torch.device) -> None:
    """Seconds for a whole figure, and until its points 0, 1/2 and 1/4 were there."""
    training = find_preset(preset).training
    seeds = 3 if device.type == "cpu" else int((find_preset(preset).psi or {})["seeds"])
    scored = plan_run(workspace, dataset, ["cg", "cg_partial"], training)
    compute(workspace, scored, device.type)
    plan = plan_psi(workspace, dataset, ORDERS, points=points, seeds=seeds, training=training)
    started = time.perf_counter()
    run, _ = run_psi(workspace, plan, device)
    seconds = time.perf_counter() - started
    journal = read_journal(workspace.run_dir(run))
    begun = next(event["at"] for event in journal if event["event"] == "started")
    step = sorted({p["pruned"] for e in journal if e["event"] == "psi_points" for p in e["points"]})
    coarse = {0, step[points // 2], step[points // 4]}
    last = max(
        e["at"] for e in journal if e["event"] == "psi_points" and coarse & {p["pruned"] for p in e["points"]}
    )  # fmt: skip
    with connected(workspace, dataset, [run]) as connection:
        [(alone,)] = connection.execute(
            "SELECT sum(seconds) FROM (SELECT DISTINCT ON (pruned, seed, CASE WHEN pruned = 0 THEN '' ELSE \"order\" END) "
            "seconds FROM psi)"
        ).fetchall()
    print(
        f"\n{dataset} with {preset}: {len(ORDERS)} orders x {points} points x {seeds} seeds x {training.epochs} epochs in "
        f"{seconds:,.0f} s; coarse figure (0, 1/2, 1/4) after {last - begun:,.0f} s; its networks together {alone:,.0f} s"
    )


if __name__ == "__main__":
    main()
