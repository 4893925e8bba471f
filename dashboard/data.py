"""What pages read. The only file here that imports the engine.

Runs are immutable, so whatever was read of a run is cached and never stale; caches are bounded. A connection is
shared by all sessions that see the same files, and every script run takes its own cursor of it.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import streamlit as st

from engine import queries, samples
from engine.errors import WinnowError
from engine.jobs import Job, fetch_jobs
from engine.samples import Filter, Ids
from engine.workspace import Workspace, default_root

__all__ = ["Filter", "Ids", "Job", "Snapshot", "WinnowError"]


@dataclass(frozen=True)
class Snapshot:
    """The files of one dataset as they stand: the key of every cache. A new run or decision makes a new one."""

    root: str
    dataset: str
    runs: tuple[str, ...]
    stamp: tuple[int, int]


def workspace_root() -> Path:
    """The workspace that `winnow dashboard` passed on, else the default one."""
    return default_root()


def datasets() -> list[str]:
    """The names of all datasets. Raises WinnowError when there is no workspace."""
    return Workspace.open(workspace_root()).datasets()


def snapshot(dataset: str) -> Snapshot:
    """What can be read of a dataset now. Raises WinnowError for an unknown one."""
    workspace = Workspace.open(workspace_root())
    path = workspace.require_dataset(dataset)
    runs = tuple(queries.runs_of(workspace, dataset))
    return Snapshot(str(workspace.root), dataset, runs, (_changed(path), _changed(workspace.root / "decisions.duckdb")))


def published() -> tuple[str, ...]:
    """What changes when anything is published or removed: for pages that wait for it."""
    try:
        workspace = Workspace.open(workspace_root())
    except WinnowError:
        return ()
    return (*workspace.datasets(), *workspace.published_runs())


def jobs(dataset: str | None = None) -> list[Job]:
    """All runs with their state, the latest first; not cached."""
    return fetch_jobs(Workspace.open(workspace_root()), dataset)


def latest_dataset() -> str:
    """The dataset with the newest published scores, else the first by name."""
    newest = [job.dataset for job in jobs() if job.state == "done" and job.kind != "psi"]
    names = datasets()
    return next((name for name in newest if name in names), names[0])


def _changed(path: Path) -> int:
    return os.stat(path).st_mtime_ns if path.exists() else 0


@st.cache_resource(max_entries=6, show_spinner=False)
def _connection(at: Snapshot) -> duckdb.DuckDBPyConnection:
    return queries.connect(Workspace(Path(at.root)), at.dataset, at.runs)


# A connection that is still open when the interpreter ends makes DuckDB's binding report leaks on the terminal.
atexit.register(lambda: _connection.clear())


@st.cache_data(max_entries=400, show_spinner=False)
def _few(at: Snapshot, name: str, *given: Any) -> Any:
    """A query whose answer is small."""
    return _ask(at, name, *given)


@st.cache_data(max_entries=24, show_spinner=False)
def _many(at: Snapshot, name: str, *given: Any) -> Any:
    """A query whose answer has a row per sample, or pictures."""
    return _ask(at, name, *given)


def _ask(at: Snapshot, name: str, *given: Any) -> Any:
    function = getattr(queries, name, None) or getattr(samples, name)
    return function(_connection(at).cursor(), *given)


# Runs ---------------------------------------------------------------------------------------------------------


def dataset_facts(at: Snapshot) -> dict[str, Any]:
    facts: dict[str, Any] = _few(at, "fetch_dataset")
    return facts


def classes(at: Snapshot) -> pd.DataFrame:
    return _frame(_few(at, "fetch_classes"))


def class_names(at: Snapshot) -> list[str]:
    return [str(name) for name in classes(at)["class_name"]]


def noise_matrix(at: Snapshot) -> pd.DataFrame:
    return _frame(_few(at, "fetch_noise_matrix"))


def runs(at: Snapshot) -> pd.DataFrame:
    return _frame(_few(at, "fetch_runs"))


def epochs(at: Snapshot, run_id: str) -> pd.DataFrame:
    return _frame(_few(at, "fetch_epochs", run_id))


def catalog(at: Snapshot, run_id: str) -> pd.DataFrame:
    return _frame(_few(at, "fetch_catalog", run_id))


def rules(at: Snapshot, run_id: str) -> pd.DataFrame:
    return _frame(_few(at, "fetch_rules", run_id))


def histogram(at: Snapshot, run_id: str, score: str) -> pd.DataFrame:
    return _frame(_few(at, "fetch_histogram", run_id, score))


def detection_curve(at: Snapshot, run_id: str, score: str) -> pd.DataFrame:
    return _frame(_few(at, "fetch_detection_curve", run_id, score))


def spearman(at: Snapshot, run_id: str) -> pd.DataFrame:
    return _frame(_few(at, "fetch_spearman", run_id))


def psi_curves(at: Snapshot, run_ids: Sequence[str]) -> pd.DataFrame:
    """The points of published psi runs, and those that running ones have journalled so far."""
    done = [run_id for run_id in run_ids if run_id in at.runs]
    workspace = Workspace(Path(at.root))
    parts = [_frame(_few(at, "fetch_psi", tuple(done)))]
    parts += [queries.fetch_psi_journal(workspace, run_id) for run_id in run_ids if run_id not in at.runs]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


# Samples ------------------------------------------------------------------------------------------------------


def score(at: Snapshot, run_id: str, name: str) -> pd.DataFrame:
    return _frame(_many(at, "fetch_score", run_id, name))


def sample_map(at: Snapshot, run_id: str) -> pd.DataFrame:
    return _frame(_many(at, "fetch_map", run_id))


def labels(at: Snapshot) -> pd.DataFrame:
    return _frame(_many(at, "fetch_labels"))


def ids(at: Snapshot, run_id: str, wanted: Filter, sort: str = "", hardest_first: bool = True) -> Ids:
    found: Ids = _many(at, "fetch_ids", run_id, wanted, sort, hardest_first)
    return found


def facets(at: Snapshot, run_id: str, wanted: Filter) -> pd.DataFrame:
    return _frame(_few(at, "fetch_facets", run_id, wanted))


def cards(at: Snapshot, run_id: str, wanted: Sequence[int] | Ids, sort: str = "") -> pd.DataFrame:
    return _frame(_many(at, "fetch_cards", run_id, tuple(int(i) for i in wanted), sort))


def condition(at: Snapshot, run_id: str, wanted: Filter) -> str:
    return str(_few(at, "condition", run_id, wanted))


def export(at: Snapshot, where: str) -> pd.DataFrame:
    return _frame(_many(at, "fetch_export", where))


def sample(at: Snapshot, sample_id: int) -> dict[str, Any] | None:
    found: dict[str, Any] | None = _few(at, "fetch_sample", sample_id)
    return found


def sample_scores(at: Snapshot, run_id: str, sample_id: int) -> pd.DataFrame:
    return _frame(_few(at, "fetch_sample_scores", run_id, sample_id))


def sample_flags(at: Snapshot, run_id: str, sample_id: int) -> pd.DataFrame:
    return _frame(_few(at, "fetch_sample_flags", run_id, sample_id))


def trajectory(at: Snapshot, run_id: str, sample_id: int) -> pd.DataFrame:
    return _frame(_few(at, "fetch_trajectory", run_id, sample_id))


def sample_logits(at: Snapshot, run_id: str, sample_id: int) -> pd.DataFrame:
    return _frame(_few(at, "fetch_sample_logits", run_id, sample_id))


def neighbors(at: Snapshot, run_id: str, sample_id: int) -> pd.DataFrame:
    return _frame(_few(at, "fetch_neighbors", run_id, sample_id))


def _frame(found: Any) -> pd.DataFrame:
    assert isinstance(found, pd.DataFrame)
    return found


def inside(
    x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], outline: Sequence[tuple[float, float]]
) -> np.ndarray[Any, Any]:
    """Which points lie inside a closed outline, by the even-odd rule: (n,) bool."""
    found = np.zeros(len(x), bool)
    for (x1, y1), (x2, y2) in zip(outline, [*outline[1:], outline[0]], strict=True):
        if y1 != y2:
            found ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return found
