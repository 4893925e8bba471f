import itertools
import math
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from engine.data.loader import load_split, normalization
from engine.errors import Cancelled, SpecError
from engine.features.penultimate import compute_features, head_of
from engine.runs.cluster import HERE
from engine.spec import TrainingSpec
from engine.store.progress import Progress
from engine.store.tensors import load_tensors
from engine.training import device
from engine.training.augment import augment
from engine.training.away import train_away
from engine.training.device import available_bytes, pick_device
from engine.training.loop import (
    Normalization,
    batches_per_epoch,
    build_optimizer,
    compute_accuracy,
    epochs_before_first_drop,
    learning_rate,
    train_epochs,
)
from engine.training.models import MODELS, build_model
from engine.training.own_models import allow_named
from engine.training.recording import DynamicsRecorder, Spill
from engine.training.tasks import Splits, checkpoint_path, load_weights, seed_tasks, spill_of, train_tasks


@pytest.fixture
def samples(small_workspace):
    return load_split(small_workspace, "small", "train")


def train(samples, training, seed=0, recorder=None):
    scale = Normalization(*normalization(samples))
    network = build_model(training.model, samples.inputs.shape[1:], samples.classes, seed)
    for epoch, _ in train_epochs(
        network, build_optimizer(network, training), samples, scale, training, seed, recorder=recorder
    ):
        if recorder:
            recorder.end_epoch(epoch)
    return network


