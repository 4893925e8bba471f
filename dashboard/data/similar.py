"""The samples nearest to an image that a person brings. The command computes them: pages load no network."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dashboard.data.core import Snapshot, require_writable
from engine.errors import WinnowError
from engine.queries.samples import Ids
from engine.store.jobs import start_job
from engine.store.workspace import Workspace

PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Similar:
    """What is near an image: sample ids, the nearest first, and their cosines; name: of its file."""

    name: str
    at: tuple[str, str]
    ids: Ids
    similarity: np.ndarray[tuple[int], np.dtype[np.float64]]


def find_similar(at: Snapshot, run_id: str, name: str, content: bytes, n: int) -> Similar:
    """Look for the samples nearest to an image by the features of a run, in a process of its own.

    Args:    name: of the image's file, shown and nothing else; content: its bytes
    Raises:  WinnowError for what is no image, and for a run whose features cannot be computed of one
    """
    require_writable()
    with tempfile.NamedTemporaryFile(prefix="winnow-", suffix=".image") as file:
        file.write(content)
        file.flush()
        words = ["similar", at.dataset, file.name, "--run", run_id, "--n", str(n), "--json"]
        started = start_job(Workspace(Path(at.root)), words)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while started.running:
            if time.monotonic() > deadline:
                started.process.kill()
                raise WinnowError(
                    "looking for similar samples took over 5 minutes; try winnow similar on the command line"
                )
            time.sleep(0.05)
        if message := started.message():
            raise WinnowError(message.replace(file.name, name))
    found = json.loads(started.output.read_text(encoding="utf-8").splitlines()[-1])["similar"]
    ids = np.array([row["sample_id"] for row in found], np.int32)
    return Similar(name, (at.dataset, run_id), ids, np.array([row["similarity"] for row in found], np.float64))
