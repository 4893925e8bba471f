"""What a person may query: one statement that reads, within limits; and quoting."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from engine.errors import SpecError, WinnowError
from engine.queries.connection import connected, fetch_sql
from engine.store.sql import check_condition, fetch_answer, identifier, literal
from engine.store.workspace import Workspace


@pytest.fixture(scope="module")
def connection(old_workspace: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with connected(Workspace.open(old_workspace), "noisy") as made:
        yield made


def state(root: Path) -> dict[str, str]:
    """The hash of every file in a folder."""
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("text", ["it's", 'a"b', "", "''", "x' OR true --", "naïve\n"])
def test_quoted_text_comes_back_as_it_was(text: str) -> None:
    with duckdb.connect() as connection:
        assert connection.execute(f"SELECT {literal(text)}").fetchone() == (text,)
        if text:
            columns = connection.execute(f"SELECT 1 AS {identifier(text)}").description
            assert columns[0][0] == text


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS a;",
        "WITH t AS (SELECT 1 AS a) FROM t",
        "FROM (SHOW TABLES)",
        "DESCRIBE scores",
        "SHOW TABLES",
        "SUMMARIZE samples",
        "EXPLAIN SELECT 1",
        "-- why\nEXPLAIN ANALYZE SELECT 1",
        "VALUES (1)",
        "/* a */ SELECT 1 -- b",
    ],
)
def test_one_statement_that_reads_is_answered(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    frame, left_out = fetch_answer(connection, sql)
    assert len(frame) > 0 and left_out == 0


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT 1; SELECT 2", "2 statements were given"),
        ("", "0 statements were given"),
        ("-- nothing", "0 statements were given"),
        ("DETACH run_{run}; ATTACH '{file}' AS y; UPDATE y.scores SET value = 0; SELECT 1", "4 statements were given"),
        ("ATTACH '{file}' AS y", "a statement of type ATTACH"),
        ("COPY (SELECT 'x') TO '{file}.wal' (FORMAT csv)", "a statement of type COPY"),
        ("EXPLAIN ANALYZE COPY (SELECT 'x') TO '{file}.wal'", "a statement of type COPY"),
        ("EXPLAIN ANALYZE INSERT INTO decisions_now (sample_id) VALUES (1)", "a statement of type INSERT"),
        ("create table x(i int)", "a statement of type CREATE"),
        ("INSERT INTO decisions_now (sample_id) VALUES (1)", "a statement of type INSERT"),
        ("SET memory_limit = '99GB'", "a statement of type SET"),
        ("PRAGMA database_list", "a statement of type PRAGMA"),
        ("CALL pragma_version()", "a statement of type CALL"),
        ("INSTALL httpfs", "a statement of type LOAD"),
        ("WITH a AS (INSERT INTO decisions_now (sample_id) VALUES (1) RETURNING 1) FROM a", "the query would write"),
        ("SELECT nothing FROM scores", "nothing"),
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled"),
    ],
)
def test_anything_else_is_refused_in_one_line_and_changes_nothing(
    connection: duckdb.DuckDBPyConnection, old_workspace: Path, sql: str, said: str
) -> None:
    workspace, before = Workspace.open(old_workspace), state(old_workspace)
    run = workspace.published_runs()[0]
    text = sql.format(run=run, file=workspace.published_dir(run) / "results.duckdb")
    with pytest.raises(WinnowError, match=said) as error:
        fetch_answer(connection, text)
    assert "\n" not in str(error.value)
    assert state(old_workspace) == before
    assert fetch_answer(connection, "SELECT count(*) AS n FROM decisions")[0]["n"].tolist() == [3]


def test_no_query_outlasts_its_time(connection: duckdb.DuckDBPyConnection) -> None:
    endless = "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t) SELECT max(i) FROM t"
    with pytest.raises(WinnowError, match="took longer than 0.5 seconds"):
        fetch_answer(connection, endless, seconds=0.5)
    with pytest.raises(WinnowError, match="took longer than 0.5 seconds"):  # while its rows are fetched
        fetch_answer(connection, "SELECT * FROM range(3000000000)", rows=5, seconds=0.5)
    assert fetch_answer(connection, "SELECT 1 AS a", seconds=5)[0]["a"].tolist() == [1]


def test_no_query_takes_more_than_its_memory(
    connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.store.sql._MOST_BYTES", 50_000_000)
    with pytest.raises(WinnowError, match="more than 2 GB of memory"):
        fetch_answer(connection, "SELECT * FROM range(3000000000)")
    with pytest.raises(WinnowError, match="more than 2 GB of memory"):
        fetch_answer(connection, "SELECT list(range) FROM range(900000000)")


def test_rows_beyond_the_limit_are_counted(connection: duckdb.DuckDBPyConnection) -> None:
    frame, left_out = fetch_answer(connection, "SELECT * FROM range(123456)", rows=100_000)
    assert len(frame) == 100_000 and left_out == 23_456 and frame["range"].tolist() == list(range(100_000))
    frame, left_out = fetch_answer(connection, "SELECT * FROM range(3)", rows=0)
    assert (len(frame), left_out, list(frame.columns)) == (0, 3, ["range"])
    frame, left_out = fetch_answer(connection, "SELECT 1 AS a, 'x' AS b WHERE false")
    assert (len(frame), left_out, list(frame.columns)) == (0, 0, ["a", "b"])


def test_an_answer_in_pieces_is_the_answer(connection: duckdb.DuckDBPyConnection) -> None:
    """Types depend on what a piece holds: a column that is NULL at first is text later."""
    sql = """SELECT i::INTEGER AS i, if(i > 150000, i, NULL)::INTEGER AS j, if(i > 150000, 'é' || i, NULL) AS s, NULL AS n,
        i % 3 = 0 AS b, if(i > 150000, true, NULL) AS c, i::DECIMAL(9, 2) AS d, [i, 1] AS l, i * INTERVAL 1 SECOND AS t,
        TIMESTAMP '2026-01-01' + i * INTERVAL 1 DAY AS u, {'a': i} AS o, i / 7 AS f FROM range(160000) AS r(i)"""
    pieces, _ = fetch_answer(connection, sql)
    pd.testing.assert_frame_equal(pieces, fetch_sql(connection, sql))


@pytest.mark.parametrize(
    "text", ["aum > 0", "true -- all", "label IN (SELECT 1)", "x = ')' AND y = '--'", "NOT flagged"]
)
def test_one_expression_is_a_condition(text: str) -> None:
    assert check_condition(text) == f"({text}\n)"


@pytest.mark.parametrize(
    "text",
    [
        "1) UNION SELECT 1; --",
        "1) UNION SELECT (1",
        "true; DROP TABLE x",
        "true) --",
        "(true",
        "true /*",
        "'",
        "$$",
        "SELECT 1",
        "true UNION SELECT 1",
        "",
        "-- nothing",
        "\udcff",
    ],
)
def test_anything_else_is_no_condition(text: str) -> None:
    with pytest.raises(SpecError, match="not one SQL expression") as error:
        check_condition(text)
    assert "\n" not in str(error.value)
