import json
import random
import subprocess
import sys
import time

import pytest
import torch

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import Cancelled, SpecError
from engine.queries.connection import connected
from engine.queries.pruned import fetch_psi, window_offsets
from engine.runs.compute import compute
from engine.runs.points import plan_networks
from engine.runs.psi import plan_psi, run_psi
from engine.spec import run_id, spec_to_json
from engine.store.jobs import cancel, fetch_job
from engine.store.journal import read_journal


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Steps as short as these wait for each other's threads, on a busy machine for ever."""
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def scored(scored_workspace):
    return scored_workspace


def points(workspace, run):
    with connected(workspace, "small", [run]) as connection:
        return connection.execute(
            'SELECT "order", seed, pruned, kept_fraction, accuracy FROM psi ORDER BY ALL'
        ).fetchall()


def journalled(folder):
    """The points in the journal, in the order in which they were written."""
    return [point for event in read_journal(folder) if event["event"] == "psi_points" for point in event["points"]]


def test_exactly_i_times_r_samples_are_dropped_and_the_full_set_is_trained_once(scored):
    plan = plan_psi(scored, "small", ["random", "aum", "aum*"], points=4, seeds=2, epochs=1)
    networks = [network for level in plan_networks(plan, 200) for network in level]
    assert len(networks) == 2 + 3 * 3 * 2
    assert [n.pruned for n in networks if n.order == "aum" and n.seed == 0] == [100, 50, 150]
    run, _ = compute(scored, plan, "cpu")
    rows = points(scored, run)
    assert len(rows) == 3 * 4 * 2
    assert {r[3] for r in rows} == {1.0, 0.75, 0.5, 0.25}
    whole = {(seed, accuracy) for _, seed, pruned, _, accuracy in rows if pruned == 0}
    assert len(whole) == 2  # one accuracy per seed, shared by all orders


def test_a_stacked_curve_has_the_points_of_the_plain_one(scored):
    plan = plan_psi(scored, "small", ["random", "aum", "ccs(aum)", "kcenter"], points=4, seeds=2, epochs=8)
    run, _ = compute(scored, plan, "cpu")
    plain = points(scored, run)
    scored.remove_run(run)
    assert run_psi(scored, plan, torch.device("cpu"), stacked=True) == (run, False)
    stacked = points(scored, run)
    assert [row[:4] for row in stacked] == [row[:4] for row in plain]
    # 50 test samples: one on the edge of two classes may fall to either side.
    off = [abs(a[4] - b[4]) for a, b in zip(stacked, plain, strict=True)]
    assert max(off) < 1.5 / 50 and sum(x > 0 for x in off) <= 3
    stacks = [event["points"] for event in read_journal(scored.run_dir(run)) if event["event"] == "psi_points"]
    assert [len(stack) for stack in stacks] == [2 + 8, 8, 8]  # points 0 and 1/2, then 1/4, and 3/4 of batches of 50
    assert all(point["seconds"] > 0 for stack in stacks for point in stack)


def test_a_point_that_another_curve_has_trained_is_not_trained_again(scored):
    first, _ = compute(scored, plan_psi(scored, "small", ["random", "aum"], points=4, seeds=2, epochs=2), "cpu")
    plan = plan_psi(scored, "small", ["aum", "aum*"], points=2, seeds=3, epochs=2)
    second, _ = compute(scored, plan, "cpu")
    seconds = {}
    for run in (first, second):
        with connected(scored, "small", [run]) as connection:
            rows = connection.execute('SELECT "order", pruned, seed, accuracy, seconds FROM psi').fetchall()
        seconds[run] = {row[:3]: row[3:] for row in rows}
    shared = {key for key in seconds[second] if key in seconds[first]}
    assert shared == {("aum", pruned, seed) for pruned in (0, 100) for seed in (0, 1)}
    assert all(seconds[first][key] == seconds[second][key] for key in shared)  # to the seconds: it is the same network
    scored.remove_run(first)
    scored.remove_run(second)
    compute(scored, plan, "cpu")
    alone = {row[:3]: row[4] for row in points(scored, second)}
    assert alone == {(order, seed, pruned): seconds[second][order, pruned, seed][0] for order, seed, pruned in alone}


@pytest.mark.parametrize("stacked", [False, True])
def test_a_cancelled_curve_stops_soon_and_keeps_what_is_done(scored, stacked):
    plan = plan_psi(scored, "small", ["random", "aum"], points=4, seeds=2, epochs=30)
    asked = []

    def listen(stage, fraction, left):
        if fraction > 0.6 and not asked:
            cancel(scored, run_id(plan))
            asked.append(time.monotonic())

    with pytest.raises(Cancelled):
        run_psi(scored, plan, torch.device("cpu"), listen, stacked=stacked)
    assert time.monotonic() - asked[0] < 2
    folder = scored.run_dir(run_id(plan))
    assert fetch_job(scored, run_id(plan)).state == "cancelled"
    kept = journalled(folder)
    assert 2 <= len(kept) < 14
    assert not scored.is_published(run_id(plan))


