"""Read-only SQL over the views of the contract. No torch: pages and quick commands import this.

`connect` opens a private in-memory DuckDB, attaches a dataset and the results of its published runs read-only,
makes the views, and locks file access. Published files never change, so what a query by run_id returned can be
cached for ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pandas as pd

from engine.decisions import fetch_decisions_log
from engine.errors import NotFoundError, StorageError, WinnowError
from engine.schema import DECISIONS_COLUMNS, VIEWS, dynamics_select, empty_select
from engine.workspace import Workspace, read_journal

MEMORY_LIMIT = "2GB"


def connect(workspace: Workspace, dataset: str, runs: Sequence[str] | None = None) -> duckdb.DuckDBPyConnection:
    """A locked connection with every view of the contract over a dataset and its published runs.

    Args:    runs: only these run ids; None = all published runs of the dataset
    Returns: a connection for one thread (`.cursor()` gives another thread its own)
    Raises:  NotFoundError for an unknown dataset; StorageError for a damaged file
    """
    path = workspace.require_dataset(dataset)
    wanted = runs_of(workspace, dataset) if runs is None else list(runs)
    decisions = fetch_decisions_log(workspace, dataset)
    connection = duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "custom_user_agent": "winnow"})
    try:
        _attach(connection, path, "dataset_file")
        for run_id in wanted:
            _attach(connection, workspace.published_dir(run_id) / "results.duckdb", f"run_{run_id}")
        try:
            _make_views(connection, wanted)
        except duckdb.Error as error:
            raise StorageError(
                f"the runs of '{dataset}' were made by another version of winnow ({str(error).splitlines()[0]}); "
                "remove them (winnow remove RUN) and compute them again"
            ) from error
        _make_decisions(connection, decisions)
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    except BaseException:
        connection.close()
        raise
    return connection


MOST_FLAG = "2 * count(*) FILTER (flagged) >= count(*)"
"""Of the rows of `flags` of one sample and run: at least half of the rules that judge it flag it.

One rule alone may flag a third of a set to miss nothing, so a sample is not called flagged for a single one of many.
"""


def runs_of(workspace: Workspace, dataset: str) -> list[str]:
    """The published runs of a dataset, oldest first."""
    found = []
    for run_id in workspace.published_runs():
        content = workspace.read_spec(run_id)
        if content["spec"].get("dataset") == dataset:
            found.append((float(content.get("started_at", 0.0)), run_id))
    return [run_id for _, run_id in sorted(found)]


def fetch_fingerprint(workspace: Workspace, dataset: str) -> str:
    """The fingerprint of a dataset: what a run's spec names its data by."""
    with connected(workspace, dataset, []) as connection:
        return str(fetch_sql(connection, "SELECT fingerprint FROM dataset")["fingerprint"][0])


def has_test(workspace: Workspace, dataset: str) -> bool:
    """Whether a dataset has a test split."""
    with connected(workspace, dataset, []) as connection:
        return bool(connection.execute("SELECT count(*) > 0 FROM samples WHERE split = 'test'").fetchall()[0][0])


def class_sizes(workspace: Workspace, dataset: str) -> list[int]:
    """How many training samples each class that occurs has."""
    with connected(workspace, dataset, []) as connection:
        rows = connection.execute("SELECT count(*) FROM samples WHERE split = 'train' GROUP BY label").fetchall()
    return [int(count) for (count,) in rows]


def default_dataset(workspace: Workspace) -> str:
    """The dataset of the latest published run, else the first by name; NotFoundError when there is none."""
    published = [workspace.read_spec(run_id) for run_id in workspace.published_runs()]
    latest = sorted(published, key=lambda content: float(content.get("started_at", 0.0)), reverse=True)
    names = [str(content["spec"].get("dataset")) for content in latest] + workspace.datasets()
    for name in names:
        if name in workspace.datasets():
            return name
    raise NotFoundError(f"no dataset in {workspace.root}; winnow ingest makes one")


