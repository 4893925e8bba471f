"""Reading a run's record and a dataset's facts, checked, so that one broken run or file stops no other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb

from engine.errors import StorageError
from engine.store.attached import DATASET, columns_of, identity_of, reading
from engine.store.documents import number, read_json

FORMAT = 1
"""Of a workspace, a dataset file and a run's results: raised when an older version could misread what this writes."""

MOST_CLASSES = 32_767
"""The views hold a class as a SMALLINT."""

_MOST_SHRUNK = 64
"""Times that inputs may be larger than the file that holds them: they are stored as they are, not compressed."""


@dataclass(frozen=True)
class RunRecord:
    """The content of a run's spec.json. started_at: seconds since the epoch; trains: the key of its own training."""

    run_id: str
    spec: dict[str, Any]
    title: str
    environment: dict[str, Any]
    trains: str | None
    created_at: str
    started_at: float

    @property
    def kind(self) -> str:
        return str(self.spec.get("kind", "run"))

    @property
    def dataset(self) -> str:
        return str(self.spec["dataset"])

    @property
    def fingerprint(self) -> str:
        """The data that it was computed on."""
        return str(self.spec.get("fingerprint", ""))


def load_record(run_id: str, path: Path) -> RunRecord:
    """The record in a run's spec.json; StorageError that names what is wrong with it and what to do."""
    try:
        content = read_json(path)
    except StorageError as error:
        raise StorageError(f"{error}; remove the run (winnow remove {run_id}) and compute it again") from error
    spec = content.get("spec") if isinstance(content, dict) else None
    if not isinstance(spec, dict) or not isinstance(spec.get("dataset"), str):
        wrong = "no spec" if not isinstance(spec, dict) else "no name of a dataset"
        raise StorageError(f"{path} holds {wrong}; remove the run (winnow remove {run_id}) and compute it again")
    environment, trains = content.get("environment"), content.get("trains")
    return RunRecord(
        run_id=run_id,
        spec=spec,
        title=str(content.get("title", "")),
        environment=environment if isinstance(environment, dict) else {},
        trains=trains if isinstance(trains, str) else None,
        created_at=str(content.get("created_at", "")),
        started_at=number(content.get("started_at")),
    )


@dataclass(frozen=True)
class DatasetFacts:
    """What identifies the data in a dataset file. created_at: UTC; samples: count over both splits; earlier: the training
    and test samples of each version to which samples were added since, by its fingerprint."""

    fingerprint: str
    created_at: datetime
    samples: int
    classes: tuple[str, ...]
    earlier: Mapping[str, tuple[int, int]]


def dataset_facts(path: Path) -> DatasetFacts:
    """The facts in a dataset file, read once; StorageError when it cannot be read or is of a newer format."""
    try:
        identity = identity_of(path)
    except StorageError as error:
        raise StorageError(f"{error}; {_AGAIN}") from error
    return _facts(path, identity)


_AGAIN = "remove it and ingest the dataset again"


@lru_cache(maxsize=256)
def _facts(path: Path, identity: object) -> DatasetFacts:
    """Cached by when the file was changed: a dataset of that name may have been removed and made anew."""
    with reading(path, DATASET, _AGAIN) as connection:
        row = connection.execute(
            "SELECT fingerprint, created_at, format, input_shape, input_dtype FROM dataset"
        ).fetchone()
        if row is None:
            raise StorageError(f"{path} is empty; {_AGAIN}")
        if number(row[2], 0) > FORMAT:
            raise StorageError(f"{path} has format {row[2]}, this winnow reads up to {FORMAT}; upgrade winnow-images")
        classes = connection.execute("SELECT label, class_name FROM classes ORDER BY label").fetchall()
        versions: list[tuple[str, int, int]] = []
        if columns_of(connection, "versions"):
            versions = connection.execute(
                "SELECT fingerprint, train, test FROM versions WHERE fingerprint || train || test IS NOT NULL"
            ).fetchall()
        samples = _check_samples(connection, path, len(classes), tuple(row[3] or ()), str(row[4]))
    if row[0] is None or row[1] is None or not 0 < len(classes) <= MOST_CLASSES:
        raise StorageError(f"{path} is damaged (its table 'dataset' or 'classes'); {_AGAIN}")
    if [label for label, _ in classes] != list(range(len(classes))) or any(name is None for _, name in classes):
        raise StorageError(f"{path} is damaged (the labels of its classes are not 0 to {len(classes) - 1}); {_AGAIN}")
    return DatasetFacts(
        fingerprint=str(row[0]),
        created_at=row[1],
        samples=samples,
        classes=tuple(str(name) for (_, name) in classes),
        earlier={str(fingerprint): (train, test) for fingerprint, train, test in versions},
    )


def _check_samples(
    connection: duckdb.DuckDBPyConnection, path: Path, classes: int, shape: tuple[int, ...], dtype: str
) -> int:
    """How many samples a dataset file holds.

    Raises: StorageError when their ids, labels or splits are not what every reader takes them to be, or they are
            more than the file can hold
    """
    [(count, first, last, misplaced, wrong, train, test)] = connection.execute(
        "SELECT count(*), min(sample_id), max(sample_id), count(*) FILTER (sample_id IS DISTINCT FROM rowid), count(*) "
        "FILTER (label IS NULL OR label NOT BETWEEN 0 AND $last OR true_label NOT BETWEEN 0 AND $last OR split IS NULL "
        "OR split NOT IN ('train', 'test')), max(sample_id) FILTER (split = 'train'), "
        "min(sample_id) FILTER (split = 'test') FROM samples",
        {"last": classes - 1},
    ).fetchall()
    different = count  # in the order of their ids, as winnow writes them; elsewhere it takes long to tell
    if misplaced:
        [(different,)] = connection.execute("SELECT count(DISTINCT sample_id) FROM samples").fetchall()
    if (
        not count
        or (first, last, different) != (0, count - 1, count)
        or wrong
        or train is None
        or (test or count) <= train
    ):
        raise StorageError(f"{path} is damaged (the ids, labels or splits of its samples); {_AGAIN}")
    sizes = {"uint8": 1, "float32": 4}
    if dtype not in sizes or len(shape) not in (1, 3) or any(side is None or side < 1 for side in shape):
        raise StorageError(f"{path} is damaged (its inputs are {dtype} of shape {shape}); {_AGAIN}")
    size = count * math.prod(shape) * sizes[dtype]
    if size > _MOST_SHRUNK * path.stat().st_size:
        raise StorageError(f"{path} is damaged (it cannot hold the {size:,} bytes of its inputs); {_AGAIN}")
    return int(count)
