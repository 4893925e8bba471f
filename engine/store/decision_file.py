"""decisions.duckdb, the only mutable database: what its tables are, and how it is opened.

Every table is a log to which is only appended. Every call opens the file for one short transaction and closes it again,
so that two people at once wait for each other a few milliseconds instead of failing.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import duckdb
import pandas as pd

from engine.errors import BusyError, SpecError, StorageError
from engine.store.atomic import is_full, storage_errors
from engine.store.attached import objects_in, open_walled
from engine.store.contents import fetch_keys
from engine.store.documents import require_regular
from engine.store.records import dataset_facts
from engine.store.sql import literal
from engine.store.workspace import Workspace

PATIENCE_SECONDS = 60.0
_TICK_NS = 50_000_000
AUTHOR = "WINNOW_AUTHOR"
"""The variable of the environment that names who decides: what --as NAME sets for commands and for a dashboard."""

MOST_AUTHOR, MOST_NOTE = 80, 2_000
"""Characters of the name of a person, and of a note, at most."""


@dataclass(frozen=True)
class Table:
    """A table of the file. first: its columns from the beginning; added: those that a file of before may lack."""

    first: Mapping[str, str]
    added: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, str]:
        return {**self.first, **self.added}


TABLES = {
    "log": Table(
        {
            "batch": "BIGINT",
            "dataset": "VARCHAR",
            "sample_id": "INTEGER",
            "action": "VARCHAR",
            "new_label": "INTEGER",
            "note": "VARCHAR",
            "decided_at": "TIMESTAMP",
        },
        {
            "fingerprint": "VARCHAR",
            "content": "VARCHAR",
            "copy": "INTEGER",
            "new_class": "VARCHAR",
            "author": "VARCHAR",
            "request": "VARCHAR",
        },
    ),
    "filters": Table(
        {
            "entry": "BIGINT",
            "dataset": "VARCHAR",
            "name": "VARCHAR",
            "query": "VARCHAR",
            "author": "VARCHAR",
            "saved_at": "TIMESTAMP",
        }
    ),
    "versions": Table(
        {
            "entry": "BIGINT",
            "dataset": "VARCHAR",
            "name": "VARCHAR",
            "action": "VARCHAR",
            "author": "VARCHAR",
            "note": "VARCHAR",
            "created_at": "TIMESTAMP",
            "fingerprint": "VARCHAR",
            "recipe": "VARCHAR",
            "facts": "VARCHAR",
            "classes": "VARCHAR",
            "hash": "VARCHAR",
            "samples": "BIGINT",
            "labels": "BLOB",
            "reasons": "BLOB",
        }
    ),
    "version_images": Table({"fingerprint": "VARCHAR", "contents": "BLOB"}),
}
"""Every table that the file may hold; one that it lacks is made by the next write.

log: the decisions, a row per sample. What logs of version 0.1 lack: fingerprint, of the data that the sample id and the
new label belong to; content and copy, the key of the image (engine/store/contents.py), NULL in a decision of version 0.1
about a dataset that was gone when the log was carried over; new_class, the name of the new label's class, because
another ingest may number the classes otherwise; author, NULL in decisions of before; request, the
name of the call that wrote them, by which a call that is made again writes nothing, NULL where it had none.
filters: see engine/store/saved_filters.py. versions, version_images: see engine/store/versions.py.
"""

_SEQUENCE = "batch_ids"
"""Numbers the batches of decisions and the entries of every other table: a later one is larger, whatever the clock."""

T = TypeVar("T")


def log_path(workspace: Workspace) -> Path:
    return workspace.root / "decisions.duckdb"


def log_stamp(workspace: Workspace) -> tuple[object, ...]:
    """What changes with every write to the file, from its folder alone: whoever opened it would free DuckDB's lock."""
    found: list[object] = []
    for name in _files(log_path(workspace)):
        with contextlib.suppress(FileNotFoundError):
            at = os.stat(name)
            found.append((at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns))
    return tuple(found)


