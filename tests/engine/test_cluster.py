"""The same results on a real Ray cluster of this machine, also when one of its two nodes dies in the middle."""

import contextlib
import importlib
import io
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
from pathlib import Path

import pandas as pd
import pytest
import torch

from engine.data.loader import Samples, to_float
from engine.errors import Cancelled, ClusterError, SpecError
from engine.features import embedding
from engine.features.neighbors import search_rows
from engine.features.stored import compute_stored, key_of, load_stored
from engine.queries.connection import connected
from engine.runs import cluster as runs_cluster
from engine.runs import points, velocity
from engine.runs.cluster import HERE, _to_array, _to_tensor, tasks_on
from engine.runs.compute import compute
from engine.runs.crossval import Network, predict_rest
from engine.runs.options import plan_relabel_from
from engine.runs.planning import plan_run
from engine.runs.psi import plan_psi
from engine.runs.relabel_units import Study, Unit, learn
from engine.runs.velocity import velocity_by_decile
from engine.spec import TrainingSpec, run_id
from engine.store.jobs import cancel, fetch_job
from engine.store.journal import read_journal
from engine.store.progress import Progress
from engine.store.tensors import load_tensors
from engine.training import away
from engine.training.away import Leg, train_leg
from engine.training.loop import Normalization
from engine.training.models import MODELS
from engine.training.own_models import allow_named
from engine.training.stacked import Member
from engine.training.tasks import Splits, State, seed_tasks

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}

