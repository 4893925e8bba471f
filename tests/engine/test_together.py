"""Networks trained side by side are the networks trained alone, and stop together."""

import threading
import time

import pytest
import torch

from engine.data.loader import load_split, normalization
from engine.errors import Cancelled
from engine.queries.connection import connected
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.store.progress import Progress
from engine.training.loop import Normalization, build_optimizer, train_epochs
from engine.training.models import build_model
from engine.training.together import train_together, workers_for


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def progress(tmp_path):
    return Progress(tmp_path, {"training": 1.0})


@pytest.mark.parametrize("model", ["mlp", "head", "lenet"])
def test_side_by_side_gives_what_alone_gives(model, small_workspace, small_training, progress, threads):
    samples = load_split(small_workspace, "small", "train")
    scale = Normalization(*normalization(samples))
    training = small_training(epochs=4)

    def train(seed):
        network = build_model(model, samples.inputs.shape[1:], samples.classes, seed)
        for _ in train_epochs(network, build_optimizer(network, training), samples, scale, training, seed):
            pass
        return network.state_dict()

    threads(1)
    alone = [train(seed) for seed in range(4)]
    threads(4)
    together = train_together([lambda seed=seed: train(seed) for seed in range(4)], 4, progress)
    for first, second in zip(alone, together, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_is_the_same_whatever_the_number_of_workers(small_workspace, small_training, threads):
    plan = plan_run(small_workspace, "small", ["aum"], small_training())
    found = []
    for count in (2, 3):
        threads(count)
        run, _ = compute(small_workspace, plan, "cpu")
        with connected(small_workspace, "small") as connection:
            found.append(connection.execute("SELECT * FROM dynamics ORDER BY seed, epoch, sample_id").fetchall())
        small_workspace.remove_run(run)
    assert found[0] == found[1] and torch.get_num_threads() == 3


def test_when_one_fails_the_others_stop_and_its_error_is_told(progress):
    stopped = threading.Event()

    def wait_for_it():
        try:
            for _ in range(1000):
                progress.heartbeat()
                time.sleep(0.01)
        except Cancelled:
            stopped.set()
            raise

    def fail():
        raise ZeroDivisionError("the reason")

    with pytest.raises(ZeroDivisionError, match="the reason"):
        train_together([wait_for_it, fail], 2, progress)
    assert stopped.is_set()
    progress.heartbeat()  # the next computation is not stopped


def test_a_network_that_may_draw_random_numbers_is_trained_alone(threads):
    threads(4)
    assert workers_for("mlp", 3, torch.device("cpu")) == 3
    assert workers_for("mlp", 9, torch.device("cpu")) == 4
    assert workers_for("package.module:factory", 9, torch.device("cpu")) == 1
    assert workers_for("mlp", 9, torch.device("cuda")) == 1
