"""What relabeling reads of a published run: its networks' predictions, its features, its scores."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from engine.errors import NotFoundError, SpecError, StorageError, unknown_name
from engine.features.approximate import search_all
from engine.features.neighbors import checked_rows
from engine.features.stored import is_stored, load_stored
from engine.queries.connection import best_run, connected, latest_run, runs_of
from engine.spec import RelabelSpec, RunSpec, spec_from_json
from engine.store.attached import RESULTS, reading
from engine.store.progress import Progress
from engine.store.tensors import load_tensors
from engine.store.values import RESULTS_FILE
from engine.store.verified import checked_file
from engine.store.workspace import Workspace
from engine.training.recording import BLOCK_BYTES, read_trajectories

_REMOVED = "remove that run and compute it again"


def find_source(workspace: Workspace, dataset: str, method: str, run: str | None, score: str) -> tuple[str, str]:
    """The run that a method reads, "" where it reads none, and the score that debug reads.

    Args:   run: given by a person, None = the one to trust most that has what is read
    Raises: NotFoundError or SpecError when no run, or not the one given, has it
    """
    if method not in ("vote", "neighbors", "debug"):
        return "", ""
    with connected(workspace, dataset) as connection:
        if run and run not in runs_of(workspace, dataset):
            raise NotFoundError(
                f"run {run} is not a published run of dataset '{dataset}' as it is; winnow runs lists them"
            )
        if method == "debug":
            score = score or "aum"
            found = run or latest_run(connection, "scores", score)
            rows = connection.execute("SELECT DISTINCT score FROM scores WHERE run_id = coalesce(?, run_id)", [run])
            known = [str(name) for (name,) in rows.fetchall()]
            if score not in known:
                where = f"of run {run}" if run else f"winnow run {dataset} --scores {score} computes it"
                raise SpecError(unknown_name("score", score, known, where))
            return str(found), score
        found = run or best_run(connection) or latest_run(connection, "epochs") or ""
    if not found:
        raise NotFoundError(
            f"no run of '{dataset}' is there for the method {method} to read; winnow run {dataset} makes one"
        )
    if method == "vote":
        _dynamics_of(workspace, found)
    else:
        _features_of(workspace, dataset, found)
    return found, ""


def votes_of(workspace: Workspace, spec: RelabelSpec, classes: int, progress: Progress) -> Tensor:
    """(N, C) share of the predictions of a run's networks, over seeds and epochs, that are each class."""
    with reading(_dynamics_of(workspace, spec.source), RESULTS, _REMOVED) as results:
        shape = results.execute(
            "SELECT count(DISTINCT sample_id), count(DISTINCT seed), any_value(len(predicted)) FROM trajectories"
        ).fetchall()[0]
        n, seeds, epochs = (int(size) for size in shape)
        votes = torch.zeros(n, classes)
        step = max(1, BLOCK_BYTES // (8 * seeds * epochs))
        for start in range(0, n, step):
            stop = min(start + step, n)
            predicted = read_trajectories(results, "trajectories", ["predicted"], start, stop)["predicted"].long()
            flat = predicted.reshape(-1, stop - start).T
            votes[start:stop].scatter_add_(1, flat, torch.ones(flat.shape))
            progress.step(stop, n)
    return votes / (seeds * epochs)


def _dynamics_of(workspace: Workspace, run: str) -> Path:
    """The results file that holds the dynamics of a run: its own, or those of the run that it reads."""
    dataset = str(workspace.read_spec(run)["spec"]["dataset"])
    with connected(workspace, dataset) as connection:
        rows = connection.execute(
            "SELECT run_id FROM runs WHERE run_id = (SELECT dynamics_run FROM runs WHERE run_id = ?) "
            "AND run_id IN (SELECT run_id FROM epochs)",
            [run],
        ).fetchall()
    if not rows:
        raise SpecError(f"run {run} has recorded no predictions; give --run one that trained networks (winnow runs)")
    return checked_file(workspace.published_dir(str(rows[0][0])), RESULTS_FILE)


def neighbors_of(workspace: Workspace, spec: RelabelSpec, progress: Progress) -> Tensor:
    """(N, K) the nearest other samples by the features of a run."""
    features = _features_of(workspace, spec.dataset, spec.source)
    return search_all(checked_rows(features, spec.neighbors), spec.neighbors, progress.step)[0]


def _features_of(workspace: Workspace, dataset: str, run: str) -> Tensor:
    """(N, D) of the training samples: those that a run reads, else those of its first network."""
    found = spec_from_json(workspace.read_spec(run)["spec"])
    if isinstance(found, RunSpec) and found.features_hash and is_stored(workspace, dataset, found.features_hash):
        return load_stored(workspace, dataset, found.features_hash, "train")
    with connected(workspace, dataset) as connection:
        row = connection.execute("SELECT dynamics_run FROM runs WHERE run_id = ?", [run]).fetchone()
    folder = workspace.published_dir(str(row[0])) if row and row[0] else None
    try:
        tensors = load_tensors(checked_file(folder, "features.safetensors")) if folder else None
    except StorageError as error:
        if folder and (folder / "features.safetensors").exists():
            raise StorageError(f"{error}; {_REMOVED}") from error
        tensors = None
    if tensors is None:
        raise SpecError(f"run {run} has no features; give --run one that has neighbors (winnow runs)")
    return torch.from_numpy(tensors[0]["features"])


def find_suspects(workspace: Workspace, spec: RelabelSpec, n: int) -> Tensor:
    """Positions of the hardest samples by a score, ascending: the share of the spec."""
    with connected(workspace, spec.dataset, [spec.source]) as connection:
        rows = connection.execute(
            "SELECT sample_id FROM scores WHERE score = ? AND rank >= ? ORDER BY sample_id",
            [spec.score, n - max(1, round(spec.share * n))],
        ).fetchnumpy()
    return torch.from_numpy(rows["sample_id"].astype("int64"))
