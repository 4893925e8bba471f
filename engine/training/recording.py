"""The recording of training dynamics: per sample and epoch, a few numbers, in a file that grows with the epochs.

Logits are staged as they come and turned into columns some thousand rows at a time, because many small tensor
operations per step would cost more than the step's own arithmetic. The file holds one block per epoch, so an
epoch written twice (after a crash and a resume) is the same epoch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from engine.errors import ScoreInputError, StorageError
from engine.store.atomic import storage_errors
from engine.training.columns import LANES, compute_columns, recorded_columns

STAGED_VALUES = 1 << 19
"""Logits that are staged on a GPU before they are turned into columns."""

CACHED_VALUES = 1 << 15
"""The same on a processor: few enough to stay in its cache with what is made of them. Torch takes one thread for so few;
more threads would only wait."""

BLOCK_BYTES = 1 << 26
"""Memory for one block of samples when trajectories are written or read."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Spill:
    """The file that one network's dynamics grow in: per epoch all columns (N each), then logits (N, C) if kept."""

    path: Path
    samples: int
    classes: int
    keep_logits: bool

    @property
    def column_types(self) -> dict[str, np.dtype[Any]]:
        return {name: np.dtype(kind) for name, kind in recorded_columns().items()}

    @property
    def epoch_bytes(self) -> int:
        row = sum(kind.itemsize for kind in self.column_types.values())
        return self.samples * (row + (4 * self.classes if self.keep_logits else 0))

    def epochs(self) -> int:
        """Whole epochs in the file."""
        return self.path.stat().st_size // self.epoch_bytes if self.path.exists() else 0

    def write(self, epoch: int, columns: dict[str, Tensor], logits: Tensor | None) -> None:
        """Put epoch (0-based) in its place."""
        parts = [columns[name].cpu().numpy().astype(kind, copy=False) for name, kind in self.column_types.items()]
        if self.keep_logits and logits is not None:
            parts.append(logits.numpy())
        self.put(epoch, parts)

    def put(self, epoch: int, parts: Sequence[Array]) -> None:
        """Put arrays, one after the other, where an epoch (0-based) begins."""
        with (
            storage_errors("dynamics", self.path.parent),
            open(self.path, "r+b" if self.path.exists() else "w+b") as file,
        ):
            file.seek(epoch * self.epoch_bytes)
            for part in parts:
                file.write(np.ascontiguousarray(part).data)

    def truncate(self, epochs: int) -> None:
        """Forget what comes after so many epochs; StorageError when fewer are there."""
        if self.epochs() < epochs:
            raise StorageError(
                f"{self.path} holds {self.epochs()} epochs, the checkpoint {epochs}; remove the run and start it again"
            )
        if self.path.exists():
            os.truncate(self.path, epochs * self.epoch_bytes)

    def sync(self) -> None:
        """Wait until the file is on the disk."""
        if self.path.exists():
            handle = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def columns(self, writable: bool = False) -> dict[str, Array]:
        """The columns as (T, N) arrays mapped from the file."""
        mapped = np.memmap(self.path, dtype=np.uint8, mode="r+" if writable else "r")
        epochs, offset, out = self.epochs(), 0, {}
        for name, kind in self.column_types.items():
            strides = (self.epoch_bytes, kind.itemsize)
            out[name] = np.ndarray((epochs, self.samples), kind, mapped, offset, strides)
            offset += self.samples * kind.itemsize
        return out

    def logits(self, writable: bool = False) -> Array:
        """The kept logits as a (T, N, C) array mapped from the file."""
        mapped = np.memmap(self.path, dtype=np.uint8, mode="r+" if writable else "r")
        offset = self.epoch_bytes - self.samples * self.classes * 4
        shape, strides = (self.epochs(), self.samples, self.classes), (self.epoch_bytes, 4 * self.classes, 4)
        return np.ndarray(shape, np.float32, mapped, offset, strides)


