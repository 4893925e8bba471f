"""The files of one dataset as they stand, the queries on them, and the caches of their answers."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import streamlit as st

from engine.errors import WinnowError
from engine.queries import (
    classes,
    clouds,
    connection,
    explanations,
    groups,
    listing,
    metadata,
    pairs,
    paper,
    paper_groups,
    paper_selection,
    proofs,
    pruned,
    relabelings,
    reviews,
    samples,
    summaries,
    verdicts,
    versions,
    writers,
)
from engine.queries.samples import Ids
from engine.queries.views import DATASET_DATABASE
from engine.store.contents import fetch_keys, find_keys
from engine.store.standing import Standing
from engine.store.usage import Usage, measure
from engine.store.workspace import Workspace, default_root

QUERIES = (
    classes,
    clouds,
    connection,
    explanations,
    groups,
    listing,
    metadata,
    pairs,
    paper,
    paper_groups,
    paper_selection,
    proofs,
    pruned,
    relabelings,
    reviews,
    samples,
    summaries,
    verdicts,
    versions,
    writers,
)
"""Where a query is looked for by its name."""

DECIDED = {"fetch_class_quality", "fetch_export", "fetch_matching", "fetch_selected"}
"""Queries that read the view `decisions`, besides those that a filter on decisions restricts: run again after each."""


@dataclass(frozen=True)
class Snapshot:
    """The published files of one dataset as they stand: the key of every cache. A new run makes a new one.

    Decisions do not, or every one of them would empty the caches: see `Opened`.
    """

    root: str
    dataset: str
    runs: tuple[str, ...]
    stamp: int


@dataclass(frozen=True)
class View:
    """What the shared pickers chose. run_id is "" while nothing with scores is published; names: of the classes."""

    at: Snapshot
    run_id: str
    names: tuple[str, ...]


READ_ONLY = "WINNOW_READ_ONLY"
"""The variable of the server's environment that `winnow dashboard --read-only` sets."""


def read_only() -> bool:
    """Whether this server writes nothing for anybody."""
    return bool(os.environ.get(READ_ONLY))


def require_writable() -> None:
    """The first line of every function in here that decides, starts, saves or removes. Raises WinnowError if read-only."""
    if read_only():
        raise WinnowError(
            "this dashboard is read-only, so nothing was written; winnow dashboard without --read-only writes"
        )


def workspace_root() -> Path:
    """The workspace that `winnow dashboard` passed on, else the default one."""
    return default_root()


def datasets() -> list[str]:
    """The names of all datasets. Raises WinnowError when there is no workspace."""
    return Workspace.open(workspace_root()).datasets()


def snapshot(dataset: str) -> Snapshot:
    """What can be read of a dataset now. Raises WinnowError for an unknown one."""
    workspace = Workspace.open(workspace_root())
    stamp = _changed_at(workspace.require_dataset(dataset))
    return Snapshot(str(workspace.root), dataset, tuple(connection.runs_of(workspace, dataset)), stamp)


def _changed_at(path: Path) -> int:
    """When a file was written last; 0 where there is none, such as one that another process has just removed."""
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def published() -> tuple[str, ...]:
    """What changes when anything is published or removed: for pages that wait for it."""
    try:
        workspace = Workspace.open(workspace_root())
    except WinnowError:
        return ()
    return (*workspace.datasets(), *workspace.published_runs())


_MANY_CHANGED = 50_000
"""From so many samples on, the view of all decisions is written anew instead of that of each."""


