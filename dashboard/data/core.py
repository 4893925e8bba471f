"""The files of one dataset as they stand, the queries on them, and the caches of their answers."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import streamlit as st

from engine.errors import WinnowError
from engine.queries import connection, paper, pruned, reviews, samples, summaries, verdicts, writers
from engine.store.usage import Usage, measure
from engine.store.workspace import Workspace, default_root

QUERIES = (connection, summaries, samples, verdicts, pruned, paper, writers, reviews)
"""Where a query is looked for by its name."""


@dataclass(frozen=True)
class Snapshot:
    """The files of one dataset as they stand: the key of every cache. A new run or decision makes a new one."""

    root: str
    dataset: str
    runs: tuple[str, ...]
    stamp: tuple[int, int]


@dataclass(frozen=True)
class View:
    """What the shared pickers chose. run_id is "" while nothing with scores is published; names: of the classes."""

    at: Snapshot
    run_id: str
    names: tuple[str, ...]


def workspace_root() -> Path:
    """The workspace that `winnow dashboard` passed on, else the default one."""
    return default_root()


def datasets() -> list[str]:
    """The names of all datasets. Raises WinnowError when there is no workspace."""
    return Workspace.open(workspace_root()).datasets()


def snapshot(dataset: str) -> Snapshot:
    """What can be read of a dataset now. Raises WinnowError for an unknown one."""
    workspace = Workspace.open(workspace_root())
    path, log = workspace.require_dataset(dataset), workspace.root / "decisions.duckdb"
    stamp = (_changed_at(path), _changed_at(log))
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


@st.cache_resource(max_entries=6, show_spinner=False)
def _connection(at: Snapshot) -> duckdb.DuckDBPyConnection:
    return connection.connect(Workspace(Path(at.root)), at.dataset, at.runs)


# A connection that is still open when the interpreter ends makes DuckDB's binding report leaks on the terminal.
atexit.register(lambda: _connection.clear())


@st.cache_data(max_entries=400, show_spinner=False)
def few(at: Snapshot, name: str, *given: Any) -> Any:
    """A query whose answer is small."""
    return ask(at, name, *given)


@st.cache_data(max_entries=24, show_spinner=False)
def many(at: Snapshot, name: str, *given: Any) -> Any:
    """A query whose answer has a row per sample, or pictures."""
    return ask(at, name, *given)


def connection_of(at: Snapshot) -> duckdb.DuckDBPyConnection:
    """A cursor of the connection that all sessions share: for this thread."""
    return _connection(at).cursor()


def ask(at: Snapshot, name: str, *given: Any) -> Any:
    """A query whose answer is not kept."""
    function = next(f for module in QUERIES if (f := getattr(module, name, None)))
    with connection.damage_errors(at.dataset):
        return function(connection_of(at), *given)


@st.cache_data(ttl=30, max_entries=8, show_spinner=False)
def disk_use(at: Snapshot) -> Usage:
    """What the workspace takes on the disk, up to half a minute old."""
    return measure(Workspace(Path(at.root)))


def snapshot_of(run_id: str) -> Snapshot:
    return snapshot(Workspace.open(workspace_root()).read_record(run_id).dataset)


def frame(found: Any) -> pd.DataFrame:
    assert isinstance(found, pd.DataFrame)
    return found
