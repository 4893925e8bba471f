"""Loading a split onto a device, its batches and its statistics."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from engine.data.ingest import ingest
from engine.data.loader import Samples, epoch_batches, load_split, normalization, to_float
from engine.data.request import IngestSpec
from engine.errors import NotFoundError, StorageError
from engine.store.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = Workspace.open(tmp_path_factory.mktemp("loader") / "workspace", create=True)
    ingest(workspace, IngestSpec("digits", "digits", test_fraction=0))
    ingest(workspace, IngestSpec("noisy", "digits", noise="symmetric:0.2"))
    ingest(workspace, IngestSpec("vectors", "synthetic", limit=500))
    return workspace


def samples_of(count):
    labels = torch.zeros(count, dtype=torch.int64)
    return Samples(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), labels, torch.arange(count), 2, None)


def test_images_are_the_source_s_pixels(workspace):
    samples = load_split(workspace, "digits", "train")
    pixels = (load_digits().images.astype(int) * 255 // 16)[:, None]
    np.testing.assert_array_equal(samples.inputs.numpy(), pixels)
    np.testing.assert_array_equal(samples.labels.numpy(), load_digits().target)
    assert samples.inputs.dtype == torch.uint8 and samples.labels.dtype == torch.int64
    assert len(samples) == 1797 and samples.classes == 10 and samples.true_labels is None
    with pytest.raises(NotFoundError, match="dataset 'digits' has no test samples"):
        load_split(workspace, "digits", "test")


def test_test_ids_follow_the_training_ids(workspace):
    train, test = load_split(workspace, "noisy", "train"), load_split(workspace, "noisy", "test")
    assert train.sample_ids.tolist() == list(range(1438)) and test.sample_ids.tolist() == list(range(1438, 1797))
    assert (train.labels != train.true_labels).sum() == round(0.2 * 1438)
    assert (test.labels == test.true_labels).all()


def test_vectors(workspace):
    samples = load_split(workspace, "vectors", "train")
    assert samples.inputs.shape == (500, 100) and samples.inputs.dtype == torch.float32
    mean, std = normalization(samples)
    torch.testing.assert_close(mean, samples.inputs.mean(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(std, samples.inputs.std(0, correction=0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("count", "size", "expected"), [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (1, 4, [1]), (8, 4, [4, 4])]
)
def test_batches_cover_every_sample_once(count, size, expected):
    batches = list(epoch_batches(samples_of(count), size, seed=0, epoch=1))
    assert [len(b) for b in batches] == expected
    assert sorted(torch.cat(batches).tolist()) == list(range(count))


def test_batches_depend_on_seed_and_epoch_alone():
    def order(seed, epoch):
        return torch.cat(list(epoch_batches(samples_of(100), 7, seed, epoch))).tolist()

    torch.manual_seed(1)
    first = order(3, 5)
    torch.manual_seed(2)
    assert order(3, 5) == first
    assert len({tuple(order(s, e)) for s in range(3) for e in range(3)}) == 9


def test_normalization_by_hand():
    inputs = torch.tensor([[[[0, 255]], [[7, 7]]], [[[255, 0]], [[7, 7]]]], dtype=torch.uint8)
    samples = samples_of(2).with_inputs(inputs)
    mean, std = normalization(samples)
    assert mean.flatten().tolist() == [127.5, 7] and std.flatten().tolist() == [127.5, 1]
    assert to_float(inputs, mean, std).tolist() == [[[[-1, 1]], [[0, 0]]], [[[1, -1]], [[0, 0]]]]


def test_normalization_over_many_blocks(monkeypatch):
    inputs = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1000, 3, 4, 4), np.uint8))
    monkeypatch.setattr("engine.data.loader._SAMPLES_AT_ONCE", 64)
    mean, std = normalization(samples_of(1000).with_inputs(inputs))
    np.testing.assert_allclose(mean.flatten(), inputs.numpy().mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std.flatten(), inputs.numpy().std((0, 2, 3)), rtol=1e-6)


def test_a_file_without_some_inputs_is_said(workspace):
    import duckdb

    ingest(workspace, IngestSpec("torn", "synthetic", limit=500))
    with duckdb.connect(str(workspace.dataset_path("torn"))) as connection:
        connection.execute("DELETE FROM inputs WHERE first_id = 0")
    with pytest.raises(StorageError, match="damaged"):
        load_split(workspace, "torn", "train")


def test_what_is_read_is_put_on_the_device_asked_for(workspace):
    # "meta" holds no values: a tensor made elsewhere and left there would show.
    samples = load_split(workspace, "noisy", "train", "meta")
    here = load_split(workspace, "noisy", "train")
    for name in ("inputs", "labels", "sample_ids", "true_labels"):
        there, own = getattr(samples, name), getattr(here, name)
        assert there.device.type == "meta" and there.shape == own.shape and there.dtype == own.dtype


def test_a_subset_has_the_samples_in_the_order_given(workspace):
    samples = load_split(workspace, "noisy", "train")
    part = samples.subset(torch.tensor([7, 0, 3]))
    assert part.sample_ids.tolist() == [7, 0, 3] and len(part) == 3 and part.classes == samples.classes
    assert torch.equal(part.inputs[1], samples.inputs[0])
    assert part.labels.tolist() == [int(samples.labels[i]) for i in (7, 0, 3)]
    assert part.true_labels.tolist() == [int(samples.true_labels[i]) for i in (7, 0, 3)]
    assert load_split(workspace, "digits", "train").subset(torch.tensor([1])).true_labels is None