def is_settled(workspace: Workspace) -> bool:
    """Whether the next write will change the stamp: two in one tick of the file system's clock bear the same time."""
    with contextlib.suppress(FileNotFoundError):
        return time.time_ns() - os.stat(log_path(workspace)).st_mtime_ns > _TICK_NS
    return True


def write(workspace: Workspace, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
    """Do work on the file in one transaction, which makes the file or brings it up to date first.

    Raises: BusyError when others write for a minute; StorageError for a file of another make, or a disk that refuses
    """

    def step(connection: duckdb.DuckDBPyConnection, held: dict[str, set[str]]) -> T:
        connection.execute("BEGIN")
        if not held:
            connection.execute(f"CREATE SEQUENCE {_SEQUENCE}")
        for name, table in TABLES.items():
            if name not in held:
                listed = ", ".join(f"{c} {t}" for c, t in table.columns.items())
                connection.execute(f"CREATE TABLE {name} ({listed})")
                continue
            for column, kind in table.added.items():
                if column not in held[name]:
                    connection.execute(f"ALTER TABLE {name} ADD COLUMN {column} {kind}")
        if "log" in held and "content" not in held["log"]:
            for (dataset,) in connection.execute("SELECT DISTINCT dataset FROM log").fetchall():
                if dataset in workspace.datasets():
                    _key(connection, workspace.dataset_path(dataset), dataset)
        result = work(connection)
        connection.execute("COMMIT")
        return result

    return _transact(workspace, step, read_only=False)


def read(workspace: Workspace, work: Callable[[duckdb.DuckDBPyConnection, Mapping[str, str]], T]) -> T | None:
    """Read from the file, in whatever version it is; None when there is none.

    work: takes the connection, and by the name of each table what stands for it behind FROM, with all its columns
    Raises: BusyError when others write for a minute; StorageError for a file of another make
    """
    if not os.path.lexists(log_path(workspace)):
        return None

    def step(connection: duckdb.DuckDBPyConnection, held: dict[str, set[str]]) -> T | None:
        return work(connection, {name: _source(name, held) for name in TABLES}) if held else None

    return _transact(workspace, step, read_only=True)


def next_number(connection: duckdb.DuckDBPyConnection) -> int:
    """A number for a new batch or entry."""
    [(value,)] = connection.execute(f"SELECT nextval('{_SEQUENCE}')").fetchall()
    return int(value)


def check_text(kind: str, text: str, most: int) -> None:
    """Raises: SpecError for a text that is too long, or that no file can hold"""
    if len(text) > most:
        raise SpecError(f"the {kind} has {len(text):,} characters; allowed: up to {most:,}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SpecError(f"the {kind} holds half of a character ({text[error.start]!a}); write it anew") from error


def carry_over(workspace: Workspace) -> None:
    """Key a log of version 0.1 by the content of its images, if there is one. Called before a dataset is removed."""
    if os.path.lexists(log_path(workspace)):
        write(workspace, lambda connection: None)


def _source(name: str, held: Mapping[str, set[str]]) -> str:
    columns = TABLES[name].columns
    if name not in held:
        return "(SELECT " + ", ".join(f"CAST(NULL AS {t}) AS {c}" for c, t in columns.items()) + " WHERE false)"
    listed = ", ".join(c if c in held[name] else f"CAST(NULL AS {t}) AS {c}" for c, t in columns.items())
    return f"(SELECT {listed} FROM {name})"


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


def _columns(connection: duckdb.DuckDBPyConnection, path: Path) -> dict[str, set[str]]:
    """The columns of each table, none in a new file; StorageError when the file is of another make."""
    held = set(objects_in(connection))  # before anything is selected: the log may be somebody else's
    if not held:
        return {}
    others = sorted(held - {("table", name) for name in TABLES} - {("sequence", _SEQUENCE)})
    if others or ("table", "log") not in held:
        about = f"it holds the {others[0][0]} {others[0][1]!r}" if others else "it holds no log"
        raise StorageError(f"{path} is not a log of decisions ({about}); move it away, and winnow starts a new one")
    found: dict[str, dict[str, str]] = {}
    for table, name, kind, computed in connection.execute(
        "SELECT table_name, column_name, data_type, column_default IS NOT NULL OR is_generated FROM duckdb_columns() "
        "WHERE NOT internal"
    ).fetchall():
        found.setdefault(table, {})[name] = "a computed one" if computed else kind
    for table, columns in found.items():
        expected, added = TABLES[table].columns, TABLES[table].added
        for column, kind in expected.items():
            if columns.get(column, kind if column in added else None) != kind:
                about = f"column '{column}' of its {table} has another type"
                raise StorageError(
                    f"{path} is not a log of decisions ({about}); move it away, and winnow starts a new one"
                )
    return {table: set(columns) for table, columns in found.items()}


_turn = threading.Lock()
"""Of the threads of this process: DuckDB refuses a reader beside a writer, and numbers would be taken out of order."""

_opened: dict[tuple[int, Path], duckdb.DuckDBPyConnection] = {}
"""An empty database in memory per process and file, which can reach the file: to start one takes longer than to attach."""

_looked_at: dict[Path, tuple[object, dict[str, set[str]]]] = {}
"""The columns of a file as this process looked at it or left it last, with its stamp then."""


@atexit.register
def _close_all() -> None:
    for connection in _opened.values():
        connection.close()
    _opened.clear()


@contextlib.contextmanager
def _own_turn(deadline: float) -> Iterator[None]:
    if not _turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
        raise BusyError("decisions are being written by another page; try again")
    try:
        yield
    finally:
        _turn.release()


def _transact(
    workspace: Workspace, work: Callable[[duckdb.DuckDBPyConnection, dict[str, set[str]]], T], *, read_only: bool
) -> T:
    path = log_path(workspace)
    for file in _files(path):
        try:
            require_regular(file, missing_ok=True)
        except StorageError as error:
            raise StorageError(f"{error}; move it away, and winnow starts a new log of decisions") from error
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with _own_turn(deadline), storage_errors("decisions", path.parent):
                with _attached(path, read_only) as connection:
                    before = log_stamp(workspace)
                    known = _looked_at.get(path)
                    held = known[1] if known and known[0] == before else _columns(connection, path)
                    done = work(connection, held)
                if held or not read_only:
                    left = held if read_only else {name: set(table.columns) for name, table in TABLES.items()}
                    _looked_at[path] = log_stamp(workspace), left
                return done
        except (duckdb.DataError, duckdb.ProgrammingError, duckdb.InternalError, duckdb.NotSupportedError) as error:
            reason = str(error).splitlines()[0]
            raise StorageError(f"{path} is damaged ({reason}); move it away, and winnow starts a new one") from error
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.005, 0.03))  # or two that wait keep step, and one of them always comes second


