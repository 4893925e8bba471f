"""Read-only SQL over the views of the contract. No torch: pages and quick commands import this.

`connect` opens a private in-memory DuckDB that can reach nothing but a dataset and the results of its published runs
(engine/store/attached.py), attaches
them read-only and makes the views. Published files never change, so what a query by run_id returned can be
cached without a limit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from engine.errors import NotFoundError, StorageError, WinnowError
from engine.queries.views import DATASET_DATABASE, database_of, make_table, make_views, update_table
from engine.store.attached import DATASET, RESULTS, Tables, attach, look_at, open_walled
from engine.store.contents import Ids
from engine.store.records import DatasetFacts, dataset_facts
from engine.store.schema import UNREADABLE_COLUMNS
from engine.store.sql import MEMORY_LIMIT, one_line
from engine.store.standing import Standing
from engine.store.values import check_results, results_file
from engine.store.versions import version_rows
from engine.store.workspace import Workspace

_DAMAGE = (duckdb.IOException, duckdb.InternalException, duckdb.FatalException, duckdb.SerializationException)


def connect(
    workspace: Workspace,
    dataset: str,
    runs: Sequence[str] | None = None,
    decisions_until: int | None = None,
    decisions: Standing | None = None,
) -> duckdb.DuckDBPyConnection:
    """A locked connection with every view of the contract over a dataset and its published runs.

    A run that is broken, or was made by a newer version, is left out and listed in the view `unreadable`.

    Args:    runs: only these run ids; None = all published runs of the dataset; decisions_until: the view `decisions` as
             it was after that batch of the log, None = as it is now; decisions: what to fill that view from instead of
             the log (`put_decisions` brings it up to date)
    Returns: a connection for one thread (`.cursor()` gives another thread its own)
    Raises:  NotFoundError for an unknown dataset; StorageError for a damaged dataset file or damaged decisions
    """
    path = workspace.require_dataset(dataset)
    facts = dataset_facts(path)  # of a format that this version reads
    wanted, problems = _find_runs(workspace, dataset) if runs is None else (list(runs), {})
    decided = (decisions or Standing(workspace, dataset, decisions_until)).current()
    files: dict[str, Path] = {}
    for run_id in wanted:
        with _noted(problems, run_id):
            files[run_id] = results_file(workspace.published_dir(run_id))
    connection = open_walled([path, *files.values()], memory_limit=MEMORY_LIMIT, custom_user_agent="winnow")
    try:
        attach(connection, path, DATASET_DATABASE)
        results = _attach_runs(connection, files, facts, problems)
        found, refused = look_at(connection, {DATASET_DATABASE: (path, DATASET)})
        if refused:
            raise StorageError(f"{refused[DATASET_DATABASE]}; ingest it again")
        make_views(connection, found[DATASET_DATABASE], results)
        make_table(connection, "decisions", decided)
        make_table(connection, "versions", version_rows(workspace, dataset))
        broken = pd.DataFrame(sorted(problems.items()), columns=list(UNREADABLE_COLUMNS))
        make_table(connection, "unreadable", broken)
    except duckdb.Error as error:
        connection.close()
        raise StorageError(f"{path} cannot be read: {str(error).splitlines()[0]}; ingest it again") from error
    except BaseException:
        connection.close()
        raise
    return connection


def put_decisions(connection: duckdb.DuckDBPyConnection, decisions: Standing, changed: Ids | None) -> None:
    """Bring the view `decisions` of a connection up to what stands.

    changed: the samples whose decision may be another now; None = any may be
    """
    rows = decisions.current() if changed is None else decisions.of(changed)
    update_table(connection, "decisions", rows, changed)


@contextlib.contextmanager
def _noted(problems: dict[str, str], run_id: str) -> Iterator[None]:
    """Note what is wrong with a run, and go on without it."""
    try:
        yield
    except StorageError as error:
        problems[run_id] = f"{error}; remove the run (winnow remove {run_id}) and compute it again"


def _attach_runs(
    connection: duckdb.DuckDBPyConnection, files: Mapping[str, Path], facts: DatasetFacts, problems: dict[str, str]
) -> dict[str, Tables]:
    """Attach the results of runs, check each file that was not checked before, and note what is wrong.

    Returns: the tables of each run that can be read
    """
    attached = {}
    for run_id, path in files.items():
        with _noted(problems, run_id):
            attach(connection, path, database_of(run_id))
            attached[database_of(run_id)] = path, RESULTS
    found, refused = look_at(connection, attached)
    results = {}
    for run_id, path in files.items():
        name = database_of(run_id)
        with _noted(problems, run_id):
            if name in refused:
                raise StorageError(refused[name])
            if name in found:
                check_results(connection, name, found[name], path, facts.samples, len(facts.classes))
                results[run_id] = found[name]
    return results


def runs_of(workspace: Workspace, dataset: str) -> list[str]:
    """The published runs of a dataset as it is now, oldest first; broken ones are left out."""
    return _find_runs(workspace, dataset)[0]


def _find_runs(workspace: Workspace, dataset: str) -> tuple[list[str], dict[str, str]]:
    """The published runs of a dataset, oldest first, and what is wrong with those that do not take part."""
    records, problems = workspace.read_records()
    found = []
    for record in records:
        if record.dataset == dataset and workspace.is_published(record.run_id):
            if outdated := workspace.outdated(record):
                problems[record.run_id] = outdated
            else:
                found.append((record.started_at, record.run_id))
    return [run_id for _, run_id in sorted(found)], problems


def fetch_fingerprint(workspace: Workspace, dataset: str) -> str:
    """The fingerprint of a dataset: what a run's spec names its data by."""
    return dataset_facts(workspace.require_dataset(dataset)).fingerprint


