"""A split of a dataset as tensors on one device, with its sample ids; batches that need no stored state.

The one module of engine.data that imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import duckdb
import numpy as np
import torch
from torch import Tensor

from engine.data.dataset_file import fetch_one, read_blocks, reading
from engine.errors import NotFoundError, StorageError
from engine.store.workspace import Workspace

_SAMPLES_AT_ONCE, _VALUES_AT_ONCE = 4096, 1 << 23
"""What is read at a time where all inputs are read: as many samples, and no more values."""


@dataclass(frozen=True)
class Samples:
    """One split on one device, or some samples of it.

    stored: (M, C, H, W) uint8 or (M, D) float32, which may be mapped from a file; labels: (N,) int64 in [0, classes), the
    given ones; sample_ids: (N,) int64, ascending in a split; true_labels: (N,) int64, or None when any is unknown;
    rows: (N,) int64, the rows of `stored` that are the inputs of the samples, or None where it holds just these, in order;
    mapped: whether `stored` lies in a file, of which memory takes what there is room for.
    """

    stored: Tensor
    labels: Tensor
    sample_ids: Tensor
    classes: int
    true_labels: Tensor | None
    rows: Tensor | None = None
    mapped: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def inputs(self) -> Tensor:
        """The inputs of all samples, (N, C, H, W) uint8 or (N, D) float32; of some samples of a split they are a copy."""
        return self.stored if self.rows is None else self.stored[self.rows]

    def inputs_at(self, positions: Tensor | slice) -> Tensor:
        """The inputs of the samples at some positions, of any shape: (..., C, H, W) uint8 or (..., D) float32."""
        return self.stored[positions if self.rows is None else self.rows[positions]]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.stored.shape[1:])

    @property
    def are_images(self) -> bool:
        """Whether an input is an image, and not a vector."""
        return self.stored.ndim == 4

    @property
    def device(self) -> torch.device:
        return self.stored.device

    def subset(self, positions: Tensor) -> Samples:
        """The samples at some positions (M,) int64, which may lie on any device, in that order. Inputs are not copied."""
        positions = positions.to(self.labels.device)
        return replace(
            self,
            labels=self.labels[positions],
            sample_ids=self.sample_ids[positions],
            true_labels=None if self.true_labels is None else self.true_labels[positions],
            rows=positions if self.rows is None else self.rows[positions],
        )

    def with_inputs(self, inputs: Tensor) -> Samples:
        """The same samples with other inputs (N, ...), one for each."""
        return replace(self, stored=inputs, rows=None, mapped=False)


def joined(first: Samples, second: Samples, mapped: Tensor | None = None) -> Samples:
    """The samples of two splits of one dataset, those of the first in front. mapped: the inputs of both in one file"""
    truths = first.true_labels, second.true_labels
    both = replace(
        first,
        labels=torch.cat([first.labels, second.labels]),
        sample_ids=torch.cat([first.sample_ids, second.sample_ids]),
        true_labels=None if truths[0] is None or truths[1] is None else torch.cat([truths[0], truths[1]]),
    )
    if mapped is None:
        return both.with_inputs(torch.cat([first.inputs, second.inputs]))
    inputs = mapped.to(first.device)
    return replace(both, stored=inputs, rows=None, mapped=inputs is mapped)


def load_split(
    workspace: Workspace,
    name: str,
    split: Literal["train", "test"],
    device: torch.device | str = "cpu",
    mapped: Tensor | None = None,
) -> Samples:
    """One split of a dataset, read block by block straight into its place on the device.

    Args:   mapped: inputs of these samples that lie in a file, in place of the dataset's own, which are then not read
    Raises: NotFoundError when there is no such dataset or it has no samples in the split; StorageError when
    the file does not hold the inputs of every sample.
    """
    path = workspace.require_dataset(name)
    with reading(path) as connection:
        shape, dtype = fetch_one(connection, "SELECT input_shape, input_dtype FROM dataset")
        (classes,) = fetch_one(connection, "SELECT count(*) FROM classes")
        columns = connection.execute(
            "SELECT sample_id, label, coalesce(true_label, -1) AS true_label FROM samples WHERE split = ? "
            "ORDER BY sample_id",
            [split],
        ).fetchnumpy()
        ids, labels, truth = (np.asarray(columns[c], np.int64) for c in ("sample_id", "label", "true_label"))
        if not len(ids):
            raise NotFoundError(f"dataset '{name}' has no {split} samples; ingest it with --test or --test-fraction")
        if mapped is None:
            place = torch.device(device)
            inputs = _read_inputs(connection, name, tuple(shape), str(dtype), int(ids[0]), len(ids), place)
        else:
            inputs = mapped.to(device)
    return Samples(
        inputs,
        labels=torch.from_numpy(labels).to(device),
        sample_ids=torch.from_numpy(ids).to(device),
        classes=int(classes),
        true_labels=None if (truth < 0).any() else torch.from_numpy(truth).to(device),
        mapped=inputs is mapped,
    )


@dataclass(frozen=True)
class Facts:
    """What is known of a dataset before it is read: the shape and dtype of an input, classes, samples of the splits."""

    shape: tuple[int, ...]
    dtype: str
    classes: int
    train: int
    test: int


def dataset_shape(workspace: Workspace, name: str) -> Facts:
    """The shape of a dataset; NotFoundError when there is none of that name."""
    with reading(workspace.require_dataset(name)) as connection:
        shape, dtype = fetch_one(connection, "SELECT input_shape, input_dtype FROM dataset")
        (classes,) = fetch_one(connection, "SELECT count(*) FROM classes")
        train, test = fetch_one(
            connection,
            "SELECT count(*) FILTER (split = 'train'), count(*) FILTER (split = 'test') FROM samples",
        )
    return Facts(tuple(int(size) for size in shape), str(dtype), int(classes), int(train), int(test))


def epoch_batches(samples: Samples, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """The positions (not ids) of one epoch's batches, int64 on the samples' device: `epoch_order`, cut at `batch_ends`."""
    order = epoch_order(len(samples), seed, epoch).to(samples.labels.device)
    start = 0
    for end in batch_ends(len(samples), batch_size):
        yield order[start:end]
        start = end


def read_batches(samples: Samples, batches: Iterable[Tensor], window: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of positions, each with its inputs, as `Samples.inputs_at` gives them.

    window: inputs that are read at a time, in the order in which they lie in their file; 0: those of a batch. A disk reads a
    whole file many times faster than its rows at random.
    """
    if not window:
        yield from ((positions, samples.inputs_at(positions)) for positions in batches)
        return
    held: list[Tensor] = []
    for positions in batches:
        if held and sum(map(len, held)) + len(positions) > window:
            yield from _read_window(samples, held)
            held = []
        held.append(positions)
    if held:
        yield from _read_window(samples, held)


