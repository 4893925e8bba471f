"""Decisions that a page sends until it hears that they are written: each is written once, however often it is sent.

A server may end between writing and answering, so the name of a request is written with its decision, in the same
transaction. Each is a batch of its own in the log, and is taken back by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import numpy as np
import pandas as pd

from engine.errors import unknown_name
from engine.store.contents import Ids, fetch_keys
from engine.store.decision_file import MOST_AUTHOR, check_text, next_number, write
from engine.store.records import DatasetFacts, dataset_facts
from engine.store.standing import ACTIONS
from engine.store.workspace import Workspace


@dataclass(frozen=True)
class Request:
    """One decision, or one that is taken back. name: never used twice; of: the name of what `undo` takes back."""

    name: str
    action: str
    sample_id: int
    new_label: int | None = None
    of: str = ""


def write_requests(
    workspace: Workspace,
    dataset: str,
    wanted: Sequence[Request],
    author: str = "",
    look_up: Callable[[Ids], pd.DataFrame] | None = None,
) -> dict[str, str]:
    """Write what is not written yet, in one transaction and in this order.

    Args:    look_up: does what `fetch_keys` does, where the dataset file is open already
    Returns: why, of those that can never be written, by name
    Raises:  WinnowError as engine.store.decisions.decide does; then none is written
    """
    path = workspace.require_dataset(dataset)
    facts = dataset_facts(path)
    check_text("author", author, MOST_AUTHOR)
    refused = {one.name: reason for one in wanted if (reason := _problem(facts, dataset, one))}
    meant = [one for one in wanted if one.name not in refused]
    if not meant:
        return refused
    ids = np.unique([one.sample_id for one in meant if one.action != "undo"]).astype(np.int32)
    keys = fetch_keys(path, ids) if look_up is None else look_up(ids)

    def append(connection: duckdb.DuckDBPyConnection) -> None:
        names = [one.name for one in meant] + [one.of for one in meant if one.of]
        written: dict[str, int] = dict(
            connection.execute(
                "SELECT request, max(batch) FROM log WHERE dataset = ? AND list_contains(?, request) GROUP BY request",
                [dataset, names],
            ).fetchall()
        )
        undone = {
            int(batch)
            for (batch,) in connection.execute(
                "SELECT new_label FROM log WHERE dataset = ? AND action = 'undo' AND list_contains(?, new_label)",
                [dataset, list(written.values())],
            ).fetchall()
        }
        rows, taken_back = [], []
        for one in meant:
            if one.action != "undo":
                if one.name not in written:
                    written[one.name] = next_number(connection)
                    label = None if one.new_label is None else facts.classes[one.new_label]
                    rows.append((written[one.name], one.sample_id, one.action, one.new_label, label, one.name))
            elif (batch := written.get(one.of)) is not None and batch not in undone:  # one that was refused has none
                undone.add(batch)
                taken_back.append([next_number(connection), batch])
        given = {"dataset": dataset, "now": datetime.now(UTC).replace(tzinfo=None), "author": author}
        if rows:
            columns = ["batch", "sample_id", "action", "new_label", "new_class", "request"]
            frame = pd.DataFrame(rows, columns=columns).astype({"new_label": "Int32", "new_class": "str"})
            connection.register("decided", frame.merge(keys[["sample_id", "content", "copy"]], on="sample_id"))
            connection.execute(
                "INSERT INTO log BY NAME SELECT batch, $dataset AS dataset, sample_id, action, new_label, '' AS note, "
                "$now::TIMESTAMP AS decided_at, $fingerprint AS fingerprint, content, CAST(copy AS INTEGER) AS copy, "
                "new_class, $author AS author, request FROM decided ORDER BY batch",
                {**given, "fingerprint": facts.fingerprint},
            )
            connection.unregister("decided")
        for number, batch in taken_back:
            connection.execute(
                "INSERT INTO log (batch, dataset, action, new_label, note, decided_at, author) "
                "VALUES ($number, $dataset, 'undo', $batch, '', $now, $author)",
                {**given, "number": number, "batch": batch},
            )

    write(workspace, append)
    return refused


def _problem(facts: DatasetFacts, dataset: str, one: Request) -> str:
    """Why a request cannot be written, "" if it can."""
    if one.action == "undo":
        return "" if one.of else "undo takes the name of what it takes back"
    if one.action not in ACTIONS:
        return unknown_name("action", one.action, (*ACTIONS, "undo"))
    if not 0 <= one.sample_id < facts.samples:
        return f"sample {one.sample_id}; allowed: 0 to {facts.samples - 1} in dataset '{dataset}'"
    if (one.new_label is None) == (one.action == "relabel"):
        return "relabel takes a new label, the other actions take none"
    if one.new_label is not None and not 0 <= one.new_label < len(facts.classes):
        return f"label {one.new_label}; allowed: 0 to {len(facts.classes) - 1} in dataset '{dataset}'"
    return ""
