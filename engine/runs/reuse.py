"""Networks that were trained before: those of a whole published run, or single seeds of published and unfinished ones.

A seed's network depends on its training, its seed and nothing else, so a run with more seeds trains only the new ones,
and the finished seeds of an interrupted run serve any other run with the same training.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from engine.errors import StorageError, WinnowError
from engine.runs.inputs import required_epochs
from engine.scores.registry import Score
from engine.spec import RunSpec, TrainingSpec, network_key
from engine.store.attached import RESULTS, reading
from engine.store.tensors import load_tensors, save_tensors
from engine.store.values import RESULTS_FILE
from engine.store.verified import checked_file
from engine.store.workspace import Workspace
from engine.training.columns import recorded_columns
from engine.training.kept import weights_file
from engine.training.recording import Spill
from engine.training.tasks import Task, checkpoint_path, spill_of, weights_path

ROWS = 4096
"""Samples whose trajectories are read at a time."""


@dataclass(frozen=True)
class Trained:
    """A run that trained networks of its own, and where it keeps them. published: whether it is finished."""

    run_id: str
    spec: RunSpec
    training: TrainingSpec
    folder: Path
    published: bool


def find_trained(
    workspace: Workspace, fingerprint: str, training: TrainingSpec, scores: Sequence[Score] = ()
) -> Trained | None:
    """A published run with its own dynamics from the same data, training and seeds, or None.

    It must have kept the weights that the scores read.
    """
    files = {weights_file(epoch, training.epochs) for epoch in required_epochs(scores, training)}
    for found in _trained_alike(workspace, fingerprint, training):
        same = (found.training.seeds, found.training.logit_seeds) == (training.seeds, training.logit_seeds)
        if found.published and same and _is_whole(found.folder, (RESULTS_FILE, *files)):
            return found
    return None


def find_threshold_run(workspace: Workspace, spec: RunSpec) -> Trained | None:
    """A published run that has judged the same threshold samples by networks of the same training, or None."""
    assert spec.training is not None
    for found in _trained_alike(workspace, spec.fingerprint, spec.training):
        same = (found.spec.threshold_rounds, found.spec.seed) == (spec.threshold_rounds, spec.seed)
        if found.published and same and _is_whole(found.folder, (RESULTS_FILE,)):
            return found
    return None


def adopt_networks(workspace: Workspace, folder: Path, spec: RunSpec, tasks: Sequence[Task]) -> list[str]:
    """Take over networks of other runs, as if they had been trained here.

    Args:    folder: of the run that is computed; tasks: its networks
    Returns: the names of the tasks that are finished by it
    """
    assert spec.training is not None
    (folder / "partial").mkdir(exist_ok=True)
    others = [found for found in _trained_alike(workspace, spec.fingerprint, spec.training) if found.folder != folder]
    adopted = []
    for task in tasks:
        if weights_path(folder, task).exists() or checkpoint_path(folder, task).exists():
            continue  # this run has begun it
        for found in others:
            rounds = (found.spec.threshold_rounds, found.spec.seed) == (spec.threshold_rounds, spec.seed)
            if not task.test and (found.published or not rounds):
                continue
            with contextlib.suppress(WinnowError, OSError, duckdb.Error):  # then it is trained here
                if _adopt(found, folder, task):
                    adopted.append(task.name)
                    break
    return adopted


def _trained_alike(workspace: Workspace, fingerprint: str, training: TrainingSpec) -> list[Trained]:
    """The runs that trained networks of the same training on the same data, the published ones first."""
    key = network_key(fingerprint, training)
    alike = []
    for record, spec in workspace.known_runs():
        if record.trains and isinstance(spec, RunSpec) and spec.training:
            if network_key(spec.fingerprint, spec.training) == key:
                published = workspace.is_published(record.run_id)
                folder = workspace.published_dir(record.run_id) if published else workspace.run_dir(record.run_id)
                alike.append(Trained(record.run_id, spec, spec.training, folder, published))
    return sorted(alike, key=lambda found: not found.published)


def _is_whole(folder: Path, names: Iterable[str]) -> bool:
    """Whether a published folder holds these files as they were published; where not, they are computed anew."""
    try:
        for name in names:
            checked_file(folder, name)
    except StorageError:
        return False
    return True


def _adopt(found: Trained, folder: Path, task: Task) -> bool:
    """Take one network over, its final weights last: their presence means that it is finished."""
    if task.test and (
        task.seed >= found.training.seeds or task.keep_logits != (task.seed < found.training.logit_seeds)
    ):
        return False
    mine = spill_of(folder, task)
    if not found.published:
        theirs = spill_of(found.folder, task)
        kept = [weights_path(found.folder, task, epoch) for epoch in task.keep_epochs]
        final = weights_path(found.folder, task)
        if not final.exists() or theirs.epochs() != task.training.epochs or not all(path.exists() for path in kept):
            return False
        for path in (theirs.path, *kept, final):
            _link(path, mine.path.with_name(path.name))
        return True
    weights = {}
    for epoch in (*task.keep_epochs, task.training.epochs):
        stored = load_tensors(checked_file(found.folder, weights_file(epoch, task.training.epochs)), f"{task.name}.")
        if not stored or not stored[0]:
            return False
        weights[epoch] = {name.removeprefix(f"{task.name}."): values for name, values in stored[0].items()}
    with reading(checked_file(found.folder, RESULTS_FILE), RESULTS) as connection:
        rows = _epoch_rows(connection, task.seed)
        if len(rows) != task.training.epochs or not _write_spill(connection, mine, task):
            return False
    for epoch in task.keep_epochs:
        save_tensors(weights_path(folder, task, epoch), weights[epoch], {})
    save_tensors(weights_path(folder, task), weights[task.training.epochs], {"rows": rows})
    return True


def _link(source: Path, target: Path) -> None:
    """The same finished file under another name, without a copy where the disk allows it."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _epoch_rows(connection: duckdb.DuckDBPyConnection, seed: int) -> list[dict[str, Any]]:
    names = ("seed", "epoch", "train_loss", "train_accuracy", "test_accuracy", "lr", "seconds")
    rows = connection.execute(f"SELECT {', '.join(names)} FROM epochs WHERE seed = ? ORDER BY epoch", [seed]).fetchall()
    return [dict(zip(names, row, strict=True)) for row in rows]


