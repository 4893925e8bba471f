"""Clouds of samples on a plane, the map or two numbers of each: densities, the points themselves, what lies nearest.

Everything is counted in SQL, over the samples that a filter keeps, so that what leaves the database is a few hundred
kilobytes whatever the size of the set. Samples without a finite place are left out and counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import duckdb
import numpy as np
import pandas as pd

from engine.errors import SpecError
from engine.fields import check_choice, check_range
from engine.queries.connection import fetch_sql, source_run
from engine.queries.samples import Filter, Ids, Outline, condition, inside
from engine.store.sql import literal

BEFORE = "before"
"""Stands for a run of another dataset: its ranks are in a table of this name, which the caller makes."""

MOST_BINS = 1_000
"""A window is cut into so many bins at most, across and up."""

SPREAD = 4
"""Where the samples beyond the middle 99.8 % make a cloud so many times as wide, the first look leaves them out."""

Kind = Literal["none", "given", "true", "wrong", "flagged", "decided", "about", "value", "score"]
ACTIONS = ("keep", "drop", "relabel", "unsure")


@dataclass(frozen=True)
class Plane:
    """Two numbers of every sample of a run: the coordinates of the map where no score is named, else two scores.

    x, y: scores. by: their values, or their ranks (0 = easiest). x_run: the run that x is of, where it is another one;
    BEFORE for one of another dataset.
    """

    run_id: str
    x: str = ""
    y: str = ""
    by: Literal["value", "rank"] = "value"
    x_run: str = ""

    def __post_init__(self) -> None:
        check_choice("by", self.by, Literal["value", "rank"])


@dataclass(frozen=True)
class Color:
    """What a cloud is colored by. name: of the metadata, or of a score; values: of the metadata that have a color."""

    kind: Kind = "none"
    name: str = ""
    values: tuple[str, ...] = ()

    @property
    def categories(self) -> bool:
        """Whether it is one of several names, -1 for none of them; otherwise it is a number, or nothing."""
        return self.kind in ("given", "true", "decided", "value")


@dataclass(frozen=True)
class Window:
    """A part of a plane, and into how many bins it is cut."""

    left: float
    right: float
    bottom: float
    top: float
    across: int = 300
    up: int = 200

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.left, self.right, self.bottom, self.top))):
            raise SpecError("a window with an edge that is not a finite number; allowed: left, right, bottom, top")
        check_range("right", self.right, self.left, math.inf)
        check_range("top", self.top, self.bottom, math.inf)
        check_range("across", self.across, 1, MOST_BINS)
        check_range("up", self.up, 1, MOST_BINS)


def places(connection: duckdb.DuckDBPyConnection, plane: Plane) -> str:
    """The plane as SQL that gives sample_id, x, y of every sample whose two numbers are finite."""
    return f"SELECT sample_id, x, y FROM ({_all_places(connection, plane)}) WHERE isfinite(x) AND isfinite(y)"


def _all_places(connection: duckdb.DuckDBPyConnection, plane: Plane) -> str:
    if not plane.x:
        run = literal(source_run(connection, "embedding", plane.run_id))
        return f"SELECT sample_id, x, y FROM embedding WHERE run_id = {run}"
    column = "rank" if plane.by == "rank" else "value"

    def numbers(run_id: str, score: str, name: str) -> str:
        if run_id == BEFORE:
            return f"SELECT sample_id, CAST({column} AS FLOAT) AS {name} FROM {BEFORE}"
        of = f"run_id = {literal(run_id)} AND score = {literal(score)}"
        return f"SELECT sample_id, CAST({column} AS FLOAT) AS {name} FROM scores WHERE {of}"

    x, y = numbers(plane.x_run or plane.run_id, plane.x, "x"), numbers(plane.run_id, plane.y, "y")
    return f"SELECT sample_id, x, y FROM ({x}) JOIN ({y}) USING (sample_id)"


def _kept(connection: duckdb.DuckDBPyConnection, plane: Plane, wanted: Filter) -> str:
    """`places` of the samples that a filter keeps."""
    where = condition(connection, plane.run_id, wanted)
    found = places(connection, plane)
    return f"{found} AND sample_id IN (SELECT sample_id FROM samples WHERE {where})" if where else found


def _colors(run_id: str, color: Color) -> str:
    """SQL that gives sample_id, c."""
    known = "SELECT sample_id, {} AS c FROM {} WHERE {}"
    values = ", ".join(map(literal, color.values))
    if color.kind in ("given", "true"):
        return known.format("label" if color.kind == "given" else "coalesce(true_label, -1)", "samples", "true")
    if color.kind == "wrong":
        return known.format("CAST(label <> true_label AS INTEGER)", "samples", "true_label IS NOT NULL")
    if color.kind == "flagged":
        return known.format("CAST(listed AS INTEGER)", "shortlist", f"run_id = {literal(run_id)}")
    if color.kind == "decided":
        listed = ", ".join(map(literal, ACTIONS))
        return known.format(f"list_position([{listed}], action) - 1", "decisions", "true")
    if color.kind == "value":
        meant = f"name = {literal(color.name)}"
        return known.format(f"list_position([{values}]::VARCHAR[], value) - 1", "metadata", meant)
    if color.kind == "about":
        return known.format("number", "metadata", f"name = {literal(color.name)} AND isfinite(number)")
    of_score = f"run_id = {literal(run_id)} AND score = {literal(color.name)} AND isfinite(value)"
    return known.format("value", "scores", of_score)


def _colored(run_id: str, kept: str, color: Color) -> str:
    """Places with c: the code of a category, or a number (NULL where a sample has none)."""
    if color.kind == "none":
        return f"SELECT *, NULL::INTEGER AS c FROM ({kept})"
    c = "coalesce(c, -1)" if color.categories else "coalesce(c, 0)" if color.kind == "flagged" else "c"
    return f"SELECT sample_id, x, y, {c} AS c FROM ({kept}) LEFT JOIN ({_colors(run_id, color)}) USING (sample_id)"


def _double(value: float) -> str:
    return f"{float(value)!r}::DOUBLE"


def _within(window: Window) -> str:
    return (
        f"x BETWEEN {_double(window.left)} AND {_double(window.right)} "
        f"AND y BETWEEN {_double(window.bottom)} AND {_double(window.top)}"
    )


def fetch_extent(connection: duckdb.DuckDBPyConnection, plane: Plane) -> pd.DataFrame:
    """One row: n (samples with a finite place), missing (without one), left, right, bottom, top (of those), and
    the same of a first look, which leaves out the few that would squeeze all others: home_left, ... home_top.

    The ends are NaN where there is no sample.
    """
    sides = ", ".join(
        f"min({c})::DOUBLE AS {c}0, max({c})::DOUBLE AS {c}1, quantile_disc({c}, [0.001, 0.999]) AS {c}m" for c in "xy"
    )
    return fetch_sql(
        connection,
        f"""SELECT n, (SELECT count(*) FROM ({_all_places(connection, plane)})) - n AS missing,
        x0 AS "left", x1 AS "right", y0 AS bottom, y1 AS top,
        if({_squeezed("x")}, xm[1], x0)::DOUBLE AS home_left, if({_squeezed("x")}, xm[2], x1)::DOUBLE AS home_right,
        if({_squeezed("y")}, ym[1], y0)::DOUBLE AS home_bottom, if({_squeezed("y")}, ym[2], y1)::DOUBLE AS home_top
        FROM (SELECT count(*) AS n, {sides} FROM ({places(connection, plane)}))""",
    )


def _squeezed(axis: str) -> str:
    return f"{axis}m[2] > {axis}m[1] AND ({axis}1 - {axis}0) > {SPREAD} * ({axis}m[2] - {axis}m[1])::DOUBLE"


def fetch_density(
    connection: duckdb.DuckDBPyConnection, plane: Plane, wanted: Filter, window: Window, color: Color = Color()
) -> pd.DataFrame:
    """How many samples lie in each bin of a window: bin, n, c; only bins that have some, in their order.

    bin: row * across + column, from the lower left; a bin has its lower and left edges, the last ones both. c: of
    categories the one that most have, of equals the smallest; of numbers their mean, NaN where no sample has one
    """
    across = f"least({window.across} - 1, floor((x - l) / (r - l) * {window.across})::INTEGER)"
    up = f"least({window.up} - 1, floor((y - b) / (t - b) * {window.up})::INTEGER)"
    sides = {"l": window.left, "r": window.right, "b": window.bottom, "t": window.top}
    ends = ", ".join(f"{_double(value)} AS {name}" for name, value in sides.items())
    binned = (
        f"SELECT {up} * {window.across} + {across} AS bin, c FROM "
        f"({_colored(plane.run_id, _kept(connection, plane, wanted), color)}), (SELECT {ends}) WHERE {_within(window)}"
    )
    if color.categories:
        counted = f"SELECT bin, c, count(*) AS n FROM ({binned}) GROUP BY bin, c"
        sql = f"SELECT bin, sum(n)::INTEGER AS n, arg_max(c, n * 100000 - c)::DOUBLE AS c FROM ({counted}) GROUP BY bin"
    else:
        sql = f"SELECT bin, count(*)::INTEGER AS n, avg(c)::DOUBLE AS c FROM ({binned}) GROUP BY bin"
    return fetch_sql(connection, f"{sql} ORDER BY bin")


def fetch_points(
    connection: duckdb.DuckDBPyConnection,
    plane: Plane,
    wanted: Filter,
    window: Window,
    color: Color = Color(),
    most: int = 20_000,
) -> pd.DataFrame:
    """sample_id, x, y, c (as in fetch_density), flagged (on the shortlist) of the samples in a window, mixed: where points
    overlap, no class is always on top. At most `most`."""
    kept = _kept(connection, plane, wanted)
    return fetch_sql(
        connection,
        f"""SELECT sample_id, x, y, c::DOUBLE AS c, sample_id IN (SELECT sample_id FROM shortlist
            WHERE run_id = $run AND listed) AS flagged FROM ({_colored(plane.run_id, f"{kept} AND {_within(window)}", color)})
        ORDER BY hash(sample_id), sample_id LIMIT $most""",
        {"run": plane.run_id, "most": most},
    )


def fetch_marked(
    connection: duckdb.DuckDBPyConnection, plane: Plane, wanted: Filter, window: Window, most: int = 5_000
) -> pd.DataFrame:
    """sample_id, x, y of the samples of the shortlist in a window, the most suspicious first; at most `most`."""
    return fetch_sql(
        connection,
        f"""SELECT sample_id, x, y FROM ({_kept(connection, plane, wanted)} AND {_within(window)})
        JOIN (SELECT sample_id, rank FROM shortlist WHERE run_id = $run AND listed) USING (sample_id)
        ORDER BY rank LIMIT $most""",
        {"run": plane.run_id, "most": most},
    )


def fetch_middles(
    connection: duckdb.DuckDBPyConnection, plane: Plane, wanted: Filter, color: Color, most: int = 300
) -> pd.DataFrame:
    """code, n, x, y: how many samples each category has, and the median of their places; the largest first."""
    colored = _colored(plane.run_id, _kept(connection, plane, wanted), color)
    return fetch_sql(
        connection,
        f"""SELECT c::INTEGER AS code, count(*) AS n, median(x)::DOUBLE AS x, median(y)::DOUBLE AS y FROM ({colored})
        WHERE c >= 0 GROUP BY c ORDER BY n DESC, code LIMIT $most""",
        {"most": most},
    )


def fetch_color_range(connection: duckdb.DuckDBPyConnection, run_id: str, color: Color) -> tuple[float, float]:
    """The ends of a color scale: the first and the 99th percentile of the numbers; NaN where there are none."""
    (row,) = connection.execute(
        f"SELECT quantile_disc(c::DOUBLE, [0.01, 0.99]) FROM ({_colors(run_id, color)})"
    ).fetchall()
    low, high = row[0] or (math.nan, math.nan)
    return float(low), float(high)


def fetch_nearest(
    connection: duckdb.DuckDBPyConnection,
    plane: Plane,
    wanted: Filter,
    x: float,
    y: float,
    reach: tuple[float, float],
) -> int | None:
    """The sample nearest to a place, both axes in units of `reach`; None where none lies within it."""
    near = Window(x - reach[0], x + reach[0], y - reach[1], y + reach[1])
    found = fetch_sql(
        connection,
        f"""SELECT sample_id FROM ({_kept(connection, plane, wanted)} AND {_within(near)})
        ORDER BY pow((x - $x) / $across, 2) + pow((y - $y) / $up, 2), sample_id LIMIT 1""",
        {"x": x, "y": y, "across": reach[0], "up": reach[1]},
    )
    return int(found["sample_id"][0]) if len(found) else None


def fetch_place(connection: duckdb.DuckDBPyConnection, plane: Plane, sample_id: int) -> tuple[float, float] | None:
    """Where a sample lies; None where it has no finite place."""
    found = connection.execute(f"SELECT x, y FROM ({places(connection, plane)}) WHERE sample_id = ?", [sample_id])
    row = found.fetchone()
    return (float(row[0]), float(row[1])) if row else None


def fetch_outlined(connection: duckdb.DuckDBPyConnection, plane: Plane, wanted: Filter, outline: Outline) -> Ids:
    """The ids of the samples inside an outline on a plane, by id: (n,) int32."""
    kept = _kept(connection, plane, wanted)
    sql = f"SELECT sample_id FROM ({kept}) WHERE {inside(places(connection, plane), outline)} ORDER BY sample_id"
    ids: Ids = fetch_sql(connection, sql)["sample_id"].to_numpy(np.int32)
    return ids


def fetch_line(connection: duckdb.DuckDBPyConnection, plane: Plane) -> tuple[float, float]:
    """Slope and intercept of the least-squares line through a plane; NaN where there is none."""
    sql = f"SELECT regr_slope(y::DOUBLE, x::DOUBLE), regr_intercept(y::DOUBLE, x::DOUBLE) FROM ({places(connection, plane)})"
    slope, intercept = connection.execute(sql).fetchall()[0]
    return (math.nan, math.nan) if slope is None or intercept is None else (float(slope), float(intercept))
