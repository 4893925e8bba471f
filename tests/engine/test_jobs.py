"""Runs as processes of their own: started from here, they answer to their folder and to nobody's terminal."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from engine.queries.pruned import fetch_psi_journal
from engine.store.jobs import Started, cancel, discard, fetch_job, start_job
from engine.store.workspace import Workspace

ROOT = Path(__file__).parents[2]
LONG = ("psi", "small", "--orders", "random,oracle", "--points", "20", "--seeds", "4", "--epochs", "40")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's process finds the packages under test wherever it is started from."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


def until(condition: object, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def run_of(started: Started, workspace: Workspace) -> str:
    until(lambda: started.run_id(workspace) or not started.running)
    run_id = started.run_id(workspace)
    assert run_id, started.message()
    return run_id


def test_a_started_job_is_a_session_of_its_own_and_can_be_stopped_and_deleted(small_workspace: Workspace) -> None:
    started = start_job(small_workspace, LONG)
    try:
        assert os.getsid(started.process.pid) == started.process.pid != os.getsid(0)
        run_id = run_of(started, small_workspace)
        until(lambda: len(fetch_psi_journal(small_workspace, run_id)))
        cancel(small_workspace, run_id)
        until(lambda: not started.running)
        assert fetch_job(small_workspace, run_id).state == "cancelled"
        assert started.message() == ""  # nothing went wrong
        again = start_job(small_workspace, ["resume", run_id])
        until(lambda: fetch_job(small_workspace, run_id).state == "running")
        discard(small_workspace, run_id)
        assert small_workspace.run_ids() == []
        until(lambda: not again.running)
    finally:
        started.process.kill()


def test_what_cannot_start_says_why_in_one_line(small_workspace: Workspace) -> None:
    started = start_job(small_workspace, ["psi", "small", "--orders", "oracel"])
    until(lambda: not started.running)
    assert started.run_id(small_workspace) is None
    assert "oracel" in started.message() and not started.message().startswith("winnow:")
    assert "Traceback" not in started.output.read_text()


def test_only_the_latest_outputs_are_kept(small_workspace: Workspace) -> None:
    folder = small_workspace.root / "jobs"
    folder.mkdir()
    for i in range(25):
        (folder / f"2020-{i:02}.log").touch()
    started = start_job(small_workspace, ["scores", "--no-such-option"])
    until(lambda: not started.running)
    assert len(list(folder.iterdir())) == 20
    assert started.output.exists() and not (folder / "2020-05.log").exists()
