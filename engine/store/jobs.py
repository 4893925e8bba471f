"""Runs as processes: starting them, who computes what, how far it is, and stopping them. No torch.

A run's folder holds its whole state: a lock that the system holds for the process that computes it, a journal that
grows, and a file `cancel` that requests a stop. So any process, on this machine or on one that shares the disk,
can look or stop it, and a killed process leaves nothing that looks alive.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from engine.errors import BusyError, Cancelled, NotFoundError, SpecError, StorageError, WinnowError
from engine.spec import spec_from_json
from engine.store.atomic import remove_path, storage_errors
from engine.store.decision_file import carry_over
from engine.store.documents import NO_LINK, number
from engine.store.journal import append_journal, read_journal
from engine.store.records import RunRecord
from engine.store.workspace import Workspace, exclusive, is_locked

State = Literal["running", "done", "failed", "cancelled", "interrupted", "unreadable"]

ONLY_TRUSTED = "WINNOW_ONLY_TRUSTED"
"""Set for the commands that a page starts: what they name comes from specs, and nobody typed it."""

_TAIL_BYTES = 1 << 14
_KEPT_OUTPUTS = 20


@dataclass(frozen=True)
class Job:
    """One run as it stands. fraction 0..1; times in seconds since the epoch.

    message: why it failed, or what is wrong with a run that this version cannot read, or not resume; else "".
    """

    run_id: str
    kind: str
    dataset: str
    title: str
    state: State
    stage: str
    fraction: float
    seconds_left: float | None
    message: str
    started_at: float
    updated_at: float


def fetch_job(workspace: Workspace, run_id: str) -> Job:
    """How far a run is. One that is broken, or of other data than its dataset, is `unreadable`, with the reason as its message."""
    try:
        return _job(workspace, workspace.read_record(run_id))
    except StorageError as error:
        return Job(run_id, "", "", "", "unreadable", "", 0.0, None, str(error), 0.0, 0.0)


def _job(workspace: Workspace, record: RunRecord) -> Job:
    run_id = record.run_id
    folder = workspace.run_dir(run_id)
    journal = read_journal(folder, _TAIL_BYTES)
    last = journal[-1] if journal else {}
    progress: dict[str, Any] = next((e for e in reversed(journal) if e["event"] in ("progress", "stage")), {})
    state: State
    message = ""
    if workspace.is_published(run_id):
        message = workspace.outdated(record)
        state = "unreadable" if message else "done"
        message = message or _spec_problem(record)  # which results that can be read may have all the same
    elif is_locked(folder / "lock"):
        state = "running"
    elif last.get("event") in ("failed", "cancelled"):
        state = last["event"]
        message = str(last.get("message", "")) if state == "failed" else ""
    else:
        message = _spec_problem(record)
        state = "unreadable" if message else "interrupted"
    fraction = next((number(e["fraction"]) for e in reversed(journal) if "fraction" in e), 0.0)
    seconds_left = number(progress.get("seconds_left"), -1)
    return Job(
        run_id=run_id,
        kind=record.kind,
        dataset=record.dataset,
        title=record.title,
        state=state,
        stage=str(progress.get("stage", "")),
        fraction=1.0 if state == "done" else min(1.0, max(0.0, fraction)),
        seconds_left=seconds_left if state == "running" and seconds_left >= 0 else None,
        message=message,
        started_at=record.started_at,
        updated_at=number(last.get("at")),
    )


def _spec_problem(record: RunRecord) -> str:
    """Why this version cannot use the options of a run (to resume it, or to find it again); "" when it can."""
    try:
        spec_from_json(record.spec)
    except WinnowError as error:
        return str(error)
    return ""


def fetch_jobs(workspace: Workspace, dataset: str | None = None) -> list[Job]:
    """All runs, or those of one dataset, the latest first; broken ones are last, and of no dataset."""
    jobs = [fetch_job(workspace, run_id) for run_id in workspace.run_ids()]
    jobs = [
        job for job in jobs if job.state != "unreadable" or workspace.run_dir(job.run_id).exists()
    ]  # removed just now
    chosen = [job for job in jobs if dataset is None or job.dataset == dataset]
    return sorted(chosen, key=lambda job: job.started_at, reverse=True)


def cancel(workspace: Workspace, run_id: str) -> None:
    """Request a running run to stop; it keeps what it has done. SpecError when it is not running."""
    job = fetch_job(workspace, run_id)
    if job.state != "running":
        raise SpecError(f"run {run_id} is {job.state}, not running; winnow runs lists them")
    path = workspace.run_dir(run_id) / "cancel"
    with storage_errors("the request to stop", path.parent):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o644))


def discard(workspace: Workspace, run_id: str, patience_seconds: float = 20.0) -> None:
    """Stop a run if it is running, and delete it with all it has done. BusyError when it does not stop."""
    with contextlib.suppress(SpecError):  # it may have ended by itself
        cancel(workspace, run_id)
    deadline = time.monotonic() + patience_seconds
    while is_locked(workspace.run_dir(run_id) / "lock") and time.monotonic() < deadline:
        time.sleep(0.1)
    workspace.remove_run(run_id)


def discard_dataset(workspace: Workspace, name: str) -> list[str]:
    """Delete a dataset with all its runs; what was decided about its images is kept for another ingest of them.

    Returns: the ids of the runs
    Raises:  NotFoundError for an unknown dataset; BusyError while one of its runs is being computed
    """
    workspace.require_dataset(name)
    carry_over(workspace)
    found = [job.run_id for job in fetch_jobs(workspace, name)]
    for run_id in found:
        with contextlib.suppress(NotFoundError):  # another process is at the same
            workspace.remove_run(run_id)
    workspace.remove_dataset(name)
    return found


@dataclass(frozen=True)
class Started:
    """A command that runs as its own process, as the process that started it sees it."""

    process: subprocess.Popen[bytes]
    output: Path
    words: tuple[str, ...]

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def run_id(self, workspace: Workspace) -> str | None:
        """The run it computes, as soon as there is one."""
        for run_id in workspace.run_ids():
            journal = read_journal(workspace.run_dir(run_id))
            if any(e["event"] == "started" and e.get("pid") == self.process.pid for e in journal):
                return run_id
        return None

    def message(self) -> str:
        """Why it ended without a result: the last line it wrote; "" when it ended well or was stopped."""
        if self.process.poll() in (None, 0, 130):
            return ""
        text = ""
        with contextlib.suppress(FileNotFoundError):  # it may be deleted, as old: clocks are set back
            text = self.output.read_text(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1].removeprefix("winnow: ") if lines else f"it ended with code {self.process.returncode}"


def start_job(workspace: Workspace, words: Sequence[str]) -> Started:
    """Start `winnow WORDS` on a workspace as a process that outlives this one and its terminal.

    Its output goes to jobs/ in the workspace, of which the latest files are kept.
    """
    folder = workspace.root / "jobs"
    with storage_errors("the output of a job", folder):
        folder.mkdir(exist_ok=True)
        for old in sorted(folder.glob("*.log"))[: 1 - _KEPT_OUTPUTS]:
            old.unlink(missing_ok=True)
        output = folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}.log"
        root = str(workspace.root.resolve())
        with open(output, "wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "engine.cli", *words, "--workspace", root],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, ONLY_TRUSTED: "1"},
            )
    # Somebody must wait for a child that ends, or the system keeps its entry for as long as this process lives.
    threading.Thread(target=process.wait, daemon=True).start()
    return Started(process, output, tuple(words))


def seconds_spent(folder: Path) -> float:
    """Time all attempts at a run have taken so far, from its journal; a clock that was set back takes nothing away."""
    spent, started, last = 0.0, None, 0.0
    for event in read_journal(folder):
        if event["event"] == "started":
            spent += max(0.0, last - started) if started is not None else 0.0
            started = event["at"]
        last = event["at"]
    return spent + (max(0.0, time.time() - started) if started is not None else 0.0)


@contextlib.contextmanager
def computing(
    workspace: Workspace,
    run_id: str,
    spec: dict[str, Any],
    title: str,
    environment: dict[str, Any],
    trains: str | None = None,
) -> Iterator[Path]:
    """Be the one process that computes a run: holds its lock, and journals how it started and ended.

    trains: the key of the training the run does itself, by which others find it.

    Yields:  the run's folder
    Raises:  BusyError when another process computes the same run, or has computed it since the caller looked
    """
    content = {
        "spec": spec,
        "title": title,
        "environment": environment,
        "trains": trains,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "started_at": time.time(),
    }
    folder = workspace.start_run(run_id, content)
    with exclusive(folder / "lock", f"run {run_id} is being computed by another process (winnow status {run_id})"):
        if workspace.is_published(run_id):
            raise BusyError(f"run {run_id} was computed by another process just now; run the same command again")
        remove_path(folder / "cancel")
        workspace.start_run(run_id, content)  # again: until it was locked, another process could remove it
        append_journal(folder, "started", pid=os.getpid(), host=socket.gethostname())
        try:
            yield folder
        except (Cancelled, KeyboardInterrupt):
            append_journal(folder, "cancelled")
            raise
        except BaseException as error:
            message = str(error) if isinstance(error, WinnowError) else f"{type(error).__name__}: {error}"
            # The journal's own disk may be the one that is full: the error that matters is the first one.
            with contextlib.suppress(WinnowError, OSError):
                append_journal(folder, "failed", message=message)
            raise
        append_journal(folder, "published")
