"""The same results on a real Ray cluster of this machine, also when one of its two nodes dies in the middle."""

import os
import threading
import time

import pytest
import torch

from engine.compute import compute
from engine.psi import plan_psi
from engine.queries import connected
from engine.spec import run_id
from engine.workspace import read_journal

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
def cluster(modules):
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


def points(workspace, run):
    with connected(workspace, "small", [run]) as connection:
        return connection.execute(
            'SELECT "order", seed, pruned, kept_fraction, accuracy FROM psi ORDER BY ALL'
        ).fetchall()


def journalled(folder):
    return [point for event in read_journal(folder) if event["event"] == "psi_points" for point in event["points"]]


def until(found, seconds=40):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not found():
        time.sleep(0.005)


def test_a_node_that_dies_in_the_middle_changes_no_point(cluster, modules, small_workspace, small_training, tmp_path):
    log = tmp_path / "networks"
    (modules / "spied.py").write_text(SPIED.format(log=str(log)))
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
    found = points(small_workspace, run)
    small_workspace.remove_run(run)
    compute(small_workspace, plan, "cpu")
    assert points(small_workspace, run) == found and len(found) == 2 * 5 * 2
