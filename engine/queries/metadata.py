"""What a source says of its samples besides their labels: names, values, and which sample has which."""

from __future__ import annotations

import duckdb
import pandas as pd

from engine.queries.connection import fetch_sql


def fetch_metadata_names(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """name, n (samples that have it), different (values), is_number, low, high (of numbers), by name."""
    return fetch_sql(
        connection,
        "SELECT name, count(*) AS n, count(DISTINCT value) AS different, bool_and(number IS NOT NULL) AS is_number, "
        "min(number) AS low, max(number) AS high FROM metadata GROUP BY name ORDER BY name",
    )


def fetch_metadata_values(connection: duckdb.DuckDBPyConnection, name: str, most: int = 200) -> pd.DataFrame:
    """value, n (samples): the values of one name of the metadata, the most frequent first."""
    sql = "SELECT value, count(*) AS n FROM metadata WHERE name = ? GROUP BY value ORDER BY n DESC, value LIMIT ?"
    return fetch_sql(connection, sql, [name, most])


def fetch_metadata_samples(connection: duckdb.DuckDBPyConnection, name: str) -> pd.DataFrame:
    """sample_id, value, number of every sample that has a name of the metadata, by id."""
    sql = "SELECT sample_id, value, number FROM metadata WHERE name = ? ORDER BY sample_id"
    return fetch_sql(connection, sql, [name])
