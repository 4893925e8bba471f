"""The same results on a real Ray cluster of this machine, also when one of its two nodes dies in the middle.

Most of what these tests cost is processes of Ray that import torch: so there is one cluster, joined once.
"""

import importlib
import io
import itertools
import json
import math
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from engine.data.ingest import ingest
from engine.data.loader import Samples, normalization, to_float
from engine.data.request import IngestSpec
from engine.errors import Cancelled, ClusterError, SpecError
from engine.features import computing, tiles
from engine.features import neighbors as search
from engine.features.seen import load_seen
from engine.features.stored import compute_stored, key_of, load_stored
from engine.queries.connection import connected
from engine.runs import cluster as runs_cluster
from engine.runs import points, velocity
from engine.runs.cluster import HERE, RayTasks, _to_array, _to_tensor, tasks_on
from engine.runs.compute import compute
from engine.runs.crossval import Network, predict_rest
from engine.runs.inputs import nearest
from engine.runs.options import plan_relabel_from
from engine.runs.planning import plan_run
from engine.runs.psi import POINTS_FILE, plan_psi
from engine.runs.relabel_units import Study, Unit, learn
from engine.runs.velocity import velocity_by_decile
from engine.selection import coverage
from engine.selection.samplers import Whole, select
from engine.spec import TrainingSpec, run_id
from engine.store.jobs import cancel, fetch_job
from engine.store.journal import read_journal
from engine.store.progress import Unheard
from engine.store.tensors import load_tensors
from engine.store.workspace import Workspace
from engine.training import away
from engine.training.away import Leg, train_leg
from engine.training.loop import Normalization
from engine.training.models import MODELS
from engine.training.own_models import allow_named
from engine.training.stacked import Member
from engine.training.tasks import Splits, State, seed_tasks

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_log_monitor": False}

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """A folder whose modules the processes of the cluster can import."""
    return tmp_path_factory.mktemp("modules")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A current folder of a person who joins the cluster, with modules of the names of others."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("engine", "tests", "ray", "torch", "numpy", "random"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name} of the current folder was imported')\n")
    (folder / "of_its_own.py").write_text("")
    return folder


@pytest.fixture(scope="module")
def cluster(modules, elsewhere):
    """One node of one processor, which this process has joined for all tests, as a person joins it: a process of Ray finds
    out first that it answers."""
    from ray.cluster_utils import Cluster

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", f"{modules}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep))
        patch.syspath_prepend(modules)
        patch.setattr(runs_cluster, "ANSWER_SECONDS", 90.0)  # a busy machine takes longer than a person should wait
        few = {"include_dashboard": False, "no_monitor": True}  # processes of Ray that nothing here asks
        few["_system_config"] = {"automatic_object_spilling_enabled": False}
        started = Cluster(initialize_head=True, head_node_args=NODE | few)
        before = Path.cwd()
        os.chdir(elsewhere)
        try:
            with tasks_on(f"ray:{started.address}", CPU):
                assert Path.cwd() == elsewhere  # unchanged for what comes after
                os.chdir(before)
                patch.setattr(runs_cluster, "ANSWER_SECONDS", 7.0)
                yield started
        finally:
            os.chdir(before)
            started.shutdown()
    torch.set_num_threads(threads)


def points_of(workspace, run):
    with connected(workspace, "small", [run]) as connection:
        return connection.execute(
            'SELECT "order", seed, pruned, kept_fraction, accuracy FROM psi ORDER BY ALL'
        ).fetchall()


def journalled(folder):
    return [point for event in read_journal(folder) if event["event"] == "psi_points" for point in event["points"]]


def until(found, seconds=200):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not found():
        time.sleep(0.05)


def values(workspace, run):
    with connected(workspace, "small", [run]) as connection:
        scores = connection.execute("SELECT score, sample_id, value FROM scores ORDER BY ALL").fetchall()
        return scores, connection.execute("SELECT * EXCLUDE run_id FROM neighbors ORDER BY ALL").fetchall()


def published(workspace, run):
    """Everything that the networks of a run leave, but for the seconds that they took."""
    with connected(workspace, "small", [run]) as connection:
        tables = [
            connection.execute(f"SELECT * EXCLUDE run_id FROM {table} ORDER BY ALL").fetchall()
            for table in ("dynamics", "logits", "flags", "threshold_rounds")
        ]
        tables.append(connection.execute("SELECT * EXCLUDE (run_id, seconds) FROM epochs ORDER BY ALL").fetchall())
    files = sorted(workspace.published_dir(run).glob("*.safetensors"))
    arrays = {path.name: {name: a.tobytes() for name, a in load_tensors(path)[0].items()} for path in files}
    return tables, arrays, values(workspace, run)


