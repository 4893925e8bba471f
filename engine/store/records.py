"""Reading a run's record and a dataset's facts, checked, so that one broken run or file stops no other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb

from engine.errors import StorageError
from engine.store.documents import number, read_json
from engine.store.sql import literal

FORMAT = 1
"""Of a workspace, a dataset file and a run's results: raised when an older version could misread what this writes."""


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
        found = path.stat()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}; ingest it again") from error
    return _facts(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=256)
def _facts(path: Path, changed: int, size: int) -> DatasetFacts:
    """Cached by when the file was changed: a dataset of that name may have been removed and made anew."""
    try:
        if not path.is_file():
            raise StorageError(f"{path} is not a regular file; remove it and ingest the dataset again")
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH {literal(path)} AS dataset_file (READ_ONLY)")
            connection.execute("USE dataset_file")
            row = connection.execute("SELECT fingerprint, created_at, format FROM dataset").fetchone()
            samples = connection.execute("SELECT count(*) FROM samples").fetchone()
            classes = connection.execute("SELECT class_name FROM classes ORDER BY label").fetchall()
            versions = []
            if connection.execute(
                "SELECT 1 FROM duckdb_tables() WHERE database_name = 'dataset_file' AND table_name = 'versions'"
            ).fetchall():
                versions = connection.execute("SELECT fingerprint, train, test FROM versions").fetchall()
    except duckdb.Error as error:
        raise StorageError(f"{path} cannot be read: {str(error).splitlines()[0]}; ingest it again") from error
    if row is None or samples is None:
        raise StorageError(f"{path} is empty; remove it and ingest the dataset again")
    if row[2] > FORMAT:
        raise StorageError(f"{path} has format {row[2]}, this winnow reads up to {FORMAT}; upgrade winnow-images")
    return DatasetFacts(
        fingerprint=str(row[0]),
        created_at=row[1],
        samples=int(samples[0]),
        classes=tuple(str(name) for (name,) in classes),
        earlier={str(fingerprint): (int(train), int(test)) for fingerprint, train, test in versions},
    )
