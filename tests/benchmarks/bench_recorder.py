"""Recording the dynamics: an epoch of training with and without it, and the `aum` package's per-sample update.

The two networks are equal and end equal, or the benchmark fails: recording must not change the training. The peer of the
second row loops over the samples, on the same logits in the same batches, which both sides are given ready.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from measuring import Row, Size, missing, race

from engine.data.loader import Samples, epoch_batches, normalization
from engine.spec import TrainingSpec
from engine.training.loop import Normalization, build_optimizer, train_epochs
from engine.training.models import build_model
from engine.training.recording import DynamicsRecorder, Spill


def rows(size: Size) -> Iterator[Row]:
    samples = _samples(1_000 if size.small else 60_000)
    with tempfile.TemporaryDirectory() as folder:
        yield _training(samples, size, Path(folder))
        yield _peer(samples, size, Path(folder))


def _training(samples: Samples, size: Size, folder: Path) -> Row:
    training = TrainingSpec(epochs=size.repeats + 1)
    networks = [build_model("mlp", samples.inputs.shape[1:], samples.classes, seed=0) for _ in range(2)]

    def epochs(network: torch.nn.Module, to: DynamicsRecorder | None) -> Iterator[None]:
        normal, optimizer = Normalization(*normalization(samples)), build_optimizer(network, training)
        for epoch, _ in train_epochs(network, optimizer, samples, normal, training, 0, recorder=to):
            if to:
                to.end_epoch(epoch)
            yield

    plain, recorded = epochs(networks[0], None), epochs(networks[1], _recorder(samples, folder / "a"))
    row = Row("training, recorded", f"{len(samples):,} images, mlp", "the same, not recorded", 1.05)
    row = race(row, lambda: next(recorded), lambda: next(plain), size.repeats)
    pairs = zip(networks[0].state_dict().values(), networks[1].state_dict().values(), strict=True)
    if not all(torch.equal(a, b) for a, b in pairs):
        raise SystemExit("the recorded network has other weights than the plain one")
    return row


def _peer(samples: Samples, size: Size, folder: Path) -> Row:
    row = Row("recording an epoch", f"{len(samples):,} x {samples.classes} logits", "aum, per sample", 1 / 15)
    if absent := missing("aum"):
        return Row(row.what, row.data, row.peer, row.goal, note=absent)
    from aum import AUMCalculator

    logits = torch.randn(len(samples), samples.classes, generator=torch.Generator().manual_seed(0))
    batches = [
        (logits[batch], samples.labels[batch], batch, batch.tolist()) for batch in epoch_batches(samples, 256, 0, 0)
    ]
    recorder, peer = _recorder(samples, folder / "b"), AUMCalculator(str(folder))

    def ours() -> None:
        for values, labels, batch, _ in batches:
            recorder.log(values, labels, batch)
        recorder.end_epoch(0)

    def theirs() -> None:
        for values, labels, _, ids in batches:
            peer.update(values, labels, ids)

    return race(row, ours, theirs, size.repeats)


def _recorder(samples: Samples, path: Path) -> DynamicsRecorder:
    return DynamicsRecorder(Spill(path, len(samples), samples.classes, keep_logits=True), torch.device("cpu"))


def _samples(n: int) -> Samples:
    """Random images of the shape of MNIST's."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return Samples(images, torch.randint(10, (n,), generator=generator), torch.arange(n), 10, None)
