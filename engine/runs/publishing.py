"""Publishing a run, written once: its lock and journal, its private folder, its results file, its one row."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import torch

from engine.runs.results import Results
from engine.spec import Spec, run_id, spec_kind, spec_to_json
from engine.store.jobs import computing, seconds_spent
from engine.store.workspace import Workspace
from engine.training.device import describe_environment

MEMORY_LIMIT = "1GB"


@dataclass
class Draft:
    """A run while it is computed.

    folder: the run's own, with what is kept for a resume; target: the private folder that will be published; results:
    the results file in it; notes: what a reader of the run should know; dynamics_run: the run whose dynamics it reads;
    seconds: its time, where that is not the time since it was started
    """

    folder: Path
    target: Path
    results: Results
    notes: list[str] = field(default_factory=list)
    dynamics_run: str | None = None
    seconds: float | None = None


def find_run(workspace: Workspace, spec: Spec) -> str:
    """The run id of a spec: that of the run in the workspace with the same content, else the one it will get.

    Runs of older versions have folders whose names were hashed otherwise, so their specs are compared.
    """
    wanted = run_id(spec)
    if (workspace.run_dir(wanted) / "spec.json").exists():
        return wanted
    same = (record.run_id for record, known in workspace.known_runs() if run_id(known) == wanted)
    return next(same, wanted)


@contextlib.contextmanager
def publishing(
    workspace: Workspace,
    wanted: str,
    spec: Spec,
    title: str,
    device: torch.device,
    *,
    trains: str | None = None,
    seed: int = 0,
) -> Iterator[Draft]:
    """Be the one process that computes a run, and publish it whole when the block ends well.

    Args:    wanted: the run's id, as `find_run` gives it; trains: the key of the networks that it trains, by which
             other runs find them; seed: of ties
    Raises:  BusyError when another process computes the same run; StorageError when the disk refuses
    """
    environment = describe_environment(device)
    with (
        computing(workspace, wanted, spec_to_json(spec), title, environment, trains) as folder,
        workspace.building_run(wanted) as target,
        duckdb.connect(str(target / "results.duckdb"), config={"memory_limit": MEMORY_LIMIT}) as connection,
        contextlib.closing(Results(connection, seed)) as results,
    ):
        draft = Draft(folder, target, results, dynamics_run=wanted if trains else None)
        yield draft
        draft.results.write_run(
            run_id=wanted,
            kind=spec_kind(spec),
            title=title,
            dataset=spec.dataset,
            fingerprint=spec.fingerprint,
            spec=json.dumps(spec_to_json(spec)),
            environment=json.dumps(environment),
            seconds=seconds_spent(folder) if draft.seconds is None else draft.seconds,
            training_key=trains,
            dynamics_run=draft.dynamics_run,
            notes=json.dumps(draft.notes),
        )
