"""SQL as text: quoting, and running what a person wrote: one statement that only reads, within limits."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pandas as pd
from pandas.api.types import is_object_dtype

from engine.errors import SpecError, WinnowError

MEMORY_LIMIT = "2GB"
_MOST_BYTES = 2 << 30
TIME_LIMIT_SECONDS = 60.0
_VECTORS = 4  # of 2,048 rows, fetched at once: their texts are not counted before they are there
_MOST_CHARACTERS, _DEEPEST = 100_000, 300
_QUOTED = re.compile(r"""'[^']*'|"[^"]*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
_LONG_NAME = re.compile(r"(?:\.\s*(?:\w+|\"[^\"]*\")\s*){20}")  # to resolve a.a.a... takes the square of its parts

_ALLOWED = "one SELECT, WITH, DESCRIBE, SHOW or EXPLAIN, because queries only read"
_EXPLAIN = re.compile(r"(?is)^(?:\s|--[^\n]*\n|/\*.*?\*/)*explain\b\s*(?:analyze\b)?\s*(?:\([^()]*\))?(.*)$")


def literal(text: object) -> str:
    """A text (or a path) as an SQL literal.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + str(text).replace("'", "''") + "'"


def identifier(*names: str) -> str:
    """A name, or a name within another, as an SQL identifier.

    >>> identifier("run_1", 'odd"name')
    '"run_1"."odd""name"'
    """
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def one_line(error: Exception) -> str:
    """DuckDB's own words about a mistake, without the text of the query."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or "the query failed"


def check_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse everything but one statement that reads: SELECT (WITH, FROM, VALUES), DESCRIBE, SHOW, EXPLAIN of one.

    Raises: SpecError with what was given and what is allowed; for a mistake in the SQL, DuckDB's words
    """
    types = _types(connection, sql)
    if types == [duckdb.StatementType.EXPLAIN]:
        explained = _EXPLAIN.match(sql)
        types = _types(connection, explained[1]) if explained else types
    if types != [duckdb.StatementType.SELECT]:
        names = ", ".join(kind.name for kind in types)
        given = f"{len(types)} statements were given" if len(types) != 1 else f"a statement of type {names} was given"
        raise SpecError(f"{given}; allowed: {_ALLOWED}")


def _check_text(sql: str) -> None:
    """Refuse what DuckDB reads for minutes before it can be interrupted, and what is not text."""
    if len(sql) > _MOST_CHARACTERS:
        raise SpecError(f"the query has {len(sql):,} characters; allowed: up to {_MOST_CHARACTERS:,}")
    depth = deepest = 0
    for bracket in re.findall(r"[()\[\]{}]", _QUOTED.sub("", sql)):
        depth += 1 if bracket in "([{" else -1
        deepest = max(deepest, depth)
    if deepest > _DEEPEST:
        raise SpecError(f"the query opens {deepest:,} brackets within each other; allowed: up to {_DEEPEST}")
    if _LONG_NAME.search(sql):
        raise SpecError("a name in the query has more than 20 parts; allowed: table.column")
    if re.search("[\ud800-\udfff]", sql):
        raise SpecError("the query is not valid Unicode; allowed: text in UTF-8")


def _types(connection: duckdb.DuckDBPyConnection, sql: str) -> list[duckdb.StatementType]:
    _check_text(sql)
    try:
        return [statement.type for statement in connection.extract_statements(sql)]
    except duckdb.Error as error:
        raise SpecError(one_line(error)) from error


def check_condition(condition: str) -> str:
    """A condition as it may stand in parentheses behind WHERE: one SQL expression; SpecError for anything else.

    Parsed alone, it can neither close the parentheses nor begin another statement.
    """
    try:
        _check_text(condition)
        duckdb.SQLExpression(condition)
    except (duckdb.Error, SpecError) as error:
        raise SpecError(f"the condition is not one SQL expression, such as aum > 0: {one_line(error)}") from error
    return f"({condition}\n)"  # the line break ends a comment


def fetch_answer(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Sequence[Any] | dict[str, Any] = (),
    *,
    rows: int | None = None,
    seconds: float = TIME_LIMIT_SECONDS,
) -> tuple[pd.DataFrame, int]:
    """The answer to a query that a person wrote, as one statement that only reads.

    Args:    rows: how many to keep at most, None = all; seconds: how long it may take
    Returns: the rows, and how many more there were
    Raises:  SpecError when it is not one reading statement; WinnowError for a mistake in it, or when it takes longer
             or needs more memory (2 GB) than a query may
    """
    cursor = connection.cursor()
    try:
        check_statement(cursor, sql)
        with _limited(cursor, seconds):
            # A SELECT may hold an INSERT ... RETURNING; this transaction refuses it.
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            cursor.execute(sql, parameters if isinstance(parameters, dict) else list(parameters))
            return _collect(cursor, rows, time.monotonic() + seconds)
    finally:
        cursor.close()


@contextmanager
def _limited(cursor: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """Stop what the cursor does after so many seconds; every way in which it ends badly is one line."""
    timer = threading.Timer(seconds, cursor.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (duckdb.InterruptException, TimeoutError) as error:
        raise WinnowError(
            f"the query took longer than {seconds:g} seconds; select less, such as one run (WHERE run_id = ...)"
        ) from error
    except (duckdb.OutOfMemoryException, MemoryError) as error:
        raise WinnowError(
            "the query needs more than 2 GB of memory; select fewer rows or columns, or aggregate"
        ) from error
    except duckdb.TransactionException as error:
        raise SpecError(f"the query would write; allowed: {_ALLOWED}") from error
    except duckdb.Error as error:
        raise WinnowError(one_line(error)) from error
    finally:
        timer.cancel()


def _collect(cursor: duckdb.DuckDBPyConnection, rows: int | None, deadline: float) -> tuple[pd.DataFrame, int]:
    """Fetch a result piece by piece, keeping the first rows and counting the others."""
    chunks: list[pd.DataFrame] = []
    kept = left_out = size = 0
    while True:
        chunk = cursor.fetch_df_chunk(_VECTORS)
        if time.monotonic() > deadline:
            raise TimeoutError
        if chunks and not len(chunk):
            return _joined(chunks), left_out
        wanted = chunk if rows is None else chunk.iloc[: max(0, rows - kept)]
        left_out += len(chunk) - len(wanted)
        if len(wanted) or not chunks:
            chunks.append(wanted)
            kept += len(wanted)
            size += int(wanted.memory_usage(deep=True).sum())
        if size > _MOST_BYTES:
            raise MemoryError


def _joined(chunks: list[pd.DataFrame]) -> pd.DataFrame:
    """The chunks as one frame. A column of only NULLs in one chunk takes the type it has in another."""
    frame = pd.concat(chunks, ignore_index=True) if len(chunks) > 1 else chunks[0]
    for i, kind in enumerate(frame.dtypes):
        known = [chunk.dtypes.iloc[i] for chunk in chunks if not is_object_dtype(chunk.dtypes.iloc[i])]
        if is_object_dtype(kind) and known and len(set(frame.columns)) == frame.shape[1]:
            frame[frame.columns[i]] = frame.iloc[:, i].astype(known[0])
    return frame