SPIED = """
import os
import time
import ray
from engine.training.models import MODELS

def network(shape, classes):
    if ray.is_initialized():
        with open({log!r}, "a") as file:
            file.write(f"{{os.getpid()}} {{ray.get_runtime_context().get_node_id()}}\\n")
        time.sleep(0.3)  # long enough to be killed in the middle
    return MODELS["mlp"](shape, classes)
"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """A folder whose modules the processes of the cluster can import."""
    return tmp_path_factory.mktemp("modules")


@pytest.fixture(scope="module")
def started_cluster(modules):
    """One node of one processor; tests that need a second one add it."""
    from ray.cluster_utils import Cluster

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", f"{modules}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep))
        patch.syspath_prepend(modules)
        started = Cluster(initialize_head=True, head_node_args=NODE)
        yield started
        started.shutdown()
    torch.set_num_threads(threads)


@pytest.fixture
def cluster(started_cluster, monkeypatch):
    """The same. It is known to answer, and a process of Ray that finds out takes seconds, so that only some do."""
    monkeypatch.setattr(runs_cluster, "_check_answers", lambda address: None)
    return started_cluster


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
        time.sleep(0.005)


def test_a_node_that_dies_in_the_middle_changes_no_point(cluster, modules, small_workspace, small_training, tmp_path):
    log = tmp_path / "networks"
    (modules / "spied.py").write_text(SPIED.format(log=str(log)))
    allow_named(small_workspace, "spied:network")
    training = small_training(model="spied:network", epochs=12)
    plan = plan_psi(small_workspace, "small", ["random", "oracle"], points=5, seeds=2, training=training)
    folder = small_workspace.run_dir(run_id(plan))
    node = cluster.add_node(**{k: v for k, v in NODE.items() if k != "include_dashboard"})

    def started(of=None):
        """Networks begun in processes of the cluster, in all or on one node."""
        lines = [line.split(" ") for line in log.read_text().splitlines()] if log.exists() else []
        return [pid for pid, at in lines if int(pid) != os.getpid() and of in (None, at)]

    killed = []

    def kill():
        until(lambda: len(started(node.node_id)) >= 2 and journalled(folder))
        seen = len(started(node.node_id))
        until(lambda: len(started(node.node_id)) > seen)  # this network has just begun
        # A machine takes its processes with it; here they would live on for a moment, and might yet finish.
        os.kill(int(started(node.node_id)[-1]), signal.SIGKILL)
        cluster.remove_node(node, allow_graceful=False)
        killed.append(len(journalled(folder)))

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        run, existed = compute(small_workspace, plan, "cpu", cluster=f"ray:{cluster.address}")
    finally:
        killer.join()
    assert not existed and 1 <= killed[0] < 18
    assert len(journalled(folder)) == 18 and len(started()) > 18  # none twice in the journal, one or more begun again
    found = points_of(small_workspace, run)
    small_workspace.remove_run(run)
    compute(small_workspace, plan, "cpu")
    assert points_of(small_workspace, run) == found and len(found) == 2 * 5 * 2


def values(workspace, run):
    with connected(workspace, "small", [run]) as connection:
        scores = connection.execute("SELECT score, sample_id, value FROM scores ORDER BY ALL").fetchall()
        return scores, connection.execute("SELECT * EXCLUDE run_id FROM neighbors ORDER BY ALL").fetchall()


def test_scores_of_folds_subsets_and_neighbors_are_those_of_one_machine(cluster, small_workspace, small_training):
    names = ["confident_learning", "incv", "cg", "nli"]
    plan = plan_run(small_workspace, "small", names, small_training(), neighbors=7, complexity="stochastic")
    found = []
    for where in (f"ray:{cluster.address}", ""):
        run, _ = compute(small_workspace, plan, "cpu", cluster=where)
        found.append(values(small_workspace, run))
        small_workspace.remove_run(run)
    assert found[0] == found[1]
    assert len(found[0][0]) == 4 * 200 and len(found[0][1]) == 7 * 200


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


@contextlib.contextmanager
def one_node_lost(cluster, log, ready):
    """A second node that is killed in the middle of its second network after something is ready. Gives where it computes."""
    node = cluster.add_node(**{k: v for k, v in NODE.items() if k != "include_dashboard"})
    killed = []

    def begun():
        """Processes of the networks that were begun on the node so far."""
        lines = [line.split(" ") for line in log.read_text().splitlines()] if log.exists() else []
        return [int(pid) for pid, at in lines if at == node.node_id]

    def kill():
        until(ready)
        seen = len(begun())
        until(lambda: len(begun()) > seen + 1)
        if len(begun()) < 2:
            return  # what is computed has failed, and says so itself
        killed.extend(begun())
        os.kill(killed[-1], signal.SIGKILL)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        killer.join()
    assert len(killed) >= 2


@pytest.mark.parametrize("stage", ["seeds", "folds"])
def test_a_node_that_dies_while_a_run_is_computed_changes_no_value(
    cluster, modules, small_workspace, small_training, tmp_path, monkeypatch, stage
):
    """One node is lost while the seeds and threshold rounds are trained, in legs of an epoch, or while the folds are."""
    log, module = tmp_path / "networks", f"spied_{stage}"
    (modules / f"{module}.py").write_text(SPIED.format(log=str(log)))
    allow_named(small_workspace, f"{module}:network")
    monkeypatch.setattr(away, "LEG", 0)
    training = small_training(model=f"{module}:network", logit_seeds=1)
    plan = plan_run(small_workspace, "small", ["aum", "confident_learning"], training)
    folder, began = small_workspace.run_dir(run_id(plan)), {"seeds": "training", "folds": "scores"}[stage]

    def stages():
        return [event.get("stage") for event in read_journal(folder)] if folder.exists() else []

    with one_node_lost(cluster, log, lambda: began in stages()):
        run, existed = compute(small_workspace, plan, "cpu", cluster=f"ray:{cluster.address}")
    assert not existed
    found = published(small_workspace, run)
    small_workspace.remove_run(run)
    compute(small_workspace, plan, "cpu")
    assert published(small_workspace, run) == found
    assert [len(table) for table in found[0]] == [1200, 600, 400, 400, 6] and len(found[2][0]) == 2 * 200
    assert {"weights.safetensors", "features.safetensors"} <= set(found[1])


def test_a_node_that_dies_while_labels_are_proposed_changes_none(cluster, modules, small_workspace, tmp_path):
    log = tmp_path / "networks"
    (modules / "spied_relabel.py").write_text(SPIED.format(log=str(log)))
    options = {"seeds": 2, "epochs": 3, "batch_size": 32, "keep": "0.8", "nli_epochs": 1, "neighbors": 5}
    allow_named(small_workspace, "spied_relabel:network")
    plan = plan_relabel_from(small_workspace, "small", "rop", options | {"model": "spied_relabel:network"})
    found = []
    for where in (f"ray:{cluster.address}", ""):
        losing = one_node_lost(cluster, log, lambda: True) if where else contextlib.nullcontext()
        with losing:
            run, _ = compute(small_workspace, plan, "cpu", cluster=where)
        with connected(small_workspace, "small", [run]) as connection:
            labels = connection.execute("SELECT * EXCLUDE run_id FROM suggestions ORDER BY ALL").fetchall()
            rows = connection.execute(
                "SELECT * EXCLUDE (run_id, seconds, select_seconds) FROM relabelings ORDER BY ALL"
            ).fetchall()
        units = [event["unit"] for event in read_journal(small_workspace.run_dir(run)) if event["event"] == "relabeled"]
        found.append((labels, rows, sorted(units)))
        small_workspace.remove_run(run)
    assert found[0] == found[1]
    labels, rows, units = found[0]
    assert labels and len(rows) == 8 and len(units) == len(set(units)) == 10  # 2 warm-ups, and of each seed 2 x 2


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
        compute(small_workspace, plan, "cpu", cluster=f"ray:{cluster.address}")
    asking.join()
    job, epochs = fetch_job(small_workspace, wanted), load_tensors(kept)[1]["epochs"]
    assert job.state == "cancelled" and 0 < job.fraction < 1 and 0 < epochs < 6
    compute(small_workspace, plan, "cpu")
    broken = published(small_workspace, wanted)
    small_workspace.remove_run(wanted)
    compute(small_workspace, plan, "cpu")
    assert published(small_workspace, wanted) == broken
    here = velocity_by_decile(small_workspace, "small", "aum", size=2)
    with tasks_on(f"ray:{cluster.address}", torch.device("cpu")) as tasks:
        monkeypatch.setattr(velocity, "compute_kernel_velocity", lambda *given: pytest.fail("computed in this process"))
        there = velocity_by_decile(small_workspace, "small", "aum", size=2, tasks=tasks)
    pd.testing.assert_frame_equal(there, here, rtol=1e-4)
    assert len(there) >= 10 and there.velocity.max() > 0


def test_features_of_a_backbone_are_those_of_one_machine(cluster, small_workspace, tmp_path, monkeypatch):
    source, found = "efficientnet_lite0:32", []
    key = key_of(small_workspace, "small", source)
    progress = Progress(tmp_path, {"features": 1.0})
    with tasks_on(f"ray:{cluster.address}", torch.device("cpu")) as tasks, monkeypatch.context() as patch:
        patch.setattr(embedding, "_features", lambda *given: pytest.fail("computed in this process"))
        compute_stored(small_workspace, "small", source, torch.device("cpu"), progress, tasks)
    for _ in range(2):
        found.append(load_stored(small_workspace, "small", key, "train"))
        shutil.rmtree(small_workspace.root / "features")
        compute_stored(small_workspace, "small", source, torch.device("cpu"), progress, HERE)
    assert torch.allclose(*found, rtol=1e-4, atol=1e-4) and found[0].std() > 0.05


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


def test_what_travels_is_what_the_guide_counts():
    """The table of the chapter about many machines, by the same formulas, of a set of the shape of MNIST."""
    n, m, pixels, c, weights = 3000, 500, 784, 10, 784 * 8 + 8 + 8 * 10 + 10
    images = torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8)
    samples = Samples(images, torch.arange(n) % c, torch.arange(n), c, torch.arange(n) % c)
    test, scale = samples.subset(torch.arange(m)), Normalization(torch.zeros(1), torch.ones(1))
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
        found = search_rows(torch.nn.functional.normalize(torch.randn(n, 64)), 15, 0, 1000)
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
            "neighbors, back": (found, 12 * 15 * 1000),
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
    os._exit(1)
"""