@contextlib.contextmanager
def connected(
    workspace: Workspace, dataset: str, runs: Sequence[str] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """`connect`, closed at the end of the block."""
    connection = connect(workspace, dataset, runs)
    try:
        yield connection
    finally:
        connection.close()


def fetch_sql(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()
) -> pd.DataFrame:
    """The rows of one query; a mistake in the SQL is a WinnowError with DuckDB's own words."""
    try:
        given = parameters if isinstance(parameters, dict) else list(parameters)
        return connection.execute(sql, given).df()
    except duckdb.Error as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise WinnowError(" ".join(lines[:2]) or "the query failed") from error


def fetch_evaluation(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """How well every score and rule of every run finds the mislabelled, where the truth is known.

    run_id, name, kind (score or rule); of a score roc_auc, average_precision, precision_at_95, found_at_10, found_at_20,
    found_at_30; of a rule flagged_share, precision, recall; all 0..1, NA where it does not apply. The best average
    precision first, then the rules by precision.
    """
    return fetch_sql(
        connection,
        """SELECT run_id, score AS name,
        if(metric IN ('flagged_share', 'precision', 'recall'), 'rule', 'score') AS kind,
        any_value(value) FILTER (metric = 'roc_auc') AS roc_auc,
        any_value(value) FILTER (metric = 'average_precision') AS average_precision,
        any_value(value) FILTER (metric = 'precision_at_95') AS precision_at_95,
        any_value(value) FILTER (metric = 'found_at_10') AS found_at_10,
        any_value(value) FILTER (metric = 'found_at_20') AS found_at_20,
        any_value(value) FILTER (metric = 'found_at_30') AS found_at_30,
        any_value(value) FILTER (metric = 'flagged_share') AS flagged_share,
        any_value(value) FILTER (metric = 'precision') AS precision,
        any_value(value) FILTER (metric = 'recall') AS recall
        FROM metrics GROUP BY run_id, score, kind
        ORDER BY kind DESC, average_precision DESC NULLS LAST, precision DESC NULLS LAST, run_id, name""",
    )


def fetch_detection_curve(connection: duckdb.DuckDBPyConnection, run_id: str, score: str) -> pd.DataFrame:
    """looked_at, found: the share of the mislabelled among the hardest share of a score (CG, figure 3); 0..1.

    100 steps and the origin; empty where no label is known to be wrong. A random order gives found = looked_at, an
    oracle min(1, looked_at / noise rate).
    """
    return fetch_sql(
        connection,
        """WITH judged AS (SELECT rank, label <> true_label AS wrong FROM scores JOIN samples USING (sample_id)
            WHERE run_id = $run AND score = $score AND true_label IS NOT NULL),
        counted AS (SELECT count(*) AS n, count(*) FILTER (wrong) AS bad FROM judged),
        placed AS (SELECT wrong, row_number() OVER (ORDER BY rank DESC) AS place FROM judged),
        steps AS (SELECT step / 100 AS looked_at, round(n * step / 100) AS upto, bad
            FROM range(101) AS r(step), counted WHERE bad > 0)
        SELECT looked_at, (SELECT count(*) FROM placed WHERE wrong AND place <= upto) / bad AS found
        FROM steps ORDER BY looked_at""",
        {"run": run_id, "score": score},
    )


def fetch_costs(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """score, title, cost, seconds, run_id: what each score took in the newest run that has it."""
    return fetch_sql(
        connection,
        """SELECT score, score_catalog.title, cost, score_costs.seconds, run_id FROM score_costs
        JOIN score_catalog USING (score) JOIN runs USING (run_id)
        QUALIFY row_number() OVER (PARTITION BY score ORDER BY created_at DESC, run_id) = 1
        ORDER BY score_costs.seconds DESC, score""",
    )


def _attach(connection: duckdb.DuckDBPyConnection, path: Any, name: str) -> None:
    quoted = str(path).replace("'", "''")
    try:
        connection.execute(f"ATTACH '{quoted}' AS \"{name}\" (READ_ONLY)")
    except duckdb.Error as error:
        raise StorageError(
            f"{path} cannot be read: {str(error).splitlines()[0]}; remove it and compute it again"
        ) from error


def _make_views(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> None:
    tables: dict[tuple[str, str], list[str]] = {}
    rows = connection.execute(
        "SELECT database_name, table_name, column_name FROM duckdb_columns() "
        "WHERE NOT internal ORDER BY database_name, table_name, column_index"
    ).fetchall()
    for database, table, column in rows:
        tables.setdefault((database, table), []).append(column)
    for name, view in VIEWS.items():
        parts = [empty_select(view.columns)]
        for database in ["dataset_file"] if view.over == "dataset" else [f"run_{r}" for r in runs]:
            columns = tables.get((database, view.table))
            if columns is None:
                continue
            run = f"'{database.removeprefix('run_')}'"
            if name == "dynamics":
                parts.append(dynamics_select(columns, f'"{database}"', run))
            else:
                parts.append(view.select.format(db=f'"{database}"', run=run))
        body = " UNION ALL BY NAME ".join(parts)
        if name == "score_catalog":
            body = f"SELECT DISTINCT ON (score) * FROM ({body}) ORDER BY score"
        connection.execute(f'CREATE VIEW "{name}" AS {body}')
        _comment(connection, name, view.comment, view.columns)


def _make_decisions(connection: duckdb.DuckDBPyConnection, log: pd.DataFrame) -> None:
    columns = ", ".join(f'"{c}" {t}' for c, (t, _) in DECISIONS_COLUMNS.items())
    connection.execute(f"CREATE TABLE decisions_now ({columns})")
    if len(log):
        latest = log[list(DECISIONS_COLUMNS)]
        connection.register("latest", latest)
        connection.execute("INSERT INTO decisions_now SELECT * FROM latest")
        connection.unregister("latest")
    connection.execute("CREATE VIEW decisions AS SELECT * FROM decisions_now")
    _comment(connection, "decisions", "The latest decision of a person per sample.", DECISIONS_COLUMNS)


def _comment(
    connection: duckdb.DuckDBPyConnection, name: str, comment: str, columns: dict[str, tuple[str, str]]
) -> None:
    def literal(text: str) -> str:
        return "'" + text.replace("'", "''") + "'"

    connection.execute(f'COMMENT ON VIEW "{name}" IS {literal(comment)}')
    for column, (_, meaning) in columns.items():
        connection.execute(f'COMMENT ON COLUMN "{name}"."{column}" IS {literal(meaning)}')


# Runs and what they hold ---------------------------------------------------------------------------------------


def latest_run(connection: duckdb.DuckDBPyConnection, view: str, score: str = "") -> str | None:
    """The newest run that has rows in a view (one with a column run_id), or in `scores` those of one score."""
    having = f'SELECT run_id FROM "{view}"' + (" WHERE score = $score" if score else "")
    found = fetch_sql(
        connection,
        f"SELECT run_id FROM runs WHERE run_id IN ({having}) ORDER BY created_at DESC, run_id LIMIT 1",
        {"score": score} if score else {},
    )
    return str(found["run_id"][0]) if len(found) else None


def source_run(connection: duckdb.DuckDBPyConnection, view: str, run_id: str) -> str:
    """The run to read a view from: run_id when it has rows there, else the run whose dynamics it reads."""
    if connection.execute(f'SELECT 1 FROM "{view}" WHERE run_id = ? LIMIT 1', [run_id]).fetchone():
        return run_id
    row = connection.execute("SELECT dynamics_run FROM runs WHERE run_id = ?", [run_id]).fetchone()
    return str(row[0]) if row and row[0] else run_id


def fetch_dataset(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The row of the view `dataset`, with `train`, `test`, `known` (train samples of known truth), `wrong`, `skipped`."""
    frame = fetch_sql(
        connection,
        """SELECT dataset.*, counts.*, (SELECT count(*) FROM skipped) AS skipped FROM dataset, (SELECT
        count(*) FILTER (split = 'train') AS train, count(*) FILTER (split = 'test') AS test,
        count(true_label) FILTER (split = 'train') AS known,
        count(*) FILTER (split = 'train' AND label <> true_label) AS wrong FROM samples) AS counts""",
    )
    row = frame.astype(object).where(frame.notna(), None).iloc[0]
    return {str(name): value for name, value in row.items()}


def fetch_classes(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """label, class_name, train, test (samples), wrong (train samples known to be mislabelled), in label order."""
    return fetch_sql(
        connection,
        """SELECT label, any_value(classes.class_name) AS class_name,
        count(*) FILTER (split = 'train') AS train, count(*) FILTER (split = 'test') AS test,
        count(*) FILTER (split = 'train' AND true_label <> label) AS wrong
        FROM classes LEFT JOIN samples USING (label) GROUP BY label ORDER BY label""",
    )


def fetch_noise_matrix(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """true_label, label, count, share (of the true label's samples): only the pairs that occur."""
    return fetch_sql(connection, "SELECT * FROM noise_matrix ORDER BY true_label, label")


def fetch_runs(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """The published runs, newest first: run_id, kind, title, created_at, seconds, dynamics_run, notes."""
    return fetch_sql(
        connection,
        "SELECT run_id, kind, title, created_at, seconds, dynamics_run, notes FROM runs ORDER BY created_at DESC, run_id",
    )


def fetch_epochs(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """seed, epoch, train_loss, train_accuracy, test_accuracy (NaN without a test split), lr, seconds."""
    return fetch_sql(
        connection,
        "SELECT seed, epoch, train_loss, train_accuracy, test_accuracy, lr, seconds FROM epochs WHERE run_id = ? "
        "ORDER BY seed, epoch",
        [source_run(connection, "epochs", run_id)],
    )


def fetch_catalog(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """The scores of a run: score, title, higher_means, value_min, value_max, source, n, low, high, roc_auc, average_precision.

    low, high: smallest and largest value that occurs; the last two are NaN where the truth is not known.
    """
    return fetch_sql(
        connection,
        """SELECT score, title, coalesce(higher_means, 'harder') AS higher_means, value_min, value_max, source,
        n, low, high, roc_auc, average_precision
        FROM (SELECT score, count(*) AS n, min(value) AS low, max(value) AS high FROM scores
              WHERE run_id = $run GROUP BY score)
        LEFT JOIN score_catalog USING (score)
        LEFT JOIN (SELECT score, any_value(value) FILTER (metric = 'roc_auc') AS roc_auc,
              any_value(value) FILTER (metric = 'average_precision') AS average_precision
              FROM metrics WHERE run_id = $run GROUP BY score) USING (score)
        ORDER BY score""",
        {"run": run_id},
    )


def fetch_rules(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """The flag rules of a run: rule, flagged, judged (samples), thresholds (distinct, sorted), precision, recall.

    precision and recall are over the judged samples whose truth is known; NaN where none is.
    """
    return fetch_sql(
        connection,
        """SELECT rule, count(*) FILTER (flagged) AS flagged, count(*) AS judged,
        list_sort(list_distinct(list(threshold))) AS thresholds,
        count(*) FILTER (flagged AND label <> true_label)
            / nullif(count(*) FILTER (flagged AND true_label IS NOT NULL), 0) AS precision,
        count(*) FILTER (flagged AND label <> true_label)
            / nullif(count(*) FILTER (label <> true_label), 0) AS recall
        FROM flags JOIN samples USING (sample_id) WHERE run_id = ? GROUP BY rule ORDER BY rule""",
        [run_id],
    )


def fetch_histogram(connection: duckdb.DuckDBPyConnection, run_id: str, score: str, bins: int = 60) -> pd.DataFrame:
    """left, right, clean, mislabelled, unknown (samples) of equal-width bins from the smallest to the largest value."""
    return fetch_sql(
        connection,
        """WITH v AS (SELECT value, true_label, label FROM scores JOIN samples USING (sample_id)
            WHERE run_id = $run AND score = $score AND isfinite(value)),
        edge AS (SELECT CAST(min(value) AS DOUBLE) AS low, greatest(max(value) - min(value), 1e-9) / $bins AS width FROM v),
        counted AS (SELECT least(CAST(floor((value - low) / width) AS INTEGER), $bins - 1) AS bin,
            count(*) FILTER (true_label = label) AS clean, count(*) FILTER (true_label <> label) AS mislabelled,
            count(*) FILTER (true_label IS NULL) AS unknown FROM v, edge GROUP BY bin)
        SELECT low + i * width AS "left", low + (i + 1) * width AS "right", coalesce(clean, 0) AS clean,
            coalesce(mislabelled, 0) AS mislabelled, coalesce(unknown, 0) AS unknown
        FROM edge, range(CAST($bins AS INTEGER)) AS r(i) LEFT JOIN counted ON bin = i WHERE low IS NOT NULL ORDER BY i""",
        {"run": run_id, "score": score, "bins": bins},
    )


def fetch_score(connection: duckdb.DuckDBPyConnection, run_id: str, score: str) -> pd.DataFrame:
    """sample_id, value, rank of one score, by sample_id: numbers only, for charts of whole sets."""
    return fetch_sql(
        connection,
        "SELECT sample_id, value, rank FROM scores WHERE run_id = ? AND score = ? ORDER BY sample_id",
        [run_id, score],
    )


def fetch_spearman(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """Spearman correlation of every two scores of a run, oriented so that higher = harder: a square frame.

    Ranks are averaged over ties; a score that is constant correlates with nothing (NaN).
    """
    long = fetch_sql(
        connection,
        """SELECT score, sample_id, CASE WHEN higher_means = 'easier' THEN -value ELSE value END AS value
        FROM scores LEFT JOIN score_catalog USING (score) WHERE run_id = ?""",
        [run_id],
    )
    return long.pivot(index="sample_id", columns="score", values="value").rank().corr()


def fetch_map(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """sample_id, x, y, label, true_label (-1 where unknown), flagged (by half of the run's rules), by sample_id."""
    return fetch_sql(
        connection,
        f"""SELECT sample_id, x, y, CAST(label AS SMALLINT) AS label,
        CAST(coalesce(true_label, -1) AS SMALLINT) AS true_label, sample_id IN
        (SELECT sample_id FROM flags WHERE run_id = $run GROUP BY sample_id HAVING {MOST_FLAG}) AS flagged
        FROM embedding JOIN samples USING (sample_id) WHERE run_id = $map ORDER BY sample_id""",
        {"run": run_id, "map": source_run(connection, "embedding", run_id)},
    )


def fetch_psi(connection: duckdb.DuckDBPyConnection, run_ids: Sequence[str]) -> pd.DataFrame:
    """run_id, order, seed, pruned, kept_fraction, accuracy, seconds of several psi runs."""
    return fetch_sql(
        connection,
        'SELECT * FROM psi WHERE run_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY run_id, "order", pruned, seed',
        [list(run_ids)],
    )


def fetch_psi_journal(workspace: Workspace, run_id: str) -> pd.DataFrame:
    """The points a psi run that is not published yet has journalled, with the columns of `fetch_psi`."""
    orders = workspace.read_spec(run_id)["spec"].get("orders", [])
    points = [
        {**point, "run_id": run_id, "order": order}
        for event in read_journal(workspace.run_dir(run_id))
        if event["event"] == "psi_points"  # one line for each finished stack of networks
        for point in event["points"]
        for order in ([point["order"]] if point["order"] else orders)  # the full set is trained once for all orders
    ]
    return pd.DataFrame(points, columns=list(VIEWS["psi"].columns))


def window_offsets(psi: pd.DataFrame) -> pd.DataFrame:
    """The points of window experiments among those of `fetch_psi` or `fetch_psi_journal`.

    Returns: their rows, with score and offset (share of the ranks below the window, 0..1)
    """
    parts = psi["order"].str.extract(r"^window\((?P<score>[^,]+),offset=(?P<offset>[0-9.e-]+)\)$")
    return psi.join(parts.astype({"offset": float}))[parts["score"].notna()].reset_index(drop=True)