class Stage:
    """What is computed on the cluster while a node of it dies, and then here, in a workspace of its own."""

    def __init__(self, name, root, training):
        self.name, self.workspace, self.training = name, Workspace.open(root), training
        getattr(self, f"plan_{name}")()

    def plan_curve(self):
        allow_named(self.workspace, "own_network:network")
        training = self.training(model="own_network:network")
        self.plan = plan_psi(self.workspace, "small", ["random", "oracle"], points=3, seeds=2, training=training)

    def plan_kcenter(self):
        self.plan = plan_psi(self.workspace, "small", ["kcenter"], points=4, seeds=1, training=self.training())

    def plan_seeds(self):
        self.plan = plan_run(self.workspace, "small", ["aum"], self.training(logit_seeds=1))

    def plan_heads(self):
        head = self.training(model="head", logit_seeds=1)
        self.plan = plan_run(self.workspace, "small", ["aum"], head, features="efficientnet_lite0:32")

    def plan_folds(self):
        self.plan = plan_run(self.workspace, "small", ["confident_learning", "incv"], self.training())

    def plan_neighbors(self):
        self.plan = plan_run(self.workspace, "small", ["nli"], self.training(), neighbors=7)

    def plan_subsets(self):
        self.plan = plan_run(self.workspace, "small", ["cg"], self.training(), complexity="stochastic")

    def plan_labels(self):
        options = {"seeds": 2, "epochs": 3, "batch_size": 32, "keep": "0.8", "nli_epochs": 1, "neighbors": 5}
        self.plan = plan_relabel_from(self.workspace, "small", "rop", options)

    def plan_deciles(self):
        self.plan = None

    def compute(self, cluster):
        if self.plan:
            run, existed = compute(self.workspace, self.plan, "cpu", cluster=cluster)
            assert not existed
            return run
        with tasks_on(cluster, CPU) as tasks:
            return velocity_by_decile(self.workspace, "small", "aum", size=2, tasks=tasks)

    def found(self, computed):
        """What is the same wherever it is computed."""
        if self.name in ("curve", "kcenter"):
            networks = json.loads((self.workspace.published_dir(computed) / POINTS_FILE).read_text())
            return points_of(self.workspace, computed), len(journalled(self.workspace.run_dir(computed))), set(networks)
        if self.name == "labels":
            with connected(self.workspace, "small", [computed]) as connection:
                labels = connection.execute("SELECT * EXCLUDE run_id FROM suggestions ORDER BY ALL").fetchall()
                rows = connection.execute(
                    "SELECT * EXCLUDE (run_id, seconds, select_seconds) FROM relabelings ORDER BY ALL"
                ).fetchall()
            events = read_journal(self.workspace.run_dir(computed))
            return labels, rows, sorted(event["unit"] for event in events if event["event"] == "relabeled")
        return published(self.workspace, computed) if self.plan else computed

    def forget(self, computed):
        if self.plan:
            self.workspace.remove_run(computed)


WATCHED = """
import os
import time
from pathlib import Path
import ray
from engine.training.models import MODELS

def watched(shared, given, report):
    '''A task. Where it is to be lost on this node, it is done, and says so, but never gives back what it found.'''
    task, item, stage, lost, folder = given
    found = task(shared, item, report)
    node = ray.get_runtime_context().get_node_id()
    with open(folder / "done", "a") as file:
        file.write(f"{stage} {task.__name__} {node}\\n")
    if lost and node == (folder / "dies").read_text():
        (folder / f"{stage} {task.__name__} {os.getpid()} lost").touch()
        time.sleep(600)
    return found

def occupy(folder):
    (folder / "occupied").touch()
    while not (folder / "free").exists():
        time.sleep(0.05)

def network(shape, classes):
    return MODELS["mlp"](shape, classes)
"""