class Opened:
    """The connection that all sessions share which see the same files, and the decisions as they stand.

    The decisions are in memory, where a new one is added in milliseconds, and are put into the connection's view
    `decisions` when a query reads that.
    """

    def __init__(self, at: Snapshot) -> None:
        workspace = Workspace(Path(at.root))
        self._turn, self._standing = threading.Lock(), Standing(workspace, at.dataset)
        self.connection = connection.connect(workspace, at.dataset, at.runs, decisions=self._standing)
        self._changed: Ids | None = np.zeros(0, np.int32)
        self._path, self._stamp = workspace.dataset_path(at.dataset), at.stamp
        self._has_contents = bool(
            self.connection.execute(
                "SELECT 1 FROM duckdb_columns() WHERE database_name = ? AND table_name = 'samples' AND column_name = 'content'",
                [DATASET_DATABASE],
            ).fetchall()
        )

    def find_keys(self, ids: Ids) -> pd.DataFrame:
        """`fetch_keys` of samples, in the file that is open; in the one that took its name where another did."""
        if self._has_contents and _changed_at(self._path) == self._stamp:
            return find_keys(self.connection.cursor(), DATASET_DATABASE, ids)
        return fetch_keys(self._path, ids)

    @contextlib.contextmanager
    def decisions(self) -> Iterator[Standing]:
        """The decisions as they stand now, for one thread at a time."""
        with self._turn:
            changed = self._standing.refresh()
            if changed is None or self._changed is None or len(self._changed) + len(changed) > _MANY_CHANGED:
                self._changed = None
            elif len(changed):
                self._changed = np.union1d(self._changed, changed)
            yield self._standing

    def cursor(self, with_decisions: bool) -> duckdb.DuckDBPyConnection:
        """A cursor for one thread. with_decisions: bring the view `decisions` up to date first."""
        if with_decisions:
            with self.decisions() as standing:
                if self._changed is None or len(self._changed):
                    connection.put_decisions(self.connection.cursor(), standing, self._changed)
                    self._changed = np.zeros(0, np.int32)
        return self.connection.cursor()


@st.cache_resource(max_entries=6, show_spinner=False)
def opened(at: Snapshot) -> Opened:
    return Opened(at)


# A connection that is still open when the interpreter ends makes DuckDB's binding report leaks on the terminal.
atexit.register(lambda: opened.clear())


def few(at: Snapshot, name: str, *given: Any) -> Any:
    """A query whose answer is small."""
    return _few(at, decisions_seen(at, name, given), name, *given)


def many(at: Snapshot, name: str, *given: Any) -> Any:
    """A query whose answer has a row per sample, or pictures."""
    return _many(at, decisions_seen(at, name, given), name, *given)


def cursor(at: Snapshot, with_decisions: bool = False) -> duckdb.DuckDBPyConnection:
    """A connection of one's own to the files of a dataset; with the view `decisions` as it stands now, or without it."""
    return opened(at).cursor(with_decisions=with_decisions)


def ask(at: Snapshot, name: str, *given: Any) -> Any:
    """A query whose answer is not kept."""
    return _ask(at, decisions_seen(at, name, given), name, *given)


def decisions_seen(at: Snapshot, name: str, given: Sequence[Any]) -> object:
    """For a query that reads decisions what changes with them, else None."""
    if name in DECIDED or any(isinstance(g, samples.Filter) and (g.decision or g.author) for g in given):
        with opened(at).decisions() as standing:
            return "decided", standing.stamp
    return None


@st.cache_data(max_entries=400, show_spinner=False)
def _few(at: Snapshot, seen: object, name: str, *given: Any) -> Any:
    return _ask(at, seen, name, *given)


@st.cache_data(max_entries=24, show_spinner=False)
def _many(at: Snapshot, seen: object, name: str, *given: Any) -> Any:
    return _ask(at, seen, name, *given)


def _ask(at: Snapshot, seen: object, name: str, *given: Any) -> Any:
    function = next(f for module in QUERIES if (f := getattr(module, name, None)))
    with connection.damage_errors(at.dataset):
        return function(opened(at).cursor(with_decisions=seen is not None), *given)


@st.cache_data(ttl=30, max_entries=8, show_spinner=False)
def disk_use(at: Snapshot) -> Usage:
    """What the workspace takes on the disk, up to half a minute old."""
    return measure(Workspace(Path(at.root)))


def snapshot_of(run_id: str) -> Snapshot:
    return snapshot(Workspace.open(workspace_root()).read_record(run_id).dataset)


def frame(found: Any) -> pd.DataFrame:
    assert isinstance(found, pd.DataFrame)
    return found