def test_errors_of_tasks_are_told_here(cluster, modules):
    (modules / "some_tasks.py").write_text(TASKS)
    square, fail, die = (getattr(importlib.import_module("some_tasks"), name) for name in ("square", "fail", "die"))
    with tasks_on(f"ray:{cluster.address}", torch.device("cpu")) as tasks:
        shared = tasks.share(torch.arange(3))
        assert tasks.share(shared.value) is shared
        assert tasks.call(square, shared, 3, lambda share: None).tolist() == [0, 9, 18]
        with pytest.raises(SpecError, match=r"task 3 of tensor\(\[0, 1, 2\]\)"):
            tasks.call(fail, shared, 3, lambda share: None)
        with pytest.raises(ClusterError, match=r"could not compute a task, .* \(WorkerCrashedError.* winnow resume"):
            tasks.call(die, shared, 3, lambda share: None)
        with pytest.raises(ClusterError, match="no GPU; add a machine"):
            type(tasks)(torch.device("cuda"))
        with pytest.raises(
            ClusterError, match="no machine of the cluster has 2 processors for a task; add one, or lower"
        ):
            type(tasks)(torch.device("cpu"), 2)


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


def search_path(shared, item, report):
    import engine.errors

    return sys.path, engine.errors.__file__


def test_workers_import_nothing_from_the_current_folder(started_cluster, modules, tmp_path, monkeypatch):
    """Joined as a person joins it: a process of Ray finds out first that it answers."""
    monkeypatch.setattr(runs_cluster, "ANSWER_SECONDS", 90.0)  # a busy machine takes longer than a person should wait
    for name in ("engine", "tests", "ray", "torch", "numpy", "random"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the current folder was imported')\n")
    (tmp_path / "of_its_own.py").write_text("")
    monkeypatch.chdir(tmp_path)
    with tasks_on(f"ray:{started_cluster.address}", torch.device("cpu")) as tasks:
        path, errors = tasks.call(search_path, tasks.share(None), 0, lambda share: None)
        assert Path.cwd() == tmp_path  # unchanged for what comes after
    assert str(tmp_path) not in path and errors == sys.modules["engine.errors"].__file__
    assert path[0] == str(Path(errors).parents[1]) and str(modules) in path and "" not in path and "." not in path


def test_without_ray_the_line_says_how_to_get_it(tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError('No module named ray')\n")
    code = "import torch\nfrom engine.runs.cluster import tasks_on\nwith tasks_on('ray', torch.device('cpu')): pass\n"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode and done.stderr.strip().endswith("pip install 'winnow-images[cluster]'")


def test_ray_is_left_alone_unless_it_is_asked_for():
    code = "import sys, engine.runs.compute; assert 'ray' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
