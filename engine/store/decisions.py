"""What people decided about samples: keep, drop or relabel. An append-only log, the only mutable database.

Every call opens decisions.duckdb for one short transaction and closes it again, so that two people at once wait
for each other a few milliseconds instead of failing. Undo appends, it never deletes.

A decision is about an image, and is kept by the image's content (engine/store/contents.py): when other images are
ingested under the same name, or the same in another order, it follows its image or attaches to nothing.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import duckdb
import pandas as pd

from engine.errors import BusyError, SpecError, StorageError, unknown_name
from engine.store.atomic import storage_errors
from engine.store.attached import CLOSED, objects_in
from engine.store.contents import fetch_keys, find_contents
from engine.store.documents import require_regular
from engine.store.records import DatasetFacts, dataset_facts
from engine.store.workspace import Workspace

Action = Literal["keep", "drop", "relabel"]
PATIENCE_SECONDS = 60.0
_LAST = (1 << 63) - 1  # a batch after every other

_BESIDE = {("sequence", "batch_ids"), ("table", "versions"), ("table", "version_images")}
"""What may lie beside the log in its file; engine/store/versions.py has the tables."""

_COLUMNS = {
    "batch": "BIGINT",
    "dataset": "VARCHAR",
    "sample_id": "INTEGER",
    "action": "VARCHAR",
    "new_label": "INTEGER",
    "note": "VARCHAR",
    "decided_at": "TIMESTAMP",
}
_ADDED = {"fingerprint": "VARCHAR", "content": "VARCHAR", "copy": "INTEGER", "new_class": "VARCHAR"}
"""What logs of version 0.1 lack. fingerprint: of the data that the sample id and the new label belong to; new_class:
the name of the new label's class, because another ingest may number the classes otherwise. NULL content: a decision
of version 0.1 about a dataset that was gone when the log was carried over."""

_SHOWN = ["sample_id", "action", "new_label", "note", "decided_at"]
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
    path = workspace.require_dataset(dataset)
    facts = dataset_facts(path)
    ids = [int(i) for i in sample_ids]
    _check(facts, dataset, ids, new_label)
    keys = fetch_keys(path, ids).set_index("sample_id")
    new_class = None if new_label is None else facts.classes[new_label]
    now = datetime.now(UTC).replace(tzinfo=None)

    def write(connection: duckdb.DuckDBPyConnection) -> int:
        batch = int(_one(connection, "SELECT nextval('batch_ids')"))
        rows = pd.DataFrame(
            {
                "sample_id": pd.array(ids, "Int32"),
                "content": keys["content"].reindex(ids).to_numpy(),
                "copy": pd.array(keys["copy"].reindex(ids).to_numpy(), "Int32"),
            }
        )
        connection.register("decided", rows)
        connection.execute(
            "INSERT INTO log BY NAME SELECT $batch AS batch, $dataset AS dataset, sample_id, $action AS action, "
            "$label::INTEGER AS new_label, $note AS note, $now::TIMESTAMP AS decided_at, $fingerprint AS fingerprint, "
            "content, copy, $class::VARCHAR AS new_class FROM decided",
            {
                "batch": batch,
                "dataset": dataset,
                "action": action,
                "label": new_label,
                "note": note,
                "now": now,
                "fingerprint": facts.fingerprint,
                "class": new_class,
            },
        )
        connection.unregister("decided")
        return batch

    return write_log_file(workspace, write)


def undo(workspace: Workspace, dataset: str) -> int | None:
    """Take back the dataset's latest batch that still stands: append a copy of what stood before it.

    Returns: the batch taken back, or None when there is nothing to take back
    """

    def write(connection: duckdb.DuckDBPyConnection) -> int | None:
        latest = _one(
            connection,
            "SELECT max(batch) FROM log WHERE dataset = ? AND action <> 'undo' "
            "AND batch NOT IN (SELECT new_label FROM log WHERE dataset = ? AND action = 'undo' AND new_label IS NOT NULL)",
            [dataset, dataset],
        )
        if latest is None:
            return None
        # The undone batch's number stands in new_label: an undo is about a batch, not about a label.
        connection.execute(
            "INSERT INTO log (batch, dataset, action, new_label, note, decided_at) "
            "VALUES (nextval('batch_ids'), ?, 'undo', ?, '', ?)",
            [dataset, latest, datetime.now(UTC).replace(tzinfo=None)],
        )
        return int(latest)

    return write_log_file(workspace, write)


def carry_over(workspace: Workspace) -> None:
    """Key a log of version 0.1 by the content of its images, if there is one. Called before a dataset is removed."""
    if os.path.lexists(_path(workspace)):
        write_log_file(workspace, lambda connection: None)


def last_batch(workspace: Workspace) -> int:
    """The number of the latest batch of the log, of any dataset; 0 when nothing was decided yet."""
    return read_log_file(workspace, lambda c: int(_one(c, "SELECT coalesce(max(batch), 0) FROM log")), 0)


def fetch_decisions_log(workspace: Workspace, dataset: str, until: int | None = None) -> pd.DataFrame:
    """The latest standing decision per sample: sample_id, action, new_label, note, decided_at.

    until: as they stood after that batch, None = as they stand now
    """
    if not os.path.lexists(_path(workspace)):
        return pd.DataFrame(columns=_SHOWN)
    path = workspace.require_dataset(dataset)

    def read(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
        columns = _log_columns(connection, _path(workspace))
        if not columns:
            return pd.DataFrame(columns=[*_COLUMNS, *_ADDED])
        added = ", ".join(c if c in columns else f"CAST(NULL AS {t}) AS {c}" for c, t in _ADDED.items())
        return connection.execute(
            f"SELECT {', '.join(_COLUMNS)}, {added} FROM log WHERE dataset = $d AND action <> 'undo' AND batch <= $until "
            "AND batch NOT IN (SELECT new_label FROM log WHERE dataset = $d AND action = 'undo' AND new_label IS NOT NULL "
            "AND batch <= $until) ORDER BY batch",
            {"d": dataset, "until": _LAST if until is None else until},
        ).df()

    return _attached(_transact(workspace, read, read_only=True), path)


def _attached(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The rows of a log, oldest first, that are about samples of a dataset file: the latest of each, under their ids."""
    if rows.empty:
        return pd.DataFrame(columns=_SHOWN)
    facts = dataset_facts(path)
    same = rows["fingerprint"] == facts.fingerprint
    # A decision without a key was made on the file that had the name then: on this one, if it is the older of the two.
    unkeyed = rows["content"].isna()
    same |= unkeyed & (rows["decided_at"] >= facts.created_at)
    moved = rows[~same & ~unkeyed]
    if len(moved):
        now = find_contents(path, moved["content"].unique().tolist())
        moved = moved.drop(columns="sample_id").merge(now, on=["content", "copy"])
        label = moved["new_class"].map({name: label for label, name in enumerate(facts.classes)})
        moved = moved.assign(new_label=label)[(moved["action"] != "relabel") | label.notna()]
    found = pd.concat([part for part in (rows[same], moved) if len(part)] or [rows[same]])
    # What no version writes is passed over: the log may be somebody else's.
    has_label = found["new_label"].between(0, len(facts.classes) - 1).fillna(False).astype(bool)
    is_sample = found["sample_id"].between(0, facts.samples - 1).fillna(False).astype(bool)
    found = found[is_sample & found["action"].isin(get_args(Action)) & (has_label == found["action"].eq("relabel"))]
    latest = found.sort_values("batch", kind="stable").drop_duplicates("sample_id", keep="last")
    shown = latest.sort_values("sample_id")[_SHOWN].astype({"sample_id": "int32", "new_label": "Int32"})
    return shown.reset_index(drop=True)