def test_a_node_that_dies_in_the_middle_of_every_stage_changes_nothing(
    cluster, modules, small_original, scored_original, small_training, tmp_path, monkeypatch
):
    """Every stage at once has a task on the node that dies, and no stage has another node until then."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    (modules / "own_network.py").write_text(WATCHED)
    own = importlib.import_module("own_network")
    monkeypatch.setattr(away, "LEG", 0)
    monkeypatch.setattr(computing, "BLOCK_SAMPLES", (16, 64))
    monkeypatch.setattr(coverage, "ROWS", 64)
    monkeypatch.setattr(search, "TILE", 64)
    monkeypatch.setattr(tiles, "TILE", 64)
    monkeypatch.setattr(nearest, "PART_BYTES", 1)
    # Which of a stage's tasks is lost: of legs one that goes on with a network, of parts one that goes on with others.
    tasks = {
        "curve": ("train_networks", 2, small_original),
        "kcenter": ("_cover", 6, scored_original),
        "seeds": ("train_leg", 5, small_original),
        "heads": ("embed", 2, small_original),
        "folds": ("predict_rest", 2, scored_original),
        "neighbors": ("_search_part", 6, scored_original),
        "subsets": ("solve_subset", 2, scored_original),
        "labels": ("learn", 2, small_original),
        "deciles": ("_turn", 2, scored_original),
    }
    stages = {
        name: Stage(name, shutil.copytree(root, tmp_path / name), small_training)
        for name, (_, _, root) in tasks.items()
    }

    class Watched(RayTasks):
        """Of the stage whose thread made them."""

        def __init__(self, device, threads=1):
            super().__init__(device, threads)
            self.stage, self.begun = threading.current_thread().name, itertools.count(1)

        def call(self, task, shared, item, report):
            name, which, _ = tasks[self.stage]
            lost = task.__name__ == name and next(self.begun) == which
            return super().call(own.watched, shared, (task, item, self.stage, lost, tmp_path), report)

    def lost():
        return [path.name.split() for path in tmp_path.glob("* lost")]

    def compute_stage(stage):
        threading.current_thread().name = stage.name
        if stage.name == "deciles":  # in the only process that is left: torch.func costs each 2 s at first
            until(lambda: len(lost()) == len(stages) - 1, 400)
        return stage.compute(f"ray:{cluster.address}")

    occupied = ray.remote(own.occupy).options(
        scheduling_strategy=NodeAffinitySchedulingStrategy(cluster.head_node.node_id, soft=False)
    )
    occupying = occupied.remote(tmp_path)
    until((tmp_path / "occupied").exists)
    node = cluster.add_node(**NODE | {"num_cpus": len(stages)})
    (tmp_path / "dies").write_text(node.node_id)
    with ThreadPoolExecutor(len(stages)) as pool, monkeypatch.context() as patch:
        patch.setattr(runs_cluster, "RayTasks", Watched)
        begun = {name: pool.submit(compute_stage, stage) for name, stage in stages.items()}
        until(lambda: len(lost()) == len(stages) or any(f.done() for f in begun.values()), 500)
        before = (tmp_path / "done").read_text().splitlines()
        cluster.remove_node(node, allow_graceful=False)
        for _, _, process, _ in lost():  # a machine takes its processes with it; here they would live on for a moment
            os.kill(int(process), signal.SIGKILL)
        (tmp_path / "free").touch()
        computed = {name: future.result() for name, future in begun.items()}
        ray.get(occupying)
    assert {stage: task for stage, task, _, _ in lost()} == {name: task for name, (task, _, _) in tasks.items()}
    after = (tmp_path / "done").read_text().splitlines()[len(before) :]
    assert {line.split()[2] for line in before} == {node.node_id}
    assert {line.split()[2] for line in after} == {cluster.head_node.node_id}
    there = {name: stage.found(computed[name]) for name, stage in stages.items()}
    heads = stages["heads"].workspace
    key = stages["heads"].plan.features_hash
    features = load_stored(heads, "small", key, "train")
    for name, stage in stages.items():
        stage.forget(computed[name])
        here = stage.found(stage.compute(""))
        if name == "deciles":
            pd.testing.assert_frame_equal(there[name], here, rtol=1e-4)
        else:
            assert there[name] == here, name
    shutil.rmtree(heads.root / "features")
    compute_stored(heads, "small", "efficientnet_lite0:32", CPU, Unheard(), HERE)
    assert torch.allclose(features, load_stored(heads, "small", key, "train"), rtol=1e-4, atol=1e-4)
    # and that there was something to compare
    assert features.std() > 0.05 and len(there["deciles"]) >= 10 and there["deciles"].velocity.max() > 0
    assert len(there["curve"][0]) == 2 * 3 * 2 and there["curve"][1] == len(there["curve"][2]) == 10
    assert len(there["kcenter"][0]) == there["kcenter"][1] == len(there["kcenter"][2]) == 4
    for name in ("seeds", "heads"):
        tables, arrays, scores = there[name]
        assert [len(table) for table in tables] == [1200, 600, 200, 400, 6] and len(scores[0]) == 200, name
        assert {"weights.safetensors", "features.safetensors"} <= set(arrays)
    assert f"heads train_leg {cluster.head_node.node_id}" in after
    assert [len(there[name][2][0]) for name in ("folds", "subsets", "neighbors")] == [400, 200, 200]
    assert len(there["neighbors"][2][1]) == 7 * 200
    labels, rows, units = there["labels"]
    assert labels and len(rows) == 8 and len(units) == len(set(units)) == 10  # 2 warm-ups, and of each seed 2 x 2


def search_path(shared, item, report):
    import engine.errors

    return sys.path, engine.errors.__file__


def test_workers_import_nothing_from_the_current_folder(cluster, modules, elsewhere):
    with tasks_on(f"ray:{cluster.address}", CPU) as tasks:
        path, errors = tasks.call(search_path, tasks.share(None), 0, lambda share: None)
    assert str(elsewhere) not in path and errors == sys.modules["engine.errors"].__file__
    assert path[0] == str(Path(errors).parents[1]) and str(modules) in path and "" not in path and "." not in path


def test_a_run_that_is_cancelled_on_a_cluster_goes_on_here(cluster, small_workspace, small_training, monkeypatch):
    monkeypatch.setattr(away, "LEG", 0)
    plan = plan_run(small_workspace, "small", ["aum"], small_training(epochs=6))
    wanted = run_id(plan)
    kept = small_workspace.run_dir(wanted) / "partial" / "seed0.checkpoint.safetensors"

    def ask():
        until(kept.exists)
        cancel(small_workspace, wanted)

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(Cancelled):
        compute(small_workspace, plan, "cpu", cluster="ray")
    asking.join()
    job, epochs = fetch_job(small_workspace, wanted), load_tensors(kept)[1]["epochs"]
    assert job.state == "cancelled" and 0 < job.fraction < 1 and 0 < epochs < 6
    compute(small_workspace, plan, "cpu")
    broken = published(small_workspace, wanted)
    small_workspace.remove_run(wanted)
    compute(small_workspace, plan, "cpu")
    assert published(small_workspace, wanted) == broken


def test_a_cancelled_curve_stops_soon_on_a_cluster_too(cluster, small_workspace, small_training):
    plan = plan_psi(small_workspace, "small", ["random"], points=4, seeds=2, epochs=100, training=small_training())
    asked = []

    def ask(folder):
        until(lambda: journalled(folder))
        cancel(small_workspace, run_id(plan))
        asked.append(time.monotonic())

    asking = threading.Thread(target=ask, args=[small_workspace.run_dir(run_id(plan))])
    asking.start()
    with pytest.raises(Cancelled):
        compute(small_workspace, plan, "cpu", cluster=f"ray:{cluster.address}")
    stopped = time.monotonic()
    asking.join()
    assert stopped - asked[0] < 5
    assert fetch_job(small_workspace, run_id(plan)).state == "cancelled"
    assert 1 <= len(journalled(small_workspace.run_dir(run_id(plan)))) < 8


class Pickled(pickle.Pickler):
    """What Ray sends: tensors as arrays."""

    def reducer_override(self, value):
        return (_to_tensor, (_to_array(value),)) if type(value) is torch.Tensor else NotImplemented


def sent_bytes(value):
    file = io.BytesIO()
    Pickled(file, 5).dump(value)
    return file.tell()


class Counted(Whole):
    """What is sent to and from the first of three parts, the last time."""

    def ranges(self, n, multiple):
        return [(start, start + 1000) for start in range(0, n, 1000)]

    def each(self, part, held, given):
        found = super().each(part, held, given)
        self.held, self.given, self.found = held[0], given[0], found[0]
        return found


def test_what_travels_is_what_the_guide_counts():
    """The table of the chapter about many machines, by the same formulas, of a set of the shape of MNIST."""
    n, m, pixels, c, weights = 3000, 500, 784, 10, 784 * 8 + 8 + 8 * 10 + 10
    images = torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8)
    samples = Samples(images, torch.arange(n) % c, torch.arange(n), c, torch.arange(n) % c)
    test = samples.subset(torch.arange(m)).with_inputs(images[:m].clone())
    scale = Normalization(torch.zeros(1), torch.ones(1))
    both, half = (n + m) * (pixels + 24), torch.arange(0, n, 2)
    training = TrainingSpec(model="narrow", epochs=2, seeds=1, logit_seeds=1)
    [task] = seed_tasks(samples, training, {1: 1})
    splits, nothing = Splits(samples, test, scale), State(0, [], {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, training.model, narrow)
        first = train_leg(splits, Leg(task, nothing, 0.0), lambda share: None)
        last = train_leg(splits, Leg(task, first.state, 0.0), lambda share: None)
        part = Network(half, half + 1, 0, training, 1, scale)
        unit = Unit(0, "all", 1.0, "cross-entropy", half, half[:0], 128)
        learned = learn(Study(samples, test, scale, training), unit, lambda share: None)
        rows = torch.nn.functional.normalize(torch.randn(n, 64))
        found = nearest._search_part((0, rows[:2048]), (15, 0, rows[:1000], None), lambda share: None)
        parts = Counted()
        select("kcenter", 100, {"features": rows, "generator": torch.Generator()}, parts=parts)
        picks = len(parts.given[1])
        counted = {
            "curve, to a machine": (points.Study(samples, (test,), scale, training, False), both),
            "curve, to a task": ([Member(half, 0, 2)], 8 * n / 2),
            "folds, to a machine": (samples, n * (pixels + 24)),
            "folds, to a task": (part, 8 * n),
            "folds, back": (predict_rest(samples, part, lambda share: None), 4 * c * n / 2),
            "run, to a machine": (splits, both),
            "run, to its first leg": (Leg(task, nothing, 0.0), 8 * n),
            "run, back from it": (first, (32 + 4 * c) * n + (3 * 4 + 4) * weights),
            "run, to its second leg": (Leg(task, first.state, 0.0), 8 * n + 3 * 4 * weights),
            "run, back from its last": (last, (32 + 4 * c) * n + 4 * weights),
            "learner, to a machine": (Study(samples, test, scale, training), both),
            "learner, to a task": (unit, 8 * n / 2),
            "learner, back": (learned, 4 * c * (n / 2 + m)),
            "neighbors, to a machine": ((0, rows[:2048]), 4 * 2048 * 64),
            "neighbors, to a task": ((15, 0, rows[:1000], None), 4 * 1000 * 64),
            "neighbors, to a task of the next range": ((15, 0, rows[:1000], found), 1000 * (4 * 64 + 12 * 15)),
            "neighbors, back": (found, 12 * 15 * 1000),
            "kcenter, to a machine": (parts.held, 4 * 1000 * (64 + 1)),
            "kcenter, to a task": (parts.given, 4 * 1000 + 4 * picks * (64 + 1)),
            "kcenter, back": (parts.found, 4 * 1000),
            "velocity, to a machine": (
                velocity._Stages("narrow", c, [first.kept[1], last.state.tensors]),
                4 * weights * 2,
            ),
            "velocity, to a task": (to_float(images[:125], scale.mean, scale.std), 4 * 125 * pixels),
        }
    for what, (value, expected) in counted.items():
        assert expected <= sent_bytes(value) <= 1.02 * expected + 4000, what


def narrow(shape, classes):
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(math.prod(shape), 8), torch.nn.ReLU(), torch.nn.Linear(8, classes)
    )


TASKS = """
import os
from engine.errors import SpecError

