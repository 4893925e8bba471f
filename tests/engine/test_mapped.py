"""Heads on stored features leave them on the disk: what is read may go from memory again, and no copy of all is made."""

import os
import resource
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.data import loader
from engine.data.ingest import ingest
from engine.data.loader import epoch_batches, joined, normalization, read_batches
from engine.data.request import IngestSpec
from engine.errors import ScoreInputError
from engine.features import scratch
from engine.features.neighbors import checked_rows
from engine.features.seen import load_seen
from engine.features.stored import compute_stored, key_of, load_stored, open_stored
from engine.runs.cluster import HERE
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec
from engine.store.progress import Unheard
from engine.store.workspace import Workspace
from engine.training import loop
from engine.training.loop import Normalization, build_optimizer, evaluation_pass, train_epochs
from engine.training.models import build_model

N, M, D = 400, 100, 24


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A workspace, the key of a file's features of both splits, and its rows."""
    folder = tmp_path_factory.mktemp("mapped")
    workspace = Workspace.open(folder / "workspace", create=True)
    ingest(workspace, IngestSpec("made", "synthetic", limit=N, test_fraction=0.2))
    rows = np.random.default_rng(0).standard_normal((N + M, D)).astype(np.float32)
    np.save(folder / "mine.npy", rows)
    source = str(folder / "mine.npy")
    compute_stored(workspace, "made", source, torch.device("cpu"), Unheard(), HERE)
    return workspace, key_of(workspace, "made", source), rows


def test_a_split_is_a_view_of_the_file(stored):
    workspace, key, rows = stored
    train, test = (load_seen(workspace, "made", split, key) for split in ("train", "test"))
    assert np.array_equal(train.inputs, rows[:N]) and np.array_equal(test.inputs, rows[N:])
    both = joined(train, test, open_stored(workspace, "made", key))
    assert np.array_equal(both.inputs, rows) and both.sample_ids.tolist() == list(range(N + M))
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if key in line]
    mapped = [(int(a, 16), int(b, 16)) for a, b in (line[0].split("-") for line in maps)]
    for samples in (train, test, both):
        assert any(a <= samples.stored.data_ptr() < b for a, b in mapped)


def test_what_is_written_into_features_stays_out_of_the_file(stored):
    workspace, key, rows = stored
    load_stored(workspace, "made", key, "train").zero_()  # as a score of somebody's own might
    assert np.array_equal(load_stored(workspace, "made", key, "train"), rows[:N])


def test_a_subset_of_a_subset_copies_no_inputs(stored):
    workspace, key, rows = stored
    train = load_seen(workspace, "made", "train", key)
    part = train.subset(torch.arange(0, N, 2)).subset(torch.tensor([5, 3, 3]))
    assert part.stored is train.stored
    assert np.array_equal(part.inputs, rows[[10, 6, 6]]) and part.sample_ids.tolist() == [10, 6, 6]
    assert np.array_equal(part.inputs_at(slice(1, None)), rows[[6, 6]])
    assert np.array_equal(part.inputs_at(torch.tensor([[0, 2], [1, 0]])), rows[[[10, 6], [6, 10]]])
    assert np.array_equal(part.with_inputs(torch.ones(3, 2)).inputs, np.ones((3, 2)))


@pytest.mark.parametrize("window", [1, 60, 10_000])
@pytest.mark.parametrize("subset", [False, True])
def test_batches_are_the_same_however_much_is_read_at_a_time(stored, window, subset, monkeypatch):
    monkeypatch.setattr(loader, "_VALUES_AT_ONCE", 50 * D)
    workspace, key, rows = stored
    samples = load_seen(workspace, "made", "train", key)
    if subset:
        samples = samples.subset(torch.arange(N - 1, 0, -3))
    batches = list(epoch_batches(samples, 32, 1, 2))
    read = list(read_batches(samples, iter(batches), window))
    assert len(read) == len(batches)
    for (positions, inputs), batch in zip(read, batches, strict=True):
        assert torch.equal(positions, batch)
        assert np.array_equal(inputs, rows[samples.sample_ids[batch]])


