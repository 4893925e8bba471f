"""What people decided about samples: keep, drop, relabel, or unsure. An append-only log; undo appends, it never deletes.

A decision is about an image, and is kept by the image's content (engine/store/contents.py): when other images are
ingested under the same name, or the same in another order, it follows its image or attaches to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, get_args

import duckdb
import numpy as np
import pandas as pd

from engine.errors import NotFoundError, SpecError, unknown_name
from engine.store.contents import Ids, fetch_keys
from engine.store.decision_file import MOST_AUTHOR, MOST_NOTE, check_text, next_number, read, write
from engine.store.records import DatasetFacts, dataset_facts
from engine.store.standing import Standing
from engine.store.workspace import Workspace

Action = Literal["keep", "drop", "relabel", "unsure"]

_UNDONE = "SELECT new_label FROM log WHERE dataset = $dataset AND action = 'undo' AND new_label IS NOT NULL"
"""The undone batch's number stands in new_label: an undo is about a batch, not about a label."""


def decide(
    workspace: Workspace,
    dataset: str,
    sample_ids: Sequence[int] | Ids,
    action: Action | Sequence[Action],
    *,
    new_label: int | Sequence[int] | Ids | None = None,
    note: str = "",
    author: str = "",
    keys: Callable[[Ids], pd.DataFrame] | None = None,
) -> int:
    """Append one decision for every sample, as one batch that `undo` takes back whole.

    Args:    action: one for all samples, or one for each; new_label: of a relabel, one for all samples or one for each,
             passed over where the action is another; of a sample that is given twice the last counts; author: who
             decides, "" = nobody in particular; keys: looks up what `fetch_keys` does, where the file is open already
    Returns: the batch's id
    Raises:  SpecError for an unknown action, a relabel without a label, unknown samples or labels, or too long a text
    """
    for one in {action} if isinstance(action, str) else set(action):
        if one not in get_args(Action):
            raise SpecError(unknown_name("action", one, get_args(Action)))
    if (new_label is None) == ("relabel" in ({action} if isinstance(action, str) else set(action))):
        raise SpecError("relabel takes a new label, keep, drop and unsure take none")
    check_text("note", note, MOST_NOTE)
    check_text("author", author, MOST_AUTHOR)
    path = workspace.require_dataset(dataset)
    facts = dataset_facts(path)
    given = np.asarray(sample_ids, dtype=np.int64).reshape(-1)
    actions = np.broadcast_to(np.asarray(action, dtype=object), len(given))
    labels = None if new_label is None else _spread(new_label, len(given))
    _check(facts, dataset, given, None if labels is None else labels[actions == "relabel"])
    # The last of those given for a sample: the first in the reversed order.
    ids, last = np.unique(given[::-1], return_index=True)
    found = fetch_keys(path, ids) if keys is None else keys(ids)
    rows = found[["sample_id", "content", "copy"]].sort_values("sample_id")
    rows["action"] = actions[::-1][last]
    rows["new_label"] = pd.array([None] * len(ids), "Int32") if labels is None else labels[::-1][last]
    rows["new_label"] = rows["new_label"].astype("Int32").where(rows["action"] == "relabel")
    classes = pd.DataFrame({"new_label": range(len(facts.classes)), "new_class": list(facts.classes)})

    def append(connection: duckdb.DuckDBPyConnection) -> int:
        batch = next_number(connection)
        connection.register("decided", rows)
        connection.register("names", classes)
        connection.execute(
            "INSERT INTO log BY NAME SELECT $batch AS batch, $dataset AS dataset, sample_id, action, "
            "CAST(new_label AS INTEGER) AS new_label, $note AS note, $now::TIMESTAMP AS decided_at, "
            "$fingerprint AS fingerprint, content, CAST(copy AS INTEGER) AS copy, new_class, $author AS author "
            "FROM decided LEFT JOIN names USING (new_label) ORDER BY sample_id",
            {
                "batch": batch,
                "dataset": dataset,
                "note": note,
                "now": _now(),
                "fingerprint": facts.fingerprint,
                "author": author,
            },
        )
        connection.unregister("decided")
        connection.unregister("names")
        return batch

    return write(workspace, append)


def undo(workspace: Workspace, dataset: str, author: str | None = None, batch: int | None = None) -> int | None:
    """Take back a batch that still stands: it falls away, and what was decided before or after it stands.

    Args:    author: the latest batch of this person, None: of anybody; batch: this one instead of the latest
    Returns: the batch taken back, or None when there is nothing to take back
    Raises:  NotFoundError for a batch that does not stand, or is of another person than the author
    """

    def append(connection: duckdb.DuckDBPyConnection) -> int | None:
        of_author = "" if author is None else " AND coalesce(author, '') = $author"
        of_batch = "" if batch is None else " AND batch = $batch"
        given = {"dataset": dataset, "author": author, "batch": batch}
        [(latest,)] = connection.execute(
            f"SELECT max(batch) FROM log WHERE dataset = $dataset AND action <> 'undo'{of_author}{of_batch} "
            f"AND batch NOT IN ({_UNDONE})",
            {name: value for name, value in given.items() if value is not None},
        ).fetchall()
        if latest is None:
            if batch is not None:
                whose = "" if author is None else f" of '{author}'"
                raise NotFoundError(
                    f"decision {batch} does not stand{whose} in '{dataset}'; winnow decisions --log lists them"
                )
            return None
        connection.execute(
            "INSERT INTO log (batch, dataset, action, new_label, note, decided_at, author) "
            "VALUES (?, ?, 'undo', ?, '', ?, ?)",
            [next_number(connection), dataset, latest, _now(), author],
        )
        return int(latest)

    return write(workspace, append)