class DynamicsRecorder:
    """Takes the logits of one network, batch by batch, and writes an epoch of dynamics at a time to a Spill."""

    def __init__(self, spill: Spill, device: torch.device, expected: Tensor | None = None) -> None:
        """expected: (N,) the labels that must be logged, when they come from a loop of the user's own."""
        self.spill = spill
        self.device = device
        self._expected = None if expected is None else expected.to(device)
        n = spill.samples
        types = {"float32": torch.float32, "int16": torch.int16}
        self._columns = {c: torch.zeros(n, dtype=types[t], device=device) for c, t in recorded_columns().items()}
        self._logits = torch.zeros(n, spill.classes) if spill.keep_logits else None
        self._columns["p_given"].fill_(math.nan)  # never logged
        rows = (CACHED_VALUES if device.type == "cpu" else STAGED_VALUES) // spill.classes
        self._block = max(LANES, rows // LANES * LANES)
        self._staged: list[tuple[Tensor, Tensor, Tensor]] = []
        self._staged_rows = 0

    def log(self, logits: Tensor, labels: Tensor, positions: Tensor) -> None:
        """Take one batch: logits (B, C), labels (B,), positions (B,) of the samples in the training set."""
        if self._staged_rows + len(logits) > self._block:
            self._flush()
        self._staged.append((logits.detach(), labels, positions))
        self._staged_rows += len(logits)

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Write the epoch (0-based) and return its mean loss and accuracy against the given labels.

        A sample not logged in this epoch keeps its values of the last one. Raises ScoreInputError when a sample
        has never been logged.
        """
        self._flush()
        missing = self._columns["p_given"].isnan().nonzero()[:, 0]
        if len(missing):
            raise ScoreInputError(
                f"{len(missing)} of {self.spill.samples} samples were not logged by the end of epoch {epoch + 1}, "
                f"the first is {int(missing[0])}; log every sample in the first epoch (drop_last=False)"
            )
        self.spill.write(epoch, self._columns, self._logits)
        # `predicted` is either the given label or the class of the largest other logit.
        accuracy = (self._columns["predicted"] != self._columns["other"]).float().mean()
        return {"train_loss": float(self._columns["loss"].double().mean()), "train_accuracy": float(accuracy)}

    def restore(self, epochs: int) -> None:
        """Continue after so many epochs of the spill: what came after them is forgotten."""
        self.spill.truncate(epochs)
        if epochs:
            for name, values in self.spill.columns().items():
                self._columns[name].copy_(torch.from_numpy(values[epochs - 1].copy()))
            if self._logits is not None:
                self._logits.copy_(torch.from_numpy(self.spill.logits()[epochs - 1].copy()))

    def _flush(self) -> None:
        if not self._staged:
            return
        parts = zip(*self._staged, strict=True)
        logits, labels, positions = (torch.cat(part).to(self.device) for part in parts)
        self._staged, self._staged_rows = [], 0
        if self._expected is not None:
            self._check(labels, positions, self._expected)
        blocks = (torch.split(whole, self._block) for whole in (logits.float(), labels, positions))
        for block in zip(*blocks, strict=True):
            self._take(*block)

    def _take(self, logits: Tensor, labels: Tensor, positions: Tensor) -> None:
        """Put some samples in their places, by scatter_, which is many times as fast as an index here."""
        smallest, largest = torch.aminmax(logits)
        if not math.isfinite(largest - smallest):
            # Not finite either where two finite logits of a sample lie so far apart that their margin is not.
            finite = torch.isfinite(logits.amax(1) - logits.amin(1))
            if not bool(finite.all()):
                raise ScoreInputError(
                    f"the logits of sample {int(positions[~finite][0])} are not finite, or too far apart for a finite "
                    "margin; lower the learning rate or check its input"
                )
        for name, values in compute_columns(logits, labels).items():
            self._columns[name].scatter_(0, positions, values)
        if self._logits is not None:
            self._logits.index_copy_(0, positions.cpu(), logits.cpu())

    def _check(self, labels: Tensor, positions: Tensor, expected: Tensor) -> None:
        known = (positions >= 0) & (positions < len(expected))
        if not bool(known.all()):
            raise ScoreInputError(f"sample_id {int(positions[~known][0])}; allowed: 0 to {len(expected) - 1}")
        differs = expected[positions] != labels
        if bool(differs.any()):
            i, given = int(positions[differs][0]), int(labels[differs][0])
            raise ScoreInputError(
                f"sample {i} was logged with label {given}, the dataset gives {int(expected[i])}; "
                "check that sample_ids are the dataset's"
            )


def create_trajectories(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the table `trajectories`."""
    sql = {"float32": "FLOAT[]", "int16": "SMALLINT[]"}
    columns = ", ".join(f'"{name}" {sql[kind]}' for name, kind in recorded_columns().items())
    connection.execute(f"CREATE TABLE trajectories (sample_id INTEGER, seed INTEGER, label INTEGER, {columns})")


def write_trajectories(
    connection: duckdb.DuckDBPyConnection,
    spills: Sequence[Spill],
    sample_ids: Array,
    labels: Array,
    report: Callable[[int, int], None],
) -> None:
    """Turn the spills of the seeds, epoch by epoch, into one array per sample, seed and column.

    A sample's seeds lie next to each other, so that its whole history is one small read.
    """
    samples, seeds = len(sample_ids), len(spills)
    mapped = [spill.columns() for spill in spills]
    epochs = spills[0].epochs()
    row = max(spill.epoch_bytes for spill in spills) // max(samples, 1)
    step = max(1, BLOCK_BYTES // max(1, row * epochs * seeds))
    for start in range(0, samples, step):
        stop = min(start + step, samples)
        block: dict[str, pa.Array] = {
            "sample_id": pa.array(np.repeat(sample_ids[start:stop], seeds), pa.int32()),
            "seed": pa.array(np.tile(np.arange(seeds), stop - start), pa.int32()),
            "label": pa.array(np.repeat(labels[start:stop], seeds), pa.int32()),
        }
        for name in spills[0].column_types:
            values = np.stack([columns[name][:, start:stop].T for columns in mapped], axis=1)
            block[name] = _lists(values.reshape(-1, epochs))
        _insert(connection, "trajectories", block)
        for seed, spill in enumerate(spills):
            if spill.keep_logits:
                logits = spill.logits()[:, start:stop].transpose(1, 0, 2).reshape(stop - start, -1)
                kept = {
                    "sample_id": pa.array(sample_ids[start:stop], pa.int32()),
                    "seed": pa.array(np.full(stop - start, seed), pa.int32()),
                    "classes": pa.array(np.full(stop - start, spill.classes), pa.int32()),
                    "logits": _lists(logits),
                }
                _insert(connection, "logit_trajectories", kept)
        report(stop, samples)


def read_trajectories(
    connection: duckdb.DuckDBPyConnection, table: str, columns: Sequence[str], start: int, stop: int
) -> dict[str, Tensor]:
    """Columns of the samples start .. stop-1 as (S, T, n) tensors.

    `label` comes as (n,) int64 and `correct` is derived as predicted = label.
    """
    names = sorted((set(columns) - {"correct", "label"}) | ({"predicted"} if "correct" in columns else set()))
    quoted = "".join(f', "{name}"' for name in names)
    rows = connection.sql(
        f"SELECT label, seed{quoted} FROM {table} WHERE sample_id >= {start} AND sample_id < {stop} "
        "ORDER BY sample_id, seed"
    ).to_arrow_table()
    n = stop - start
    seeds = rows.num_rows // n
    out: dict[str, Tensor] = {}
    for name in names:
        flat = rows.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        out[name] = torch.from_numpy(flat.reshape(n, seeds, -1).transpose(1, 2, 0).copy())
    label = torch.from_numpy(rows.column("label").to_numpy().astype(np.int64)).reshape(n, seeds)[:, 0]
    if "correct" in columns:
        # A sample's label is the same in all seeds.
        out["correct"] = out["predicted"].long() == label
    out["label"] = label
    return {name: out[name] for name in columns}


def _lists(rows: Array) -> pa.Array:
    offsets = np.arange(rows.shape[0] + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(rows).reshape(-1)))


def _insert(connection: duckdb.DuckDBPyConnection, table: str, columns: dict[str, pa.Array]) -> None:
    block = pa.table(columns)
    connection.register("block", block)
    connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM block")
    connection.unregister("block")
