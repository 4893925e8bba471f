"""PRUNE's finding on MNIST (its figure 2): under label noise, prune by reversed EL2N of an early epoch.

    WINNOW_MNIST=FOLDER pytest -m slow tests/engine/test_psi_mnist.py

FOLDER holds the four IDX files. 10,000 samples, 30 % symmetric noise, MLP, EL2N at epoch 5, 20 epochs for every point.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.queries.connection import connected
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.runs.psi import plan_psi
from engine.spec import TrainingSpec
from engine.store.workspace import Workspace

TRAINING = TrainingSpec(epochs=20, seeds=2, batch_size=64, lr=0.01, observe="eval", logit_seeds=0)


@pytest.mark.slow
def test_reversed_early_el2n_is_near_the_oracle_and_ascending_below_random(tmp_path):
    folder = Path(os.environ.get("WINNOW_MNIST", ""))
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        pytest.fail("set WINNOW_MNIST to the folder of MNIST's IDX files (train-images-idx3-ubyte.gz and its fellows)")
    workspace = Workspace.open(tmp_path / "workspace", create=True)
    ingest(workspace, IngestSpec(name="mnist", source=str(folder), limit=10_000, noise="symmetric:0.3"))
    compute(workspace, plan_run(workspace, "mnist", ["el2n@5"], TRAINING), "auto")
    orders = ("random", "el2n@5", "el2n@5*", "oracle")
    plan = replace(plan_psi(workspace, "mnist", orders, points=6, seeds=1), until=0.9)  # 0, 15, ... 75 % pruned
    run, _ = compute(workspace, plan, "auto")
    with connected(workspace, "mnist", [run]) as connection:
        rows = connection.execute('SELECT "order", pruned, accuracy FROM psi').fetchall()
    accuracy = {(order, pruned // 100): 100 * value for order, pruned, value in rows}
    print({key: round(value, 1) for key, value in sorted(accuracy.items())})
    assert accuracy["oracle", 30] - accuracy["el2n@5*", 30] < 2.5
    assert accuracy["el2n@5*", 30] - accuracy["random", 30] > 15
    assert all(accuracy["el2n@5", pruned] < accuracy["random", pruned] for pruned in (15, 30, 45, 60, 75))