def test_a_window_experiment_keeps_half_at_every_offset(scored):
    plan = plan_psi(scored, "small", ["aum", "random"], points=2, seeds=1, epochs=1, window=True)
    run, _ = compute(scored, plan, "cpu")
    with connected(scored, "small", [run]) as connection:
        found = window_offsets(fetch_psi(connection, [run]))
        [(title,)] = connection.execute("SELECT title FROM runs").fetchall()
    assert found[["score", "offset", "pruned", "seed"]].sort_values("offset").values.tolist() == [
        ["aum", 0.0, 100, 0], ["aum", 0.25, 100, 0], ["aum", 0.5, 100, 0],
    ]  # fmt: skip
    assert {order for order, *_ in points(scored, run)} - set(found["order"]) == {"random"}
    assert title.startswith("window: aum, random; mlp, 1 epoch")


def test_the_curve_uses_the_training_of_the_scores(scored, small_training):
    plan = plan_psi(scored, "small", ["aum"], points=2, seeds=3, epochs=7)
    assert (plan.training.batch_size, plan.training.seeds, plan.training.epochs) == (64, 3, 7)
    assert plan_psi(scored, "small", ["aum"], points=2, seeds=3).training.epochs == small_training().epochs


CODE = """
import json, sys
from pathlib import Path
import torch
from engine.runs.psi import run_psi
from engine.spec import spec_from_json
from engine.store.workspace import Workspace
stacked = sys.argv[3] == "stacked" or None
spec = spec_from_json(json.loads(sys.argv[2]))
run_psi(Workspace.open(Path(sys.argv[1])), spec, torch.device("cpu"), stacked=stacked)
"""


def start(workspace, plan, form=""):
    return subprocess.Popen([sys.executable, "-c", CODE, str(workspace.root), json.dumps(spec_to_json(plan)), form])


def wait_until(found, process, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None and not found():
        time.sleep(0.005)


def test_a_killed_curve_resumes_with_the_same_points(scored):
    plan = plan_psi(scored, "small", ["random", "aum"], points=5, seeds=2, epochs=8)
    wanted = run_id(plan)
    folder = scored.run_dir(wanted)
    process = start(scored, plan)
    wait_until(lambda: len(journalled(folder)) >= 3, process)
    process.kill()
    process.wait()
    assert not scored.is_published(wanted)
    kept = journalled(folder)
    compute(scored, plan, "cpu")
    everything = journalled(folder)
    assert everything[: len(kept)] == kept and len(everything) == 2 + 2 * 4 * 2  # none trained twice
    resumed = points(scored, wanted)
    scored.remove_run(wanted)
    compute(scored, plan, "cpu")
    assert points(scored, wanted) == resumed


@pytest.mark.parametrize(
    ("kills", "seconds", "form"),
    [
        (3, 1.5, "stacked"),
        pytest.param(20, 5.0, "", marks=pytest.mark.slow),
        pytest.param(20, 5.0, "stacked", marks=pytest.mark.slow),
    ],
)
def test_kills_at_random_moments_change_no_point(scored, kills, seconds, form):
    count = int(4 * seconds)
    plan = plan_psi(scored, "small", ["random", "aum"], points=count, seeds=2, epochs=count)
    wanted, moments = run_id(plan), random.Random(7)
    folder, kept = scored.run_dir(wanted), []
    for kill in range(kills):
        process = start(scored, plan, form)
        begun = lambda: sum(e["event"] == "started" for e in read_journal(folder)) > kill  # noqa: B023, E731
        wait_until(begun, process)
        time.sleep(moments.uniform(0, seconds / kills))
        process.kill()
        process.wait()
        assert not scored.is_published(wanted)
        assert journalled(folder)[: len(kept)] == kept  # none is lost
        kept = journalled(folder)
    run_psi(scored, plan, torch.device("cpu"), stacked=form == "stacked" or None)
    assert journalled(folder)[: len(kept)] == kept and len(journalled(folder)) == 2 + 2 * (count - 1) * 2
    resumed = points(scored, wanted)
    scored.remove_run(wanted)
    run_psi(scored, plan, torch.device("cpu"), stacked=form == "stacked" or None)
    assert points(scored, wanted) == resumed


def test_what_a_curve_cannot_do_is_said(scored):
    with pytest.raises(SpecError, match="--points is 500; allowed: 2 to 199 for 200 training samples"):
        compute(scored, plan_psi(scored, "small", ["random"], points=500, seeds=1), "cpu")
    with pytest.raises(SpecError, match="--points is 200; allowed: 2 to 199"):  # the last would have one sample left
        compute(scored, plan_psi(scored, "small", ["random"], points=200, seeds=1), "cpu")
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
