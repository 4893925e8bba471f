"""Training on each device: one network, a stack of them, what is recorded, kept and resumed."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from learner_problems import clouds

from engine.data.loader import Samples, epoch_batches, normalization
from engine.relabel.dividemix import learn_dividemix
from engine.relabel.learner_settings import DivideMixSettings
from engine.relabel.sop import learn_sop
from engine.spec import TrainingSpec
from engine.training.augment import augment
from engine.training.device import available_bytes
from engine.training.loop import Normalization, build_optimizer, compute_accuracy, evaluation_pass, train_epochs
from engine.training.models import build_model
from engine.training.recording import DynamicsRecorder, Spill
from engine.training.stacked import Member, _plan_steps, compute_accuracies, train_stacked
from engine.training.tasks import _restore, _state

N, C = 260, 5


def made(device, images=False):
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(N) % C
    inputs = torch.randn(C, 32, generator=generator)[labels] + torch.randn(N, 32, generator=generator)
    if images:
        inputs = (inputs * 20 + 128).clamp(0, 255).to(torch.uint8).view(N, 2, 4, 4)
    samples = Samples(inputs.to(device), labels.to(device), torch.arange(N, device=device), C, None)
    return samples, Normalization(*normalization(samples))


def trained(samples, scale, training, seed=0, recorder=None):
    network = build_model(training.model, samples.inputs.shape[1:], C, seed).to(samples.inputs.device)
    optimizer = build_optimizer(network, training)
    for epoch, _ in train_epochs(network, optimizer, samples, scale, training, seed, recorder=recorder):
        if recorder:
            recorder.end_epoch(epoch)
    return network


def logits_of(network, samples, scale):
    return torch.cat([values for _, values in evaluation_pass(network, samples, scale)]).cpu()


def test_samples_are_normalized_and_come_in_the_same_sequence(device):
    for images in (False, True):
        (here, scale), (there, moved) = made("cpu", images), made(device, images)
        assert torch.allclose(moved.mean.cpu(), scale.mean, rtol=1e-6, atol=1e-6)
        assert torch.allclose(moved.std.cpu(), scale.std, rtol=1e-6)
        batches = [torch.cat(list(epoch_batches(samples, 64, 0, 1))).cpu() for samples in (here, there)]
        assert torch.equal(*batches)


@pytest.mark.parametrize("name", ["mlp", "head", "lenet"])
def test_a_network_learns_the_same(device, name):
    training = TrainingSpec(model=name, batch_size=32, epochs=2, lr=5e-4)
    images = name == "lenet"
    here, there = (logits_of(trained(*made(d, images), training), *made(d, images)) for d in ("cpu", device))
    assert float(here.std()) > 0.1 and float((here - there).abs().max()) < 0.02


def test_logits_are_float32_under_bfloat16(device, tmp_path):
    samples, scale = made(device, images=True)
    training = TrainingSpec(model="lenet", batch_size=32, epochs=2, precision="bfloat16")
    recorder = DynamicsRecorder(Spill(tmp_path / "spill", N, C, True), device)
    network = trained(samples, scale, training, recorder=recorder)
    logits = torch.from_numpy(recorder.spill.logits().copy())
    assert (logits.bfloat16().float() == logits).float().mean() < 0.05  # else they had been rounded to 8 bits
    assert len(logits[-1].unique()) > 0.99 * logits[-1].numel()
    evaluated = logits_of(network, samples, scale)
    assert evaluated.dtype == torch.float32 and (evaluated.bfloat16().float() == evaluated).float().mean() < 0.05


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_checkpoint_keeps_its_shapes_and_goes_on(device, optimizer):
    samples, scale = made(device, images=True)
    training = TrainingSpec(model="lenet", batch_size=32, epochs=4, lr=0.01, optimizer=optimizer)
    network = build_model("lenet", samples.inputs.shape[1:], C, 0).to(device)
    first = build_optimizer(network, training)
    for epoch, _ in train_epochs(network, first, samples, scale, training, 0):
        if epoch == 1:
            break
    kept = _state(network, first)
    for index, values in first.state_dict()["state"].items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                assert kept[f"optimizer.{index}.{key}"].shape == tuple(value.shape)
    assert all(kept[f"model.{name}"].shape == tuple(t.shape) for name, t in network.state_dict().items())
    again = build_model("lenet", samples.inputs.shape[1:], C, 1).to(device)
    second = build_optimizer(again, training)
    _restore(again, second, kept)
    for one, other in zip(first.state_dict()["state"].values(), second.state_dict()["state"].values(), strict=True):
        assert all(
            a.shape == b.shape and a.device == b.device and a.dtype == b.dtype and torch.equal(a, b)
            for a, b in zip(one.values(), other.values(), strict=True)
            if isinstance(a, torch.Tensor)
        )
    for _ in train_epochs(again, second, samples, scale, training, 0, first_epoch=2):
        pass
    whole = logits_of(trained(samples, scale, training), samples, scale)
    # the same on a processor; on a GPU convolutions may add in another sequence
    allowed = 0.0 if device.type == "cpu" else 1e-2
    assert float((logits_of(again, samples, scale) - whole).abs().max()) <= allowed


def members(device):
    """Networks of unlike sets and epochs, 32 samples to a batch: whole batches, smaller last ones, one of 33."""
    generator = torch.Generator().manual_seed(9)
    kept = [torch.randperm(N, generator=generator)[:n].sort().values.to(device) for n in (256, 250, 225, 70)]
    return [Member(part, seed, epochs) for seed, (part, epochs) in enumerate(zip(kept, (6, 6, 7, 17), strict=True))]


@pytest.mark.parametrize("training", [TrainingSpec(batch_size=32, lr=5e-4), TrainingSpec(model="head", batch_size=32)])
def test_a_stack_is_its_networks_one_by_one(device, training):
    samples, scale = made(device)
    stack = train_stacked(members(device), samples, scale, training)
    inputs = (samples.inputs - scale.mean) / scale.std
    together = stack.logits(inputs).detach().cpu()
    found = compute_accuracies(stack, samples, scale)
    for k, member in enumerate(members(device)):
        plain = trained(samples.subset(member.kept), scale, replace(training, epochs=member.epochs), member.seed)
        alone = logits_of(plain, samples, scale)
        assert float((together[k] - alone).abs().max()) < (1e-4 if device.type == "cpu" else 2e-2)
        assert found[k] == pytest.approx(compute_accuracy(plain, samples, scale), abs=0.02) and found[k] > 0.5


def test_what_is_drawn_is_sent_without_waiting(device, waits_for_nothing):
    images = torch.arange(20.0 * 3 * 16 * 16).view(20, 3, 16, 16)
    there = images.to(device)
    with waits_for_nothing():
        found = augment(there, "crop+flip", torch.Generator().manual_seed(0))
    assert torch.equal(found.cpu(), augment(images, "crop+flip", torch.Generator().manual_seed(0)))
    training = TrainingSpec(batch_size=32, schedule="cosine")
    with waits_for_nothing():
        steps = list(_plan_steps([[32, 64, 70], [32, 64]], range(2, 5), [30, 20], training, device))
    assert [step.spans.tolist() for step in steps] == [[[64, 70], [0, 32]], [[0, 32], [32, 64]], [[32, 64], [0, 32]]]
    assert [{rows: where.tolist() for rows, where in step.places.items()} for step in steps] == [
        {6: [0], 32: [1]},
        {32: [0, 1]},
        {32: [0, 1]},
    ]


def test_memory_that_is_given_back_counts_as_free(device):
    before = available_bytes(device)
    values = torch.zeros(1 << 26, device=device)  # 256 MB
    del values  # torch holds it for later
    if device.type == "cuda":
        assert available_bytes(device) >= before - (1 << 24)
    assert before > 0


@pytest.mark.parametrize(
    "learn", [learn_sop, partial(learn_dividemix, settings=DivideMixSettings(warm_up=2, ramp=4, lambda_u=5.0))]
)
def test_wrong_labels_get_the_true_one(device, learn):
    problem = clouds(150, wrong=0.4, epochs=12, batch_size=16, lr=0.005)
    samples, scale = problem.samples, problem.normalization
    moved = {name: getattr(samples, name).to(device) for name in ("stored", "labels", "sample_ids", "true_labels")}
    there = replace(
        problem,
        samples=replace(samples, **moved),
        test=replace(samples, **moved),
        normalization=Normalization(scale.mean.to(device), scale.std.to(device)),
    )
    learned = learn(there, 1, lambda share: None)
    assert not learned.probabilities.is_cuda and not learned.test.is_cuda
    assert (
        float((learned.probabilities.argmax(1) == samples.true_labels).float().mean()) > 0.9
    )  # 0.6 of them were right
