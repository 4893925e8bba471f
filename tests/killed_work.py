"""What the tests of kills start in processes of their own: forked from one that has imported everything, so that a
kill costs milliseconds and hits the work, not the imports."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from datetime import datetime, tzinfo
from pathlib import Path

from engine.data.exporting import export_set
from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import NotFoundError, SpecError, WinnowError
from engine.queries.connection import connected
from engine.queries.versions import create_version
from engine.queries.writers import Choice, export, find_writer
from engine.runs import results
from engine.runs.compute import compute
from engine.runs.options import plan_prove_from, plan_relabel_from
from engine.runs.planning import plan_run
from engine.runs.psi import plan_psi
from engine.spec import TrainingSpec
from engine.store import decisions, jobs
from engine.store.clean import find_leftovers, remove_leftovers
from engine.store.decisions import decide, fetch_decisions_log, undo
from engine.store.jobs import discard_dataset, fetch_jobs
from engine.store.workspace import Workspace

DECISIONS = 10
STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"}
"""What Python reports (sys.addaudithook) of a process that changes something on the disk."""


def work(kind: str, root: Path, last_step: int = 0) -> None:
    """Do one kind of work on a workspace, and note in `steps` beside it how many steps on the disk that took.

    last_step: kill this process just before that step, counted from 1; 0 = never
    """
    steps = 0

    def count(event: str, given: tuple[object, ...]) -> None:
        nonlocal steps
        if event in STEPS and (event != "open" or (isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR))):
            steps += 1
            if steps == last_step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    WORK[kind](Workspace.open(root), root.parent / "confirmed")
    (root.parent / "steps").write_text(str(steps))


def attempt(kind: str, root: Path, out: Path, *given: int) -> None:
    """Do some work, and append to a file "ok" or the expected error that ended it, in one line."""
    workspace, said = Workspace.open(root), "ok"
    try:
        MANY[kind](workspace, *given) if kind in MANY else WORK[kind](workspace, root.parent / "confirmed")
    except WinnowError as error:
        said = f"{type(error).__name__}: {error}"
    with open(out, "ab", buffering=0) as file:
        file.write(f"{said}\n".encode())


def with_clock_set_back(kind: str, root: Path, out: Path) -> None:
    """`attempt`, by a clock that is an hour behind and runs backwards."""
    real, began = time.time, time.time()
    time.time = lambda: began - 3600 - 20 * (real() - began)

    class Backwards(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(time.time(), tz)

    for module in (decisions, jobs, results):
        module.datetime = Backwards  # type: ignore[attr-defined]
    attempt(kind, root, out)


def _decide_each(workspace: Workspace, first: int, count: int) -> None:
    for i in range(count):
        decide(workspace, "small", [first + i], "drop")


def _undo_often(workspace: Workspace, count: int) -> None:
    for _ in range(count):
        undo(workspace, "small")


def _read_often(workspace: Workspace, count: int) -> None:
    """What a page does, again and again."""
    for _ in range(count):
        fetch_jobs(workspace)
        fetch_decisions_log(workspace, "small")
        with connected(workspace, "small") as connection:
            for view in ("samples", "scores", "dynamics", "decisions"):
                connection.execute(f"SELECT * FROM {view}").fetchall()


MANY = {"decide each": _decide_each, "undo often": _undo_often, "read often": _read_often}


def _ingest(workspace: Workspace, confirmed: Path) -> None:
    ingest(workspace, IngestSpec(name="new", source="digits", limit=150, noise="symmetric:0.2"))


def _run(workspace: Workspace, confirmed: Path) -> None:
    training = TrainingSpec(model="mlp", epochs=4, seeds=2, batch_size=64)
    compute(workspace, plan_run(workspace, "small", ["el2n@2", "confident_learning"], training), "cpu")


def _psi(workspace: Workspace, confirmed: Path) -> None:
    plan = plan_psi(workspace, "small", ["random", "aum"], points=3, seeds=2, epochs=2)
    compute(workspace, plan, "cpu")


def _prove(workspace: Workspace, confirmed: Path) -> None:
    spec, curated = plan_prove_from(workspace, "small", {"where": "sample_id > 50", "seeds": 2, "epochs": 2})
    compute(workspace, spec, "cpu", curated=curated)


def _relabel(workspace: Workspace, confirmed: Path) -> None:
    options = {"learner": "cross-entropy", "keep": "0.5", "epochs": 2, "nli_epochs": 1, "neighbors": 5}
    compute(workspace, plan_relabel_from(workspace, "small", "rop", options), "cpu")


def _export(workspace: Workspace, confirmed: Path) -> None:
    for name in ("kept.csv", "kept.parquet", "kept.npy"):
        export(workspace, "small", "aum > 0", workspace.root.parent / name)
    folder = workspace.root.parent / "kept-images"
    if not folder.exists():  # it is whole
        export_set(workspace, "small", Choice("aum > 0"), folder, find_writer("imagefolder"))


def _decide(workspace: Workspace, confirmed: Path) -> None:
    """Decisions about samples 0, 1, ...; every fourth is taken back and made again. Each is confirmed when it is done."""
    with open(confirmed, "ab", buffering=0) as file:
        for i in range(DECISIONS):
            decide(workspace, "small", [i], "drop", note=str(os.getpid()))
            if i % 4 == 3:
                undo(workspace, "small")
                decide(workspace, "small", [i], "keep", note=str(os.getpid()))
            file.write(f"{i}\n".encode())


def _name_versions(workspace: Workspace, confirmed: Path) -> None:
    for name in ("a", "b", "c"):
        with contextlib.suppress(SpecError):  # it is there already
            create_version(workspace, "small", name, drop=[f"label = {ord(name) - ord('a')}"])


def _remove(workspace: Workspace, confirmed: Path) -> None:
    for job in fetch_jobs(workspace, "small"):
        workspace.remove_run(job.run_id)
    with contextlib.suppress(NotFoundError):  # as a person would try who was interrupted
        workspace.remove_run("gone")


def _remove_dataset(workspace: Workspace, confirmed: Path) -> None:
    if "small" in workspace.datasets():
        discard_dataset(workspace, "small")


def _clean(workspace: Workspace, confirmed: Path) -> None:
    remove_leftovers(workspace, [leftover.path for leftover in find_leftovers(workspace).leftovers])


WORK = {
    "ingest": _ingest,
    "run": _run,
    "psi": _psi,
    "prove": _prove,
    "relabel": _relabel,
    "export": _export,
    "decide": _decide,
    "versions": _name_versions,
    "remove": _remove,
    "remove dataset": _remove_dataset,
    "clean": _clean,
}
