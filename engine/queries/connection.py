"""Read-only SQL over the views of the contract. No torch: pages and quick commands import this.

`connect` opens a private in-memory DuckDB, attaches a dataset and the results of its published runs read-only,
makes the views, and locks file access. Published files never change, so what a query by run_id returned can be
cached for ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pandas as pd

from engine.errors import NotFoundError, StorageError, WinnowError
from engine.store.decisions import fetch_decisions_log
from engine.store.schema import DECISIONS_COLUMNS, VIEWS, dynamics_select, empty_select
from engine.store.sql import identifier, literal
from engine.store.tables import DATASET_TABLES, RESULT_TABLES, complete_select
from engine.store.workspace import Workspace

MEMORY_LIMIT = "2GB"


def connect(workspace: Workspace, dataset: str, runs: Sequence[str] | None = None) -> duckdb.DuckDBPyConnection:
    """A locked connection with every view of the contract over a dataset and its published runs.

    Args:    runs: only these run ids; None = all published runs of the dataset
    Returns: a connection for one thread (`.cursor()` gives another thread its own)
    Raises:  NotFoundError for an unknown dataset; StorageError for a damaged file
    """
    path = workspace.require_dataset(dataset)
    wanted = runs_of(workspace, dataset) if runs is None else list(runs)
    decisions = fetch_decisions_log(workspace, dataset)
    connection = duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "custom_user_agent": "winnow"})
    try:
        _attach(connection, path, "dataset_file")
        for run_id in wanted:
            _attach(connection, workspace.published_dir(run_id) / "results.duckdb", f"run_{run_id}")
        try:
            _make_views(connection, wanted)
        except duckdb.Error as error:
            raise StorageError(
                f"the runs of '{dataset}' were made by another version of winnow ({str(error).splitlines()[0]}); "
                "remove them (winnow remove RUN) and compute them again"
            ) from error
        _make_decisions(connection, decisions)
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    except BaseException:
        connection.close()
        raise
    return connection


MOST_FLAG = "2 * count(*) FILTER (flagged) >= count(*)"
"""Of the rows of `flags` of one sample and run: at least half of the rules that judge it flag it.

One rule alone may flag a third of a set to miss nothing, so a sample is not called flagged for a single one of many.
"""


def runs_of(workspace: Workspace, dataset: str) -> list[str]:
    """The published runs of a dataset, oldest first."""
    found = []
    for run_id in workspace.published_runs():
        content = workspace.read_spec(run_id)
        if content["spec"].get("dataset") == dataset:
            found.append((float(content.get("started_at", 0.0)), run_id))
    return [run_id for _, run_id in sorted(found)]


def fetch_fingerprint(workspace: Workspace, dataset: str) -> str:
    """The fingerprint of a dataset: what a run's spec names its data by."""
    with connected(workspace, dataset, []) as connection:
        return str(fetch_sql(connection, "SELECT fingerprint FROM dataset")["fingerprint"][0])


def has_test(workspace: Workspace, dataset: str) -> bool:
    """Whether a dataset has a test split."""
    with connected(workspace, dataset, []) as connection:
        return bool(connection.execute("SELECT count(*) > 0 FROM samples WHERE split = 'test'").fetchall()[0][0])


def class_sizes(workspace: Workspace, dataset: str) -> list[int]:
    """How many training samples each class that occurs has."""
    with connected(workspace, dataset, []) as connection:
        rows = connection.execute("SELECT count(*) FROM samples WHERE split = 'train' GROUP BY label").fetchall()
    return [int(count) for (count,) in rows]


def default_dataset(workspace: Workspace) -> str:
    """The dataset of the latest published run, else the first by name; NotFoundError when there is none."""
    published = [workspace.read_spec(run_id) for run_id in workspace.published_runs()]
    latest = sorted(published, key=lambda content: float(content.get("started_at", 0.0)), reverse=True)
    names = [str(content["spec"].get("dataset")) for content in latest] + workspace.datasets()
    for name in names:
        if name in workspace.datasets():
            return name
    raise NotFoundError(f"no dataset in {workspace.root}; winnow ingest makes one")


