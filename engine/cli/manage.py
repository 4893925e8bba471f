"""Commands that watch, stop and remove runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from engine.cli.arguments import Json, Root, RunId, report
from engine.cli.console import duration, print_json, print_table, say
from engine.store.workspace import Workspace

app = typer.Typer()


@app.command()
def runs(
    dataset: Annotated[str | None, typer.Option(help="Only the runs of this dataset.")] = None,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """List all runs, the latest first."""
    from engine.store.jobs import fetch_jobs

    at = Workspace.open(workspace)
    if dataset:
        at.require_dataset(dataset)
    jobs = fetch_jobs(at, dataset)
    if json:
        return print_json({"runs": [asdict(job) for job in jobs]})
    if not jobs:
        return say("no runs yet; winnow run DATASET makes one")
    rows = [{**asdict(job), "done": f"{job.fraction:.0%}", "left": duration(job.seconds_left)} for job in jobs]
    print_table(rows, ["run_id", "dataset", "title", "state", "done", "left"])
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
        f"run {job.run_id} on {job.dataset}: {job.title}; {job.state}, {job.fraction:.0%} done{stage} {job.message}".rstrip()
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