def has_test(workspace: Workspace, dataset: str) -> bool:
    """Whether a dataset has a test split."""
    with connected(workspace, dataset, []) as connection:
        return bool(connection.execute("SELECT count(*) > 0 FROM samples WHERE split = 'test'").fetchall()[0][0])


def has_properties(workspace: Workspace, dataset: str) -> bool:
    """Whether every training sample is an image that was measured at ingest; datasets of earlier versions were not."""
    sql = (
        "SELECT count(number) = count(*) FROM samples LEFT JOIN (FROM metadata WHERE name = 'resolution') "
        "USING (sample_id) WHERE split = 'train'"
    )
    with connected(workspace, dataset, []) as connection:
        return bool(connection.execute(sql).fetchall()[0][0])


def class_sizes(workspace: Workspace, dataset: str) -> list[int]:
    """How many training samples each class that occurs has."""
    with connected(workspace, dataset, []) as connection:
        rows = connection.execute("SELECT count(*) FROM samples WHERE split = 'train' GROUP BY label").fetchall()
    return [int(count) for (count,) in rows]


def default_dataset(workspace: Workspace) -> str:
    """The dataset of the latest published run, else the first by name; NotFoundError when there is none."""
    records = [record for record in workspace.read_records()[0] if workspace.is_published(record.run_id)]
    latest = sorted(records, key=lambda record: record.started_at, reverse=True)
    names = workspace.datasets()
    for name in [*(record.dataset for record in latest), *names]:
        if name in names:
            return name
    raise NotFoundError(f"no dataset in {workspace.root}; winnow ingest makes one")


@contextlib.contextmanager
def connected(
    workspace: Workspace, dataset: str, runs: Sequence[str] | None = None, decisions_until: int | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """`connect`, closed at the end of the block; damage that shows in it is a StorageError."""
    connection = connect(workspace, dataset, runs, decisions_until)
    try:
        with damage_errors(dataset):
            yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def damage_errors(dataset: str) -> Iterator[None]:
    """Turn what DuckDB says of a damaged page, which it meets where it reads it, into one StorageError."""
    try:
        yield
    except _DAMAGE as error:
        raise StorageError(
            f"a file of dataset '{dataset}' or of its runs cannot be read: {one_line(error)}; winnow verify names it"
        ) from error


def fetch_sql(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()
) -> pd.DataFrame:
    """The rows of one query of ours (a person's goes through `fetch_answer`); a mistake in it is a WinnowError."""
    try:
        given = parameters if isinstance(parameters, dict) else list(parameters)
        return connection.execute(sql, given).df()
    except duckdb.Error as error:
        raise WinnowError(one_line(error)) from error


# Runs and what they hold ---------------------------------------------------------------------------------------


def best_run(
    connection: duckdb.DuckDBPyConnection, view: str = "score_costs", scores: Collection[str] = ()
) -> str | None:
    """The run to read where none is named: the one whose verdict deserves the most trust, else the newest.

    Of the runs with a verdict the one whose held-out accuracy is highest, of equals the newest; a run without a verdict
    comes after all of them.

    Args: view: only runs that have rows there; scores: only runs that have all of these
    """
    found = fetch_sql(
        connection,
        f"""SELECT run_id FROM runs LEFT JOIN (SELECT run_id, accuracy FROM verdict) AS v USING (run_id)
        WHERE run_id IN (SELECT run_id FROM "{view}") AND len($scores::VARCHAR[]) = (SELECT count(*) FROM score_costs AS c
            WHERE c.run_id = runs.run_id AND list_contains($scores::VARCHAR[], score))
        ORDER BY v.run_id IS NULL, accuracy DESC NULLS LAST, created_at DESC, run_id LIMIT 1""",
        {"scores": sorted(scores)},
    )
    return str(found["run_id"][0]) if len(found) else None


def latest_run(connection: duckdb.DuckDBPyConnection, view: str, score: str = "") -> str | None:
    """The newest run that has rows in a view (one with a column run_id), or in `scores` those of one score."""
    having = f'SELECT run_id FROM "{view}"' + (" WHERE score = $score" if score else "")
    found = fetch_sql(
        connection,
        f"SELECT run_id FROM runs WHERE run_id IN ({having}) ORDER BY created_at DESC, run_id LIMIT 1",
        {"score": score} if score else {},
    )
    return str(found["run_id"][0]) if len(found) else None


SUGGESTED = "arg_max(suggested_label, 2 * CAST(method = 'heldout_prediction' AS INTEGER) + confidence)"
"""Of the rows of `suggestions` of one sample and run, the label to show: of networks that did not train on it, if any."""


def source_run(connection: duckdb.DuckDBPyConnection, view: str, run_id: str) -> str:
    """The run to read a view from: run_id when it has rows there, else the run whose dynamics it reads."""
    if connection.execute(f'SELECT 1 FROM "{view}" WHERE run_id = ? LIMIT 1', [run_id]).fetchone():
        return run_id
    row = connection.execute("SELECT dynamics_run FROM runs WHERE run_id = ?", [run_id]).fetchone()
    return str(row[0]) if row and row[0] else run_id
