import json
import subprocess
import sys
import time

import pytest
import torch

from engine.compute import compute
from engine.data.ingest import IngestSpec, ingest
from engine.data.loader import load_split
from engine.errors import SpecError
from engine.pipeline import plan_run
from engine.psi import make_order, plan_networks, plan_psi
from engine.queries import connected
from engine.spec import run_id, spec_to_json
from engine.workspace import read_journal


@pytest.fixture
def scored(small_workspace, small_training):
    compute(small_workspace, plan_run(small_workspace, "small", ["aum", "el2n@2"], small_training()), "cpu")
    return small_workspace


def points(workspace, run):
    with connected(workspace, "small", [run]) as connection:
        return connection.execute(
            'SELECT "order", seed, pruned, kept_fraction, accuracy FROM psi ORDER BY ALL'
        ).fetchall()


def test_exactly_i_times_r_samples_are_dropped_and_the_full_set_is_trained_once(scored):
    plan = plan_psi(scored, "small", ["random", "aum", "aum*"], points=4, seeds=2, epochs=1)
    networks = plan_networks(plan, 200)
    assert len(networks) == 2 + 3 * 3 * 2
    assert [n.pruned for n in networks if n.order == "aum" and n.seed == 0] == [50, 100, 150]
    run, _ = compute(scored, plan, "cpu")
    rows = points(scored, run)
    assert len(rows) == 3 * 4 * 2
    assert {r[3] for r in rows} == {1.0, 0.75, 0.5, 0.25}
    whole = {(seed, accuracy) for _, seed, pruned, _, accuracy in rows if pruned == 0}
    assert len(whole) == 2  # one accuracy per seed, shared by all orders


def test_orders_keep_what_they_say(scored):
    plan = plan_psi(scored, "small", ["aum", "aum*", "el2n@2", "oracle", "random"], points=4, seeds=1)
    samples = load_split(scored, "small", "train")
    orders = {name: make_order(scored, plan, samples, name) for name in plan.orders}
    with connected(scored, "small") as connection:
        values = connection.execute("SELECT value FROM scores WHERE score = 'aum' ORDER BY sample_id").fetchall()
        hardness = connection.execute("SELECT value FROM scores WHERE score = 'el2n@2' ORDER BY sample_id").fetchall()
    by_aum = torch.tensor(values)[:, 0][orders["aum"]]
    assert (by_aum.diff() <= 0).all()  # a high AUM is easy, and the easiest goes first
    assert torch.equal(orders["aum*"], orders["aum"].flip(0))
    assert (torch.tensor(hardness)[:, 0][orders["el2n@2"]].diff() >= 0).all()
    wrong = (samples.labels != samples.true_labels)[orders["oracle"]]
    assert wrong[:40].all() and not wrong[40:].any()
    assert all(sorted(order.tolist()) == list(range(200)) for order in orders.values())


def test_the_curve_uses_the_training_of_the_scores(scored, small_training):
    plan = plan_psi(scored, "small", ["aum"], points=2, seeds=3, epochs=7)
    assert (plan.training.batch_size, plan.training.seeds, plan.training.epochs) == (64, 3, 7)
    assert plan_psi(scored, "small", ["aum"], points=2, seeds=3).training.epochs == small_training().epochs


def test_a_curve_with_fixed_steps_trains_longer_on_less(scored):
    from engine.psi import _with_steps

    plan = plan_psi(scored, "small", ["random"], points=4, seeds=1, epochs=3, steps="fixed")
    # 200 samples, batch 64: 4 steps an epoch, 12 in all; 50 samples are one step an epoch, so 12 epochs.
    assert _with_steps(plan, 200, 50).epochs == 12 and _with_steps(plan, 200, 200).epochs == 3


CODE = """
import json, sys
from pathlib import Path
from engine.compute import compute
from engine.spec import spec_from_json
from engine.workspace import Workspace
compute(Workspace.open(Path(sys.argv[1])), spec_from_json(json.loads(sys.argv[2])), "cpu")
"""


def test_a_killed_curve_resumes_with_the_same_points(scored):
    plan = plan_psi(scored, "small", ["random", "aum"], points=5, seeds=2, epochs=4)
    wanted = run_id(plan)
    folder = scored.run_dir(wanted)
    process = subprocess.Popen([sys.executable, "-c", CODE, str(scored.root), json.dumps(spec_to_json(plan))])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if sum(e["event"] == "psi_point" for e in read_journal(folder)) >= 3:
            break
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not scored.is_published(wanted)
    kept = [e for e in read_journal(folder) if e["event"] == "psi_point"]
    compute(scored, plan, "cpu")
    everything = [e for e in read_journal(folder) if e["event"] == "psi_point"]
    assert everything[: len(kept)] == kept and len(everything) == 2 + 2 * 4 * 2  # none trained twice
    resumed = points(scored, wanted)
    scored.remove_run(wanted)
    compute(scored, plan, "cpu")
    assert points(scored, wanted) == resumed


def test_what_a_curve_cannot_do_is_said(scored):
    with pytest.raises(SpecError, match="--points is 500; allowed: 2 to 200"):
        compute(scored, plan_psi(scored, "small", ["random"], points=500, seeds=1), "cpu")
    with pytest.raises(SpecError, match="did you mean 'aum'"):
        plan_psi(scored, "small", ["aun"], points=5, seeds=1)
    with pytest.raises(SpecError, match="winnow run small --scores entropy"):
        plan_psi(scored, "small", ["entropy"], points=5, seeds=1)
    ingest(scored, IngestSpec(name="clean", source="digits", limit=100))
    with pytest.raises(SpecError, match="oracle' needs true labels"):
        compute(scored, plan_psi(scored, "clean", ["oracle"], points=5, seeds=1), "cpu")
    with pytest.raises(SpecError, match="winnow run clean --scores aum"):
        plan_psi(scored, "clean", ["aum"], points=5, seeds=1)
    ingest(scored, IngestSpec(name="untested", source="digits", limit=100, test_fraction=0.0))
    with pytest.raises(SpecError, match="has no test split"):
        compute(scored, plan_psi(scored, "untested", ["random"], points=5, seeds=1), "cpu")


def test_points_that_do_not_divide_are_rounded_and_said(scored):
    run, _ = compute(scored, plan_psi(scored, "small", ["random"], points=3, seeds=1, epochs=1), "cpu")
    with connected(scored, "small", [run]) as connection:
        [(notes,)] = connection.execute("SELECT notes FROM runs").fetchall()
    assert json.loads(notes) == ["3 points do not divide 200 samples: each prunes 66 more"]
    assert [p for _, _, p, _, _ in points(scored, run)] == [0, 66, 132]
