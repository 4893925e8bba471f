"""By what a sample is found again when its dataset is ingested anew: the content of its image. No torch.

A key is (content, copy): content is the BLAKE2b of the sample's stored bytes, 32 hexadecimal digits, and copy counts
the samples of equal content by id from 0, so that two copies of one image with different labels stay apart.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from engine.errors import StorageError
from engine.store.attached import columns_of, reading
from engine.store.sql import identifier

Ids = np.ndarray[Any, np.dtype[Any]]

_FEW = 50
_ROWS_AT_ONCE = 64
_BYTES = {"uint8": 1, "float32": 4}


def content_of(sample: bytes | memoryview) -> bytes:
    """The 16 bytes that stand for a sample's stored bytes."""
    return hashlib.blake2b(sample, digest_size=16).digest()


def contents_of(block: bytes, size: int) -> bytes:
    """Those of the samples, of `size` bytes each, in a block of `inputs`, one after the other."""
    view = memoryview(block)
    return b"".join(content_of(view[i : i + size]) for i in range(0, len(block), size))


def fetch_keys(path: Path, sample_ids: Sequence[int] | Ids) -> pd.DataFrame:
    """sample_id, content, copy of some samples of a dataset file."""
    with reading(path) as connection:
        if "content" in columns_of(connection, "samples"):
            return find_keys(connection, "file", sample_ids)
    everything = _computed(path)
    return everything[everything["sample_id"].isin(list(sample_ids))]


def find_keys(connection: duckdb.DuckDBPyConnection, database: str, sample_ids: Sequence[int] | Ids) -> pd.DataFrame:
    """`fetch_keys` in a connection to which the dataset file is attached: a file that was read before answers at once.

    Args: database: as which it is attached; the file must hold the contents
    """
    samples = identifier(database, "samples")
    connection.register("wanted", pd.DataFrame({"sample_id": np.asarray(sample_ids, np.int32)}))
    some = f"SELECT content FROM {samples} SEMI JOIN wanted USING (sample_id)"
    copies = (
        "SELECT sample_id, content, copy FROM (SELECT sample_id, content, CAST(row_number() OVER (PARTITION BY "
        f"content ORDER BY sample_id) - 1 AS INTEGER) AS copy FROM {samples} WHERE content IN ({{}})) "
        "SEMI JOIN wanted USING (sample_id) ORDER BY sample_id"
    )
    if len(sample_ids) > _FEW:
        return connection.execute(copies.format(some)).df()
    # Written out, few contents are compared while the file is read, in a tenth of the time of a join.
    found = [str(content) for (content,) in connection.execute(some).fetchall()]
    return connection.execute(copies.format(", ".join("?" * len(found)) or "NULL"), found).df()


def fetch_contents(path: Path) -> list[str]:
    """The content of every sample of a dataset file, by sample id."""
    if not _has_contents(path):
        return [str(content) for content in _computed(path)["content"]]
    with reading(path) as connection:
        return [row[0] for row in connection.execute("SELECT content FROM file.samples ORDER BY sample_id").fetchall()]


def fetch_joined_contents(path: Path, samples: int) -> bytes:
    """The contents of the first samples of a dataset file, 16 bytes each, one after the other."""
    if not _has_contents(path):
        return bytes.fromhex("".join(_computed(path)["content"][:samples]))
    with reading(path) as connection:
        [(joined,)] = connection.execute(
            "SELECT coalesce(string_agg(content, '' ORDER BY sample_id), '') FROM file.samples WHERE sample_id < ?",
            [samples],
        ).fetchall()
    return bytes.fromhex(joined)


def find_contents(path: Path, contents: Sequence[str]) -> pd.DataFrame:
    """sample_id, content, copy of the samples of a dataset file that have one of these contents."""
    if not _has_contents(path):
        everything = _computed(path)
        return everything[everything["content"].isin(list(contents))]
    with reading(path) as connection:
        connection.register("wanted", pd.DataFrame({"content": pd.array(list(contents), "str")}))
        return connection.execute(
            "SELECT sample_id, content, CAST(row_number() OVER (PARTITION BY content ORDER BY sample_id) - 1 AS INTEGER) "
            "AS copy FROM file.samples SEMI JOIN wanted USING (content) ORDER BY sample_id"
        ).df()


def images_of(path: Path) -> str:
    """12 hexadecimal digits of the images of a dataset file, in order, and of where they came from."""
    found = path.stat()
    return _images_once(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=64)
def _images_once(path: Path, changed: int, size: int) -> str:
    found = hashlib.sha256()
    contents = fetch_contents(path)
    with reading(path) as connection:
        places = connection.execute("SELECT source FROM samples ORDER BY sample_id").fetchall()
    for content, (place,) in zip(contents, places, strict=True):
        found.update(f"{content}\0{place}\0".encode())
    return found.hexdigest()[:12]


def _has_contents(path: Path) -> bool:
    """Whether a dataset file holds the contents: those of version 0.1 do not."""
    with reading(path) as connection:
        return "content" in columns_of(connection, "samples")


def _computed(path: Path) -> pd.DataFrame:
    found = path.stat()
    return _computed_once(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=2)
def _computed_once(path: Path, changed: int, size: int) -> pd.DataFrame:
    """The keys of all samples of a file that does not hold them, from its inputs: seconds per GB, so kept."""
    found = []
    with reading(path) as connection:
        row = connection.execute("SELECT input_shape, input_dtype FROM file.dataset").fetchone()
        if row is None or row[1] not in _BYTES:
            raise StorageError(f"{path} is damaged; remove it and ingest the dataset again")
        per_sample = math.prod(row[0]) * _BYTES[row[1]]
        starts = [r[0] for r in connection.execute("SELECT first_id FROM file.inputs ORDER BY first_id").fetchall()]
        for i in range(0, len(starts), _ROWS_AT_ONCE):  # a few at a time: the inputs may not fit in memory
            last = starts[min(i + _ROWS_AT_ONCE, len(starts)) - 1]
            blocks = connection.execute(
                "SELECT data FROM file.inputs WHERE first_id BETWEEN ? AND ? ORDER BY first_id", [starts[i], last]
            ).fetchall()
            found += [contents_of(data, per_sample) for (data,) in blocks]
    joined = b"".join(found).hex()
    keys = pd.DataFrame({"content": [joined[i : i + 32] for i in range(0, len(joined), 32)]})
    keys.insert(0, "sample_id", range(len(keys)))
    return keys.assign(copy=keys.groupby("content").cumcount())