@contextlib.contextmanager
def _attached(path: Path, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection in which the file is open, and needs no prefix; what is not committed at the end is rolled back."""
    key = os.getpid(), path
    if key not in _opened:
        # DuckDB's names for what it writes while it carries a log of writes over into the file.
        _opened[key] = open_walled([path, Path(f"{path}.wal.checkpoint"), Path(f"{path}.wal.recovery")])
    connection = _opened[key]
    try:
        connection.execute(f"ATTACH {literal(path)} AS decisions (TYPE duckdb{', READ_ONLY' if read_only else ''})")
    except duckdb.Error as error:
        # A reader in another place of this process holds it: DuckDB says so with a BinderException.
        if "lock" in str(error).lower() or "already attached" in str(error).lower():
            raise BusyError("decisions are being written by another process; try again") from error
        if is_full(error):
            raise
        reason = str(error).splitlines()[0]
        raise StorageError(f"{path} cannot be read: {reason}; move it away, and winnow starts a new one") from error
    try:
        connection.execute("USE decisions")
        yield connection
        connection.execute("USE memory")
        connection.execute("DETACH decisions")  # which writes it out
    except BaseException:
        # Whatever state it is in: closed, it holds no lock, and what was not committed falls away.
        _opened.pop(key).close()
        raise


def _files(path: Path) -> tuple[Path, Path]:
    return path, path.with_name(f"{path.name}.wal")