@contextlib.contextmanager
def connected(
    workspace: Workspace, dataset: str, runs: Sequence[str] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """`connect`, closed at the end of the block."""
    connection = connect(workspace, dataset, runs)
    try:
        yield connection
    finally:
        connection.close()


def fetch_sql(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()
) -> pd.DataFrame:
    """The rows of one query; a mistake in the SQL is a WinnowError with DuckDB's own words."""
    try:
        given = parameters if isinstance(parameters, dict) else list(parameters)
        return connection.execute(sql, given).df()
    except duckdb.Error as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise WinnowError(" ".join(lines[:2]) or "the query failed") from error


def _attach(connection: duckdb.DuckDBPyConnection, path: Any, name: str) -> None:
    try:
        connection.execute(f"ATTACH {literal(path)} AS {identifier(name)} (READ_ONLY)")
    except duckdb.Error as error:
        raise StorageError(
            f"{path} cannot be read: {str(error).splitlines()[0]}; remove it and compute it again"
        ) from error


def _make_views(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> None:
    tables: dict[tuple[str, str], list[str]] = {}
    rows = connection.execute(
        "SELECT database_name, table_name, column_name FROM duckdb_columns() "
        "WHERE NOT internal ORDER BY database_name, table_name, column_index"
    ).fetchall()
    for database, table, column in rows:
        tables.setdefault((database, table), []).append(column)
    for name, view in VIEWS.items():
        parts = [empty_select(view.columns)]
        for database in ["dataset_file"] if view.over == "dataset" else [f"run_{r}" for r in runs]:
            columns = tables.get((database, view.table))
            if columns is None:
                continue
            run = literal(database.removeprefix("run_"))
            if name == "dynamics":
                parts.append(dynamics_select(columns, f'"{database}"', run))
            else:
                sources = {
                    table: f"({complete_select(table, tables[database, table], expected, identifier(database, table))})"
                    for table, expected in (DATASET_TABLES if view.over == "dataset" else RESULT_TABLES).items()
                    if (database, table) in tables
                }
                parts.append(view.select.format(run_id=run, **sources))
        body = " UNION ALL BY NAME ".join(parts)
        if name == "score_catalog":
            body = f"SELECT DISTINCT ON (score) * FROM ({body}) ORDER BY score"
        connection.execute(f'CREATE VIEW "{name}" AS {body}')
        _comment(connection, name, view.comment, view.columns)


def _make_decisions(connection: duckdb.DuckDBPyConnection, log: pd.DataFrame) -> None:
    columns = ", ".join(f'"{c}" {t}' for c, (t, _) in DECISIONS_COLUMNS.items())
    connection.execute(f"CREATE TABLE decisions_now ({columns})")
    if len(log):
        latest = log[list(DECISIONS_COLUMNS)]
        connection.register("latest", latest)
        connection.execute("INSERT INTO decisions_now SELECT * FROM latest")
        connection.unregister("latest")
    connection.execute("CREATE VIEW decisions AS SELECT * FROM decisions_now")
    _comment(connection, "decisions", "The latest decision of a person per sample.", DECISIONS_COLUMNS)


def _comment(
    connection: duckdb.DuckDBPyConnection, name: str, comment: str, columns: dict[str, tuple[str, str]]
) -> None:
    connection.execute(f"COMMENT ON VIEW {identifier(name)} IS {literal(comment)}")
    for column, (_, meaning) in columns.items():
        connection.execute(f"COMMENT ON COLUMN {identifier(name, column)} IS {literal(meaning)}")


# Runs and what they hold ---------------------------------------------------------------------------------------


def latest_run(connection: duckdb.DuckDBPyConnection, view: str, score: str = "") -> str | None:
    """The newest run that has rows in a view (one with a column run_id), or in `scores` those of one score."""
    having = f'SELECT run_id FROM "{view}"' + (" WHERE score = $score" if score else "")
    found = fetch_sql(
        connection,
        f"SELECT run_id FROM runs WHERE run_id IN ({having}) ORDER BY created_at DESC, run_id LIMIT 1",
        {"score": score} if score else {},
    )
    return str(found["run_id"][0]) if len(found) else None


def source_run(connection: duckdb.DuckDBPyConnection, view: str, run_id: str) -> str:
    """The run to read a view from: run_id when it has rows there, else the run whose dynamics it reads."""
    if connection.execute(f'SELECT 1 FROM "{view}" WHERE run_id = ? LIMIT 1', [run_id]).fetchone():
        return run_id
    row = connection.execute("SELECT dynamics_run FROM runs WHERE run_id = ?", [run_id]).fetchone()
    return str(row[0]) if row and row[0] else run_id
