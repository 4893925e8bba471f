"""A verdict whose numbers are known, written into the results of a published run as `winnow run` writes its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from engine.queries.connection import connected
from engine.spec import TrainingSpec
from engine.store.atomic import sha256_of
from engine.store.workspace import Workspace

QUICK = TrainingSpec(epochs=6, seeds=2, batch_size=128, lr=1e-3)
"""Of the runs of the shared workspaces."""

JUDGED = {
    "accuracy": 0.875, "chance": 0.125, "noise": 0.2, "noise_low": 0.18, "noise_high": 0.22, "noise_joint": 0.21,
    "noise_mixture": 0.19, "score": "aum", "reason": "The networks agree with 87.5 % of the labels.",
    "advice": "Look at the shortlist.",
}  # fmt: skip
TOO_WEAK = {
    "accuracy": 0.13, "chance": 0.125, "noise": None, "noise_low": None, "noise_high": None, "noise_joint": 0.5,
    "noise_mixture": 0.0, "score": "aum", "reason": "The networks are hardly better than a guess.",
    "advice": "Train longer, or on features.",
}  # fmt: skip


def scored_run(root: Path, dataset: str) -> str:
    """The run of a dataset that has scores."""
    with connected(Workspace.open(root), dataset) as connection:
        (found,) = connection.execute("SELECT DISTINCT run_id FROM scores").fetchall()
    return str(found[0])


def give_verdict(root: Path, run_id: str, order: Sequence[int], listed: int, verdict: dict[str, Any]) -> pd.DataFrame:
    """Write a verdict and a shortlist in place of those that the run has.

    p_wrong falls by equal steps from 1 for the first sample of the order to 0 for the last.

    Args:    order: sample ids, the most suspicious first; listed: how many of them are on the shortlist
    Returns: the rows of the shortlist
    """
    rows = pd.DataFrame({
        "sample_id": np.array(order, np.int32), "rank": np.arange(len(order), dtype=np.int32),
        "p_wrong": np.linspace(1, 0, len(order), dtype=np.float32), "listed": np.arange(len(order)) < listed,
    })  # fmt: skip
    folder = Workspace.open(root).published_dir(run_id)
    with duckdb.connect(str(folder / "results.duckdb")) as results:
        results.execute("DELETE FROM verdict; DELETE FROM shortlist")
        results.execute("INSERT INTO shortlist BY NAME SELECT * FROM rows")
        full = {**verdict, "judged": len(order), "listed": listed}
        marks = ", ".join("?" * len(full))
        results.execute(f"INSERT INTO verdict ({', '.join(full)}) VALUES ({marks})", [*full.values()])
    list_again(folder)
    return rows


def list_again(folder: Path, **changes: object) -> None:
    """Write the manifest of a published folder anew, as if it had been published as it is now."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text()) | changes
    for file in content["files"]:
        if (folder / file).is_file():
            content["files"][file] = {"bytes": (folder / file).stat().st_size, "sha256": sha256_of(folder / file)}
    path.write_text(json.dumps(content))
