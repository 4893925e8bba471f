"""What people decided about samples: keep, drop or relabel. An append-only log, the only mutable database.

Every call opens decisions.duckdb for one short transaction and closes it again, so that two people at once wait
for each other a few milliseconds instead of failing. Undo appends, it never deletes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar, get_args

import duckdb
import pandas as pd

from engine.errors import BusyError, SpecError, unknown_name
from engine.store.atomic import storage_errors
from engine.store.workspace import Workspace

Action = Literal["keep", "drop", "relabel"]
PATIENCE_SECONDS = 5.0

_TABLE = """
CREATE SEQUENCE IF NOT EXISTS batch_ids;
CREATE TABLE IF NOT EXISTS log (
    batch BIGINT, dataset VARCHAR, sample_id INTEGER, action VARCHAR, new_label INTEGER, note VARCHAR,
    decided_at TIMESTAMP);
"""
T = TypeVar("T")


def decide(
    workspace: Workspace,
    dataset: str,
    sample_ids: Sequence[int],
    action: Action,
    *,
    new_label: int | None = None,
    note: str = "",
) -> int:
    """Append one decision for every sample, as one batch that `undo` takes back whole.

    Returns: the batch's id
    Raises:  SpecError for an unknown action, a relabel without a label, or unknown samples or labels
    """
    if action not in get_args(Action):
        raise SpecError(unknown_name("action", action, get_args(Action)))
    if (new_label is None) == (action == "relabel"):
        raise SpecError("relabel takes a new label, keep and drop take none")
    ids = [int(i) for i in sample_ids]
    _check(workspace, dataset, ids, new_label)
    now = datetime.now(UTC).replace(tzinfo=None)

    def write(connection: duckdb.DuckDBPyConnection) -> int:
        batch = _one(connection, "SELECT nextval('batch_ids')")
        connection.executemany(
            "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(batch, dataset, i, action, new_label, note, now) for i in ids],
        )
        return batch

    return _transact(workspace, write)


def undo(workspace: Workspace, dataset: str) -> int | None:
    """Take back the dataset's latest batch that still stands: append a copy of what stood before it.

    Returns: the batch taken back, or None when there is nothing to take back
    """

    def write(connection: duckdb.DuckDBPyConnection) -> int | None:
        [(latest,)] = connection.execute(
            "SELECT max(batch) FROM log WHERE dataset = ? AND action <> 'undo' "
            "AND batch NOT IN (SELECT new_label FROM log WHERE dataset = ? AND action = 'undo')",
            [dataset, dataset],
        ).fetchall()
        if latest is None:
            return None
        batch = int(latest)
        now = datetime.now(UTC).replace(tzinfo=None)
        # The undone batch's number stands in new_label: an undo is about a batch, not about a label.
        connection.execute(
            "INSERT INTO log VALUES (nextval('batch_ids'), ?, NULL, 'undo', ?, '', ?)", [dataset, batch, now]
        )
        return batch

    return _transact(workspace, write)


def fetch_decisions_log(workspace: Workspace, dataset: str) -> pd.DataFrame:
    """The latest standing decision per sample: sample_id, action, new_label, note, decided_at."""
    if not (workspace.root / "decisions.duckdb").exists():
        return pd.DataFrame(columns=["sample_id", "action", "new_label", "note", "decided_at"])

    def read(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
        return connection.execute(
            "SELECT sample_id, action, new_label, note, decided_at FROM log WHERE dataset = $d AND action <> 'undo' "
            "AND batch NOT IN (SELECT new_label FROM log WHERE dataset = $d AND action = 'undo') "
            "QUALIFY row_number() OVER (PARTITION BY sample_id ORDER BY batch DESC) = 1 ORDER BY sample_id",
            {"d": dataset},
        ).df()

    return _transact(workspace, read)


def _check(workspace: Workspace, dataset: str, ids: Sequence[int], new_label: int | None) -> None:
    path = workspace.require_dataset(dataset)
    with duckdb.connect(str(path), read_only=True) as connection:
        samples = _one(connection, "SELECT count(*) FROM samples")
        classes = _one(connection, "SELECT count(*) FROM classes")
    wrong = [i for i in ids if not 0 <= i < samples]
    if wrong:
        raise SpecError(f"sample {wrong[0]}; allowed: 0 to {samples - 1} in dataset '{dataset}'")
    if new_label is not None and not 0 <= new_label < classes:
        raise SpecError(f"label {new_label}; allowed: 0 to {classes - 1} in dataset '{dataset}'")


def _one(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    [(value,)] = connection.execute(sql).fetchall()
    return int(value)


def _transact(workspace: Workspace, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
    path = workspace.root / "decisions.duckdb"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with storage_errors("decisions", path.parent):
                connection = _open(path)
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
            continue
        with connection:
            connection.execute("BEGIN")
            connection.execute(_TABLE)
            result = work(connection)
            connection.execute("COMMIT")
            return result


def _open(path: Any) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(str(path))
    except duckdb.IOException as error:
        if "lock" in str(error).lower():
            raise BusyError("decisions are being written by another process; try again") from error
        raise
