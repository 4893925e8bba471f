"""What stands of the decisions about one dataset, in memory, kept up to date by reading only what is new of the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from engine.store.contents import find_contents
from engine.store.decision_file import is_settled, log_stamp, read
from engine.store.records import dataset_facts
from engine.store.workspace import Workspace

ACTIONS = ("keep", "drop", "relabel", "unsure")

Ints = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class _News:
    """What a read found after the batch that was seen last. goes_on: what was seen before is still there.

    rows: batch, sample_id, action (its place in ACTIONS), new_label (-1: none); heads: note, author, decided_at by
    batch; moved: rows about images that had other ids; undone: batches; last, n: the last batch, and rows up to it
    """

    goes_on: bool
    last: int
    n: int
    rows: pd.DataFrame
    heads: pd.DataFrame
    moved: pd.DataFrame
    undone: Ints


class Standing:
    """The decisions about the samples of a dataset file: the latest standing one of each counts. For one thread.

    stamp: changes when decisions come; None before the first was read
    """

    def __init__(self, workspace: Workspace, dataset: str, until: int | None = None) -> None:
        """Reads the log. until: pass over what came after this batch or undo.

        Raises: NotFoundError for an unknown dataset; StorageError for a damaged dataset file or damaged decisions
        """
        self._workspace, self._dataset, self._until = workspace, dataset, until
        self._path = workspace.require_dataset(dataset)
        self._facts = dataset_facts(self._path)
        self._empty()
        self.refresh()

    def _empty(self) -> None:
        self.stamp: object = None
        self._settled = False
        self._seen, self._seen_rows = 0, 0
        kinds = {"batch": np.int64, "sample_id": np.int32, "action": np.int8, "new_label": np.int32}
        self._rows: dict[str, Ints] = {name: np.zeros(0, kind) for name, kind in kinds.items()}
        self._stands: Ints = np.zeros(0, bool)
        self._heads, self._head_author = _NO_HEADS, np.zeros(0, np.int64)
        self._authors: dict[str, int] = {}
        self._latest: Ints = np.full(self._facts.samples, -1, np.int64)
        self._disputed: Ints = np.zeros(self._facts.samples, bool)

    def refresh(self) -> Ints | None:
        """Read what is new. Returns: the ids of the samples whose decision may have changed; None: of any

        Raises: StorageError for damaged decisions
        """
        stamp, settled = log_stamp(self._workspace), is_settled(self._workspace)
        if stamp == self.stamp and self._settled:
            return np.zeros(0, np.int32)
        all_of_it = self.stamp is None
        found = read(self._workspace, self._read)
        if not all_of_it and (found is None or not found.goes_on):  # the file was removed, or another put in its place
            self._empty()
            found, all_of_it = read(self._workspace, self._read), True
        if found is not None:
            changed = self._take(found)
        self.stamp, self._settled = stamp, settled
        return None if all_of_it else changed

    def current(self) -> pd.DataFrame:
        """The latest decision of each decided sample, by id: sample_id, action, new_label, note, author, decided_at,
        disputed (the latest decisions of its authors differ in action or new label)."""
        return self._latest_of(self._latest[self._latest >= 0])

    def of(self, ids: Ints) -> pd.DataFrame:
        """The latest decisions of some samples, by id, of those that are decided; what is no sample is passed over."""
        rows = self._latest[np.unique(ids[(ids >= 0) & (ids < len(self._latest))])]
        return self._latest_of(rows[rows >= 0])

    def actions(self) -> Ints:
        """Of every sample, the place of its action in ACTIONS; -1 where nothing is decided."""
        decided = self._latest >= 0
        found = np.full(len(decided), -1, np.int8)
        found[decided] = self._rows["action"][self._latest[decided]]
        return found

    def meets(self, decision: str, author: str = "") -> Ints:
        """Of every sample, whether its latest decision is as a filter wants it: bool.

        decision: an action, "decided", "undecided" or "disputed", "" = any or none; author: of this person, "" = of any
        """
        decided = self._latest >= 0
        if decision == "undecided":
            return ~decided & (author == "")
        found = np.ones(len(decided), bool) if decision == author == "" else decided.copy()
        rows = self._latest[decided]
        if decision in ACTIONS:
            found[decided] &= self._rows["action"][rows] == ACTIONS.index(decision)
        if decision == "disputed":
            found &= self._disputed
        if author:
            found[decided] &= self._author_of(self._rows["batch"][rows]) == self._authors.get(author, -1)
        return found

    def recent(self, ids: Ints, most: int) -> Ints:
        """The places in ACTIONS of what was decided last about any of some samples, the latest first."""
        places = self._latest[ids]
        return np.asarray(self._rows["action"][np.sort(places[places >= 0])[: -most - 1 : -1]])

    def counts(self) -> dict[str, int]:
        """How many samples are "decided", how many with each of ACTIONS, and how many are "disputed"."""
        places = self._latest[self._latest >= 0]
        by_action = np.bincount(self._rows["action"][places], minlength=len(ACTIONS)).tolist()
        return {
            "decided": len(places),
            **dict(zip(ACTIONS, by_action, strict=True)),
            "disputed": int(self._disputed.sum()),
        }

    def authors(self) -> dict[str, int]:
        """Whose decisions are the latest of how many samples, by name, the most first."""
        numbers = self._author_of(self._rows["batch"][self._latest[self._latest >= 0]])
        found = zip(self._authors, np.bincount(numbers, minlength=len(self._authors)).tolist(), strict=True)
        return dict(sorted(((name, n) for name, n in found if n), key=lambda pair: (-pair[1], pair[0])))

    def disagreements(self) -> pd.DataFrame:
        """The latest decision per sample and author of the samples whose authors differ in action or new label."""
        places = self._by_author(np.flatnonzero(self._stands & self._disputed[self._rows["sample_id"]]))
        return self._frame(places).sort_values(["sample_id", "author"], kind="stable").reset_index(drop=True)

    def _latest_of(self, places: Ints) -> pd.DataFrame:
        found = self._frame(places)
        return found.assign(disputed=self._disputed[found["sample_id"].to_numpy()])

    def _by_author(self, places: Ints) -> Ints:
        """Of the places of rows, the last of each sample and author, by sample."""
        backwards = places[::-1]
        author = self._author_of(self._rows["batch"][backwards])
        key = self._rows["sample_id"][backwards] * np.int64(len(self._authors) or 1) + author
        return backwards[np.unique(key, return_index=True)[1]]

    def _author_of(self, batch: Ints) -> Ints:
        """The number of the author of each of some batches."""
        return self._head_author[np.searchsorted(self._heads.index.to_numpy(), batch)]

    def _frame(self, places: Ints) -> pd.DataFrame:
        """Rows, by their places, as a person reads them."""
        rows = {name: column[places] for name, column in self._rows.items()}
        action = pd.array(list(ACTIONS), "str").take(rows["action"])
        frame = pd.DataFrame({"sample_id": rows["sample_id"], "action": action})
        frame["new_label"] = pd.arrays.IntegerArray(rows["new_label"], rows["new_label"] < 0)
        of_batch = self._heads.iloc[np.searchsorted(self._heads.index.to_numpy(), rows["batch"])]
        for name in ("note", "author", "decided_at"):
            frame[name] = of_batch[name].to_numpy() if name == "decided_at" else of_batch[name].array
        return frame

    def _take(self, found: _News) -> Ints:
        """Add what was found to what is held. Returns: the ids of the samples that it is about"""
        parts = [found.rows]
        if len(found.moved):
            parts.append(self._attached(found.moved))
        new = pd.concat(parts).sort_values("batch", kind="stable") if len(parts) > 1 else found.rows
        for name, column in self._rows.items():
            self._rows[name] = np.concatenate([column, new[name].to_numpy(column.dtype)])
        self._stands = np.concatenate([self._stands, np.ones(len(new), bool)])
        fallen = np.isin(self._rows["batch"], found.undone) if len(found.undone) else np.zeros(len(self._stands), bool)
        self._stands &= ~fallen
        self._heads = pd.concat([self._heads, found.heads]) if len(self._heads) else found.heads
        number = [self._authors.setdefault(name, len(self._authors)) for name in found.heads["author"]]
        self._head_author = np.concatenate([self._head_author, np.asarray(number, np.int64)])
        self._seen, self._seen_rows = found.last, found.n
        fallen[len(fallen) - len(new) :] = True
        sample = self._rows["sample_id"]
        touched = np.zeros(len(self._latest), bool)
        touched[sample[fallen]] = True
        self._latest[touched] = -1
        places = np.flatnonzero(touched[sample] & self._stands)
        np.maximum.at(self._latest, sample[places], places)
        self._disputed[touched] = False
        if len(self._authors) > 1:
            each = self._by_author(places)
            of, decided = sample[each], self._rows["action"][each] * np.int64(1 << 32) + self._rows["new_label"][each]
            self._disputed[of[1:][(of[1:] == of[:-1]) & (decided[1:] != decided[:-1])]] = True
        return np.flatnonzero(touched).astype(np.int32)

    def _read(self, connection: duckdb.DuckDBPyConnection, tables: Mapping[str, str]) -> _News:
        log = tables["log"]
        [(before,)] = connection.execute(f"SELECT count(*) FROM {log} WHERE batch <= ?", [self._seen]).fetchall()
        until = "" if self._until is None else f" AND batch <= {int(self._until)}"
        [(last, n)] = connection.execute(f"SELECT max(batch), count(*) FROM {log} WHERE batch > 0{until}").fetchall()
        given = {"dataset": self._dataset, "seen": self._seen}
        new = f"(FROM {log} WHERE dataset = $dataset AND batch > $seen{until})"
        heads = connection.execute(
            "SELECT batch, coalesce(min(note), '') AS note, coalesce(min(author), '') AS author, "
            f"min(decided_at) AS decided_at FROM {new} GROUP BY batch ORDER BY batch",
            given,
        ).df()
        undone = connection.execute(
            f"SELECT DISTINCT new_label FROM {new} WHERE action = 'undo' AND new_label IS NOT NULL", given
        ).fetchnumpy()
        place = f"CAST(list_position({list(ACTIONS)}, action) - 1 AS TINYINT) AS action"
        known = f"action IN {ACTIONS}"
        given |= {"fingerprint": self._facts.fingerprint, "since": self._facts.created_at}
        # A decision without a key was made on the file that had the name then: on this one, if it is the older of the two.
        same = "(fingerprint = $fingerprint OR content IS NULL AND decided_at >= $since)"
        # What no version writes is passed over: the log may be somebody else's.
        rows = connection.execute(
            f"SELECT batch, sample_id, {place}, coalesce(new_label, -1) AS new_label FROM {new} WHERE {known} AND {same} "
            "AND sample_id BETWEEN 0 AND $samples - 1 "
            "AND coalesce(new_label BETWEEN 0 AND $classes - 1, false) = (action = 'relabel') ORDER BY batch",
            {**given, "samples": self._facts.samples, "classes": len(self._facts.classes)},
        ).df()
        moved = connection.execute(
            f"SELECT batch, content, copy, {place}, new_class FROM {new} WHERE {known} AND content IS NOT NULL "
            "AND fingerprint IS DISTINCT FROM $fingerprint AND $since IS NOT NULL ORDER BY batch",
            given,
        ).df()
        return _News(
            goes_on=before == self._seen_rows,
            last=int(last or 0),
            n=int(n),
            rows=rows,
            heads=heads.set_index("batch"),
            moved=moved,
            undone=np.asarray(undone["new_label"], np.int64),
        )

    def _attached(self, moved: pd.DataFrame) -> pd.DataFrame:
        """Rows about images that had other ids, under those that they have now; those that are not there fall away."""
        now = find_contents(self._path, moved["content"].unique().tolist())
        found = moved.merge(now, on=["content", "copy"])
        label = found["new_class"].map({name: label for label, name in enumerate(self._facts.classes)})
        is_relabel = found["action"] == ACTIONS.index("relabel")
        found["new_label"] = label.where(is_relabel).fillna(-1).astype("int32")
        return found[~is_relabel | (found["new_label"] >= 0)]


_NO_HEADS = pd.DataFrame(
    {"note": pd.array([], "str"), "author": pd.array([], "str"), "decided_at": pd.array([], "datetime64[us]")},
    index=pd.Index([], dtype="int64", name="batch"),
)