def steps(optimizer, network, monkeypatch, compiler):
    """The weights and the state after some steps, half of them of a state that was loaded."""
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    with monkeypatch.context() as patch:
        if not compiler:
            patch.setitem(sys.modules, "torch._dynamo", None)
        for _ in range(2):
            for _ in range(3):
                optimizer.zero_grad()
                network(inputs).square().sum().backward()
                optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
        return [values.tolist() for values in network.parameters()], str(optimizer.state_dict())


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_optimizers_are_those_of_torch_without_its_compiler(small_training, monkeypatch, name):
    training = small_training(optimizer=name, lr=0.01, weight_decay=0.1)
    ours, theirs = (build_model("linear", (3,), 2, 0) for _ in range(2))
    given = {"lr": 0.01, "weight_decay": 0.1, "fused": True}
    if name == "adam":
        optimizer = torch.optim.Adam(theirs.parameters(), **given)
    else:
        optimizer = torch.optim.SGD(theirs.parameters(), **given, momentum=0.9, nesterov=True)
    found = steps(build_optimizer(ours, training), ours, monkeypatch, compiler=False)
    assert found == steps(optimizer, theirs, monkeypatch, compiler=True)
    with pytest.raises(ImportError):
        steps(optimizer, theirs, monkeypatch, compiler=False)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_same_seed_gives_the_same_network(samples, small_training, optimizer):
    training = small_training(optimizer=optimizer, lr=0.01)
    first, again, other = (train(samples, training, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("model", ["head", "lenet"])
def test_a_network_stopped_and_resumed_is_the_unbroken_one(samples, tmp_path, small_training, model, optimizer):
    """Dropout draws the masks it would have drawn, and the optimizer's state comes back in its memory format."""
    training = small_training(model=model, optimizer=optimizer, lr=0.01, epochs=4, seeds=1)
    scale, tasks = Normalization(*normalization(samples)), seed_tasks(samples, training, {})

    def train_in(name, stop_at):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        reports = itertools.count()

        class Stopping(Progress):
            def step(self, *reported):
                if next(reports) == stop_at:
                    raise Cancelled()

        progress = Stopping(folder, {"training": 1.0})
        return train_tasks(folder, tasks, Splits(samples, None, scale), progress, checkpoint_seconds=0.0)

    with pytest.raises(Cancelled):
        train_in("broken", stop_at=6)  # 4 steps an epoch, a report each: in the second
    assert 0 < load_tensors(checkpoint_path(tmp_path / "broken", tasks[0]))[1]["epochs"] < 4
    train_in("broken", stop_at=-1)
    train_in("whole", stop_at=-1)
    broken, whole = (load_weights(tmp_path / name, tasks[0]) for name in ("broken", "whole"))
    assert broken.keys() == whole.keys() and all((broken[name] == whole[name]).all() for name in whole)


@pytest.mark.parametrize("model", ["mlp", "lenet"])
def test_legs_elsewhere_leave_what_training_here_leaves(samples, tmp_path, small_training, model):
    """Dynamics, kept weights, rows: byte for byte, in legs, of which one is cut off and begun again."""
    training = small_training(model=model, lr=0.01, epochs=4, seeds=1, logit_seeds=1)
    splits = Splits(samples, samples.subset(torch.arange(50)), Normalization(*normalization(samples)))
    tasks = seed_tasks(samples, training, {1: 1, 3: 1})

    def train_in(name, *how, seconds=0.0, stop_at=math.inf):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)

        class Stopping(Progress):
            def step(self, done, *others):
                if done >= stop_at:
                    raise Cancelled()

        return train_tasks(folder, tasks, splits, Stopping(folder, {"training": 1.0}), seconds, *how)

    away = partial(train_away, HERE, HERE.share(splits))
    with pytest.raises(Cancelled):
        train_in("away", away, stop_at=2.5)
    assert load_tensors(checkpoint_path(tmp_path / "away", tasks[0]))[1]["epochs"] == 2
    rows = train_in("away", away, seconds=60.0)  # the two epochs that are left, in one leg
    here = train_in("here")
    assert [{**row, "seconds": 0} for row in rows] == [{**row, "seconds": 0} for row in here] and len(rows) == 4
    for path in (tmp_path / "here" / "partial").iterdir():
        theirs = tmp_path / "away" / "partial" / path.name
        if path.suffix == ".dynamics":
            assert theirs.read_bytes() == path.read_bytes()
        elif "checkpoint" not in path.name:
            mine, others = load_tensors(path)[0], load_tensors(theirs)[0]
            assert mine.keys() == others.keys() and all(mine[k].tobytes() == others[k].tobytes() for k in mine)
    assert len(list((tmp_path / "here" / "partial").iterdir())) == 5  # dynamics, after 1, 3 and 4, checkpoint


def test_training_learns(small_workspace, samples):
    training = TrainingSpec(epochs=12, seeds=1, batch_size=32, lr=1e-3)
    scale = Normalization(*normalization(samples))
    network = train(samples, training)
    assert compute_accuracy(network, load_split(small_workspace, "small", "test"), scale) > 0.6  # chance is 0.1


def test_observe_eval_records_the_evaluation_pass(tmp_path, samples, small_training):
    training = small_training(observe="eval", epochs=2)
    recorder = DynamicsRecorder(Spill(tmp_path / "d", len(samples.labels), samples.classes, True), torch.device("cpu"))
    network = train(samples, training, recorder=recorder).eval()
    with torch.no_grad():
        scale = normalization(samples)
        logits = network((samples.inputs.float() - scale[0]) / scale[1])
    torch.testing.assert_close(torch.from_numpy(recorder.spill.logits()[1].copy()), logits, atol=1e-4, rtol=1e-4)


def test_observe_train_and_eval_differ_only_in_what_is_recorded(tmp_path, samples, small_training):
    weights = []
    for observe in ("train", "eval"):
        spill = Spill(tmp_path / observe, len(samples.labels), samples.classes, False)
        recorder = DynamicsRecorder(spill, torch.device("cpu"))
        weights.append(train(samples, small_training(observe=observe), recorder=recorder).state_dict())
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_schedules():
    base = TrainingSpec(lr=1.0)
    assert learning_rate(base, 0.99) == 1.0
    cosine = replace(base, schedule="cosine")
    assert [learning_rate(cosine, p) for p in (0, 0.5)] == pytest.approx([1.0, 0.5])
    step = replace(base, schedule="step")
    assert [learning_rate(step, p) for p in (0.49, 0.5, 0.75)] == pytest.approx([1.0, 0.1, 0.01])
    assert epochs_before_first_drop(replace(step, epochs=20)) == 10
    assert epochs_before_first_drop(replace(base, epochs=20)) == 20


@pytest.mark.parametrize(("n", "size", "expected"), [(10, 5, 2), (11, 5, 2), (12, 5, 3), (1, 5, 1), (5, 8, 1)])
def test_a_last_batch_of_one_joins_the_one_before(n, size, expected):
    assert batches_per_epoch(n, size) == expected


@pytest.mark.parametrize("name", MODELS)
def test_models_give_logits_and_features(name):
    network = build_model(name, (3, 16, 16), 7, seed=1).eval()
    inputs = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        logits, features = network(inputs), compute_features(network, inputs)
    assert logits.shape == (2, 7) and head_of(network).out_features == 7
    torch.testing.assert_close(head_of(network)(features), logits)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 5, 9), (1, 1, 1)])
