"""What a person may query: one statement that reads, within limits; and quoting."""

from __future__ import annotations

import hashlib
import time
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


ATTACKS = [
    "PREPARE a AS SELECT 1", "EXECUTE a", "DEALLOCATE a", "RESET memory_limit", "ATTACH ':memory:' AS z", "DETACH dataset_file",
    "USE dataset_file", "EXPORT DATABASE 'x'", "IMPORT DATABASE 'x'", "LOAD httpfs", "CHECKPOINT", "FORCE CHECKPOINT", "VACUUM",
    "ANALYZE", "BEGIN", "COMMIT", "ROLLBACK", "CREATE MACRO a() AS 1", "CREATE TEMP TABLE x AS SELECT 1", "CREATE SEQUENCE s",
    "CREATE SECRET s (TYPE s3)", "SET VARIABLE a = 1", "CALL enable_logging()", "TRUNCATE decisions_now",
    "MERGE INTO decisions_now USING scores ON true WHEN MATCHED THEN DELETE", "DELETE FROM decisions_now", "DROP VIEW scores",
    "ALTER VIEW scores RENAME TO x", "COMMENT ON VIEW scores IS 'x'", "SELECT 1 INTO x", "SELECT 1;\u00a0SELECT 2",
    "SELECT 1;--x\nSELECT 2", "SELECT 1\0; SELECT 2", "\0", "PIVOT scores ON score USING avg(value)",
    "EXPLAIN (ANALYZE) INSERT INTO decisions_now (sample_id) VALUES (1)", "EXPLAIN ANALYZE PREPARE x AS SELECT 1",
    "EXPLAIN /* x */ ANALYZE COPY (SELECT 1) TO 'zz'", "EXPLAIN ANALYZE EXPLAIN ANALYZE COPY (SELECT 1) TO 'zz'",
    "EXPLAIN\u00a0ANALYZE COPY (SELECT 1) TO 'zz'", "/*/**/*/EXPLAIN ANALYZE COPY (SELECT 1) TO 'zz'",
    "FROM query('INSERT INTO decisions_now (sample_id) VALUES (1) RETURNING 1')", "FROM query_table(['/etc/passwd'])",
    "SELECT * FROM '/etc/passwd'", "SELECT * FROM 'file.csv'", "FROM glob('/etc/*')", "FROM read_text('/etc/passwd')",
    "FROM read_blob('/etc/passwd')", "FROM parquet_metadata('/etc/x.parquet')", "FROM sniff_csv('/etc/passwd')",
    "FROM read_json('/etc/passwd')", "FROM read_duckdb('/etc/passwd')", "FROM sqlite_scan('a', 'b')",
    "FROM read_parquet('https://example.com/x')", "SELECT * FROM 'https://example.com/x.parquet'",
    "DESCRIBE SELECT * FROM read_csv('/etc/passwd')", "SUMMARIZE FROM read_csv('/etc/passwd')",
    "SELECT 1 LIMIT (SELECT count(*) FROM read_csv('/etc/passwd'))", "SELECT getenv('HOME')", "SELECT nextval('s')",
    "FROM duckdb_secrets()", "FROM which_secret('x', 's3')", "FROM duckdb_extensions()", "FROM enable_logging()",
    "FROM enable_profiling()", "FROM disable_logging()", "FROM force_checkpoint()", "FROM load_aws_credentials()",
    "FROM connection", "FROM sql", "FROM state",
]  # fmt: skip
"""What somebody might try who wants a query to write, to read another file, or to change how the next one runs."""


@pytest.mark.parametrize("sql", ATTACKS)
def test_no_query_writes_or_reads_outside_or_changes_the_next(
    connection: duckdb.DuckDBPyConnection,
    old_workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sql: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before, settings = state(old_workspace), "SELECT name, value FROM duckdb_settings() WHERE name <> 'threads'"
    kept = connection.execute(settings).fetchall()
    with pytest.raises(WinnowError) as error:
        fetch_answer(connection, sql, seconds=20)
    assert "\n" not in str(error.value) and "root:" not in str(error.value)
    assert state(old_workspace) == before and list(tmp_path.iterdir()) == []
    assert connection.execute(settings).fetchall() == kept


@pytest.mark.parametrize(
    "sql",
    [
        "FROM query('SELECT 1')",
        "FROM query_table('scores') LIMIT 1",
        "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
        "SELECT write_log('x')",
        "EXPLAIN (FORMAT json) SELECT 1",
        "SELECT '\0' AS a",
    ],
)
def test_what_looks_dangerous_and_only_reads_is_answered(
    connection: duckdb.DuckDBPyConnection, old_workspace: Path, sql: str
) -> None:
    before = state(old_workspace)
    assert len(fetch_answer(connection, sql)[0]) == 1
    assert state(old_workspace) == before


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "(" * 50_000 + "1" + ")" * 49_000,
        "SELECT " + "NOT " * 20_000 + "true",
        "SELECT 1" + "+1" * 40_000,
        "SELECT " + "[" * 40_000 + "1" + "]" * 40_000,
        "SELECT " + "CASE WHEN true THEN " * 3_000 + "1" + " END" * 3_000,
        "SELECT * FROM " + "(SELECT * FROM " * 5_000 + "range(1)" + ")" * 5_000,
        "SELECT 1" + "::INT" * 15_000,
        "SELECT a" + ".a" * 30_000,
        'SELECT a . "a"' + ' . "a"' * 10_000,
        "/*" * 40_000,
        "SELECT '" + "x" * 200_000 + "'",
        "SELECT \ud800",
    ],
    ids=lambda sql: sql[:12].encode("ascii", "replace").decode(),
)
def test_a_query_that_nests_or_never_ends_is_refused_at_once(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    with pytest.raises(WinnowError) as error:
        fetch_answer(connection, sql, seconds=20)
    assert "\n" not in str(error.value) and len(str(error.value)) < 2_000
    with pytest.raises(WinnowError):
        check_condition(sql.removeprefix("SELECT ") if sql.startswith("SELECT ") else sql)


def test_a_query_that_was_stopped_leaves_nothing_running(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WinnowError, match="took longer"):
        fetch_answer(connection, "SELECT count(*) FROM range(1000000000) a, range(1000000) b", seconds=0.5)
    time.sleep(0.2)
    started, spent = time.monotonic(), time.process_time()
    time.sleep(1)
    assert time.process_time() - spent < 0.5 * (time.monotonic() - started)  # no thread computes on
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_in_memory_writes_no_file(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WinnowError, match="2 GB"):
        fetch_answer(
            connection, "SELECT count(*) FROM (SELECT DISTINCT repeat(i::VARCHAR, 9000) FROM range(300000) t(i))"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_query_sees_the_runs_of_its_dataset_alone(old_workspace: Path) -> None:
    workspace = Workspace.open(old_workspace)
    for dataset in workspace.datasets():
        with connected(workspace, dataset) as connection:
            seen = fetch_answer(connection, "SELECT name FROM dataset UNION SELECT run_id FROM runs ORDER BY 1")[0]
            attached = fetch_answer(connection, "SELECT database_name FROM duckdb_databases() WHERE NOT internal")[0]
        own = {
            r.run_id for r in workspace.read_records()[0] if r.dataset == dataset and workspace.is_published(r.run_id)
        }
        assert set(seen.iloc[:, 0]) == {dataset, *own}
        assert {name for name in attached.iloc[:, 0] if name.startswith("run_")} == {f"run_{run_id}" for run_id in own}
