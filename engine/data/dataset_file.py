"""Writing and reading the DuckDB file of a dataset."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from engine.data.columns import as_number
from engine.data.parts import Labels
from engine.errors import StorageError
from engine.store.attached import columns_of
from engine.store.attached import reading as reading  # a dataset file's, unless a kind is given
from engine.store.contents import contents_of
from engine.store.records import FORMAT
from engine.store.sql import literal
from engine.store.tables import DATASET_TABLES, PROPERTIES, create_sql
from engine.store.version import winnow_version

BLOCK_BYTES = 1 << 16
"""Bytes of one row of `inputs`. A row group of 2,048 rows is the least DuckDB holds before it writes, so small
blocks are what keeps memory bounded: with blocks of 1 MB it holds 2 GB, and rewrites them at every checkpoint."""
_PENDING_BYTES = 1 << 20
_ROWS_AT_ONCE = 64
_RECORDS_AT_ONCE = 4096


@dataclass(frozen=True)
class Record:
    """The one row of the table `dataset`, less what the writer knows by itself."""

    name: str
    spec: dict[str, Any]
    source: str
    noise: str | None
    noise_rate: float | None
    parent: str | None = None
    parent_fingerprint: str | None = None


class DatasetWriter:
    """Fills a new dataset file, inputs first, in one transaction; `finish` makes it whole."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._hash = hashlib.sha256()
        self._pending: list[np.ndarray[Any, Any]] = []
        self._thumbnails: list[bytes] = []
        self._properties: list[tuple[int, np.ndarray[Any, Any]]] = []
        self._contents = bytearray()
        self._pending_bytes = self._next_id = self._written = 0
        self._bytes = math.prod(shape) * self.dtype.itemsize
        self._block = max(1, BLOCK_BYTES // self._bytes)  # samples
        self._connection = duckdb.connect(config={"memory_limit": "1GB", "threads": 2})
        try:
            # the pixels and WebP do not shrink: trying to compress them costs more than writing them
            self._connection.execute("PRAGMA force_compression = 'uncompressed'")
            self._connection.execute(f"ATTACH {literal(path)} AS file (ROW_GROUP_SIZE 2048)")
            self._connection.execute("USE file")
            self._connection.begin()
            self._connection.execute(create_sql(DATASET_TABLES))
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    @property
    def count(self) -> int:
        """Samples appended so far; the id of the next one."""
        return self._next_id

    def append(
        self,
        inputs: np.ndarray[Any, Any],
        thumbnails: Sequence[bytes],
        properties: np.ndarray[Any, Any] | None = None,
    ) -> None:
        """Add samples under the next ids: inputs (n, *shape), n thumbnails, and what was measured of images (n, 8)."""
        self._pending.append(inputs)
        if properties is not None:
            self._properties.append((self._next_id, properties))
        self._thumbnails.extend(thumbnails)
        self._next_id += len(inputs)
        self._pending_bytes += inputs.nbytes
        if self._pending_bytes >= _PENDING_BYTES:
            self._write(self._next_id - (self._next_id - self._written) % self._block)

    def end_split(self) -> None:
        """Write what is pending, so that no block holds samples of two splits."""
        self._write(self._next_id)

    def _write(self, end: int) -> None:
        """Write the pending samples before the id `end` as blocks."""
        if end == self._written:
            return
        pending, count, step = np.concatenate(self._pending), end - self._written, self._block
        inputs, rest = pending[:count], pending[count:]
        blocks = [inputs[i : i + step].tobytes() for i in range(0, len(inputs), step)]
        first = np.arange(self._written, end, step, dtype=np.int32)
        sizes = np.diff(np.append(first, end)).astype(np.int32)
        self._insert("inputs", first_id=first, n=sizes, data=pa.array(blocks, pa.binary()))
        ids = np.arange(self._written, end, dtype=np.int32)
        self._insert("thumbnails", sample_id=ids, thumbnail=pa.array(self._thumbnails[:count], pa.binary()))
        for block in blocks:
            self._take(block)
        self._pending, self._thumbnails = [rest] if len(rest) else [], self._thumbnails[count:]
        self._pending_bytes, self._written = rest.nbytes, end

    def copy_samples(self, parent: Path) -> None:
        """Take inputs, thumbnails, metadata and skipped samples of another dataset file as they are, without decoding."""
        with reading(parent) as theirs:
            (self._next_id,) = fetch_one(theirs, "SELECT count(*) FROM samples")
            self._written = self._next_id
            blocks = read_blocks(theirs, 0, self._next_id)
            while some := list(itertools.islice(blocks, _ROWS_AT_ONCE)):
                firsts, sizes = (np.array([block[i] for block in some], np.int32) for i in (0, 1))
                datas = [data for _, _, data in some]
                self._insert("inputs", first_id=firsts, n=sizes, data=pa.array(datas, pa.binary()))
                for data in datas:
                    self._take(data)
            for table in ("thumbnails", "skipped", "metadata"):
                if has_table(theirs, table):
                    names = ", ".join(f'"{name}"' for name in DATASET_TABLES[table])
                    for batch in theirs.sql(f"SELECT {names} FROM {table}").to_arrow_reader(_RECORDS_AT_ONCE):
                        self._insert(table, **dict(zip(batch.schema.names, batch.columns, strict=True)))

    def _take(self, block: bytes) -> None:
        """Count a block into the fingerprint, and its samples' contents into their keys."""
        self._hash.update(block)
        self._contents += contents_of(block, self._bytes)

    def add_skipped(self, skipped: Sequence[tuple[str, str]]) -> None:
        self._insert(
            "skipped",
            source=pa.array([s for s, _ in skipped], pa.string()),
            reason=pa.array([r for _, r in skipped], pa.string()),
        )

    def add_metadata(self, metadata: Mapping[str, Sequence[str | None]]) -> None:
        """Store the metadata of all samples, by name in the order of their ids; None where a sample has none."""
        for name, values in metadata.items():
            has = [i for i, value in enumerate(values) if value is not None]
            texts = [values[i] for i in has]
            self._insert(
                "metadata",
                sample_id=np.array(has, np.int32),
                name=pa.array([name] * len(has), pa.string()),
                value=pa.array(texts, pa.string()),
                number=pa.array([as_number(text) for text in texts], pa.float64()),
            )

    def add_versions(self, versions: Sequence[tuple[str, int, int]]) -> None:
        """Store the fingerprints of earlier versions of the dataset, with their training and test samples."""
        self._insert(
            "versions",
            fingerprint=pa.array([one[0] for one in versions], pa.string()),
            train=pa.array([one[1] for one in versions], pa.int32()),
            test=pa.array([one[2] for one in versions], pa.int32()),
        )

    def finish(
        self,
        record: Record,
        classes: Sequence[str],
        labels: Labels,
        true_labels: Labels,
        train: int,
        places: Sequence[str],
    ) -> str:
        """Write everything but the samples' inputs, and return the fingerprint.

        The first `train` of the labels (N + M,) are the training split; true_labels (N + M,) are -1 where unknown. The
        fingerprint is the SHA-256 of inputs, labels, true labels, classes and split: the same content has the same one,
        however it was made. Metadata are not in it: no run reads them.
        """
        self.end_split()
        given = labels.astype(np.int32)
        truth = true_labels.astype(np.int32) if (true_labels >= 0).any() else None
        fingerprint = fingerprint_of(self._hash, self.shape, self.dtype.name, classes, train, given, truth)
        contents = self._contents.hex()
        self._insert(
            "samples",
            sample_id=np.arange(len(given), dtype=np.int32),
            split=pa.array(["train"] * train + ["test"] * (len(given) - train), pa.string()),
            label=given,
            true_label=pa.nulls(len(given), pa.int32()) if truth is None else pa.array(truth, mask=truth < 0),
            source=pa.array(places, pa.string()),
            content=pa.array([contents[i : i + 32] for i in range(0, len(contents), 32)], pa.string()),
        )
        self._write_properties()
        names = pa.array(classes, pa.string())
        self._insert("classes", label=np.arange(len(classes), dtype=np.int32), class_name=names)
        self._connection.execute(
            "INSERT INTO dataset (name, fingerprint, format, created_at, version, spec, source, input_shape, input_dtype, "
            "noise, noise_rate, parent, parent_fingerprint, bytes) "
            "VALUES (?, ?, ?, now() AT TIME ZONE 'UTC', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                *(record.name, fingerprint, FORMAT, winnow_version(), json.dumps(record.spec), record.source),
                *(list(self.shape), self.dtype.name, record.noise, record.noise_rate),
                *(record.parent, record.parent_fingerprint, self._next_id * self._bytes),
            ],
        )
        self._connection.commit()
        # an explicit checkpoint, because the one at closing would keep a full disk to itself
        self._connection.execute("CHECKPOINT file")
        return fingerprint

    def _write_properties(self) -> None:
        """What was measured of the images, as rows of `metadata`."""
        if not self._properties:
            return
        ids = np.concatenate([np.arange(first, first + len(rows), dtype=np.int32) for first, rows in self._properties])
        measured = np.concatenate([rows for _, rows in self._properties])
        for name, numbers in zip(PROPERTIES, measured.T, strict=True):
            # six digits, so that the text is the number: a dataset that is added to is read from its texts
            texts = [f"{number:.6g}" for number in numbers.tolist()]
            self._insert(
                "metadata",
                sample_id=ids,
                name=pa.array([name] * len(ids)),
                value=pa.array(texts, pa.string()),
                number=pa.array([float(text) for text in texts], pa.float64()),
            )

    def _insert(self, table: str, **columns: Any) -> None:
        rows = pa.table(columns)
        self._connection.register("rows_to_insert", rows)
        self._connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM rows_to_insert")
        self._connection.unregister("rows_to_insert")