def _check(facts: DatasetFacts, dataset: str, ids: Sequence[int], new_label: int | None) -> None:
    wrong = [i for i in ids if not 0 <= i < facts.samples]
    if wrong:
        raise SpecError(f"sample {wrong[0]}; allowed: 0 to {facts.samples - 1} in dataset '{dataset}'")
    if new_label is not None and not 0 <= new_label < len(facts.classes):
        raise SpecError(f"label {new_label}; allowed: 0 to {len(facts.classes) - 1} in dataset '{dataset}'")


def _one(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()) -> Any:
    [(value,)] = connection.execute(sql, list(parameters)).fetchall()
    return value


# The file -----------------------------------------------------------------------------------------------------


def _path(workspace: Workspace) -> Path:
    return workspace.root / "decisions.duckdb"


def read_log_file(workspace: Workspace, work: Callable[[duckdb.DuckDBPyConnection], T], missing: T) -> T:
    """Read the file of the log in one transaction. missing: what there is where there is no file, or an empty one."""
    if not os.path.lexists(_path(workspace)):
        return missing

    def read(connection: duckdb.DuckDBPyConnection) -> T:
        return work(connection) if _log_columns(connection, _path(workspace)) else missing

    return _transact(workspace, read, read_only=True)


def write_log_file(workspace: Workspace, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
    """Do work on the log in one transaction, which makes the log or brings it up to date first."""

    def write(connection: duckdb.DuckDBPyConnection) -> T:
        connection.execute("BEGIN")
        columns = _log_columns(connection, _path(workspace))
        if not columns:
            listed = ", ".join(f"{c} {t}" for c, t in {**_COLUMNS, **_ADDED}.items())
            connection.execute("CREATE SEQUENCE IF NOT EXISTS batch_ids")
            connection.execute(f"CREATE TABLE log ({listed})")
        elif not columns >= _ADDED.keys():
            for column, kind in _ADDED.items():
                connection.execute(f"ALTER TABLE log ADD COLUMN IF NOT EXISTS {column} {kind}")
            for (dataset,) in connection.execute("SELECT DISTINCT dataset FROM log").fetchall():
                if dataset in workspace.datasets():
                    _key(connection, workspace.dataset_path(dataset), dataset)
        result = work(connection)
        connection.execute("COMMIT")
        return result

    return _transact(workspace, write)


def _key(connection: duckdb.DuckDBPyConnection, path: Path, dataset: str) -> None:
    """Give the decisions of version 0.1 about a dataset that is still there their keys."""
    facts = dataset_facts(path)
    rows = connection.execute(
        "SELECT DISTINCT sample_id FROM log WHERE dataset = ? AND action <> 'undo' AND decided_at >= ?",
        [dataset, facts.created_at],
    ).fetchall()
    connection.register("keys", fetch_keys(path, [row[0] for row in rows]))
    classes = pd.DataFrame({"label": range(len(facts.classes)), "class_name": list(facts.classes)})
    connection.register("names", classes)
    connection.execute(
        "UPDATE log SET fingerprint = $fingerprint, content = keys.content, copy = keys.copy, new_class = (SELECT "
        "class_name FROM names WHERE label = log.new_label) FROM keys WHERE log.dataset = $dataset "
        "AND log.action <> 'undo' AND log.decided_at >= $since AND keys.sample_id = log.sample_id",
        {"fingerprint": facts.fingerprint, "dataset": dataset, "since": facts.created_at},
    )
    connection.unregister("keys")
    connection.unregister("names")


def _log_columns(connection: duckdb.DuckDBPyConnection, path: Path) -> set[str]:
    """The columns of the log, none when there is no log yet; StorageError when the file is of another make."""
    held = set(objects_in(connection))  # before anything is selected: the log may be somebody else's
    if not held:
        return set()
    if not held <= {("table", "log"), *_BESIDE} or ("table", "log") not in held:
        others = sorted(held - {("table", "log"), *_BESIDE})
        about = f"it holds the {others[0][0]} {others[0][1]!r}" if others else "it holds no log"
        raise StorageError(f"{path} is not a log of decisions ({about}); move it away, and winnow starts a new one")
    rows = connection.execute(
        "SELECT column_name, data_type, column_default IS NOT NULL OR is_generated FROM duckdb_columns() "
        "WHERE table_name = 'log' AND NOT internal"
    ).fetchall()
    found = {name: "a computed one" if computed else kind for name, kind, computed in rows}
    expected = {**_COLUMNS, **_ADDED}
    wrong = [c for c in expected if found.get(c, expected[c] if c in _ADDED else None) != expected[c]]
    if wrong:
        about = f"column '{wrong[0]}' of its log has another type"
        raise StorageError(f"{path} is not a log of decisions ({about}); move it away, and winnow starts a new one")
    return set(found)


def _transact(workspace: Workspace, work: Callable[[duckdb.DuckDBPyConnection], T], *, read_only: bool = False) -> T:
    path = _path(workspace)
    for file in (path, path.with_name(f"{path.name}.wal")):
        try:
            require_regular(file, missing_ok=True)
        except StorageError as error:
            raise StorageError(f"{error}; move it away, and winnow starts a new log of decisions") from error
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with storage_errors("decisions", path.parent), _open(path, read_only) as connection:
                return work(connection)
        except (duckdb.DataError, duckdb.ProgrammingError, duckdb.InternalError, duckdb.NotSupportedError) as error:
            reason = str(error).splitlines()[0]
            raise StorageError(f"{path} is damaged ({reason}); move it away, and winnow starts a new one") from error
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.005, 0.03))  # or two that wait keep step, and one of them always comes second


def _open(path: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(str(path), read_only=read_only, config=CLOSED)
    except duckdb.Error as error:
        # Within one process DuckDB refuses a reader beside a writer with a ConnectionException.
        if (
            isinstance(error, duckdb.IOException)
            and "lock" in str(error).lower()
            or isinstance(error, duckdb.ConnectionException)
        ):
            raise BusyError("decisions are being written by another process; try again") from error
        reason = str(error).splitlines()[0]
        raise StorageError(f"{path} cannot be read: {reason}; move it away, and winnow starts a new one") from error
