"""SIGKILL at random moments of everything that writes: what was begun is finished by the same command, as if nothing
had happened; nothing is half there, nothing lost, nothing done twice, nothing left lying about."""

from __future__ import annotations

import random
import shutil
import time
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from forking import forking
from killed_work import DECISIONS, WORK, work

from engine.queries.connection import connected
from engine.queries.versions import reproduce
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec
from engine.store.decisions import fetch_decisions_log
from engine.store.jobs import fetch_jobs
from engine.store.verified import check_hash, read_manifest
from engine.store.versions import stored_versions
from engine.store.workspace import Workspace

PATIENCE_SECONDS = 300
NOT_OF_THE_WORK = (".lock", "lock", "confirmed", "steps")


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    return forking()


@pytest.fixture(scope="module")
def scored(small_original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small`, with the run of `aum` that curves and exports read, and what kills leave behind. Read only."""
    root = tmp_path_factory.mktemp("kills") / "workspace"
    shutil.copytree(small_original, root)
    workspace = Workspace.open(root)
    training = TrainingSpec(model="mlp", epochs=3, seeds=1, batch_size=64)
    compute(workspace, plan_run(workspace, "small", ["aum"], training), "cpu")
    for left in ("partial", ".publishing"):
        folder = workspace.run_dir(workspace.run_ids()[0]) / left
        folder.mkdir()
        for i in range(5):
            (folder / f"{i}.safetensors").write_bytes(bytes(1000))
    return root


def start(processes: ForkServerContext, kind: str, root: Path, last_step: int = 0) -> BaseProcess:
    process = processes.Process(target=work, args=(kind, root, last_step))
    process.start()
    return process


def finish(processes: ForkServerContext, kind: str, root: Path) -> float:
    """Do the work without a kill. Returns: its seconds"""
    began = time.monotonic()
    process = start(processes, kind, root)
    process.join(PATIENCE_SECONDS)
    assert process.exitcode == 0, f"{kind}: it ended with {process.exitcode}"
    return time.monotonic() - began


def everything_works(root: Path) -> None:
    """What every command relies on: all lists, views and decisions can be read, and what is published is whole."""
    workspace = Workspace.open(root)
    jobs = fetch_jobs(workspace)
    assert all(job.state in ("done", "interrupted") for job in jobs), jobs
    for run in workspace.published_runs():
        listed = read_manifest(workspace.published_dir(run))
        for name, about in listed.items():
            check_hash(workspace.published_dir(run) / name, about)
        assert {p.name for p in workspace.published_dir(run).iterdir()} == {*listed, "manifest.json"}
    for dataset in workspace.datasets():
        fetch_decisions_log(workspace, dataset)
        with connected(workspace, dataset) as connection:
            assert connection.execute("FROM unreadable").fetchall() == []
            for view in ("samples", "images", "scores", "dynamics", "psi", "proofs", "decisions", "flags", "neighbors"):
                connection.execute(f"SELECT count(*) FROM {view}").fetchall()
        for version in stored_versions(workspace, dataset):
            assert reproduce(workspace, version).same


def content(root: Path) -> dict[str, Any]:
    """All that a workspace says, but for times and for how it came about."""
    workspace, found = Workspace.open(root), {}
    found["runs"] = sorted((job.run_id, job.title, job.state) for job in fetch_jobs(workspace))
    for dataset in workspace.datasets():
        with connected(workspace, dataset) as connection:
            for view, left_out in {
                "samples": [],
                "images": [],
                "scores": [],
                "flags": [],
                "dynamics": [],
                "neighbors": [],
                "psi": ["seconds"],
                "proofs": ["seconds"],
                "relabelings": ["seconds", "select_seconds"],
                "suggestions": [],
                "decisions": ["decided_at", "note"],
            }.items():
                exclude = f"EXCLUDE ({', '.join(left_out)})" if left_out else ""
                rows = connection.execute(f"SELECT * {exclude} FROM {view} ORDER BY ALL").fetchall()
                found[f"{dataset} {view}"] = rows
        found[f"{dataset} versions"] = [(v.name, v.hash, dict(v.facts)) for v in stored_versions(workspace, dataset)]
    for path in sorted(root.parent.glob("kept.*")):
        found[path.name] = np.load(path).tolist() if path.suffix == ".npy" else duckdb.sql(f"FROM '{path}'").fetchall()
    return found


def names(root: Path) -> set[str]:
    """All files of a workspace and beside it, but for locks, which stay."""
    return {str(p.relative_to(root.parent)) for p in root.parent.rglob("*") if not p.name.endswith(NOT_OF_THE_WORK)}


def confirmed(root: Path) -> list[int]:
    path = root.parent / "confirmed"
    return [int(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def no_decision_is_lost(root: Path) -> None:
    """Each that was confirmed to be done stands, and none that was not begun does."""
    stands = {int(r.sample_id): r.action for r in fetch_decisions_log(Workspace.open(root), "small").itertuples()}
    done = confirmed(root)
    for i in set(done):
        assert stands[i] == ("keep" if i % 4 == 3 else "drop")
    assert len(set(stands) - set(done)) <= 1
    if not (root / "decisions.duckdb").exists():
        return
    with duckdb.connect(str(root / "decisions.duckdb"), read_only=True) as connection:
        rows = connection.execute("SELECT batch, count(*) FROM log GROUP BY batch HAVING count(*) > 1").fetchall()
    assert rows == []


@pytest.mark.parametrize("kills", [3, pytest.param(16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", WORK)
def test_kills(
    processes: ForkServerContext, scored: Path, tmp_path_factory: pytest.TempPathFactory, kind: str, kills: int
) -> None:
    """Every other kill is at a moment, every other one just before something is done on the disk."""

    def fresh() -> Path:
        return Path(shutil.copytree(scored, tmp_path_factory.mktemp("killed") / "workspace"))

    whole = fresh()
    seconds = finish(processes, kind, whole)
    steps = int((whole.parent / "steps").read_text())
    expected, expected_names = content(whole), names(whole)
    chance, root, killed, in_a_row = random.Random(f"{kind} {kills}"), fresh(), 0, 0
    for attempt in range(20 * kills):
        process = start(processes, kind, root, chance.randint(1, steps) if attempt % 2 else 0)
        process.join(PATIENCE_SECONDS if attempt % 2 else chance.uniform(0, seconds))
        process.kill()
        process.join()
        harmed = process.exitcode != 0
        killed, in_a_row = killed + harmed, in_a_row + 1
        everything_works(root)
        if kind == "decide":
            no_decision_is_lost(root)
        if in_a_row == 3 or not harmed or killed == kills:
            finish(processes, kind, root)
            everything_works(root)
            assert content(root) == expected
            assert names(root) == expected_names
            root, in_a_row = fresh(), 0
        if killed == kills:
            break
    assert killed == kills and (kind != "decide" or len(expected["small decisions"]) == DECISIONS)
