"""What a run will take: its stages counted out with the speed of a step, and a step measured on real networks."""

from dataclasses import replace

import pytest
import torch
import typer

from engine.cli import start
from engine.cli.console import rough
from engine.errors import SpecError
from engine.runs import feasible
from engine.runs.compute import compute
from engine.runs.feasible import alternatives, estimate_seconds, psi_seconds, score_seconds, stage_seconds
from engine.runs.planning import plan_run
from engine.runs.psi import plan_psi
from engine.runs.work import Work
from engine.scores.registry import resolve_scores
from engine.spec import TrainingSpec
from engine.store.journal import read_journal
from engine.training.speed import Shape, Speed, measure_speed
from engine.training.tasks import Task, describe_position

CPU = torch.device("cpu")
SPEED = Speed(start=0.01, sample=1e-3, passing=1e-4, batch_size=100, workers=2, parameters=1_000_000)


def work(workspace, scores, **changes):
    training = TrainingSpec(**{"epochs": 4, "seeds": 3, "batch_size": 100, **changes})
    spec = plan_run(workspace, "small", scores, training, threshold_rounds=0)
    return Work(spec, 1_000, 200, SPEED)


def stages(done, trained=False):
    return stage_seconds(done, resolve_scores(done.spec.scores), trained)


def test_a_network_takes_its_steps_and_its_samples():
    assert SPEED.training(1_000, 4) == pytest.approx(4 * (10 * 0.01 + 1_000 * 1e-3))
    assert SPEED.training(101) == pytest.approx(0.01 + 0.101)  # a last batch of one joins the one before


def test_seeds_share_the_workers(small_workspace):
    seed = 4 * (10 * 0.01 + 1.0) + 4 * 200 * 1e-4  # with the test split after every epoch
    assert stages(work(small_workspace, ["forgetting"]))["training"] == pytest.approx(2 * seed)  # three, two at a time
    assert stages(work(small_workspace, ["forgetting"], seeds=4))["training"] == pytest.approx(2 * seed)
    evaluated = stages(work(small_workspace, ["forgetting"], observe="eval"))["training"]
    assert evaluated == pytest.approx(2 * (seed + 4 * 1_000 * 1e-4))
    assert stages(work(small_workspace, ["forgetting"]), trained=True)["training"] == 0


def test_threshold_networks_stop_at_the_first_drop_of_the_rate(small_workspace):
    done = work(small_workspace, ["forgetting"], schedule="step", seeds=2)
    rounds = replace(done, spec=replace(done.spec, threshold_rounds=2))
    more = stages(rounds)["training"] - stages(done)["training"]
    assert more == pytest.approx(2 * (10 * 0.01 + 1.0))  # two of four epochs


def test_what_scores_read_is_counted_once_and_for_every_seed(small_workspace):
    done = work(small_workspace, ["grand", "grand_last_layer", "tracin_self"], epochs=10)
    seconds = score_seconds(done, resolve_scores(done.spec.scores))
    gradients = 1_000 * (1.5 * (1e-3 + 0.01 / 100) + 1.2e-8 * 1_000_000)
    assert seconds["grand"] == pytest.approx(0.06 + 3 * gradients)
    assert seconds["grand_last_layer"] == pytest.approx(0.06 + 3 * 2 * 0.1)  # the outputs and the features of three
    assert seconds["tracin_self"] == pytest.approx(0.06 + 5 * 0.1)  # one pass at each of five checkpoints of the first


def test_held_out_folds_are_networks_of_their_own(small_workspace):
    done = work(small_workspace, ["confident_learning"])
    folds = 3 * 4 * (10 * 0.01 + 960 * 1e-3)  # five, two at a time, on four fifths of both splits
    assert score_seconds(done, resolve_scores(["confident_learning"]))["confident_learning"] == pytest.approx(
        0.06 + folds + 0.12
    )


@pytest.mark.parametrize(("model", "shape"), [("mlp", (40,)), ("cnn", (3, 8, 8)), ("lenet", (1, 8, 8))])
def test_a_step_is_measured(model, shape):
    dtype = torch.float32 if len(shape) == 1 else torch.uint8
    training = TrainingSpec(model=model, batch_size=32)
    found = measure_speed(training, Shape(shape, dtype, 4, 300), CPU, 3)
    assert found.sample >= 0 and found.start >= 0 and found.training(32) > 0 and found.passing > 0
    assert found.workers == min(3, torch.get_num_threads()) and found.batch_size == 32
    again = replace(training, epochs=7, seeds=2)
    assert measure_speed(again, Shape(shape, dtype, 4, 300), CPU, 3) is found  # a step is a step


def test_what_cannot_be_trained_is_refused_before_it_starts():
    with pytest.raises(SpecError, match="takes images"):
        measure_speed(TrainingSpec(model="cnn"), Shape((40,), torch.float32, 4, 300), CPU, 1)
    with pytest.raises(SpecError, match="augment"):
        measure_speed(TrainingSpec(augment="flip"), Shape((40,), torch.float32, 4, 300), CPU, 1)


def test_a_published_run_takes_nothing(small_workspace, small_training):
    spec = plan_run(small_workspace, "small", ["forgetting"], small_training())
    assert estimate_seconds(small_workspace, spec, CPU) > 0
    compute(small_workspace, spec, "cpu")
    assert estimate_seconds(small_workspace, spec, CPU) == 0


