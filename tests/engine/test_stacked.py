"""Networks trained as one stack are the networks that the plain loop trains one by one."""

from dataclasses import replace

import pytest
import torch

from engine.data.loader import Samples
from engine.errors import Cancelled
from engine.spec import TrainingSpec
from engine.training.loop import Normalization, build_optimizer, compute_accuracy, train_epochs
from engine.training.models import build_model
from engine.training.stacked import (
    Member,
    batch_width,
    can_stack,
    compute_accuracies,
    stack_size,
    train_stacked,
)

N, D, C = 260, 32, 5


def make_samples(device="cpu", dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(N) % C
    inputs = torch.randn(C, D, generator=generator)[labels] + torch.randn(N, D, generator=generator)
    if dtype == torch.uint8:
        inputs = (inputs * 20 + 128).clamp(0, 255).to(torch.uint8).view(N, 2, 4, 4)
    return Samples(inputs.to(device), labels.to(device), torch.arange(N, device=device), C, None)


def scale_of(samples):
    inputs = samples.inputs.float()
    if inputs.ndim == 4:
        return Normalization(inputs.mean((0, 2, 3)).view(-1, 1, 1), inputs.std((0, 2, 3)).view(-1, 1, 1))
    return Normalization(inputs.mean(0), inputs.std(0))


def make_members(device="cpu"):
    """Seven networks of unlike sets and epochs, of about 50 steps each; 32 to a batch.

    256: whole batches; 250, 70: a smaller last batch; 225 = 7 * 32 + 1: a last batch of 33; 20: one batch of 20.
    """
    generator = torch.Generator().manual_seed(9)
    kept = [torch.randperm(N, generator=generator)[:n].sort().values.to(device) for n in (256, 250, 225, 70, 20)]
    return [
        Member(part, seed, epochs) for part, seed, epochs in zip(kept, range(5), (6, 6, 7, 17, 50), strict=True)
    ] + [
        Member(kept[0], 5, 6),
        Member(kept[3], 0, 4),
    ]


TRAININGS = {
    "adam": TrainingSpec(batch_size=32, lr=5e-4),
    "adam with decay, cosine": TrainingSpec(batch_size=32, lr=5e-4, schedule="cosine", weight_decay=1e-3),
    "sgd, cosine": TrainingSpec(batch_size=32, lr=0.05, optimizer="sgd", schedule="cosine", weight_decay=5e-4),
    "sgd, step": TrainingSpec(batch_size=32, lr=0.05, optimizer="sgd", schedule="step"),
}


TRAININGS |= {
    f"{model}, {name}": replace(TRAININGS[name], model=model)
    for model, name in (("head", "adam"), ("head", "sgd, cosine"), ("head", "sgd, step"), ("linear", "sgd, cosine"))
}


def train_plain(member, samples, scale, training):
    training = replace(training, epochs=member.epochs)
    subset = replace(
        samples.with_inputs(samples.inputs[member.kept]),
        labels=samples.labels[member.kept],
        sample_ids=samples.sample_ids[member.kept],
    )
    network = build_model(training.model, samples.inputs.shape[1:], C, member.seed).to(samples.inputs.device)
    for _ in train_epochs(network, build_optimizer(network, training), subset, scale, training, member.seed):
        pass
    return network.eval()


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.float32) for name in TRAININGS), ("sgd, cosine", torch.uint8), ("head, adam", torch.uint8)],
)
def test_every_network_of_a_stack_is_the_plain_loops(name, dtype):
    samples, training = make_samples(dtype=dtype), TRAININGS[name]
    scale = scale_of(samples)
    inputs = (samples.inputs.float() - scale.mean) / scale.std
    members = make_members()
    stack = train_stacked(members, samples, scale, training)
    logits = stack.logits(inputs).detach()
    for k, member in enumerate(members):
        plain = train_plain(member, samples, scale, training)
        expected = plain(inputs).detach()
        assert (logits[k] - expected).abs().max() < 1e-4
        assert expected.std() > 0.3  # it learned something to compare
        assert torch.allclose(stack.member(k)(inputs).detach(), logits[k], atol=1e-5)
        tracked = [name for name in plain.state_dict() if name.endswith("num_batches_tracked")]
        assert len(tracked) == (2 if training.model == "mlp" else 0)
        assert all(torch.equal(stack.state[name][k], plain.state_dict()[name]) for name in tracked)


