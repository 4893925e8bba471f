"""What the condition of an export may name, and what the columns of an export are."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import duckdb
import pandas as pd

from engine.errors import NotFoundError, SpecError, WinnowError, unknown_name
from engine.queries.connection import best_run
from engine.queries.samples import population
from engine.queries.verdicts import Verdict, no_verdict
from engine.store.sql import check_condition, fetch_answer, identifier, literal
from engine.store.tables import PROPERTIES

SUSPICION_COLUMNS = ("p_wrong", "flagged", "suspicion_rank")
"""The columns of an export that come from the run's verdict."""

COLUMNS = (
    *("sample_id", "split", "label", "true_label", "class_name", "true_class_name", "source", *SUSPICION_COLUMNS),
    *("given_label", "given_class", "decision"),
)
"""The columns of every export. label, class_name: the label to train on; given_label, given_class: as it was ingested."""

_NAMED = ("sample_id", "split", "label", "true_label", "class_name", "source", "action", "new_label", "note")
"""What a condition names besides scores and SUSPICION_COLUMNS; metadata that are called so are in the view `metadata`."""

_ROWS = 1 << 14
"""Values that are read at once."""


def fetch_passing(
    cursor: duckdb.DuckDBPyConnection, where: str, run: str | None, verdict: Verdict | None, population: str
) -> pd.DataFrame:
    """The ids of the samples that meet the condition."""
    condition = check_condition(where or "true")
    # Of what can be named only what is: all scores of a million samples side by side take seconds.
    named = [name for name in _scores(cursor, run) if name in where or "COLUMNS" in where.upper()]
    scores = (
        f"SELECT sample_id{score_columns(named)} FROM scores WHERE run_id = $run AND score IN "
        "(SELECT unnest($named::VARCHAR[])) GROUP BY sample_id"
    )
    metadata = _metadata_named(cursor, where, [*_scores(cursor, run), *_NAMED, *SUSPICION_COLUMNS])
    further = [sql for sql, wanted in ((scores, named), (metadata, metadata)) if wanted]
    columns = "".join(f", further_{i}.* EXCLUDE (sample_id)" for i in range(len(further)))
    joins = "".join(f"LEFT JOIN ({sql}) AS further_{i} USING (sample_id) " for i, sql in enumerate(further))
    # Without a verdict a condition cannot name what only a verdict gives: NULL would silently drop every sample.
    suspicion = "p_wrong, coalesce(listed, false) AS flagged, rank AS suspicion_rank, " if verdict else ""
    everything = (
        f"SELECT samples.*{columns}, {suspicion}action FROM samples {joins}"
        "LEFT JOIN (SELECT sample_id, p_wrong, listed, rank FROM shortlist WHERE run_id = $run) USING (sample_id) "
        f"LEFT JOIN (SELECT sample_id, action FROM decisions) USING (sample_id) WHERE {population}"
    )
    try:
        return fetch_answer(
            cursor,
            f"SELECT sample_id FROM ({everything}) AS samples WHERE {condition} ORDER BY sample_id",
            {"run": run, **({"named": named} if named else {})},
        )[0]
    except WinnowError as error:
        missing = re.search(r'column "?(\w+)"? not found', str(error))
        if verdict is None and run and missing and missing[1] in SUSPICION_COLUMNS:
            ((dataset,),) = cursor.execute("SELECT name FROM dataset").fetchall()
            raise NotFoundError(f"'{missing[1]}': {no_verdict(dataset, run)}") from error
        raise


def among(verdict: Verdict | None, run: str | None, split: str) -> str:
    """The samples of a split as an SQL condition. Without a verdict nothing is judged, and all are all there are."""
    judged = population(run or "", split)
    return "true" if split == "all" and verdict is None else judged


def _metadata_named(connection: duckdb.DuckDBPyConnection, where: str, taken: Sequence[str]) -> str:
    """SQL that makes one column of each name of the metadata that a condition may mean; "" when it means none."""
    if not where.strip() or where.strip().lower() == "true":
        return ""
    found = connection.execute(
        "SELECT name, bool_and(number IS NOT NULL) FROM metadata GROUP BY name ORDER BY 1"
    ).fetchall()
    lower, used = where.lower(), {name.lower() for name in taken}
    columns = []
    for name, is_number in sorted(found, key=lambda row: str(row[0]) not in where):  # the one that is written so
        written = name.lower().replace('"', '""')  # in quotes, in any case
        if written in lower and name.lower() not in used:
            used.add(name.lower())
            value = "number" if is_number else "value"
            columns.append(f", any_value({value}) FILTER (name = {literal(name)}) AS {identifier(name)}")
    return f"SELECT sample_id{''.join(columns)} FROM metadata GROUP BY sample_id" if columns else ""


def metadata_kinds(cursor: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The names of the metadata of the chosen samples in alphabetical order, but for what is measured anew, each with the
    type of its column: numbers only where each value is written just as that number would be."""
    kinds: dict[str, str] = {}
    of_chosen = "FROM metadata SEMI JOIN chosen USING (sample_id)"
    rows = cursor.execute(
        f"""SELECT name, bool_and(len(value) < 19 AND TRY_CAST(value AS BIGINT)::VARCHAR IS NOT DISTINCT FROM value),
        bool_and(number IS NOT NULL) {of_chosen} WHERE name NOT IN (SELECT unnest(?::VARCHAR[])) GROUP BY name ORDER BY name""",
        [[*PROPERTIES]],
    ).fetchall()
    for name, whole, number in rows:
        kinds[name] = "Int64" if whole else "str"
        if number and not whole and _is_written_back(cursor, of_chosen, name):
            kinds[name] = "float64"
    return kinds


def _is_written_back(cursor: duckdb.DuckDBPyConnection, of_chosen: str, name: str) -> bool:
    """Whether every value of a name is a finite number as Python writes it."""
    cursor.execute(f"SELECT value {of_chosen} WHERE name = ?", [name])
    while rows := cursor.fetchmany(_ROWS):
        try:
            if not all(math.isfinite(float(text)) and repr(float(text)) == text for (text,) in rows):
                return False
        except ValueError:
            return False
    return True


def run_for(connection: duckdb.DuckDBPyConnection, where: str) -> str | None:
    """The run whose scores a condition names, else the one to trust most."""
    rows = connection.execute("SELECT DISTINCT score FROM score_costs").fetchall()
    named = [str(score) for (score,) in rows if _names(where, str(score))]
    return best_run(connection, scores=named) or best_run(connection)


def _names(where: str, column: str) -> bool:
    """Whether a condition has a column's name as a word of its own."""
    return re.search(rf"(?<![\w@.]){re.escape(column)}(?![\w@])", where) is not None


def score_columns(names: Sequence[str]) -> str:
    """SQL that makes one column of each score, called by its name, of the rows of `scores` grouped by sample."""
    return "".join(f", any_value(value) FILTER (score = {literal(name)}) AS {identifier(name)}" for name in names)


def wanted_scores(cursor: duckdb.DuckDBPyConnection, run: str | None, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The scores that are to be columns, by name; SpecError for one that the run has not."""
    there = _scores(cursor, run)
    for name in wanted:
        if name != "all" and name not in there:
            raise SpecError(unknown_name("score", name, there, f"of run {run}" if run else "of any run"))
    return tuple(there if wanted == ("all",) else dict.fromkeys(wanted))


def _scores(connection: duckdb.DuckDBPyConnection, run: str | None) -> list[str]:
    rows = connection.execute("SELECT DISTINCT score FROM scores WHERE run_id = ? ORDER BY 1", [run]).fetchall()
    return [str(name) for (name,) in rows]