def last_batch(workspace: Workspace) -> int:
    """The number of the latest batch of the log, of any dataset; 0 when nothing was decided yet."""

    def fetch(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, str]) -> int:
        [(last,)] = connection.execute(f"SELECT coalesce(max(batch), 0) FROM {tables['log']}").fetchall()
        return int(last)

    return read(workspace, fetch) or 0


def fetch_decisions_log(workspace: Workspace, dataset: str, until: int | None = None) -> pd.DataFrame:
    """The latest standing decision per sample, by id: sample_id, action, new_label, note, author, decided_at, disputed.

    disputed: the latest decisions of its authors differ in action or new label.

    until: as it was right after this batch or undo; None = now
    """
    return Standing(workspace, dataset, until).current()


def fetch_disagreements(workspace: Workspace, dataset: str) -> pd.DataFrame:
    """Where people differ: the latest standing decision per sample and author, of the samples whose authors differ.

    They differ in the action, or in the label to which they relabel. By sample and author: sample_id, action, new_label,
    note, author, decided_at.
    """
    return Standing(workspace, dataset).disagreements()


def fetch_batches(workspace: Workspace, dataset: str, most: int | None = None) -> pd.DataFrame:
    """The log, the latest first: batch, author, action, n (samples), new_label (NA where there are several), note,
    decided_at, stands. `undo` is an action here, new_label then the batch that was taken back; `several` is that of a batch
    of several actions.

    most: so many batches at most
    """
    limit = "" if most is None else f" LIMIT {int(most)}"
    columns = ["batch", "author", "action", "n", "new_label", "note", "decided_at", "stands"]

    def fetch(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, str]) -> pd.DataFrame:
        return connection.execute(
            f"""WITH log AS (FROM {tables["log"]}), last AS (SELECT DISTINCT batch FROM log WHERE dataset = $dataset
            AND batch IS NOT NULL ORDER BY batch DESC{limit})
            SELECT batch, coalesce(min(author), '') AS author, 
            if(count(DISTINCT action) = 1, min(action), 'several') AS action, count(sample_id) AS n,
            if(count(DISTINCT new_label) = 1, min(new_label), NULL) AS new_label, coalesce(min(note), '') AS note,
            min(decided_at) AS decided_at, batch NOT IN ({_UNDONE}) AS stands
            FROM log SEMI JOIN last USING (batch) WHERE dataset = $dataset GROUP BY batch ORDER BY batch DESC""",
            {"dataset": dataset},
        ).df()

    found = read(workspace, fetch)
    return pd.DataFrame(columns=columns) if found is None else found.astype({"new_label": "Int64"})


def fetch_days(workspace: Workspace, dataset: str) -> pd.DataFrame:
    """How much was decided: author, day (UTC), n (decisions about a sample that stand), by day and author."""

    def fetch(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, str]) -> pd.DataFrame:
        return connection.execute(
            f"""WITH log AS (FROM {tables["log"]}) SELECT coalesce(author, '') AS author,
            date_trunc('day', decided_at) AS day, count(sample_id) AS n FROM log
            WHERE dataset = $dataset AND action <> 'undo' AND decided_at IS NOT NULL AND batch NOT IN ({_UNDONE})
            GROUP BY ALL ORDER BY day, author""",
            {"dataset": dataset},
        ).df()

    found = read(workspace, fetch)
    return pd.DataFrame(columns=["author", "day", "n"]) if found is None else found


def _spread(new_label: int | Sequence[int] | Ids, n: int) -> Ids:
    labels = np.asarray(new_label, dtype=np.int64)
    if labels.ndim and labels.shape != (n,):
        raise SpecError(f"{labels.size:,} labels for {n:,} samples; allowed: one for all, or one for each")
    return np.broadcast_to(labels, (n,))


def _check(facts: DatasetFacts, dataset: str, ids: Ids, labels: Ids | None) -> None:
    wrong = ids[(ids < 0) | (ids >= facts.samples)]
    if len(wrong):
        raise SpecError(f"sample {wrong[0]}; allowed: 0 to {facts.samples - 1} in dataset '{dataset}'")
    if not len(ids):
        raise SpecError("no samples to decide about; give at least one")
    if labels is not None and len(wrong := labels[(labels < 0) | (labels >= len(facts.classes))]):
        raise SpecError(f"label {wrong[0]}; allowed: 0 to {len(facts.classes) - 1} in dataset '{dataset}'")


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
