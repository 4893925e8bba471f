"""A workspace from somebody else is data: what its files may hold, and what opening them can reach."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pandas as pd
import pytest
import tampered
import typer
from given_verdicts import list_again
from tampered import CASES, DATASET, ENDS_ALL, ENDS_DATASET, RUN, SECRET

from engine.cli.commands import app
from engine.errors import StorageError, WinnowError
from engine.queries.connection import connect, connected, runs_of
from engine.store import attached
from engine.store.atomic import replacing
from engine.store.attached import RESULTS, look_at, open_walled, reading
from engine.store.jobs import fetch_job, fetch_jobs
from engine.store.journal import append_journal
from engine.store.workspace import Workspace

COMMAND = typer.main.get_command(app)


@pytest.fixture
def root(old_workspace: Path, tmp_path: Path) -> Path:
    """A copy of the workspace of version 0.1, for a test to tamper with."""
    copy = shutil.copytree(old_workspace, tmp_path / "sent" / "w")
    for run in ("07bc8395abbd", "bb5b9c46dbfa"):  # three of `noisy` are enough
        shutil.rmtree(copy / "runs" / run)
    return copy


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """What reads a pipe, or a query without an end, would go on for ever."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no end after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def printed(root: Path, *words: str) -> str:
    """The one line of a command that refuses, else ""; any other exception is a failure of the test."""
    try:
        COMMAND.main([*words, "--workspace", str(root)], standalone_mode=False)
    except WinnowError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


@pytest.mark.parametrize("case", CASES)
def test_a_tampered_workspace_ends_no_command_in_a_traceback(
    root: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    CASES[case](root)
    outside = tampered.secret_beside(root)
    with within(120):
        lists = printed(root, "runs")
        own = printed(root, "query", "SELECT * FROM scores JOIN decisions USING (sample_id)", "--dataset", DATASET)
        other = printed(root, "query", "SELECT count(*) FROM scores", "--dataset", "digits")
        printed(root, "status", RUN)
    assert SECRET not in capsys.readouterr().out
    assert bool(lists) == (case in ENDS_ALL)
    assert bool(own) == (case in ENDS_ALL | ENDS_DATASET)
    assert bool(other) == (case in ENDS_ALL or "decisions" in own)
    assert outside.read_text() == SECRET


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.startswith(("16 scores", "16 results", "17", "20 results"))]
)
def test_what_is_refused_is_named_and_the_other_runs_are_read(root: Path, case: str) -> None:
    workspace = Workspace.open(root)
    others = set(runs_of(workspace, DATASET)) - {RUN}
    CASES[case](root)
    if case in ENDS_DATASET:
        with pytest.raises(StorageError, match="noisy.duckdb"):
            connect(workspace, DATASET)
        return
    with within(60), connected(workspace, DATASET) as connection:
        problems = dict(connection.execute("FROM unreadable").fetchall())
        left = {run for (run,) in connection.execute("SELECT run_id FROM runs").fetchall()}
    read_all_the_same = case in (
        "17 weights changed",
        "17 values that are no numbers",
        "17 score with HTML for a name",
        "17 nothing",
    )
    assert left == (others | {RUN} if read_all_the_same else others)
    assert set(problems) == (set() if read_all_the_same else {RUN})
    assert read_all_the_same or f"winnow remove {RUN}" in problems[RUN]


NAMED = {
    "16 scores, view over a file": "holds a view 'scores'",
    "16 results, macro": "holds a macro 'count'",
    "16 results, another schema": "holds a schema 'more'",
    "16 results, computed column": "column 'more' of table 'flags' is computed",
    "16 results, index on an expression": "holds an index 'i'",
    "17 scores changed, hashes left": "in its manifest",
    "17 ranks twice": "are no order",
    "20 results with a write-ahead log": "results.duckdb.wal lies beside",
    "20 results a link": "is a link",
}


@pytest.mark.parametrize("case", NAMED)
def test_the_message_names_the_object(root: Path, case: str) -> None:
    CASES[case](root)
    with connected(Workspace.open(root), DATASET) as connection:
        problems = dict(connection.execute("FROM unreadable").fetchall())
    problem = problems[RUN]
    assert NAMED[case] in problem or case == "17 scores changed, hashes left" and "manifest" in problem