@pytest.mark.parametrize("name", ["sgd, cosine", "head, adam"])
def test_a_network_does_not_depend_on_its_stack(name):
    samples = make_samples()
    scale, training = scale_of(samples), TRAININGS[name]
    wide = [member for member in make_members() if batch_width(len(member.kept), 32) == 32]
    assert len(wide) == 5
    together = train_stacked(wide, samples, scale, training)
    for k, member in enumerate(wide):
        alone = train_stacked([member], samples, scale, training)
        for name, values in alone.state.items():
            assert torch.allclose(together.state[name][k].double(), values[0].double(), atol=1e-6, rtol=0), name


def test_no_network_reads_another():
    """The same network beside others: nothing of theirs is in it, whatever their samples and labels."""
    samples = make_samples()
    scale, training = scale_of(samples), TRAININGS["adam"]
    mine, other = make_members()[1], Member(torch.arange(100, 160), 1, 30)
    poisoned = samples.with_inputs(samples.inputs.clone())
    poisoned.inputs[~torch.isin(torch.arange(N), mine.kept)] = torch.nan
    assert torch.isnan(poisoned.inputs[other.kept]).any()
    stack = train_stacked([mine, other], poisoned, scale, training)
    clean = train_stacked([mine], samples, scale, training)
    for name, values in clean.state.items():
        assert torch.allclose(stack.state[name][0].double(), values[0].double(), atol=1e-6, rtol=0)
    assert torch.isnan(stack.state["1.weight"][1]).any()


def test_accuracies_are_those_of_the_networks():
    samples = make_samples()
    scale = scale_of(samples)
    stack = train_stacked(make_members()[:3], samples, scale, TRAININGS["sgd, step"])
    found = compute_accuracies(stack, samples, scale)
    assert found == [compute_accuracy(stack.member(k), samples, scale) for k in range(3)]
    assert min(found) > 0.8


def test_the_share_of_steps_done_is_told_and_a_stack_can_be_stopped():
    samples = make_samples()
    scale, shares = scale_of(samples), []
    # 256 samples are 8 steps an epoch, 70 are 3: 2 epochs and 1 epoch are 16 and 3 steps, in 16 turns.
    members = [Member(torch.arange(256), 0, 2), Member(torch.arange(70), 1, 1)]
    train_stacked(members, samples, scale, TRAININGS["adam"], heartbeat=shares.append)
    assert shares == [step / 19 for step in (0, 2, 4, *range(6, 19))]

    def stop(share):
        if share > 0.5:
            raise Cancelled()

    with pytest.raises(Cancelled):
        train_stacked(members, samples, scale, TRAININGS["adam"], heartbeat=stop)


@pytest.mark.parametrize(("n", "width"), [(256, 32), (250, 32), (225, 33), (20, 20), (33, 33), (32, 32)])
def test_the_width_is_that_of_the_largest_batch(n, width):
    assert batch_width(n, 32) == width


def test_what_can_be_stacked():
    assert all(can_stack(build_model(name, (8,), 3, 0)) for name in ("mlp", "linear", "head"))
    assert not any(can_stack(build_model(name, (1, 8, 8), 3, 0)) for name in ("cnn", "lenet"))
    assert not can_stack(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout()))
    assert not can_stack(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2, affine=False)))


def test_a_stack_fits_into_memory():
    samples, training = make_samples(), TrainingSpec(batch_size=32)
    small, large = (
        stack_size(build_model("mlp", (d,), C, 0), training, samples, torch.device("cpu")) for d in (D, 20_000)
    )
    assert 1 <= large < small <= 1024
