"""A run and its dataset as people use them in pandas: a row per sample, a column per score or rule. No torch."""

from __future__ import annotations

import contextlib
import html
import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pandas as pd

from engine.errors import NotFoundError
from engine.queries.connection import best_run, connected, fetch_sql
from engine.queries.proofs import Gain, fetch_gain
from engine.queries.relabelings import fetch_relabelings
from engine.queries.summaries import fetch_epochs, fetch_evaluation, fetch_runs
from engine.queries.verdicts import Verdict, fetch_shortlist, fetch_verdict, no_verdict
from engine.queries.writers import score_columns
from engine.store.sql import identifier, literal
from engine.store.workspace import Workspace


class Run:
    """One published run, which never changes. Its frames have `sample_id` as a column, by which they join.

    Attributes:
        id: the run's id; title: a short description; dataset: the name of its dataset
        spec: what was computed, as stored: kind (run, psi, recorded, prove or relabel), dataset, fingerprint, and every option
    """

    def __init__(self, workspace: Workspace, run_id: str) -> None:
        content = workspace.read_spec(run_id)
        self._workspace, self.id = workspace, run_id
        self.title = str(content.get("title", ""))
        self.spec: dict[str, Any] = content["spec"]
        self.dataset = str(self.spec["dataset"])

    @property
    def notes(self) -> list[str]:
        """What the run did that a reader should know, in sentences."""
        with self._connected() as connection:
            found = fetch_runs(connection)
        notes = found.loc[found["run_id"] == self.id, "notes"].dropna()
        return list(json.loads(notes.iloc[0])) if len(notes) else []

    def scores(self, *, long: bool = False) -> pd.DataFrame:
        """The scores of the training samples: sample_id and one column per score, float32; a row per sample.

        Args: long: a row per score and sample instead: score, sample_id, value, rank (0 = easiest)
        """
        if long:
            return self._view("scores", "score, sample_id")
        with self._connected() as connection:
            return fetch_wide_scores(connection, self.id)

    def flags(self, *, long: bool = False) -> pd.DataFrame:
        """Which samples look mislabeled: sample_id, flagged, flagged_RULE ...; a row per judged sample.

        flagged (bool): on the shortlist, <NA> in a run without a verdict; flagged_RULE (bool): that rule flags it, which
        it does to training samples only

        Args: long: a row per rule and sample instead: rule, score, sample_id, flagged, threshold, value
        """
        if long:
            return self._view("flags", "rule, sample_id")
        with self._connected() as connection:
            return fetch_wide_flags(connection, self.id)

    def verdict(self) -> Verdict:
        """What to believe of the run: held-out accuracy, estimated share of wrong labels with its interval, reason, advice.

        Raises: NotFoundError for a run without one, such as one of an older version
        """
        with self._connected() as connection:
            found = fetch_verdict(connection, self.id)
        if found is None:
            raise NotFoundError(no_verdict(self.dataset, self.id))
        return found

    def shortlist(self) -> pd.DataFrame:
        """Every judged sample, of the test part too, the most suspicious first: sample_id, rank, p_wrong, listed.

        rank: 0 = the most suspicious; p_wrong: estimated probability that the given label is wrong, 0..1; listed (bool):
        on the shortlist, which is what flagged means

        Raises: NotFoundError for a run without a verdict
        """
        with self._connected() as connection:
            found = fetch_shortlist(connection, self.id)
        if found.empty:
            raise NotFoundError(no_verdict(self.dataset, self.id))
        return found

    def epochs(self) -> pd.DataFrame:
        """How the training went: seed, epoch, train_loss (nats), train_accuracy, test_accuracy (0..1), lr, seconds.

        Those of the run whose training it reads, where it trained nothing itself.
        """
        with self._connected() as connection:
            return fetch_epochs(connection, self.id)

    def evaluate(self) -> pd.DataFrame:
        """How well its scores and rules find the mislabeled, where the truth is known; the best first.

        Columns: run_id, name, kind (score or rule), and shares 0..1: roc_auc, average_precision, precision_at_recall_95, ... of
        a score, flagged_share, precision, recall of a rule
        """
        with self._connected() as connection:
            found = fetch_evaluation(connection)
        return found[found["run_id"] == self.id].reset_index(drop=True)

    def psi(self) -> pd.DataFrame:
        """The points of a psi-curve: order, seed, pruned (samples), kept_fraction, accuracy (0..1), seconds."""
        return self._view("psi", '"order", pruned, seed')

    def proof(self) -> pd.DataFrame:
        """The networks of a proof: seed, set (full or curated), accuracy, accuracy_true (0..1), samples, tested, steps, ..."""
        return self._view("proofs", 'seed, "set" DESC')

    def suggestions(self) -> pd.DataFrame:
        """Labels that a run proposes: sample_id, suggested_label, confidence (0..1), method; each sample once per method."""
        return self._view("suggestions", "method, sample_id")

    def relabelings(self) -> pd.DataFrame:
        """The networks of a relabeling, mean over seeds: subset, kept_fraction, learner, samples, noise, accuracy, ..."""
        with self._connected() as connection:
            return fetch_relabelings(connection, self.id)

    def gain(self, column: str = "accuracy") -> Gain:
        """What the curated set of a proof gains: difference (0..1), low, high (its 95 % interval), sentence, ...

        Args:   column: accuracy, by given labels, or accuracy_true
        Raises: NotFoundError for a run that is no proof, or when a true label is unknown
        """
        with self._connected() as connection:
            return fetch_gain(connection, self.id, column)

    def _view(self, view: str, order: str) -> pd.DataFrame:
        sql = f"SELECT * EXCLUDE (run_id) FROM {view} WHERE run_id = ? ORDER BY {order}"
        with self._connected() as connection:
            return fetch_sql(connection, sql, [self.id])

    @contextlib.contextmanager
    def _connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with connected(self._workspace, self.dataset) as connection:
            yield connection

    def __repr__(self) -> str:
        return f"<Run {self.id} of {self.dataset}: {self.title}>"

    def _repr_html_(self) -> str:
        return html.escape(repr(self)[1:-1])