def test_a_connection_reaches_its_files_and_nothing_else(root: Path) -> None:
    """The walls alone, without the look at the objects: a view over a file is refused by DuckDB itself."""
    secret, path = tampered.secret_beside(root), tampered.results(root)
    CASES["16 scores, view over a file"](root)
    with open_walled([path]) as connection:
        attached.attach(connection, path, "x")
        for sql in (
            "SELECT * FROM x.scores",
            f"SELECT * FROM read_text('{secret}')",
            f"COPY (SELECT 1) TO '{secret}'",
            f"ATTACH '{secret.parent / 'new.duckdb'}' AS y",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET enable_external_access = true",
            "SET allowed_paths = ['/']",
            "SET temp_directory = '/tmp'",
            "SELECT * FROM 'https://example.org/x.parquet'",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(sql).fetchall()
        connection.register("mine", pd.DataFrame({"a": [1, 2]}))  # what we hand over ourselves still works
        assert connection.execute("SELECT sum(a) FROM mine").fetchall() == [(3,)]
    assert secret.read_text() == SECRET and os.listdir(secret.parent) == ["secret.txt"]


def test_a_file_of_another_make_is_not_looked_into(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.duckdb"
    for content in (b"SQLite format 3\0" + bytes(5000), b"PAR1" + bytes(100), b"", b"x" * 20_000):
        path.write_bytes(content)
        with pytest.raises(StorageError, match="cannot be read|it has no table"), reading(path, RESULTS):
            pass
    assert list(tmp_path.glob("*.duckdb*")) == [path]


def test_a_name_with_a_quote_and_a_folder_above_are_attached(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "it's [here], ok"
    shutil.move(root, folder)
    with connected(Workspace.open(folder / ".." / folder.name), DATASET) as connection:
        assert connection.execute("SELECT count(*) FROM unreadable").fetchall() == [(0,)]


def test_a_file_that_was_looked_at_is_looked_at_again_when_it_changes(root: Path) -> None:
    path = tampered.results(root)

    def problems() -> dict[str, str]:
        with open_walled([path]) as connection:
            attached.attach(connection, path, "x")
            return look_at(connection, {"x": (path, RESULTS)})[1]

    assert problems() == {} == problems()
    CASES["16 results, macro"](root)
    assert list(problems()) == ["x"]


def test_a_newer_table_is_passed_over(root: Path) -> None:
    tampered.in_results("CREATE TABLE later (x STRUCT(a INTEGER)); ALTER TABLE scores ADD COLUMN y BLOB")(root)
    with connected(Workspace.open(root), DATASET) as connection:
        assert connection.execute("SELECT count(*) FROM unreadable").fetchall() == [(0,)]
        assert connection.execute("SELECT count(*) > 0 FROM scores WHERE run_id = ?", [RUN]).fetchall() == [(True,)]


# Links (case 21) ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["", "published", "published/results.duckdb", "spec.json", "journal.jsonl", "lock"])
def test_a_link_in_a_run_is_named_and_removed_alone(root: Path, inner: str) -> None:
    workspace = Workspace.open(root)
    known = len(workspace.run_ids())
    tampered.linked(lambda at: at / "runs" / RUN / inner)(root)
    moved = tampered.secret_beside(root).parent / "moved"
    before = {path: path.read_bytes() for path in moved.parent.rglob("*") if path.is_file()}
    job = fetch_job(workspace, RUN)
    assert job.state == "unreadable" and "is a link" in job.message and f"winnow remove {RUN}" in job.message
    assert len(fetch_jobs(workspace)) == known
    with pytest.raises(StorageError, match="is a link"):
        workspace.start_run(RUN, {})
    assert printed(root, "remove", RUN) == ""
    assert len(workspace.run_ids()) == known - 1 and not os.path.lexists(workspace.run_dir(RUN))
    assert {path: path.read_bytes() for path in moved.parent.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("place", ["datasets", "runs", "features", "jobs", "detectors"])
def test_a_linked_place_says_what_to_do(root: Path, tmp_path: Path, place: str) -> None:
    (root / place).mkdir(exist_ok=True)
    tampered.linked(lambda at: at / place)(root)
    with pytest.raises(StorageError, match="is a link, and a workspace lies in one place; move"):
        Workspace.open(root)
    (root / place).unlink()
    shutil.move(tampered.secret_beside(root).parent / "moved", root / place)
    (tmp_path / "linked").symlink_to(root)
    assert Workspace.open(tmp_path / "linked").datasets() == ["digits", "noisy"]


def test_nothing_is_written_through_a_link(root: Path) -> None:
    secret = tampered.secret_beside(root)
    folder = root / "runs" / "mine"
    folder.mkdir()
    (folder / "journal.jsonl").symlink_to(secret)
    with pytest.raises(StorageError, match="is a link"):
        append_journal(folder, "started")
    (folder / "velocity-aum.json").symlink_to(secret)
    with replacing(folder / "velocity-aum.json") as temp:
        temp.write_text("[]")
    assert secret.read_text() == SECRET and (folder / "velocity-aum.json").read_text() == "[]"


def test_a_log_of_decisions_that_is_a_link_is_not_opened(root: Path) -> None:
    tampered.linked(lambda at: at / "decisions.duckdb")(root)
    assert "is a link" in printed(root, "query", "SELECT 1", "--dataset", DATASET)


@pytest.mark.parametrize("left", [["datasets"], ["runs"], ["datasets", "runs"], [".winnow.json.12-34.tmp"], []])
def test_22_what_a_kill_left_of_a_new_workspace_is_made_a_workspace(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / name).write_text("{") if name.endswith(".tmp") else (tmp_path / name).mkdir()
    assert Workspace.open(tmp_path, create=True).datasets() == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["datasets", "runs", "winnow.json"]


def test_23_a_column_that_a_view_has_more_than_a_file_is_null(root: Path) -> None:
    tampered.in_results("ALTER TABLE embedding RENAME TO other; ALTER TABLE score_catalog DROP COLUMN cost")(root)
    list_again(tampered.results(root).parent)
    with connected(Workspace.open(root), DATASET) as connection:
        assert connection.execute("SELECT count(*) FROM unreadable").fetchall() == [(0,)]
