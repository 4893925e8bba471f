"""Several people and processes at one workspace at once, and clocks that are set back meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import duckdb
import pytest
from forking import forking
from killed_work import attempt, with_clock_set_back

from engine.queries.connection import connected
from engine.store.decisions import fetch_decisions_log, undo
from engine.store.jobs import fetch_job, fetch_jobs, seconds_spent
from engine.store.journal import append_journal
from engine.store.workspace import Workspace

PATIENCE_SECONDS = 300


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    return forking()


def start(
    processes: ForkServerContext,
    kind: str,
    root: Path,
    out: Path,
    *given: int,
    target: Callable[..., None] = attempt,
) -> BaseProcess:
    process = processes.Process(target=target, args=(kind, root, out, *given))
    process.start()
    return process


def ends(started: list[BaseProcess]) -> None:
    for process in started:
        process.join(PATIENCE_SECONDS)
        assert process.exitcode == 0


def printed(out: Path) -> list[str]:
    return [line.split(": ")[0] for line in out.read_text().splitlines()]


def test_four_decide_one_takes_back_and_one_reads(
    processes: ForkServerContext, small_workspace: Workspace, tmp_path: Path
) -> None:
    root, each = small_workspace.root, 6
    people = [start(processes, "decide each", root, tmp_path / "out", first, each) for first in (0, 40, 80, 120)]
    people.append(start(processes, "undo often", root, tmp_path / "out", 4))
    people.append(start(processes, "read often", root, tmp_path / "out", 8))
    ends(people)
    assert (tmp_path / "out").read_text().splitlines() == ["ok"] * 6
    with duckdb.connect(str(root / "decisions.duckdb"), read_only=True) as connection:
        decided = connection.execute("SELECT sample_id FROM log WHERE action = 'drop' ORDER BY 1").fetchall()
        batches = connection.execute("SELECT batch FROM log").fetchall()
        undone = connection.execute("SELECT new_label FROM log WHERE action = 'undo'").fetchall()
    assert [i for (i,) in decided] == [first + i for first in (0, 40, 80, 120) for i in range(each)]  # each once
    assert len(set(batches)) == len(batches) and len(set(undone)) == len(undone) <= 4
    assert len(fetch_decisions_log(small_workspace, "small")) == 4 * each - len(undone)


def test_two_run_the_same_and_two_ingest_one_name(
    processes: ForkServerContext, small_workspace: Workspace, tmp_path: Path
) -> None:
    for kind in ("run", "ingest"):
        out = tmp_path / kind
        ends([start(processes, kind, small_workspace.root, out) for _ in range(3)])
        found = printed(out)
        assert set(found) <= {"ok", "BusyError"} and "ok" in found, out.read_text()
    (run,) = small_workspace.run_ids()
    assert fetch_job(small_workspace, run).state == "done" and small_workspace.datasets() == ["new", "small"]


def test_a_run_is_removed_by_two_while_it_is_computed_and_read(
    processes: ForkServerContext, scored_workspace: Workspace, tmp_path: Path
) -> None:
    root = scored_workspace.root
    before = set(scored_workspace.run_ids())
    computing = start(processes, "run", root, tmp_path / "computing")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (set(scored_workspace.run_ids()) - before) and time.monotonic() < deadline:
        time.sleep(0.005)
    readers = [start(processes, "read often", root, tmp_path / "reading", 10) for _ in range(2)]
    ends([start(processes, "remove", root, tmp_path / "removing") for _ in range(2)])
    ends([computing, *readers])
    assert printed(tmp_path / "reading") == ["ok", "ok"], (tmp_path / "reading").read_text()
    assert set(printed(tmp_path / "removing")) <= {"ok", "BusyError", "NotFoundError"}
    assert set(printed(tmp_path / "computing")) <= {"ok", "NotFoundError", "BusyError"}
    ends([start(processes, "remove", root, tmp_path / "again")])
    assert printed(tmp_path / "again") == ["ok"] and scored_workspace.run_ids() == []
    assert list((root / "runs").iterdir()) == []


@pytest.mark.parametrize(("by", "code", "state"), [("SIGINT", 130, "cancelled"), ("SIGTERM", -15, "interrupted")])
def test_a_run_that_is_sent_a_signal_can_be_resumed(small_workspace: Workspace, by: str, code: int, state: str) -> None:
    words = "run small --model mlp --scores aum --epochs 4000 --seeds 1 --threshold-rounds 0 --workspace".split()
    command = [sys.executable, "-m", "engine.cli", *words, str(small_workspace.root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not [job for job in fetch_jobs(small_workspace) if job.fraction > 0] and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(getattr(signal, by))
        assert process.stderr is not None
        lines = [line for line in process.stderr.read().splitlines() if line.strip()]
        assert process.wait(PATIENCE_SECONDS) == code
    (job,) = fetch_jobs(small_workspace)
    assert job.state == state
    assert "Traceback" not in "".join(lines) and any("winnow resume" in line for line in lines) == (by == "SIGINT")


# Clocks --------------------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_changes_no_order_and_takes_no_time_away(
    processes: ForkServerContext, scored_workspace: Workspace, tmp_path: Path
) -> None:
    (first,) = scored_workspace.run_ids()
    for kind in ("run", "decide"):
        ends([start(processes, kind, scored_workspace.root, tmp_path / "out", target=with_clock_set_back)])
    assert printed(tmp_path / "out") == ["ok", "ok"]
    (run,) = [run for run in scored_workspace.run_ids() if run != first]
    job = fetch_job(scored_workspace, run)
    assert job.state == "done" and job.started_at < time.time() - 1800
    with connected(scored_workspace, "small") as connection:
        rows = connection.execute("SELECT seconds FROM runs WHERE run_id = ?", [run]).fetchall()
        assert rows[0][0] >= 0 and connection.execute("FROM unreadable").fetchall() == []
    assert [found.run_id for found in fetch_jobs(scored_workspace)] == [first, run]  # as their clocks say
    for at in (time.time() + 1e6, 0.0, time.time()):  # an attempt in the future, and one long ago
        with open(scored_workspace.run_dir(first) / "journal.jsonl", "a") as file:
            file.write(json.dumps({"at": at, "event": "started"}) + "\n")
    append_journal(scored_workspace.run_dir(first), "progress", fraction=0.5, stage="x", seconds_left=-3.0)
    assert 0 <= seconds_spent(scored_workspace.run_dir(first)) < 1e5
    assert fetch_job(scored_workspace, first).seconds_left is None
    log = fetch_decisions_log(scored_workspace, "small")
    assert log["action"].tolist().count("keep") == 2  # the last word, whatever time it bears
    latest = undo(scored_workspace, "small")
    assert latest is not None and len(fetch_decisions_log(scored_workspace, "small")) == len(log) - 1
