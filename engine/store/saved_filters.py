"""Filters that people saved under a name, in decisions.duckdb: the latest entry of a name counts, one without a query
removes it. A filter belongs to a dataset, and everybody who opens the workspace sees it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import duckdb
import pandas as pd

from engine.errors import NotFoundError, SpecError, unknown_name
from engine.store.decision_file import MOST_AUTHOR, check_text, next_number, read, write
from engine.store.workspace import Workspace

MOST_NAME, MOST_QUERY, MOST_FILTERS = 80, 20_000, 500
"""Characters of a name and of a query at most, and filters of a dataset."""


def save_filter(workspace: Workspace, dataset: str, name: str, query: str, author: str = "") -> None:
    """Keep a filter under a name, in place of one that had it.

    Args:   query: the filter as the query of an address, "rule=aum&label=3"; it is read like one that somebody typed
    Raises: SpecError for a name or a query that is empty or too long, and for one filter too many
    """
    name = name.strip()
    check_text("name of the filter", name, MOST_NAME)
    check_text("filter", query, MOST_QUERY)
    check_text("author", author, MOST_AUTHOR)
    if not name or not query:
        raise SpecError(f"the {'filter' if name else 'name of the filter'} is empty; give one")
    workspace.require_dataset(dataset)
    there = fetch_filters(workspace, dataset)["name"].tolist()
    if name not in there and len(there) >= MOST_FILTERS:
        raise SpecError(f"'{dataset}' has {len(there)} saved filters; remove one before you save another")
    _append(workspace, dataset, name, query, author)


def remove_filter(workspace: Workspace, dataset: str, name: str, author: str = "") -> None:
    """Forget a saved filter.

    Raises: NotFoundError when there is none of that name
    """
    check_text("author", author, MOST_AUTHOR)
    there = fetch_filters(workspace, dataset)["name"].tolist()
    if name not in there:
        raise NotFoundError(unknown_name("filter", name, there, f"of '{dataset}'"))
    _append(workspace, dataset, name, None, author)


def fetch_filters(workspace: Workspace, dataset: str) -> pd.DataFrame:
    """The saved filters of a dataset, by name: name, query, author, saved_at (UTC)."""

    def fetch(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, str]) -> pd.DataFrame:
        # What is longer than a filter can be was not written by winnow.
        return connection.execute(
            "SELECT name, arg_max(query, entry) AS query, coalesce(arg_max(author, entry), '') AS author, "
            f"arg_max(saved_at, entry) AS saved_at FROM {tables['filters']} WHERE dataset = ? AND entry IS NOT NULL "
            f"AND length(name) BETWEEN 1 AND {MOST_NAME} AND coalesce(length(query), 0) <= {MOST_QUERY} GROUP BY name "
            f"HAVING arg_max(coalesce(query, ''), entry) <> '' ORDER BY name LIMIT {MOST_FILTERS}",
            [dataset],
        ).df()

    found = read(workspace, fetch)
    return pd.DataFrame(columns=["name", "query", "author", "saved_at"]) if found is None else found


def _append(workspace: Workspace, dataset: str, name: str, query: str | None, author: str) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)

    def append(connection: duckdb.DuckDBPyConnection) -> None:
        given = [next_number(connection), dataset, name, query, author, now]
        connection.execute("INSERT INTO filters VALUES (?, ?, ?, ?, ?, ?)", given)

    write(workspace, append)
