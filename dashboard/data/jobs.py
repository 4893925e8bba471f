"""What is being computed, and the commands that pages start."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

from dashboard.data.core import datasets, require_writable, workspace_root
from engine.queries import proofs, pruned
from engine.store.documents import number
from engine.store.jobs import Job, Started, cancel, discard, fetch_jobs, seconds_spent, start_job
from engine.store.journal import read_journal
from engine.store.workspace import Workspace

SCORED = ("run", "recorded")
"""The kinds of runs that score samples; psi-curves and proofs train networks on parts of a set and score none."""


def jobs(dataset: str | None = None) -> list[Job]:
    """All runs with their state, the latest first; not cached."""
    return fetch_jobs(Workspace.open(workspace_root()), dataset)


def latest_dataset() -> str:
    """The dataset with the newest published scores, else the first by name."""
    newest = [job.dataset for job in jobs() if job.state == "done" and job.kind in SCORED]
    names = datasets()
    return next((name for name in newest if name in names), names[0])


def dataset_of(given: str) -> str:
    """The dataset of a published run, by its id or the first digits of it; "" where there is no such run."""
    found = [job.dataset for job in jobs() if given and job.state == "done" and job.run_id.startswith(given)]
    return found[0] if found and found[0] in datasets() else ""


def start(words: Sequence[str]) -> Started:
    """Start a command of the command line on this workspace; it goes on when the dashboard ends."""
    require_writable()
    return start_job(Workspace.open(workspace_root()), words)


def estimate(words: Sequence[str]) -> Started:
    """Start to find out how long a command with `--estimate` will take; `estimated` says it."""
    return start([*words, "--estimate", "--json"])


def estimated(started: Started) -> float | None:
    """The seconds that `estimate` has found out; None while it has not, or when it could not."""
    if started.running:
        return None
    with contextlib.suppress(FileNotFoundError):  # it may be deleted, as old
        for line in reversed(started.output.read_text(errors="replace").splitlines()):
            if line.startswith("{"):
                with contextlib.suppress(ValueError):
                    found = json.loads(line)
                    seconds = number(found.get("seconds"), -1.0)
                    return seconds if seconds >= 0 else None
    return None


def started_run(started: Started) -> str | None:
    """The run that a started command computes, as soon as there is one."""
    return started.run_id(Workspace.open(workspace_root()))


def pause(run_id: str) -> None:
    """Stop a run; its finished work is kept."""
    require_writable()
    cancel(Workspace.open(workspace_root()), run_id)


def remove(run_id: str) -> None:
    """Stop a run and delete it."""
    require_writable()
    discard(Workspace.open(workspace_root()), run_id)


def throughput(run_id: str) -> tuple[int, float]:
    """Of a curve, a proof or a relabeling that is being computed: the networks that are done, and how many a minute."""
    workspace = Workspace.open(workspace_root())
    kind = workspace.read_record(run_id).kind
    if kind == "prove":
        done = proofs.fetch_proof_journal(workspace, run_id)["seed"].size
    elif kind == "relabel":
        events = read_journal(workspace.run_dir(run_id))
        done = len({str(event.get("unit")) for event in events if event["event"] == "relabeled"})
    else:
        points = pruned.fetch_psi_journal(workspace, run_id)
        done = len(points[points["pruned"] > 0]) + points[points["pruned"] == 0]["seed"].nunique()
    return done, 60 * done / max(1e-9, seconds_spent(workspace.run_dir(run_id)))