def test_the_journal_has_the_time_left_and_the_epoch(small_workspace, small_training):
    run_id, _ = compute(small_workspace, plan_run(small_workspace, "small", ["grand"], small_training()), "cpu")
    events = [e for e in read_journal(small_workspace.run_dir(run_id)) if e["event"] == "progress"]
    assert all(event["seconds_left"] is not None for event in events)
    assert [e["stage"].split(" ")[0] for e in events][0] == "training"


def test_a_curve_counts_every_network(small_workspace, small_training, monkeypatch):
    monkeypatch.setattr(feasible, "measure_speed", lambda *_: replace(SPEED, start=0.0, passing=0.0, workers=1))
    spec = plan_psi(small_workspace, "small", ["random"], points=4, seeds=2, training=small_training(epochs=3))
    n = feasible.dataset_shape(small_workspace, "small").train
    kept = n + (n - n // 4) + (n - 2 * (n // 4)) + (n - 3 * (n // 4))
    assert psi_seconds(small_workspace, spec, CPU) == pytest.approx(2 * 3 * kept * 1e-3)


def test_alternatives_are_estimated(small_workspace, monkeypatch):
    def speed(training, shape, device, networks):
        slow = {"head": 1e-6, "lenet": 1e-4, "resnet18": 1e-1}[training.model]
        return replace(SPEED, sample=slow / (2 if training.precision == "bfloat16" else 1))

    monkeypatch.setattr(feasible, "measure_speed", speed)
    monkeypatch.setattr(feasible, "_image_seconds", lambda *_: 0.01)
    spec = plan_run(small_workspace, "small", ["forgetting"], TrainingSpec(model="resnet18"))
    whole = estimate_seconds(small_workspace, spec, CPU)
    others = alternatives(small_workspace, spec, CPU)
    assert list(others) == ["--features efficientnet_lite0", "--model lenet --epochs 8", "--precision bfloat16"]
    facts = feasible.dataset_shape(small_workspace, "small")
    assert others["--features efficientnet_lite0"] == pytest.approx(0.01 * (facts.train + facts.test), abs=1)
    assert others["--precision bfloat16"] == pytest.approx(whole / 2, rel=0.05)
    assert others["--model lenet --epochs 8"] < whole / 100


def test_where_the_training_is():
    def task(name, epochs=10):
        return Task(name, 0, torch.zeros(1), 2, TrainingSpec(epochs=epochs), False, True)

    assert describe_position([], {}) == ""
    assert describe_position([task("seed0")], {"seed0": 0.0}) == "seed0: epoch 1 of 10"
    two = [task("seed1"), task("round0", 5)]
    assert describe_position(two, {"seed1": 4.5, "round0": 0.99}) == "seed1, round0: epoch 1 of 5"
    many = [task(f"seed{i}") for i in range(8)]
    assert describe_position(many, {t.name: 9.9 for t in many}) == "seed0 to seed7: epoch 10 of 10"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89, "89 s"), (95, "2 min"), (900, "15 min"), (5_400, "1.5 h"), (32_400, "9 h"), (10**6, "12 days")],
)
def test_estimates_are_round(seconds, text):
    assert rough(seconds) == text


class Terminal:
    """Standard input and error of a person, who answers as given."""

    is_terminal = True

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def isatty(self):
        return True

    def confirm(self, text, err):
        self.asked.append(text)
        return self.answer


@pytest.mark.parametrize(
    ("seconds", "yes", "answer", "said"),
    [
        (30.0, False, None, ""),
        (120.0, False, None, "about 2 min on this processor"),
        (900.0, False, None, "about 15 min on this processor; with --seeds 1 3 min"),
        (32_400.0, True, None, "about 9 h on this processor; with --seeds 1 3 min; with --epochs 8 5 h"),
        (32_400.0, False, True, "about 9 h on this processor; with --seeds 1 3 min; with --epochs 8 5 h"),
    ],
)
def test_what_takes_long_says_so_and_over_an_hour_is_confirmed(monkeypatch, seconds, yes, answer, said):
    person, lines = Terminal(answer), []
    monkeypatch.setattr(feasible, "estimate_seconds", lambda *_: seconds)
    monkeypatch.setattr(feasible, "alternatives", lambda *_: {"--seeds 1": 180.0, "--epochs 8": 18_000.0})
    monkeypatch.setattr(start, "say", lines.append)
    monkeypatch.setattr(start, "messages", person)
    monkeypatch.setattr(start.sys, "stdin", person)
    monkeypatch.setattr(start.typer, "confirm", person.confirm)
    start._announce(None, None, "cpu", yes)
    assert "".join(lines) == said and len(person.asked) == (answer is not None)


def test_nothing_is_started_that_was_not_confirmed(monkeypatch):
    monkeypatch.setattr(feasible, "estimate_seconds", lambda *_: 4_000.0)
    monkeypatch.setattr(feasible, "alternatives", lambda *_: {})
    person = Terminal(False)
    monkeypatch.setattr(start, "messages", person)
    monkeypatch.setattr(start, "say", lambda line: None)
    monkeypatch.setattr(start.sys, "stdin", person)
    monkeypatch.setattr(start.typer, "confirm", person.confirm)
    with pytest.raises(typer.Exit) as stopped:
        start._announce(None, None, "cpu", False)
    assert stopped.value.exit_code == 1
