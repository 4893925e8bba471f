"""The only code that opens a published DuckDB file. No torch.

A workspace may be somebody else's, so such a file is data and never a program. A connection to it is a private one in
memory that can reach these files and nothing else: no other file, no network, no extension, no temporary folder. Before
anything is selected, every object in the file is looked at: it holds plain tables, whose known columns have the types of
engine/store/tables.py. A view, which might read any file or never end, is refused by its name.

In the order in which it is done, because each step protects the next: the file is a regular one and has no write-ahead
log beside it (DuckDB would replay it); the walls are set and locked; the file is attached as DuckDB's own format, so that
no extension is looked for; views, macros and all else that is no table are refused; columns are read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from engine.errors import StorageError
from engine.store.atomic import is_full
from engine.store.documents import require_regular
from engine.store.schema import VIEWS
from engine.store.sql import identifier, literal
from engine.store.tables import DATASET_TABLES, RESULT_TABLES, Columns

Tables = dict[str, Columns]
"""The columns and types of each table of a file, all names in small letters, as SQL finds them."""

CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "temp_directory": "",
}
"""How a file is opened that needs no other: a connection to it reaches nothing else."""


_KEYS = {"sample_id": "INTEGER", "seed": "INTEGER", "label": "INTEGER", "predicted": "SMALLINT[]"}
"""Columns without which a table of trajectories cannot be read."""


@dataclass(frozen=True)
class Kind:
    """A kind of published file. required: tables without which it is something else; tables: the known ones; keys:
    columns, by table, that must be there; any other may be missing from a file of an older version."""

    name: str
    required: tuple[str, ...]
    tables: dict[str, Columns]
    keys: dict[str, tuple[str, ...]]


DATASET = Kind(
    "dataset file",
    ("dataset", "classes", "samples", "inputs", "thumbnails", "skipped"),
    DATASET_TABLES,
    {
        "dataset": ("fingerprint", "format", "created_at", "input_shape", "input_dtype"),
        "classes": ("label", "class_name"),
        "samples": ("sample_id", "split", "label", "true_label", "source"),
        "inputs": ("first_id", "n", "data"),
        "thumbnails": ("sample_id", "thumbnail"),
        "metadata": ("sample_id", "name", "value", "number"),
        "versions": ("fingerprint", "train", "test"),
    },
)
RESULTS = Kind(
    "results file",
    ("run",),
    RESULT_TABLES | {"trajectories": {n: f"{k}[]" for n, (k, _) in VIEWS["dynamics"].columns.items()} | _KEYS},
    {table: ("sample_id",) for table, columns in RESULT_TABLES.items() if "sample_id" in columns}
    | {"trajectories": tuple(_KEYS)},
)

_OBJECTS = """
SELECT database_name, 'view' AS kind, view_name AS name FROM duckdb_views() WHERE NOT internal
UNION ALL SELECT database_name, 'macro', function_name FROM duckdb_functions() WHERE NOT internal
UNION ALL SELECT database_name, 'sequence', sequence_name FROM duckdb_sequences()
UNION ALL SELECT database_name, 'type', type_name FROM duckdb_types() WHERE NOT internal
UNION ALL SELECT database_name, 'index', index_name FROM duckdb_indexes()
UNION ALL SELECT database_name, 'schema', schema_name FROM duckdb_schemas() WHERE NOT internal
UNION ALL SELECT database_name, 'constraint', constraint_name FROM duckdb_constraints()
"""
"""All that is not a table. A view is listed, not read: what it selects from is not looked at."""

_Identity = tuple[int, int, int, int, int]
_looked_at: dict[tuple[_Identity, str], Tables] = {}
_MOST_REMEMBERED = 4096


def open_walled(paths: Iterable[Path], **config: str | int) -> duckdb.DuckDBPyConnection:
    """A private connection in memory that can open these files and nothing else, locked. config: DuckDB's options."""
    options: dict[str, Any] = {key: value for key, value in CLOSED.items() if key != "enable_external_access"}
    connection = duckdb.connect(config=options | config)
    allowed = ", ".join(literal(name) for path in paths for name in (path, f"{path}.wal"))
    connection.execute(f"SET allowed_paths = [{allowed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def attach(connection: duckdb.DuckDBPyConnection, path: Path, name: str) -> None:
    """Attach one of the files of `open_walled` under a name; `look_at` must follow before anything is selected.

    Raises: StorageError, without what to do about it, when it is no regular file or no database
    """
    require_regular(path)
    if os.path.lexists(f"{path}.wal"):
        raise StorageError(f"{path}.wal lies beside a published file, which has none; it is not read")
    try:
        connection.execute(f"ATTACH {literal(path)} AS {identifier(name)} (READ_ONLY, TYPE duckdb)")
    except (duckdb.Error, UnicodeError) as error:
        raise StorageError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def look_at(
    connection: duckdb.DuckDBPyConnection, files: Mapping[str, tuple[Path, Kind]]
) -> tuple[dict[str, Tables], dict[str, str]]:
    """Look at every object of attached files, by the names under which they are attached.

    A file that is refused is detached.

    Returns: the tables of each file that holds nothing but plain tables of its kind; what is wrong with each other one
    """
    identities: dict[str, _Identity] = {}
    found: dict[str, Tables] = {}
    problems: dict[str, str] = {}
    for name, (path, kind) in files.items():
        try:
            identities[name] = identity_of(path)
        except StorageError as error:
            problems[name] = str(error)
            continue
        if known := _looked_at.get((identities[name], kind.name)):
            found[name] = known
    _detach(connection, problems)
    new = {name: files[name] for name in identities if name not in found}
    if not new:
        return found, problems
    gone = set(problems)
    for database, what, called in connection.execute(_OBJECTS).fetchall():
        if database in new:
            problems[database] = f"{new[database][0]} holds {_article(what)} {called!r}; only tables are read"
    _detach(
        connection, problems.keys() - gone
    )  # first: to list the columns of a view, DuckDB would look at what it selects from
    for name, tables in _tables(
        connection, {name: new[name][0] for name in new if name not in problems}, problems
    ).items():
        if problem := problems.get(name) or _problem(tables, *new[name]):
            _detach(connection, [name])
            problems[name] = problem
            continue
        found[name] = tables
        while len(_looked_at) >= _MOST_REMEMBERED:
            _looked_at.pop(next(iter(_looked_at)), None)
        _looked_at[identities[name], new[name][1].name] = tables
    return found, problems


@contextlib.contextmanager
def reading(path: Path, kind: Kind = DATASET, hint: str = "ingest it again") -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to one published file alone, whose tables are looked at and need no prefix.

    hint: what to do about a file that cannot be read, for the error
    """
    try:
        with open_walled([path], memory_limit="1GB") as connection:
            try:
                attach(connection, path, "file")
                if problem := look_at(connection, {"file": (path, kind)})[1].get("file"):
                    raise StorageError(problem)
            except StorageError as error:
                raise StorageError(f"{error}; {hint}") from error
            connection.execute("USE file")
            yield connection
    except duckdb.Error as error:
        if is_full(error):  # of a file that is written meanwhile: whoever writes it says which
            raise
        raise StorageError(f"{path} cannot be read: {str(error).splitlines()[0]}; {hint}") from error


def columns_of(connection: duckdb.DuckDBPyConnection, table: str) -> Columns:
    """The columns and types of a table of the file that `reading` opened; none when it has no such table."""
    rows = connection.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = 'file' AND table_name = ?", [table]
    ).fetchall()
    return dict(rows)


def objects_in(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """(kind, name) of everything that a person's own database holds, tables included."""
    rows = connection.execute(
        f"SELECT kind, name FROM ({_OBJECTS} UNION ALL SELECT database_name, 'table', table_name FROM duckdb_tables() "
        "WHERE NOT internal)"
    ).fetchall()
    return [(str(kind), str(name)) for kind, name in rows]


def identity_of(path: Path) -> _Identity:
    """What changes whenever a file is written, copied or replaced.

    Raises: StorageError, without what to do about it, when it is gone: another process may remove a run at any moment
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _detach(connection: duckdb.DuckDBPyConnection, names: Iterable[str]) -> None:
    for name in names:
        connection.execute(f"DETACH {identifier(name)}")


def _tables(
    connection: duckdb.DuckDBPyConnection, files: Mapping[str, Path], problems: dict[str, str]
) -> dict[str, Tables]:
    """The tables of each file. Columns with a default or an expression, which a plain table has not, are problems."""
    tables: dict[str, Tables] = {name: {} for name in files}
    rows = connection.execute(
        "SELECT database_name, table_name, column_name, data_type, column_default IS NOT NULL OR is_generated "
        "FROM duckdb_columns() WHERE NOT internal ORDER BY database_name, table_name, column_index"
    ).fetchall()
    for database, table, column, kind, is_computed in rows:
        if database in tables:
            tables[database].setdefault(table.lower(), {})[column.lower()] = kind
            if is_computed:
                problems[database] = (
                    f"{files[database]}: column {column!r} of table {table!r} is computed; only data is read"
                )
    return tables


def _problem(tables: Tables, path: Path, kind: Kind) -> str:
    """What is wrong with the tables of a file; "" when they are as a reader expects them."""
    for table in kind.required:
        if table not in tables:
            return f"{path} is not a {kind.name} of winnow: it has no table '{table}'"
    for table, columns in kind.tables.items():
        for column, expected in columns.items():
            found = tables.get(table, {}).get(column)
            if found not in (None, expected):
                return f"{path}: column '{column}' of table '{table}' is {found}; it should be {expected}"
    for table, keys in kind.keys.items():
        for column in keys:
            if table in tables and column not in tables[table]:
                return f"{path}: table '{table}' has no column '{column}'"
    return ""


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
