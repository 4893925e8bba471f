"""Whether the values in somebody's results file are possible ones: ids of samples that there are, ranks that are an order.

Checked once for each file, with its hash (engine/store/verified.py). What pages and commands take for granted is checked
here; a value that is merely odd, such as a score that is not a number, is theirs to show.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from engine.errors import StorageError
from engine.store.attached import Tables
from engine.store.sql import identifier
from engine.store.tables import Columns
from engine.store.verified import check_hash, check_sizes, is_known, read_manifest, remember

RESULTS_FILE = "results.duckdb"
_MOST_EPOCHS = 1_000_000

_IMPOSSIBLE: dict[str, tuple[tuple[str, ...], str]] = {
    "epochs": (
        ("epoch", "seed"),
        f"epoch IS NULL OR epoch NOT BETWEEN 0 AND {_MOST_EPOCHS} OR seed IS NULL OR seed < 0",
    ),
    "scores": (("score", "value", "rank"), "score IS NULL OR value IS NULL OR rank IS NULL"),
    "score_catalog": (("score", "higher_means"), "score IS NULL OR higher_means NOT IN ('harder', 'easier')"),
    "shortlist": (("p_wrong", "rank"), "NOT coalesce(p_wrong BETWEEN 0 AND 1, false) OR rank IS NULL"),
    "neighbor_lists": (
        ("neighbor_ids", "similarities"),
        "len(neighbor_ids) IS DISTINCT FROM len(similarities) OR "
        "NOT coalesce(list_min(neighbor_ids) >= 0 AND list_max(neighbor_ids) < $samples, len(neighbor_ids) = 0)",
    ),
    "embedding": (("x", "y"), "NOT coalesce(isfinite(x) AND isfinite(y), false)"),
    "psi": (
        ("order", "seed", "pruned", "kept_fraction", "accuracy"),
        '"order" IS NULL OR NOT coalesce(seed >= 0 AND pruned BETWEEN 0 AND $samples AND kept_fraction BETWEEN 0 AND 1 AND '
        "accuracy BETWEEN 0 AND 1, false)",
    ),
    "proofs": (
        ("seed", "set", "accuracy", "accuracy_true", "samples", "tested", "held_out"),
        "NOT coalesce(seed >= 0 AND \"set\" IN ('full', 'curated') AND accuracy BETWEEN 0 AND 1 AND "
        "samples BETWEEN 1 AND $samples AND tested BETWEEN 1 AND $samples AND held_out IS NOT NULL, false) OR "
        "accuracy_true NOT BETWEEN 0 AND 1",
    ),
    "relabelings": (
        ("seed", "subset", "kept_fraction", "learner", "samples", "accuracy"),
        "NOT coalesce(seed >= 0 AND subset IS NOT NULL AND learner IS NOT NULL AND kept_fraction BETWEEN 0 AND 1 AND "
        "samples BETWEEN 1 AND $samples, false) OR accuracy NOT BETWEEN 0 AND 1",
    ),
    "suggestions": (
        ("suggested_label", "confidence"),
        "NOT coalesce(suggested_label BETWEEN 0 AND $classes - 1 AND confidence BETWEEN -0.001 AND 1.001, false)",
    ),
    "trajectories": (
        ("seed", "label", "predicted"),
        "seed IS NULL OR seed < 0 OR NOT coalesce(label BETWEEN 0 AND $classes - 1, false) OR "
        f"NOT coalesce(len(predicted) BETWEEN 1 AND {_MOST_EPOCHS}, false)",
    ),
    "logit_trajectories": (("classes", "logits"), "NOT coalesce(classes >= 1 AND len(logits) % classes = 0, false)"),
    "verdict": (
        ("accuracy", "chance", "judged", "listed"),
        "NOT coalesce(accuracy BETWEEN 0 AND 1 AND chance BETWEEN 0 AND 1 AND listed BETWEEN 0 AND judged AND "
        "judged <= $samples, false)",
    ),
    "run": (
        ("spec", "notes", "environment"),
        "NOT coalesce(json_type(spec) = 'OBJECT' AND json_type(notes) = 'ARRAY', false)",
    ),
}
"""By table: the columns that must be there for it, and what no row may be."""


def results_file(folder: Path) -> Path:
    """The results file of a published folder whose files have the sizes that its manifest lists.

    Raises: StorageError, without what to do about it
    """
    listed = read_manifest(folder)
    if RESULTS_FILE not in listed:
        raise StorageError(f"{folder / RESULTS_FILE} is not in its manifest; it is damaged")
    check_sizes(folder, listed)
    return folder / RESULTS_FILE


def check_results(
    connection: duckdb.DuckDBPyConnection, database: str, tables: Tables, path: Path, samples: int, classes: int
) -> None:
    """Check an attached results file by its hash and its values, unless it was checked before.

    Args:   database: under which it is attached; tables: what it holds; samples, classes: of its dataset
    Raises: StorageError, without what to do about it
    """
    about = read_manifest(path.parent)[RESULTS_FILE]
    if is_known(path, about.sha256):
        return
    check_hash(path, about)
    try:
        problem = impossible_values(connection, database, tables, samples, classes)
    except duckdb.Error as error:
        raise StorageError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if problem:
        raise StorageError(f"{path}: {problem}")
    remember(path, about.sha256)


def impossible_values(
    connection: duckdb.DuckDBPyConnection, database: str, tables: Tables, samples: int, classes: int
) -> str:
    """What is wrong with the values of an attached results file; "" when all can be.

    Args: samples, classes: of the dataset that the results are about
    """
    known = {"samples": samples, "classes": classes}
    for table, columns in tables.items():
        source = identifier(database, table)
        conditions = []
        if "sample_id" in columns and table in _OF_SAMPLES:
            conditions.append("sample_id IS NULL OR sample_id NOT BETWEEN 0 AND $samples - 1")
        needed, impossible = _IMPOSSIBLE.get(table, ((), ""))
        if impossible and columns.keys() >= set(needed):
            conditions.append(impossible)
        if conditions:
            where = " OR ".join(f"({condition})" for condition in conditions)
            used = {name: value for name, value in known.items() if f"${name}" in where}
            if connection.execute(f"SELECT 1 FROM {source} WHERE {where} LIMIT 1", used).fetchone():
                return f"its table '{table}' has values that cannot be"
    rows = connection.execute(f"SELECT count(*) FROM {identifier(database, 'run')}").fetchone()
    if rows != (1,):
        return "its table 'run' has not one row"
    return _not_an_order(
        connection, identifier(database, "scores"), tables.get("scores", {}), "score"
    ) or _not_an_order(connection, identifier(database, "shortlist"), tables.get("shortlist", {}), "'the shortlist'")


_OF_SAMPLES = {
    "scores", "seed_scores", "flags", "shortlist", "duplicates", "neighbor_lists", "embedding", "suggestions",
    "trajectories", "logit_trajectories",
}  # fmt: skip


def _not_an_order(connection: duckdb.DuckDBPyConnection, source: str, columns: Columns, group: str) -> str:
    """Which ranks are there twice or lack some: by their sums and sums of squares, which need no memory."""
    if "rank" not in columns:
        return ""
    # of the ranks 0 to n - 1, 2 x the sum is n (n - 1) and 6 x the sum of squares (n - 1) n (2 n - 1)
    twice = connection.execute(
        f"SELECT name FROM (SELECT {group} AS name, sum(rank::HUGEINT) AS ranks, sum(rank::HUGEINT * rank) AS squares, "
        f"count(*)::HUGEINT AS n FROM {source} GROUP BY ALL) WHERE 2 * ranks <> n * (n - 1) OR "
        "6 * squares <> (n - 1) * n * (2 * n - 1) LIMIT 1"
    ).fetchone()
    return f"the ranks of {twice[0]!r:.80} are no order" if twice else ""