def _read_window(samples: Samples, batches: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    positions = torch.cat(batches)
    rows, order = (positions if samples.rows is None else samples.rows[positions]).sort()
    inputs = torch.empty(len(rows), *samples.shape, dtype=samples.stored.dtype)
    step = max(1, _VALUES_AT_ONCE // math.prod(samples.shape))
    starts = torch.arange(0, len(samples.stored) + step, step)
    spans = torch.searchsorted(rows, starts).tolist()
    for start, (first, last) in zip(starts.tolist(), pairwise(spans), strict=False):
        if last > first:  # a copy of the block reads it from end to end
            inputs[order[first:last]] = samples.stored[start : start + step].clone()[rows[first:last] - start]
    yield from zip(batches, torch.split(inputs, [len(batch) for batch in batches]), strict=True)


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """The sequence in which an epoch sees its n samples, (n,) int64 on the CPU.

    A function of (seed, epoch) alone, drawn on the CPU, so that a resumed run and another device see the same batches.
    """
    mixed = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    return torch.randperm(n, generator=torch.Generator().manual_seed(int(mixed >> np.uint64(1))))


def batch_ends(n: int, batch_size: int) -> list[int]:
    """Where the batches of an epoch end, the last one at n.

    The last batch may be smaller; a last batch of one sample joins the one before it, because batch normalization
    cannot train on one.
    """
    ends = [*range(batch_size, n, batch_size), n]
    if len(ends) > 1 and ends[-1] - ends[-2] == 1:
        del ends[-2]
    return ends


def normalization(samples: Samples) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the samples, in the units in which the inputs are stored.

    Images: per channel, shape (C, 1, 1), 0..255. Vectors: per dimension, shape (D,). A channel or dimension
    that never varies gets the deviation 1. Exact sums over blocks, returned as float32.
    """
    if samples.stored.dtype == torch.uint8:
        mean, variance = _channel_moments(samples)
        mean, variance = mean.view(-1, 1, 1), variance.view(-1, 1, 1)
    else:
        zeros = torch.zeros(samples.shape, dtype=torch.float64, device=samples.device)
        mean = sum((block.double().sum(0) for block in _blocks(samples)), zeros) / len(samples)
        squares = ((block.double() - mean).square().sum(0) for block in _blocks(samples))
        variance = sum(squares, zeros) / len(samples)
    std = variance.sqrt()
    return mean.float(), torch.where(std > 1e-6, std, torch.ones_like(std)).float()


def _blocks(samples: Samples) -> Iterator[Tensor]:
    step = max(1, min(_SAMPLES_AT_ONCE, _VALUES_AT_ONCE // math.prod(samples.shape)))
    return (samples.inputs_at(slice(i, i + step)) for i in range(0, len(samples), step))


def _channel_moments(samples: Samples) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) float64 of (N, C, H, W) uint8, from counts of the 256 values: exact, and fast."""
    channels, height, width = samples.shape
    counts = torch.zeros(channels, 256, dtype=torch.float64, device=samples.device)
    for block in _blocks(samples):
        for channel in range(channels):
            counts[channel] += torch.bincount(block[:, channel].flatten(), minlength=256)
    shares = counts / (len(samples) * height * width)
    values = torch.arange(256, dtype=torch.float64, device=samples.device)
    mean = shares @ values
    return mean, (shares * (values - mean[:, None]).square()).sum(1)


def to_float(batch_inputs: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Inputs as a network takes them: float32, mean 0 and deviation 1, with the result of `normalization`."""
    return (batch_inputs.float() - mean) / std


def _read_inputs(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    first: int,
    count: int,
    device: torch.device,
) -> Tensor:
    inputs = torch.empty((count, *shape), dtype=getattr(torch, dtype), device=device)
    sample_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    filled = 0
    for start, n, data in read_blocks(connection, first, count):
        if start - first != filled or len(data) != n * sample_bytes:
            raise StorageError(f"dataset '{name}' is damaged at sample {start}; remove it and ingest it again")
        block = np.frombuffer(data, dtype).reshape(n, *shape)
        if device.type == "cpu":
            # a plain copy: torch would start its threads for each block, 20 x slower on a busy machine
            inputs.numpy()[filled : filled + n] = block
        else:
            inputs[filled : filled + n] = torch.from_numpy(block.copy())
        filled += n
    if filled != count:
        raise StorageError(f"dataset '{name}' holds the inputs of {filled} of {count} samples; ingest it again")
    return inputs