def _write_spill(connection: duckdb.DuckDBPyConnection, spill: Spill, task: Task) -> bool:
    """The recorded dynamics of a published seed as the file that training would have left; False where it lacks some."""
    there = {row[0] for row in connection.execute("SELECT column_name FROM (DESCRIBE trajectories)").fetchall()}
    names = list(recorded_columns())
    if not set(names) <= there:
        return False
    epochs, n = task.training.epochs, spill.samples
    with open(spill.path, "wb") as file:
        file.truncate(epochs * spill.epoch_bytes)
    columns, quoted = spill.columns(writable=True), ", ".join(f'"{name}"' for name in names)
    logits = spill.logits(writable=True) if spill.keep_logits else None
    for start in range(0, n, ROWS):
        stop = min(start + ROWS, n)
        where = f"WHERE seed = {task.seed} AND sample_id BETWEEN {start} AND {stop - 1} ORDER BY sample_id"
        block = connection.sql(f"SELECT {quoted} FROM trajectories {where}").to_arrow_table()
        if block.num_rows != stop - start:
            raise StorageError(f"seed {task.seed} lacks samples between {start} and {stop - 1}")
        for name in names:
            columns[name][:, start:stop] = _rows(block.column(name), stop - start).T
        if logits is not None:
            block = connection.sql(f"SELECT logits FROM logit_trajectories {where}").to_arrow_table()
            if block.num_rows != stop - start:
                return False
            values = _rows(block.column("logits"), stop - start).reshape(stop - start, epochs, -1)
            logits[:, start:stop] = values.transpose(1, 0, 2)
    return True


def _rows(column: Any, n: int) -> np.ndarray[Any, Any]:
    """A column of arrays of one length as (n, length)."""
    flat: np.ndarray[Any, Any] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(n, -1)