def fingerprint_of(
    inputs: hashlib._Hash,
    shape: Sequence[int],
    dtype: str,
    classes: Sequence[str],
    train: int,
    labels: np.ndarray[Any, Any],
    truth: np.ndarray[Any, Any] | None,
) -> str:
    """The fingerprint of a dataset, from the SHA-256 of its inputs, which goes on here.

    Args: labels, truth: (N + M,); truth is -1 where unknown, and None where all are
    """
    header = {"shape": list(shape), "dtype": dtype, "classes": list(classes), "train": train}
    inputs.update(json.dumps(header).encode())
    inputs.update(labels.astype("<i4").tobytes())
    inputs.update(b"" if truth is None else truth.astype("<i4").tobytes())
    return inputs.hexdigest()


def has_table(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether the dataset file that is read has a table: those of older versions lack some."""
    return bool(columns_of(connection, table))


def fetch_one(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    """The first row of a query; StorageError when there is none."""
    row: tuple[Any, ...] | None = connection.execute(sql).fetchone()
    if row is None:
        raise StorageError("the dataset file is empty; remove it and ingest it again")
    return row


def read_blocks(connection: duckdb.DuckDBPyConnection, first: int, count: int) -> Iterator[tuple[int, int, bytes]]:
    """The blocks (first_id, n, data) of the samples first .. first + count - 1, in order.

    A few at a time: DuckDB hands over whole chunks of rows, so one query would hold all inputs a second time.
    """
    where = "FROM inputs WHERE first_id BETWEEN ? AND ? ORDER BY first_id"
    found = connection.execute(f"SELECT first_id {where}", [first, first + count - 1]).fetchall()
    starts = [row[0] for row in found]
    for i in range(0, len(starts), _ROWS_AT_ONCE):
        last = starts[min(i + _ROWS_AT_ONCE, len(starts)) - 1]
        yield from connection.execute(f"SELECT first_id, n, data {where}", [starts[i], last]).fetchall()
