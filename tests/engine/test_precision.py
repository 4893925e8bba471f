"""bfloat16 before the last layer: dynamics close to those of float32, logits that do not tie, the same names of weights."""

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from engine.data.loader import load_split, normalization
from engine.errors import SpecError
from engine.queries.connection import connected
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec, network_key
from engine.training.loop import Normalization, build_optimizer, evaluation_pass, train_epochs
from engine.training.models import build_model
from engine.training.precision import prepare_network
from engine.training.recording import DynamicsRecorder, Spill
from engine.training.stacked import Member, compute_accuracies, train_stacked

EPOCHS = 4


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine the threads of small steps wait for each other
    yield
    torch.set_num_threads(before)


@pytest.fixture
def samples(small_workspace):
    return load_split(small_workspace, "small", "train")


def record(folder, samples, model, precision):
    """The recorded logits (T, N, C) of one network."""
    training = TrainingSpec(model=model, epochs=EPOCHS, seeds=1, batch_size=32, precision=precision)
    recorder = DynamicsRecorder(
        Spill(folder / f"{model}-{precision}", len(samples), samples.classes, True), torch.device("cpu")
    )
    network = build_model(model, samples.inputs.shape[1:], samples.classes, 0)
    scale = Normalization(*normalization(samples))
    for epoch, _ in train_epochs(
        network, build_optimizer(network, training), samples, scale, training, 0, recorder=recorder
    ):
        recorder.end_epoch(epoch)
    return network, torch.from_numpy(recorder.spill.logits().copy())


def aum_of(logits, labels):
    given = logits.gather(2, labels.expand(len(logits), -1)[:, :, None])[:, :, 0]
    others = logits.scatter(2, labels.expand(len(logits), -1)[:, :, None], -torch.inf).amax(2)
    return (given - others).mean(0)


@pytest.mark.parametrize("model", ["mlp", "lenet"])
def test_the_dynamics_are_close_to_those_of_float32(tmp_path, samples, model):
    (_, exact), (_, rough) = (record(tmp_path, samples, model, p) for p in ("float32", "bfloat16"))
    found = spearmanr(aum_of(exact, samples.labels), aum_of(rough, samples.labels)).statistic
    assert found > 0.98 and not torch.equal(exact, rough)


def test_logits_are_float32_and_do_not_tie(tmp_path, samples):
    _, logits = record(tmp_path, samples, "lenet", "bfloat16")
    assert (logits.bfloat16().float() == logits).float().mean() < 0.05  # else they had been rounded to 8 bits
    assert len(logits[-1].flatten().unique()) > 0.99 * logits[-1].numel()


def test_a_network_is_evaluated_in_float32_and_its_weights_have_their_names(tmp_path, samples):
    network, _ = record(tmp_path, samples, "lenet", "bfloat16")
    scale, plain = (
        Normalization(*normalization(samples)),
        build_model("lenet", samples.inputs.shape[1:], samples.classes, 1),
    )
    plain.load_state_dict(network.state_dict())
    outputs = [torch.cat([z for _, z in evaluation_pass(n, samples, scale)]) for n in (network, plain)]
    assert outputs[0].dtype == torch.float32 and torch.equal(*outputs)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_a_last_layer_of_ones_own_is_left_as_it_is():
    class Head(nn.Linear):
        pass

    network = nn.Sequential(nn.Linear(3, 4), Head(4, 2))
    prepare_network(network, TrainingSpec(precision="bfloat16"))
    assert type(network[1]) is Head and type(network[0]) is nn.Linear


def test_a_stack_trains_as_the_plain_loop_does(samples):
    training = TrainingSpec(epochs=2, batch_size=32, precision="bfloat16")
    scale, kept = Normalization(*normalization(samples)), torch.arange(len(samples))
    stack = train_stacked([Member(kept, seed, 2) for seed in range(2)], samples, scale, training)
    assert stack.logits(torch.randn(3, *samples.inputs.shape[1:])).dtype == torch.float32
    for seed, accuracy in enumerate(compute_accuracies(stack, samples, scale)):
        network = build_model("mlp", samples.inputs.shape[1:], samples.classes, seed)
        for _ in train_epochs(network, build_optimizer(network, training), samples, scale, training, seed):
            pass
        hits = torch.cat([z.argmax(1) for _, z in evaluation_pass(network, samples, scale)]) == samples.labels
        assert accuracy == pytest.approx(hits.float().mean().item(), abs=0.05)


def test_a_run_in_bfloat16_is_another_run(small_workspace, small_training):
    plans = [plan_run(small_workspace, "small", ["aum"], small_training(precision=p)) for p in ("float32", "bfloat16")]
    assert len({network_key(plan.fingerprint, plan.training) for plan in plans}) == 2
    runs = [compute(small_workspace, plan, "cpu")[0] for plan in plans]
    with connected(small_workspace, "small") as connection:
        values = [
            [
                v
                for (v,) in connection.execute(
                    "SELECT value FROM scores WHERE run_id = ? AND score = 'aum' ORDER BY sample_id", [run]
                ).fetchall()
            ]
            for run in runs
        ]
    assert runs[0] != runs[1] and spearmanr(*values).statistic > 0.95


def test_another_precision_is_refused():
    with pytest.raises(SpecError, match="did you mean .bfloat16"):
        TrainingSpec(precision="float16")
