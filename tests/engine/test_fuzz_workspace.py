"""One file of a workspace damaged at a time: every command and page ends in a result or one line, and nothing crashes,
hangs or stops another dataset."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import Cancelled
from engine.features.stored import compute_stored
from engine.queries.connection import connected
from engine.runs.cluster import HERE
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.runs.psi import plan_psi
from engine.spec import TrainingSpec, run_id
from engine.store.decisions import decide, undo
from engine.store.jobs import cancel
from engine.store.progress import Unheard
from engine.store.workspace import Workspace

HANG_SECONDS = 100
PROGRAM = Path(__file__).parents[1] / "mutated_workspace.py"


@pytest.fixture(scope="module")
def workspace(small_original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Something of everything that a workspace holds, small: two datasets, scores, a curve, one run that was stopped,
    decisions and stored features."""
    import torch

    root = tmp_path_factory.mktemp("fuzz") / "workspace"
    shutil.copytree(small_original, root)
    made = Workspace.open(root)
    ingest(made, IngestSpec(name="other", source="digits", limit=60))
    training = TrainingSpec(model="mlp", epochs=2, seeds=1, batch_size=64)
    for name in ("small", "other"):
        compute(made, plan_run(made, name, ["aum", "el2n@1"], training), "cpu")
        decide(made, name, [1, 2], "drop", note="blurred")
    undo(made, "small")
    compute(made, plan_psi(made, "small", ["random", "aum"], points=2, seeds=1, epochs=1), "cpu")
    stopped = plan_psi(made, "small", ["random"], points=5, seeds=3, epochs=300)

    def stop(stage: str, fraction: float, left: float | None) -> None:
        cancel(made, run_id(stopped))

    with pytest.raises(Cancelled):
        compute(made, stopped, "cpu", stop)
    own = root.parent / "own.npy"
    with connected(made, "small") as connection:
        [(samples,)] = connection.execute("SELECT count(*) FROM samples").fetchall()
    np.save(own, np.random.default_rng(0).normal(size=(samples, 3)).astype(np.float32))
    compute_stored(made, "small", str(own), torch.device("cpu"), Unheard(), HERE)
    (root / "datasets" / "small.trial.json").write_text('{"version": 1, "model": "mlp", "epochs": 3}\n')
    return root


def damaged(workspace: Path, folder: Path, first: int, last: int) -> list[str]:
    """What went wrong with the damage of each seed from first to last - 1, in processes that may crash or hang."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROGRAM.parents[1]), *sys.path])}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache"), "XDG_CONFIG_HOME": str(folder / "config")}
    wrong: list[str] = []
    seed = first
    while seed < last:
        root = folder / f"from {seed}" / "workspace"
        shutil.copytree(workspace, root)
        command = [sys.executable, str(PROGRAM), str(root), str(seed), str(last)]
        with open(folder / "stderr", "w+") as stderr:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
            lines: queue.Queue[str] = queue.Queue()
            assert process.stdout is not None
            reader = threading.Thread(target=_read, args=(process.stdout, lines))
            reader.start()
            about = "before the first"
            try:
                while line := lines.get(timeout=HANG_SECONDS).rstrip("\n"):
                    if line.split(" ")[0] == str(seed):
                        about = line
                    else:
                        seed += 1
                        wrong += [] if line == "ok" else [f"{about} -> {line}"]
            except queue.Empty:
                wrong.append(f"{about} -> it hangs")
            process.kill()
            process.wait()
            reader.join()
            process.stdout.close()
            if seed < last:
                stderr.seek(0)
                wrong.append(f"{about} -> it ended with {process.returncode}: {stderr.read()[-300:]}")
                seed += 1
        shutil.rmtree(root.parent)
    return wrong


def _read(stream: IO[str], lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


@pytest.mark.parametrize(("first", "last"), [(0, 35), pytest.param(1000, 2100, marks=pytest.mark.slow)])
def test_a_damaged_file_is_one_line_and_stops_nothing_else(
    workspace: Path, tmp_path: Path, first: int, last: int
) -> None:
    wrong = damaged(workspace, tmp_path, first, last)
    assert not wrong, "\n".join(wrong)