def square(shared, item, report):
    return shared * item**2

def fail(shared, item, report):
    raise SpecError(f"task {item} of {shared}")

def die(shared, item, report):
    with open(item, "a") as file:
        file.write("died\\n")
    os._exit(1)
"""


WHERE = """
from engine.training.away import train_leg

def trained(splits, leg, report):
    at = splits.samples.stored.data_ptr()
    for line in open("/proc/self/maps"):
        span, *_, file = line.split(maxsplit=5)
        first, end = (int(place, 16) for place in span.split("-"))
        if first <= at < end:
            return train_leg(splits, leg, report), file.strip()
"""


def test_features_that_the_store_of_a_machine_cannot_hold_lie_on_its_disk(cluster, modules, tmp_path):
    """A head learns the same from them, bit by bit, and no process has a copy of its own."""
    (modules / "where_inputs_are.py").write_text(WHERE)
    trained = importlib.import_module("where_inputs_are").trained
    n, width = 10_000, 2600
    assert 4 * n * width > 1.2 * NODE["object_store_memory"]
    workspace = Workspace.open(tmp_path / "workspace", create=True)
    ingest(workspace, IngestSpec("wide", "synthetic", limit=n))
    np.save(tmp_path / "wide.npy", np.random.default_rng(0).standard_normal((n, width), np.float32))
    source = str(tmp_path / "wide.npy")
    compute_stored(workspace, "wide", source, CPU, Unheard(), HERE)
    samples = load_seen(workspace, "wide", "train", key_of(workspace, "wide", source))
    training = TrainingSpec(model="head", epochs=1, seeds=1)
    [task] = seed_tasks(samples, training, {1: 1})
    splits, leg = Splits(samples, None, Normalization(*normalization(samples))), Leg(task, State(0, [], {}), 0.0)
    with tasks_on(f"ray:{cluster.address}", CPU) as tasks:
        there, file = tasks.call(trained, tasks.share(splits), leg, lambda share: None)
    assert "plasma" in file and not file.startswith("/dev/shm")
    here = train_leg(splits, leg, lambda share: None)
    assert all(np.array_equal(a, b) for a, b in zip(there.dynamics, here.dynamics, strict=True))
    assert all(np.array_equal(there.state.tensors[name], here.state.tensors[name]) for name in here.state.tensors)


def test_errors_of_tasks_are_told_here(cluster, modules, monkeypatch, tmp_path):
    monkeypatch.setattr(runs_cluster, "RETRIES", 1)
    (modules / "some_tasks.py").write_text(TASKS)
    square, fail, die = (getattr(importlib.import_module("some_tasks"), name) for name in ("square", "fail", "die"))
    with tasks_on(f"ray:{cluster.address}", CPU) as tasks:
        shared = tasks.share(torch.arange(3))
        assert tasks.share(shared.value) is shared
        assert tasks.call(square, shared, 3, lambda share: None).tolist() == [0, 9, 18]
        with pytest.raises(SpecError, match=r"task 3 of tensor\(\[0, 1, 2\]\)"):
            tasks.call(fail, shared, 3, lambda share: None)
        with pytest.raises(ClusterError, match=r"could not compute a task, .* \(WorkerCrashedError.* winnow resume"):
            tasks.call(die, shared, tmp_path / "died", lambda share: None)
        assert (tmp_path / "died").read_text() == "died\n" * 2
        with pytest.raises(ClusterError, match="no GPU; add a machine"):
            type(tasks)(torch.device("cuda"))
        with pytest.raises(
            ClusterError, match="no machine of the cluster has 2 processors for a task; add one, or lower"
        ):
            type(tasks)(CPU, 2)
    monkeypatch.setattr(runs_cluster, "_check_answers", lambda address: None)
    with (
        pytest.raises(ClusterError, match=f"this process is in the Ray cluster at {cluster.address}; give ray, or"),
        tasks_on("ray:10.0.0.1:6379", CPU),
    ):
        pass


@pytest.mark.parametrize(
    ("cluster_asked", "error", "said"),
    [
        ("dask", SpecError, "--cluster is 'dask'; allowed: ray, the cluster"),
        ("ray:somewhere", SpecError, "--cluster is 'ray:somewhere'; allowed: ray:HOST:PORT"),
        ("ray:127.0.0.1:1", ClusterError, "the Ray cluster at 127.0.0.1:1 does not answer"),
        ("silent", ClusterError, "cannot join the Ray cluster at 127.0.0.1:.*no answer in 7 s"),
    ],
)
def test_a_cluster_that_does_not_answer_is_told_before_anything_starts(
    small_workspace, small_training, cluster_asked, error, said
):
    plan = plan_psi(small_workspace, "small", ["random"], points=4, seeds=2, training=small_training())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        if cluster_asked == "silent":
            cluster_asked = f"ray:127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(error, match=said):
            compute(small_workspace, plan, "cpu", cluster=cluster_asked)
    assert time.monotonic() - started < 10
    assert small_workspace.run_ids() == []


def test_ray_is_left_alone_unless_it_is_asked_for_and_without_it_the_line_says_how_to_get_it(tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError('No module named ray')\n")
    code = (
        "import torch, engine.runs.compute\nfrom engine.runs.cluster import tasks_on\nprint('without')\n"
        "with tasks_on('ray', torch.device('cpu')): pass\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout == "without\n"
    assert done.returncode and done.stderr.strip().endswith("pip install 'winnow-images[cluster]'")
