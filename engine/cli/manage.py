"""Commands that watch, stop and remove runs."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.arguments import Json, Root, RunId, report
from engine.cli.console import duration, messages, print_json, print_table, say
from engine.store.usage import Usage, measure, size
from engine.store.workspace import Workspace
from engine.text import percent

if TYPE_CHECKING:
    from engine.store.clean import Found

app = typer.Typer()


@app.command()
def runs(
    dataset: Annotated[str | None, typer.Option(help="Only the runs of this dataset.")] = None,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """List all runs, the latest first, with the bytes that each takes."""
    from engine.store.jobs import fetch_jobs

    at = Workspace.open(workspace)
    if dataset:
        at.require_dataset(dataset)
    jobs = fetch_jobs(at, dataset)
    taken = measure(at).runs
    if json:
        return print_json({"runs": [{**asdict(job), "bytes": taken.get(job.run_id, 0)} for job in jobs]})
    if not jobs:
        return say("no runs yet; winnow run DATASET makes one")
    rows = [
        {
            **asdict(job),
            "done": percent(job.fraction),
            "left": duration(job.seconds_left),
            "size": size(taken.get(job.run_id, 0)),
        }
        for job in jobs
    ]
    print_table(rows, ["run_id", "dataset", "title", "state", "done", "left", "size"])
    for job in jobs:
        if job.message:
            say(f"{job.run_id}: {job.message}")


@app.command()
def status(run: RunId, workspace: Root = None, json: Json = False) -> None:
    """Show the progress of a run."""
    from engine.store.jobs import fetch_job

    at = Workspace.open(workspace)
    job = fetch_job(at, at.require_run(run))
    if json:
        return print_json(asdict(job))
    left = f", {duration(job.seconds_left)} left" if job.seconds_left is not None else ""
    stage = f" ({job.stage}{left})" if job.state == "running" else ""
    say(
        f"run {job.run_id} on {job.dataset}: {job.title}; {job.state}, {percent(job.fraction)} done{stage} {job.message}".rstrip()
    )


@app.command()
def cancel(run: RunId, workspace: Root = None, json: Json = False) -> None:
    """Stop a running run. Its finished work is kept, and winnow resume continues it."""
    from engine.store.jobs import cancel

    at = Workspace.open(workspace)
    wanted = at.require_run(run)
    cancel(at, wanted)
    report(
        json, {"run_id": wanted, "state": "stopping"}, f"run {wanted} is stopping; winnow resume {wanted} continues it"
    )


@app.command()
def verify(
    name: Annotated[
        str | None, typer.Argument(help="A run's id, or a dataset (with its runs); else everything.")
    ] = None,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Read every published file whole, and check that it is what was published."""
    from engine.cli.console import progress_bar
    from engine.data.verifying import verify as read_all

    at = Workspace.open(workspace)
    with progress_bar("verify") as listen:
        found = read_all(at, name, lambda what, done, total: listen(what, min(1.0, done / max(1, total)), None))
    if json:
        print_json({"verified": [asdict(row) for row in found]})
    elif found:
        rows = [{**asdict(row), "state": "damaged" if row.problem else "whole"} for row in found]
        print_table(rows, ["kind", "name", "state", "files", "bytes"])
    else:
        say("nothing is published yet")
    damaged = [row.problem for row in found if row.problem]
    for problem in damaged:
        say(f"winnow: {problem}")
    if damaged:
        raise typer.Exit(2)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="A run's id, or a dataset (its runs go with it).")],
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Delete a run, or a dataset with all its runs."""
    from engine.store.jobs import discard_dataset

    at = Workspace.open(workspace)
    if name in at.datasets():
        found = discard_dataset(at, name)
        removed = {"dataset": name, "runs": found}
        return report(json, removed, f"removed dataset {name} and {len(found)} runs")
    run_id = at.require_run(name)
    at.remove_run(run_id)
    report(json, {"dataset": None, "runs": [run_id]}, f"removed run {run_id}")


@app.command()
def clean(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List it, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove it without asking.")] = False,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Remove what nothing reads any more: checkpoints of finished runs, features of images that are gone, leftovers.

    Datasets, decisions, detectors and what runs have published stay, their weights and features too, which later scores
    read; so do the checkpoints of a run that winnow resume can continue.
    """
    from engine.store.clean import find_leftovers, remove_leftovers

    at = Workspace.open(workspace)
    used, found = measure(at), find_leftovers(at)
    if not json:
        _describe_use(at, used, found)
    done = found
    if not dry_run and found.leftovers:
        ask = not (yes or json) and sys.stdin.isatty() and messages.is_terminal
        if ask and not typer.confirm(f"Remove {size(found.bytes)}?", err=True):
            say("nothing was removed")
            raise typer.Exit(1)
        done = remove_leftovers(at, {leftover.path for leftover in found.leftovers})
    left = {_within(at, path): why for path, why in sorted({**found.left, **done.left}.items())}
    if json:
        rows = [{**asdict(leftover), "path": _within(at, leftover.path)} for leftover in done.leftovers]
        return print_json({"dry_run": dry_run, "removed": rows, "left": left, "usage": asdict(used)})
    if done is not found:
        say(f"removed {size(done.bytes)}")
    for path, why in left.items():
        say(f"{path} stays: {why}")


def _describe_use(workspace: Workspace, used: Usage, found: Found) -> None:
    """What a workspace takes, and what of it nothing reads."""
    kinds = ", ".join(f"{kind} {size(count)}" for kind, count in used.kinds.items() if count)
    say(f"{workspace.root} takes {size(used.total)} ({kinds})")
    if found.resumable:
        runs = ", ".join(found.resumable)
        say(f"checkpoints of {size(sum(found.resumable.values()))} stay for winnow resume, of: {runs}")
    if not found.leftovers:
        return say("there is nothing to remove")
    rows = [
        {"path": _within(workspace, leftover.path), "size": size(leftover.bytes), "why": leftover.reason}
        for leftover in found.leftovers
    ]
    print_table(rows, ["path", "size", "why"])


def _within(workspace: Workspace, path: Path) -> str:
    return path.relative_to(workspace.root).as_posix()
