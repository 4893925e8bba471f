"""What pages read. The only file here that imports the engine.

Runs are immutable, so whatever was read of a run is cached and never stale; caches are bounded. A connection is
shared by all sessions that see the same files, and every script run takes its own cursor of it.
"""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import pandas as pd
import streamlit as st

from engine.errors import WinnowError
from engine.fields import Setting, settings_of
from engine.queries import connection, paper, pruned, samples, summaries, verdicts, writers
from engine.queries.pruned import EPOCH_COLUMNS, fetch_orders
from engine.queries.samples import SUSPICION, Filter, Ids
from engine.queries.verdicts import Verdict, likely, percent
from engine.queries.writers import WRITERS, export_bytes
from engine.spec import PsiSpec, TrainingSpec
from engine.store.jobs import Job, Started, cancel, discard, fetch_jobs, seconds_spent, start_job
from engine.store.schema import VIEWS
from engine.store.usage import Usage, measure, size
from engine.store.workspace import Workspace, default_root
from engine.text import shown

__all__ = [
    "EPOCH_COLUMNS", "SUSPICION", "WRITERS", "Filter", "Ids", "Job", "Setting", "Snapshot", "Started", "Verdict", "WinnowError",
    "export_bytes", "likely", "percent", "shown", "size",
]  # fmt: skip


def settings(kind: Literal["psi", "training"]) -> dict[str, Setting]:
    """The options of a psi-curve or of a training by name, in the order in which they are declared."""
    return settings_of(PsiSpec if kind == "psi" else TrainingSpec)


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


def jobs(dataset: str | None = None) -> list[Job]:
    """All runs with their state, the latest first; not cached."""
    return fetch_jobs(Workspace.open(workspace_root()), dataset)


def latest_dataset() -> str:
    """The dataset with the newest published scores, else the first by name."""
    newest = [job.dataset for job in jobs() if job.state == "done" and job.kind != "psi"]
    names = datasets()
    return next((name for name in newest if name in names), names[0])


@st.cache_resource(max_entries=6, show_spinner=False)
def _connection(at: Snapshot) -> duckdb.DuckDBPyConnection:
    return connection.connect(Workspace(Path(at.root)), at.dataset, at.runs)


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
    modules = (connection, summaries, samples, verdicts, pruned, paper, writers)
    function = next(f for module in modules if (f := getattr(module, name, None)))
    with connection.damage_errors(at.dataset):
        return function(_connection(at).cursor(), *given)


@st.cache_data(ttl=30, max_entries=8, show_spinner=False)
def disk_use(at: Snapshot) -> Usage:
    """What the workspace takes on the disk, up to half a minute old."""
    return measure(Workspace(Path(at.root)))


# Jobs ---------------------------------------------------------------------------------------------------------


def start(words: Sequence[str]) -> Started:
    """Start a command of the command line on this workspace; it goes on when the dashboard ends."""
    return start_job(Workspace.open(workspace_root()), words)


def started_run(started: Started) -> str | None:
    """The run that a started command computes, as soon as there is one."""
    return started.run_id(Workspace.open(workspace_root()))


def pause(run_id: str) -> None:
    """Stop a run; its finished work is kept."""
    cancel(Workspace.open(workspace_root()), run_id)


def remove(run_id: str) -> None:
    """Stop a run and delete it."""
    discard(Workspace.open(workspace_root()), run_id)


def throughput(run_id: str) -> tuple[int, float]:
    """Of a curve that is being computed: the networks that are done, and how many a minute."""
    workspace = Workspace.open(workspace_root())
    points = pruned.fetch_psi_journal(workspace, run_id)
    done = len(points[points["pruned"] > 0]) + points[points["pruned"] == 0]["seed"].nunique()
    return done, 60 * done / max(1e-9, seconds_spent(workspace.run_dir(run_id)))


# Runs ---------------------------------------------------------------------------------------------------------


def dataset_facts(at: Snapshot) -> dict[str, Any]:
    facts: dict[str, Any] = _few(at, "fetch_dataset")
    return facts


def classes(at: Snapshot) -> pd.DataFrame:
    return _frame(_few(at, "fetch_classes"))


def class_names(at: Snapshot) -> list[str]:
    return [str(name) for name in classes(at)["class_name"]]


def transition_matrix(at: Snapshot) -> pd.DataFrame:
    return _frame(_few(at, "fetch_transition_matrix"))


def runs(at: Snapshot) -> pd.DataFrame:
    return _frame(_few(at, "fetch_runs"))


def best_run(at: Snapshot) -> str:
    """The run that opens where none is chosen; "" when none has scores."""
    return str(_few(at, "best_run") or "")


def verdict(at: Snapshot, run_id: str) -> Verdict | None:
    """What to believe of a run; None where it has no verdict."""
    found: Verdict | None = _few(at, "fetch_verdict", run_id) if run_id else None
    return found


def verdicts_of(at: Snapshot) -> pd.DataFrame:
    return _frame(_few(at, "fetch_verdicts"))


def suspicion(at: Snapshot, run_id: str) -> pd.DataFrame:
    return _frame(_few(at, "fetch_suspicion", run_id))


def unreadable(at: Snapshot) -> dict[str, str]:
    """What is wrong with the runs of a dataset that cannot be read, and with those too broken to name a dataset."""
    broken = {
        job.run_id: job.message for job in jobs() if job.state == "unreadable" and job.dataset in ("", at.dataset)
    }
    damaged = _frame(_few(at, "fetch_sql", "SELECT run_id, problem FROM unreadable ORDER BY run_id"))
    return broken | dict(zip(damaged["run_id"], damaged["problem"], strict=True))


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