def find_run(workspace: Workspace, given: str | Run) -> Run:
    """A published run, given as such, by its id or by the first digits of it.

    Raises: NotFoundError when there is none, several begin with the digits, or it is not published yet
    """
    if isinstance(given, Run):
        return given
    found = workspace.require_run(given)
    if not workspace.is_published(found):
        raise NotFoundError(f"run {found} is not published yet; winnow status {found} shows its progress")
    return Run(workspace, found)


def find_best(workspace: Workspace, dataset: str, view: str) -> Run:
    """Of the runs of a dataset with rows in a view, the one to trust most (see best_run); NotFoundError without one."""
    with connected(workspace, dataset) as connection:
        found = best_run(connection, view)
    if found is None:
        raise NotFoundError(f"no run of '{dataset}' has {view}; .run() makes one (winnow run {dataset})")
    return Run(workspace, found)


def fetch_samples(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """sample_id, split, label, true_label (Int64, NA where unknown), class_name, source of every sample, by sample_id."""
    return fetch_sql(connection, "SELECT * FROM samples ORDER BY sample_id").astype({"true_label": "Int64"})


def fetch_wide_scores(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """sample_id and one column per score (float32, NaN where a sample has none), by sample_id."""
    columns = score_columns(_names(connection, "score", "scores", run_id))
    return fetch_sql(
        connection,
        f"SELECT sample_id{columns} FROM scores WHERE run_id = ? GROUP BY sample_id ORDER BY sample_id",
        [run_id],
    )


def fetch_wide_flags(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """sample_id, flagged (on the shortlist), then flagged_RULE (bool) of every rule, by sample_id.

    flagged is bool, or boolean and <NA> throughout in a run without a shortlist. A rule that does not judge a sample does
    not flag it. A rule may have the name of a score, hence the prefix.
    """
    names = {rule: f"flagged_{rule}" for rule in _names(connection, "rule", "flags", run_id)}
    columns = "".join(
        f", bool_or(flagged) FILTER (rule = {literal(rule)}) AS {identifier(name)}" for rule, name in names.items()
    )
    selected = "".join(f", coalesce({identifier(name)}, false) AS {identifier(name)}" for name in names.values())
    frame = fetch_sql(
        connection,
        f"SELECT sample_id, listed AS flagged{selected} FROM (SELECT sample_id{columns} FROM flags WHERE run_id = $run "
        "GROUP BY sample_id) FULL JOIN (SELECT sample_id, listed FROM shortlist WHERE run_id = $run) USING (sample_id) "
        "ORDER BY sample_id",
        {"run": run_id},
    )
    flagged = frame["flagged"].astype("boolean")
    known = flagged.notna().any()
    return frame.assign(flagged=flagged.fillna(False).astype(bool) if known else flagged)


def _names(connection: duckdb.DuckDBPyConnection, column: str, view: str, run_id: str) -> list[str]:
    found = connection.execute(f"SELECT DISTINCT {column} FROM {view} WHERE run_id = ? ORDER BY 1", [run_id]).fetchall()
    return [str(name) for (name,) in found]
