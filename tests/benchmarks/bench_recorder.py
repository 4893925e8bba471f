"""What recording the dynamics costs: an epoch of training with and without it, and the published AUM package.

    python tests/benchmarks/bench_recorder.py [--mnist FOLDER] [--epochs 5] [--n 60000]

Two equal networks are trained an epoch each in turn, one of them recorded, its full logits kept; which goes first
changes every round, the first round is warm-up. The peer is `aum.AUMCalculator.update`, which loops over the
samples, on the logits of one epoch. Both wall time and CPU time are measured; on a shared machine the CPU time is the
reliable one. FOLDER holds the IDX files of MNIST; without it, --n random images of that shape are trained on.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `winnow` itself does; read when torch is imported

import argparse
import gzip
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from aum import AUMCalculator
from machine import print_machine

from engine.data.loader import Samples, epoch_batches, normalization
from engine.spec import TrainingSpec
from engine.training.loop import Normalization, build_optimizer, train_epochs
from engine.training.models import build_model
from engine.training.recording import DynamicsRecorder, Spill

GOAL = 1.05
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="folder with train-images-idx3-ubyte.gz and its labels")
    parser.add_argument("--epochs", type=int, default=5, help="measured epochs of each network")
    parser.add_argument("--n", type=int, default=60_000, help="random images, where --mnist is not given")
    options = parser.parse_args()
    samples = load_mnist(options.mnist) if options.mnist else make_samples(options.n)
    training = TrainingSpec(epochs=options.epochs + 1)
    print_machine("aum")
    print(
        f"{len(samples):,} {'MNIST' if options.mnist else 'random'} images, mlp, batch {training.batch_size}, "
        f"1 warm-up + {options.epochs} epochs each in turn\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        plain, recorded = time_training(samples, training, Path(folder))
        print(f"{'seconds per epoch, median':32}{'plain':>10}{'recorded':>10}{'ratio':>8}")
        for i, clock in enumerate(("wall", "cpu")):
            a, b = ([second[i] for second in seconds] for seconds in (plain, recorded))
            ratio = statistics.median(y / x for x, y in zip(a, b, strict=True))
            print(f"{clock:32}{statistics.median(a):10.2f}{statistics.median(b):10.2f}{ratio:8.3f}")
        print(f"(ratio: median over the rounds; goal: at most {GOAL})\n")

        ours, theirs = time_peer(samples, training, Path(folder))
        print(f"{'seconds to take one epoch':32}{'winnow':>10}{'aum':>10}{'ratio':>8}")
        for i, clock in enumerate(("wall", "cpu")):
            print(f"{clock:32}{ours[i]:10.3f}{theirs[i]:10.3f}{theirs[i] / ours[i]:8.1f}")
        epoch = statistics.median(cpu for _, cpu in plain)
        print(
            f"\nthe recorder's own CPU seconds are {ours[1] / epoch:.1%} of a plain epoch's, aum's {theirs[1] / epoch:.1%}"
        )


Seconds = tuple[float, float]
"""Wall time and CPU time."""


def measure(work: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def time_training(samples: Samples, training: TrainingSpec, folder: Path) -> tuple[list[Seconds], list[Seconds]]:
    """Seconds of every measured epoch, plain and recorded; fails when recording changed what was learned."""
    normal = Normalization(*normalization(samples))
    networks = [build_model("mlp", samples.inputs.shape[1:], samples.classes, seed=0) for _ in range(2)]
    recorder = make_recorder(samples, folder / "training.dynamics")

    def epochs(network: torch.nn.Module, to: DynamicsRecorder | None) -> Iterator[None]:
        optimizer = build_optimizer(network, training)
        for epoch, _ in train_epochs(network, optimizer, samples, normal, training, 0, recorder=to):
            if to:
                to.end_epoch(epoch)
            yield

    loops = (epochs(networks[0], None), epochs(networks[1], recorder))
    seconds: tuple[list[Seconds], list[Seconds]] = ([], [])
    for turn in range(training.epochs):
        for i in (0, 1) if turn % 2 else (1, 0):
            taken = measure(lambda loop=loops[i]: next(loop))  # type: ignore[misc]
            if turn:
                seconds[i].append(taken)
    pairs = zip(networks[0].state_dict().values(), networks[1].state_dict().values(), strict=True)
    if not all(torch.equal(a, b) for a, b in pairs):
        raise SystemExit(
            "the recorded network has other weights than the plain one: recording must not change the training"
        )
    return seconds


def time_peer(samples: Samples, training: TrainingSpec, folder: Path, rounds: int = 3) -> tuple[Seconds, Seconds]:
    """Seconds to take the logits of one epoch: the median of our recorder and of AUMCalculator.update."""
    logits = torch.randn(len(samples), samples.classes, generator=torch.Generator().manual_seed(0))
    batches = list(epoch_batches(samples, training.batch_size, 0, 0))
    recorder = make_recorder(samples, folder / "peer.dynamics")
    peer = AUMCalculator(str(folder))

    def ours() -> None:
        for batch in batches:
            recorder.log(logits[batch], samples.labels[batch], batch)
        recorder.end_epoch(0)

    def theirs() -> None:
        for batch in batches:
            peer.update(logits[batch], samples.labels[batch], batch.tolist())

    taken: tuple[list[Seconds], list[Seconds]] = ([], [])
    for turn in range(rounds + 1):
        for i, work in enumerate((ours, theirs)):
            seconds = measure(work)
            if turn:
                taken[i].append(seconds)
    wall_cpu = [tuple(statistics.median(s[i] for s in side) for i in (0, 1)) for side in taken]
    return wall_cpu[0], wall_cpu[1]  # type: ignore[return-value]


def make_recorder(samples: Samples, path: Path) -> DynamicsRecorder:
    return DynamicsRecorder(Spill(path, len(samples), samples.classes, keep_logits=True), CPU)


def make_samples(n: int) -> Samples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return Samples(images, torch.randint(10, (n,), generator=generator), torch.arange(n), 10, None)


def load_mnist(folder: Path) -> Samples:
    """The training images and labels of MNIST from their IDX files: 16 and 8 bytes of header, then the values."""
    images, labels = (
        np.frombuffer(gzip.decompress((folder / f"train-{name}-ubyte.gz").read_bytes()), np.uint8, offset=skip)
        for name, skip in (("images-idx3", 16), ("labels-idx1", 8))
    )
    pixels = torch.from_numpy(images.reshape(-1, 1, 28, 28).copy())
    return Samples(pixels, torch.from_numpy(labels.astype(np.int64)), torch.arange(len(labels)), 10, None)


if __name__ == "__main__":
    main()
