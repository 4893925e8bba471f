"""The views of the contract, made in a connection over attached files, whichever version wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb
import pandas as pd

from engine.errors import StorageError
from engine.store.documents import number, read_json
from engine.store.records import FORMAT
from engine.store.schema import TABLE_VIEWS, VIEWS, dynamics_select, empty_select
from engine.store.sql import identifier, literal
from engine.store.tables import DATASET_TABLES, RESULT_TABLES, Columns, complete_select

DATASET_DATABASE = "dataset_file"
"""The name under which the dataset's file is attached."""

_OWN = {"sample_id": "INTEGER", "seed": "INTEGER", "label": "INTEGER", "predicted": "SMALLINT[]"}
"""Columns without which a table of trajectories cannot be read."""


def attach(connection: duckdb.DuckDBPyConnection, path: Path, name: str) -> None:
    """Attach a file read-only; StorageError, without what to do about it, when it cannot be read."""
    if not path.is_file():
        raise StorageError(f"{path} is not a regular file" if path.exists() else f"{path} is missing")
    try:
        connection.execute(f"ATTACH {literal(path)} AS {identifier(name)} (READ_ONLY)")
    except duckdb.Error as error:
        raise StorageError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def attach_run(connection: duckdb.DuckDBPyConnection, published: Path, run_id: str) -> dict[str, Columns]:
    """Attach the results of a run as run_ID, and check that the views can be made over them.

    Returns: its tables with their columns and types
    Raises:  StorageError, without what to do about it, when they are damaged, of a newer format or of another make
    """
    path, name = published / "results.duckdb", f"run_{run_id}"
    _check_manifest(published, path)
    attach(connection, path, name)
    try:
        tables = _tables(connection, name)
        _check_tables(tables, path)
    except StorageError:
        connection.execute(f"DETACH {identifier(name)}")
        raise
    return tables


def _check_manifest(published: Path, path: Path) -> None:
    """Refuse results of a newer format, and a file that is cut short: damage that would show in some query only."""
    manifest = read_json(published / "manifest.json")
    manifest = manifest if isinstance(manifest, dict) else {}
    version = number(manifest.get("format"))
    if version > FORMAT:
        raise StorageError(f"{path} has format {version:g}, this winnow reads up to {FORMAT}; upgrade winnow-images")
    files = manifest.get("files")
    listed = files.get(path.name) if isinstance(files, dict) else None
    size = number(listed.get("bytes"), -1) if isinstance(listed, dict) else -1
    if path.is_file() and path.stat().st_size != size:
        raise StorageError(f"{path} has {path.stat().st_size:,} bytes, {size:,.0f} in its manifest; it is damaged")


def _tables(connection: duckdb.DuckDBPyConnection, name: str) -> dict[str, Columns]:
    """The tables of an attached file with their columns and types."""
    rows = connection.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE database_name = ? AND "
        "schema_name = 'main' AND NOT internal ORDER BY table_name, column_index",
        [name],
    ).fetchall()
    tables: dict[str, Columns] = {}
    for table, column, kind in rows:
        tables.setdefault(table, {})[column] = kind
    return tables


def _check_tables(tables: dict[str, Columns], path: Path) -> None:
    if "run" not in tables:
        raise StorageError(f"{path} is not a results file of winnow: it has no table 'run'")
    recorded = VIEWS["dynamics"].columns
    expected = {**RESULT_TABLES, "trajectories": {n: f"{k}[]" for n, (k, _) in recorded.items()} | _OWN}
    for table, columns in expected.items():
        for column, kind in columns.items():
            found = tables.get(table, {}).get(column)
            if found not in (None, kind):
                raise StorageError(f"{path}: column '{column}' of table '{table}' is {found}; it should be {kind}")
    missing = [column for column in _OWN if "trajectories" in tables and column not in tables["trajectories"]]
    if missing:
        raise StorageError(f"{path}: table 'trajectories' has no column '{missing[0]}'")


def make_views(connection: duckdb.DuckDBPyConnection, results: Mapping[str, dict[str, Columns]]) -> None:
    """Make every view over the attached dataset file and the attached results: the tables of each run, by its id."""
    dataset = _tables(connection, DATASET_DATABASE)
    for name, view in VIEWS.items():
        parts = [empty_select(view.columns)]
        if view.over == "dataset":
            if view.table in dataset:
                parts.append(view.select.format(**_sources(DATASET_DATABASE, dataset, DATASET_TABLES)))
        else:
            for run_id, tables in results.items():
                if view.table not in tables:
                    continue
                if name == "dynamics":
                    parts.append(dynamics_select(tables[view.table], identifier(f"run_{run_id}"), literal(run_id)))
                else:
                    sources = _sources(f"run_{run_id}", tables, RESULT_TABLES)
                    parts.append(view.select.format(run_id=literal(run_id), **sources))
        body = " UNION ALL BY NAME ".join(parts)
        if name == "score_catalog":
            body = f"SELECT DISTINCT ON (score) * FROM ({body}) ORDER BY score"
        connection.execute(f"CREATE VIEW {identifier(name)} AS {body}")
        _comment(connection, name, view.comment, view.columns)


def _sources(database: str, tables: dict[str, Columns], expected: dict[str, Columns]) -> dict[str, str]:
    """For each table of a file, what a view reads it as: the table, or a SELECT that adds the columns it lacks."""
    sources = {}
    for table, columns in expected.items():
        if table in tables:
            source = identifier(database, table)
            complete = columns.keys() <= tables[table].keys()
            sources[table] = source if complete else f"({complete_select(table, tables[table], columns, source)})"
    return sources


def make_table(connection: duckdb.DuckDBPyConnection, name: str, rows: pd.DataFrame) -> None:
    """Make one of TABLE_VIEWS, whose rows come from elsewhere than the attached files."""
    comment, columns = TABLE_VIEWS[name]
    listed = ", ".join(f"{identifier(c)} {t}" for c, (t, _) in columns.items())
    connection.execute(f"CREATE TABLE {identifier(f'{name}_now')} ({listed})")
    if len(rows):
        connection.register("rows_now", rows[list(columns)])
        connection.execute(f"INSERT INTO {identifier(f'{name}_now')} BY NAME SELECT * FROM rows_now")
        connection.unregister("rows_now")
    connection.execute(f"CREATE VIEW {identifier(name)} AS SELECT * FROM {identifier(f'{name}_now')}")
    _comment(connection, name, comment, columns)


def _comment(
    connection: duckdb.DuckDBPyConnection, name: str, comment: str, columns: dict[str, tuple[str, str]]
) -> None:
    connection.execute(f"COMMENT ON VIEW {identifier(name)} IS {literal(comment)}")
    for column, (_, meaning) in columns.items():
        connection.execute(f"COMMENT ON COLUMN {identifier(name, column)} IS {literal(meaning)}")
