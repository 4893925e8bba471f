"""The contract: every view is there, with the columns, types and comments it promises, and nothing else gets in."""

import subprocess
import sys
import threading

import duckdb
import pytest

from engine.errors import NotFoundError, StorageError, WinnowError
from engine.queries.connection import connect, connected, default_dataset, fetch_sql
from engine.queries.views import comment_views
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.store.schema import TABLE_VIEWS, VIEWS
from engine.store.workspace import Workspace

EXPECTED = {name: view.columns for name, view in VIEWS.items()} | {name: made[1] for name, made in TABLE_VIEWS.items()}


@pytest.fixture(scope="module", params=["with runs", "without"])
def connection(request, noisy):
    root, dataset = noisy
    with connected(Workspace.open(root), dataset, None if request.param == "with runs" else []) as made:
        comment_views(made)
        yield made


@pytest.mark.parametrize("view", EXPECTED)
def test_a_view_has_the_columns_it_promises(connection, view):
    described = {row[0]: row[1] for row in connection.execute(f'DESCRIBE "{view}"').fetchall()}
    assert described == {column: kind for column, (kind, _) in EXPECTED[view].items()}
    comments = dict(
        connection.execute(
            "SELECT column_name, comment FROM duckdb_columns() WHERE database_name = 'memory' AND table_name = ?",
            [view],
        ).fetchall()
    )
    assert comments == {column: meaning for column, (_, meaning) in EXPECTED[view].items()}
    connection.execute(f'SELECT * FROM "{view}" LIMIT 3').fetchall()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "ATTACH '/tmp/x.duckdb'",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
    ],
)
def test_files_and_settings_are_locked(connection, sql):
    with pytest.raises(WinnowError):
        fetch_sql(connection, sql)


def test_published_files_cannot_be_changed(demo_workspace):
    with connected(Workspace.open(demo_workspace), "digits-noisy") as connection:
        with pytest.raises(duckdb.Error, match="read-only"):
            connection.execute("DELETE FROM dataset_file.samples")


def test_a_mistake_in_sql_is_one_line(connection):
    with pytest.raises(WinnowError) as error:
        fetch_sql(connection, "SELECT nothing FROM scores")
    assert "\n" not in str(error.value) and "nothing" in str(error.value)


def test_unknown_and_damaged_files_are_named(small_workspace, small_training):
    with pytest.raises(NotFoundError, match="did you mean 'small'"):
        connect(small_workspace, "smal")
    run, _ = compute(small_workspace, plan_run(small_workspace, "small", ["random"], small_training()), "cpu")
    (small_workspace.published_dir(run) / "results.duckdb").write_bytes(b"not a database")
    with connected(small_workspace, "small") as connection:
        ((broken, problem),) = connection.execute("FROM unreadable").fetchall()
    assert broken == run and "results.duckdb has 14 bytes" in problem and f"winnow remove {run}" in problem
    small_workspace.dataset_path("small").write_bytes(b"not a database")
    with pytest.raises(StorageError, match=r"small.duckdb cannot be read.*; remove it and ingest the dataset again"):
        connect(small_workspace, "small")


def test_the_default_dataset_is_that_of_the_latest_run(demo_workspace, small_workspace, tmp_path):
    assert default_dataset(Workspace.open(demo_workspace)) == "digits-noisy"
    assert default_dataset(small_workspace) == "small"
    with pytest.raises(NotFoundError, match="winnow ingest"):
        default_dataset(Workspace.open(tmp_path / "empty", create=True))


def test_threads_read_through_cursors_of_their_own(demo_workspace):
    with connected(Workspace.open(demo_workspace), "digits-noisy") as connection:
        found: list[int] = []

        def count() -> None:
            for _ in range(20):
                found.append(connection.cursor().execute("SELECT count(*) FROM scores").fetchall()[0][0])

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 80 and len(set(found)) == 1


def test_a_reader_and_a_run_do_not_meet(small_workspace, small_training):
    """A page that holds its connection open does not stop a run from being published, and sees it when it asks anew."""
    with connected(small_workspace, "small") as before:
        compute(small_workspace, plan_run(small_workspace, "small", ["random"], small_training()), "cpu")
        assert before.execute("SELECT count(*) FROM runs").fetchall() == [(0,)]
        with connected(small_workspace, "small") as after:
            assert after.execute("SELECT count(*) FROM runs").fetchall() == [(1,)]


def test_queries_leave_torch_alone():
    modules = "queries.samples, queries.writers, store.jobs, store.decisions, cli.commands".split(", ")
    code = f"import sys, {', '.join('engine.' + m for m in modules)}\nprint('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
