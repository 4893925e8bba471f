"""The views of the contract, made in a connection over attached files, whichever version wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import pandas as pd

from engine.store.attached import Tables
from engine.store.contents import Ids
from engine.store.schema import TABLE_VIEWS, VIEWS, dynamics_select, empty_select
from engine.store.sql import identifier, literal
from engine.store.tables import DATASET_TABLES, RESULT_TABLES, Columns, complete_select

DATASET_DATABASE = "dataset_file"
"""The name under which the dataset's file is attached."""


def database_of(run_id: str) -> str:
    """The name under which a run's results are attached."""
    return f"run_{run_id}"


def make_views(connection: duckdb.DuckDBPyConnection, dataset: Tables, results: Mapping[str, Tables]) -> None:
    """Make every view over the attached dataset file and the attached results.

    dataset: the tables of the dataset file; results: those of each run, by its id; as `look_at` gives them
    """
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
                    parts.append(dynamics_select(tables[view.table], identifier(database_of(run_id)), literal(run_id)))
                else:
                    sources = _sources(database_of(run_id), tables, RESULT_TABLES)
                    parts.append(view.select.format(run_id=literal(run_id), **sources))
        body = " UNION ALL BY NAME ".join(parts)
        if name == "score_catalog":
            body = f"SELECT DISTINCT ON (score) * FROM ({body}) ORDER BY score"
        connection.execute(f"CREATE VIEW {identifier(name)} AS {body}")


def _sources(database: str, tables: Tables, expected: dict[str, Columns]) -> dict[str, str]:
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
    _, columns = TABLE_VIEWS[name]
    listed = ", ".join(f"{identifier(c)} {t}" for c, (t, _) in columns.items())
    connection.execute(f"CREATE TABLE {identifier(f'{name}_now')} ({listed})")
    if len(rows):
        connection.register("rows_now", rows[list(columns)])
        connection.execute(f"INSERT INTO {identifier(f'{name}_now')} BY NAME SELECT * FROM rows_now")
        connection.unregister("rows_now")
    connection.execute(f"CREATE VIEW {identifier(name)} AS SELECT * FROM {identifier(f'{name}_now')}")


def update_table(
    connection: duckdb.DuckDBPyConnection, name: str, rows: pd.DataFrame, changed: Sequence[int] | Ids | None
) -> None:
    """Put other rows in the place of those that `make_table` made, for all who read from the connection at once.

    changed: the samples whose rows these are in place of; None = of all
    """
    table, columns = identifier(f"{name}_now"), list(TABLE_VIEWS[name][1])
    connection.execute("BEGIN")
    if changed is None:
        connection.execute(f"DELETE FROM {table}")
    else:
        connection.register("changed_now", pd.DataFrame({"sample_id": changed}))
        connection.execute(f"DELETE FROM {table} WHERE sample_id IN (SELECT sample_id FROM changed_now)")
        connection.unregister("changed_now")
    if len(rows):
        connection.register("rows_now", rows[columns])
        connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM rows_now")
        connection.unregister("rows_now")
    connection.execute("COMMIT")


def comment_views(connection: duckdb.DuckDBPyConnection) -> None:
    """Say in the catalog what every view and column holds. Apart, for it takes as long as making the views."""
    made = [(name, view.comment, view.columns) for name, view in VIEWS.items()]
    made += [(name, comment, columns) for name, (comment, columns) in TABLE_VIEWS.items()]
    for name, comment, columns in made:
        connection.execute(f"COMMENT ON VIEW {identifier(name)} IS {literal(comment)}")
        for column, (_, meaning) in columns.items():
            connection.execute(f"COMMENT ON COLUMN {identifier(name, column)} IS {literal(meaning)}")