def test_a_head_learns_the_same_where_memory_is_short(stored, monkeypatch):
    workspace, key, _ = stored
    samples = load_seen(workspace, "made", "train", key)
    scale, training = Normalization(*normalization(samples)), TrainingSpec(model="head", epochs=2, batch_size=16)

    def learned():
        network = build_model("head", samples.shape, samples.classes, 0)
        for _ in train_epochs(network, build_optimizer(network, training), samples, scale, training, 0):
            pass
        logits = torch.cat([found for _, found in evaluation_pass(network, samples, scale)])
        return [*network.state_dict().values(), logits]

    asked = []

    def read(samples, batches, window):
        asked.append(window)
        return read_batches(samples, batches, window)

    monkeypatch.setattr(loop, "read_batches", read)
    here = learned()
    monkeypatch.setattr(loop, "SMALLEST_WINDOW", 1)
    monkeypatch.setattr(loop, "available_bytes", lambda device: N * D * 4 // 2)
    assert all(map(torch.equal, here, learned()))
    assert asked[:3] == [0] * 3 and asked[3:] == [N // 4 // os.cpu_count()] * 3


@pytest.mark.parametrize("most", [0, 1 << 28])
def test_rows_are_made_block_by_block(most, tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "IN_MEMORY", most)
    monkeypatch.setattr(scratch, "BLOCK_BYTES", 7 * 4 * D)
    asked = []

    def rows(part):
        asked.append((part.start, part.stop))
        return torch.arange(part.start, part.stop)[:, None].expand(-1, D) + 0.5

    made = scratch.fill_rows(40, D, rows, tmp_path / "partial")
    assert torch.equal(made, (torch.arange(40) + 0.5)[:, None].expand(-1, D))
    assert asked[0] == (0, 7) and asked[-1] == (35, 40) and all(a[1] == b[0] for a, b in pairwise(asked))
    assert not most or not (tmp_path / "partial").exists()
    assert not list(tmp_path.glob("partial/*"))


def test_a_disk_that_takes_no_more_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "IN_MEMORY", 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            scratch.fill_rows(400, D, lambda part: torch.zeros(part.stop - part.start, D), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_rows_of_unit_length_are_the_same_on_the_disk(tmp_path, monkeypatch):
    features = torch.randn(999, 33, generator=torch.Generator().manual_seed(0)).double()
    here = checked_rows(features, 5)
    monkeypatch.setattr(scratch, "IN_MEMORY", 0)
    monkeypatch.setattr(scratch, "BLOCK_BYTES", 64 * 4 * 33)
    assert torch.equal(checked_rows(features, 5, tmp_path), here)
    features[700] = 0
    with pytest.raises(ScoreInputError, match="sample 700 have norm 0"):
        checked_rows(features, 5, tmp_path)


def test_only_a_score_of_the_images_reads_them(tmp_path, monkeypatch):
    workspace = Workspace.open(tmp_path / "workspace", create=True)
    ingest(workspace, IngestSpec("small", "digits", limit=200, test_fraction=0.2))
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).standard_normal((250, D), np.float32))

    def planned(*scores):
        training, features = TrainingSpec(model="head", epochs=1, seeds=1), str(tmp_path / "mine.npy")
        return plan_run(workspace, "small", scores, training, neighbors=5, features=features)

    def read(*given):
        raise AssertionError("images were read")

    monkeypatch.setattr(loader, "_read_inputs", read)
    compute(workspace, planned("aum", "confident_learning", "dark", "cg_feature"), "cpu")
    compute(workspace, planned("knn_disagreement"), "cpu")  # trains nothing
    with pytest.raises(AssertionError, match="images were read"):
        compute(workspace, planned("cg"), "cpu")


MEASURED = """
import sys, threading
from pathlib import Path
from engine.data import loader
from engine.features import scratch
from engine.runs import crossval
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.scores import registry
from engine.spec import TrainingSpec
from engine.store.workspace import Workspace
from engine.training import loop

# what is read and made at a time, so that it is no part of what grows
scratch.IN_MEMORY = scratch.BLOCK_BYTES = registry.CHECKED = 1 << 20
loader._VALUES_AT_ONCE = loop.EVAL_VALUES = 1 << 18
crossval.HEAD_FOLDS, crossval.HEAD_REPEATS = 2, 1
workspace = Workspace.open(Path(sys.argv[1]))

most, over = [0], threading.Event()

def look():  # at the memory that is this process's own
    while not over.wait(0.005):
        fields = dict(line.split(":") for line in open("/proc/self/status"))
        most[0] = max(most[0], int(fields["RssAnon"].split()[0]) << 10)

training = TrainingSpec(model="head", epochs=1, seeds=1)
plan = plan_run(workspace, sys.argv[2], ["aum", "confident_learning"], training, neighbors=5, features=sys.argv[3])
watching = threading.Thread(target=look, daemon=True)
watching.start()
compute(workspace, plan, "cpu")
over.set()
watching.join()
print(most[0])
"""


def test_a_run_of_heads_copies_the_features_nowhere(tmp_path):
    workspace = Workspace.open(tmp_path / "workspace", create=True)
    width, running, most = 2048, [], []
    for name, n in (("few", 1500), ("many", 9000)):
        ingest(workspace, IngestSpec(name, "synthetic", limit=n * 4 // 5, test_fraction=0.2))
        file = str(tmp_path / f"{name}.npy")
        np.save(file, np.random.default_rng(n).standard_normal((n, width), np.float32))
        compute_stored(workspace, name, file, torch.device("cpu"), Unheard(), HERE)
        command = [sys.executable, "-c", MEASURED, str(workspace.root), name, file]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    for process in running:
        out, problem = process.communicate(timeout=300)
        assert not process.returncode, problem
        most.append(int(out.splitlines()[-1]))
    assert most[1] - most[0] < 0.7 * 4 * 7500 * width  # one copy of the training samples would be 0.8