def test_lenet_takes_images_of_any_size(shape):
    network = build_model("lenet", shape, 4, seed=0)
    assert network(torch.randn(3, *shape)).shape == (3, 4)
    parameters = sum(p.numel() for p in network.parameters())
    # three convolutions without bias, a scale and a shift each, and a linear layer on every position that is left
    positions = math.ceil(shape[1] / 8) * math.ceil(shape[2] / 8)
    convolutions = 9 * (shape[0] * 16 + 16 * 32 + 32 * 64) + 2 * (16 + 32 + 64)
    assert parameters == convolutions + (64 * positions + 1) * 4


def test_lenet_knows_places_that_averaged_positions_do_not():
    """The logits of two images that differ only in where a spot is, far from every edge."""
    images = torch.zeros(2, 1, 64, 64)
    images[0, 0, 24, 24] = images[1, 0, 40, 40] = 1
    for name, same in (("cnn", True), ("lenet", False)):
        with torch.no_grad():
            first, second = build_model(name, (1, 64, 64), 3, seed=0).eval()(images)
        assert torch.allclose(first, second, atol=1e-6) == same


def test_linear_and_head_are_what_they_say():
    linear, head = (build_model(name, (7,), 3, seed=0) for name in ("linear", "head"))
    assert [tuple(p.shape) for p in linear.parameters()] == [(3, 7), (3,)]
    assert [tuple(p.shape) for p in head.parameters()] == [(512, 7), (512,), (3, 512), (3,)]
    inputs = torch.randn(5, 7)
    torch.testing.assert_close(linear(inputs), inputs @ linear[1].weight.T + linear[1].bias)


def test_a_model_of_ones_own(small_workspace, tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(
        "import torch.nn as nn\ndef make(shape, classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0], classes))\n"
        "def wrong(shape, classes):\n    return 3\ndef broken(shape, classes):\n    raise RuntimeError('no such width')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpecError, match="nothing was imported"):
        build_model("my_nets:make", (4,), 3, 0)
    for name in ("make", "wrong", "broken", "missing"):
        allow_named(small_workspace, f"my_nets:{name}")
    assert isinstance(build_model("my_nets:make", (4,), 3, 0), nn.Module)
    with pytest.raises(SpecError, match="must return a torch.nn.Module"):
        build_model("my_nets:wrong", (4,), 3, 0)
    with pytest.raises(SpecError, match="no such width"):
        build_model("my_nets:broken", (4,), 3, 0)
    with pytest.raises(SpecError, match="cannot be imported"):
        build_model("my_nets:missing", (4,), 3, 0)


@pytest.mark.parametrize("observe", ["train", "eval"])
@pytest.mark.parametrize("model", ["mlp", "head"])
def test_seeds_of_a_run_as_one_stack_leave_what_each_leaves_alone(
    samples, small_workspace, tmp_path, small_training, model, observe
):
    training = small_training(model=model, observe=observe, epochs=3, seeds=3, batch_size=48, lr=0.02, optimizer="sgd")
    test, scale = load_split(small_workspace, "small", "test"), Normalization(*normalization(samples))
    found = {}
    for stacked in (False, True):
        folder = tmp_path / str(stacked)
        folder.mkdir()
        tasks = seed_tasks(samples, training, {1: 2, 3: 3})
        rows = train_tasks(
            folder, tasks, Splits(samples, test, scale), Progress(folder, {"training": 1.0}), stacked=stacked
        )
        dynamics = [spill_of(folder, task) for task in tasks]
        kept = [load_weights(folder, task, epoch) for task in tasks for epoch in (3, *task.keep_epochs)]
        found[stacked] = rows, dynamics, kept
    (rows, dynamics, kept), (rows_of_stack, dynamics_of_stack, kept_of_stack) = found[False], found[True]
    assert len(kept) == 5
    for plain, stack in zip(kept, kept_of_stack, strict=True):
        assert plain.keys() == stack.keys()
        for name, values in plain.items():
            assert values.shape == stack[name].shape and values.dtype == stack[name].dtype
            difference = abs(values - stack[name])  # rounding, which a ReLU at 0 makes more of
            assert difference.max() < 1e-2 and difference.mean() < 2e-4, name
    for plain, stack in zip(dynamics, dynamics_of_stack, strict=True):
        assert plain.epochs() == stack.epochs() == 3
        assert plain.columns()["margin"] == pytest.approx(stack.columns()["margin"], abs=2e-2)
        if plain.keep_logits:
            assert plain.logits() == pytest.approx(stack.logits(), abs=2e-2)
    for plain, stack in zip(rows, rows_of_stack, strict=True):
        assert [plain[key] for key in ("seed", "epoch", "lr")] == [stack[key] for key in ("seed", "epoch", "lr")]
        assert plain["train_loss"] == pytest.approx(stack["train_loss"], abs=1e-3)
        assert plain["test_accuracy"] == pytest.approx(stack["test_accuracy"], abs=0.03) and stack["seconds"] > 0


def test_memory_that_torch_holds_for_later_counts_as_free(monkeypatch):
    """Of a driver's 5 GB: 3 of the 4 that torch has reserved are in use, so one more can be had."""
    for name, value in {"memory_reserved": 4, "memory_allocated": 3}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value << 30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 << 30, 80 << 30))
    assert available_bytes("cuda") == 6 << 30