def psi_points(run_ids: Sequence[str]) -> pd.DataFrame:
    """The points of psi runs of any datasets; of those that are not published, what they have journalled so far."""
    workspace = Workspace.open(workspace_root())
    found = [
        _frame(_few(_snapshot_of(i), "fetch_psi", (i,)))
        if workspace.is_published(i)
        else pruned.fetch_psi_journal(workspace, i)
        for i in run_ids
    ]
    some = [part for part in found if len(part)]
    return pd.concat(some, ignore_index=True) if some else pd.DataFrame(columns=list(VIEWS["psi"].columns))


def window_points(points: pd.DataFrame) -> pd.DataFrame:
    """Those of the points that are of window experiments, with their score and offset (0..1)."""
    return pruned.window_offsets(points)


def kept_sets(run_id: str, order: str, pruned: Sequence[int]) -> pd.DataFrame:
    """What an order of a psi run keeps at each number pruned, as far as it is certain (see fetch_kept_sets)."""
    spec = Workspace.open(workspace_root()).read_record(run_id).spec
    if spec.get("class_balanced") or spec.get("window"):  # these keep other samples than the ranks alone say
        order = "random"
    (parts,) = fetch_orders([order]).to_dict("records")
    given = spec.get("scores_run"), parts["sampler"], parts["score"], tuple(pruned)
    return _frame(_few(_snapshot_of(run_id), "fetch_kept_sets", *given))


def epoch_quality(at: Snapshot, run_id: str, column: str) -> pd.DataFrame:
    return _frame(_few(at, "fetch_epoch_quality", run_id, column))


def training(at: Snapshot, run_id: str) -> dict[str, Any]:
    """How the networks of a run were trained, by the names of `winnow run`'s options; empty when it trained none."""
    given = (Workspace(Path(at.root)).read_record(run_id).spec.get("training") or {}) if run_id else {}
    # Only what is declared: they become options of a command, and a copied spec may hold any name.
    return {name: given[name] for name in settings("training") if name in given}


def having(at: Snapshot, kind: Literal["score", "order"], wanted: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The run with most of the scores (or the psi run with most of the orders) that are wanted, the newest of equals.

    Returns: run id, "" when none has any; what it has, by what was wanted: el2n@5 counts as el2n
    """
    runs = _frame(_few(at, f"fetch_{kind}_runs"))
    best: tuple[str, dict[str, str]] = ("", {})
    for run_id, names in runs.groupby("run_id", sort=False)["name"]:
        found = {w: n for w in wanted for n in sorted(names, reverse=True) if re.sub(r"@\d+", "", n) == w}
        found |= {w: w for w in wanted if w in set(names)}
        if len(found) > len(best[1]):
            best = str(run_id), found
    return best


def figure_table(at: Snapshot, name: str, *given: Any) -> pd.DataFrame:
    """What one figure shows: the query of that name."""
    return _frame(_few(at, name, *given))


def windows(at: Snapshot) -> pd.DataFrame:
    """The points of every window experiment: run_id, score, offset (0..1), seed, accuracy."""
    return _frame(_few(at, "fetch_windows"))


def velocity(at: Snapshot, run_id: str, score: str) -> pd.DataFrame:
    """Kernel velocity by decile of a score, as `winnow velocity` has computed it; empty where it has not."""
    return paper.fetch_velocity(Workspace(Path(at.root)), run_id, score)


def _snapshot_of(run_id: str) -> Snapshot:
    return snapshot(Workspace.open(workspace_root()).read_record(run_id).dataset)


# Samples ------------------------------------------------------------------------------------------------------


def score(at: Snapshot, run_id: str, name: str) -> pd.DataFrame:
    return _frame(_many(at, "fetch_score", run_id, name))


def sample_map(at: Snapshot, run_id: str) -> pd.DataFrame:
    return _frame(_many(at, "fetch_map", run_id))


def labels(at: Snapshot) -> pd.DataFrame:
    return _frame(_many(at, "fetch_labels"))


def metadata(at: Snapshot, what: Literal["names", "values", "samples"], *name: str) -> pd.DataFrame:
    return _frame(_many(at, f"fetch_metadata_{what}", *name))


def ids(at: Snapshot, run_id: str, wanted: Filter, sort: str = "", hardest_first: bool = True) -> Ids:
    found: Ids = _many(at, "fetch_ids", run_id, wanted, sort, hardest_first)
    return found


def facets(at: Snapshot, run_id: str, wanted: Filter) -> pd.DataFrame:
    return _frame(_few(at, "fetch_facets", run_id, wanted))


def cards(at: Snapshot, run_id: str, wanted: Sequence[int] | Ids, sort: str = "") -> pd.DataFrame:
    return _frame(_many(at, "fetch_cards", run_id, tuple(int(i) for i in wanted), sort))


def condition(at: Snapshot, run_id: str, wanted: Filter) -> str:
    return str(_few(at, "condition", run_id, wanted))


def export(at: Snapshot, run_id: str, where: str, split: str) -> pd.DataFrame:
    """The samples of a split that meet a condition, as `winnow export` writes them."""
    return _frame(_many(at, "fetch_selected", where, run_id, split))


def sample(at: Snapshot, sample_id: int) -> dict[str, Any] | None:
    found: dict[str, Any] | None = _few(at, "fetch_sample", sample_id)
    return found


def sample_scores(at: Snapshot, run_id: str, sample_id: int) -> pd.DataFrame:
    return _frame(_few(at, "fetch_sample_scores", run_id, sample_id))


def suspect(at: Snapshot, run_id: str, sample_id: int) -> pd.DataFrame:
    return _frame(_few(at, "fetch_suspect", run_id, sample_id))


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