@pytest.mark.parametrize("version", [0, 1])
def test_what_a_control_group_keeps_of_files_counts_as_free(version, tmp_path, monkeypatch):
    """Of 900 MB, 700 are in use, 250 of them by files that were read."""
    limit, used, cached = list(device.GROUPS.values())[version]
    monkeypatch.setattr(device, "GROUPS", {str(tmp_path): (limit, used, cached)})
    for name, text in {limit: "900000000", used: "700000000"}.items():
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\n{cached[0]} 50000000\n{cached[1]} 200000000\n")
    assert available_bytes("cpu") == 450_000_000
    (tmp_path / limit).write_text("max\n" if version == 0 else "9223372036854771712\n")
    assert available_bytes("cpu") > 450_000_000


def test_wrong_models_are_refused():
    with pytest.raises(SpecError, match="did you mean 'resnet18'"):
        build_model("resnet81", (3, 8, 8), 2, 0)
    for name in ("cnn", "lenet"):
        with pytest.raises(SpecError, match="use mlp"):
            build_model(name, (100,), 2, 0)


def test_a_device_that_is_not_there():
    with pytest.raises(SpecError, match="auto, cpu, cuda"):
        pick_device("tpu")
    assert pick_device("cpu").type == "cpu"


def test_flips_are_flips():
    images = torch.arange(64.0).view(8, 1, 2, 4)
    flipped = augment(images, "flip", torch.Generator().manual_seed(0))
    kinds = {torch.equal(f, i) or (torch.equal(f, i.flip(2)) and 2) for f, i in zip(flipped, images, strict=True)}
    assert kinds == {True, 2}


def test_crops_are_shifts_of_at_most_an_eighth():
    images = torch.zeros(200, 1, 16, 16)
    images[:, :, 8, 8] = 1
    places = augment(images, "crop", torch.Generator().manual_seed(0)).flatten(1).argmax(1)
    rows, columns = places // 16 - 8, places % 16 - 8
    assert sorted(set(rows.tolist())) == sorted(set(columns.tolist())) == [-2, -1, 0, 1, 2]


def test_no_augmentation_returns_the_images():
    images = torch.randn(3, 1, 4, 4)
    vectors = torch.randn(3, 5)
    assert augment(images, "none", torch.Generator()) is images
    assert augment(vectors, "none", torch.Generator()) is vectors


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("seeds", 0),
        ("batch_size", 1),
        ("lr", 0.0),
        ("lr", math.nan),
        ("optimizer", "adma"),
        ("logit_seeds", 9),
    ],
)
def test_a_training_out_of_range_is_refused(field, value):
    with pytest.raises(SpecError, match=field.split("_")[0]):
        TrainingSpec(**{field: value})
