"""The robust learners that AUM is held against: every loss by hand, and what each learner does with wrong labels."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from learner_problems import clouds, made
from torch import tensor
from torch.nn import functional

from engine.errors import Cancelled, SpecError
from engine.relabel import robust
from engine.relabel.registry import all_learners
from engine.relabel.robust_losses import (
    bootstrap_loss,
    dmi_loss,
    dynamic_bootstrap_loss,
    local_dimensionality,
    randomly_weighted_loss,
    remember_rate,
    self_paced_weights,
    small_losses,
    temperature_loss,
    trust_of_labels,
    turns_at,
)

ROBUST = sorted(name for name, found in all_learners().items() if found.function.__module__ == robust.__name__)

# Two samples, three classes; softmax (1/2, 1/4, 1/4) and (1/8, 3/4, 1/8); labels 1 and 1.
LOGITS = tensor([[2.0, 1.0, 1.0], [1.0, 6.0, 1.0]]).log()
LABELS = tensor([1, 1])
CE = (math.log(4) + math.log(4 / 3)) / 2


def test_bootstrapping_mixes_the_label_with_the_prediction() -> None:
    hard = (math.log(2) + math.log(4 / 3)) / 2  # the predictions are 0 and 1
    assert float(bootstrap_loss(LOGITS, LABELS, 0.8, hard=True)) == pytest.approx(0.8 * CE + 0.2 * hard)
    entropy = (math.log(2) / 2 + math.log(4) / 2 + math.log(8) / 4 + 0.75 * math.log(4 / 3)) / 2
    assert float(bootstrap_loss(LOGITS, LABELS, 0.95, hard=False)) == pytest.approx(0.95 * CE + 0.05 * entropy)
    assert float(bootstrap_loss(LOGITS, LABELS, 1.0, hard=True)) == pytest.approx(CE)


def test_the_soft_target_is_learned_through() -> None:
    # The gradient of -sum q log q with respect to the logits is -q_k (log q_k + H), that of cross-entropy (q - y).
    logits = LOGITS[:1].clone().requires_grad_()
    bootstrap_loss(logits, LABELS[:1], 0.5, hard=False).backward()
    q, y = torch.softmax(LOGITS[:1], 1), tensor([[0.0, 1, 0]])
    entropy = -(q * q.log()).sum()
    assert torch.allclose(logits.grad, 0.5 * (q - y) - 0.5 * q * (q.log() + entropy), atol=1e-6)


def test_dynamic_bootstrapping_weighs_each_sample() -> None:
    # Sample 0: label 1 costs log 4, prediction 0 log 2; sample 1 is predicted as it is labeled.
    found = dynamic_bootstrap_loss(LOGITS, LABELS, tensor([0.75, 0.3]))
    assert float(found) == pytest.approx((0.25 * math.log(4) + 0.75 * math.log(2) + math.log(4 / 3)) / 2)


def test_random_weights_leave_out_what_is_drawn_below_0() -> None:
    losses = tensor([1.0, 2.0, 4.0], requires_grad=True)
    found = randomly_weighted_loss(losses, tensor([0.5, -3.0, 1.5]))
    assert found.item() == pytest.approx((0.5 * 1 + 1.5 * 4) / 2)
    (slope,) = torch.autograd.grad(found, losses)
    assert slope.tolist() == [0.25, 0, 0.75]
    assert randomly_weighted_loss(losses, tensor([-1.0, -0.5, -2.0])).item() == 0


def test_co_teaching_keeps_the_smallest_losses() -> None:
    assert small_losses(tensor([3.0, 1.0, 2.0, 0.5]), 0.5).tolist() == [3, 1]
    assert small_losses(tensor([3.0, 1.0]), 0.01).tolist() == [1]
    assert small_losses(torch.arange(10.0), 0.7).tolist() == list(range(7))  # 0.7 * 10 is 6.999... in binary
    assert [remember_rate(0.4, epoch, 10) for epoch in (0, 5, 10, 50)] == pytest.approx([1, 0.8, 0.6, 0.6])


def test_mutual_information_is_the_determinant() -> None:
    # Y^T softmax = [[0, 0, 0], [5/8, 1, 3/8], [0, 0, 0]]: class 0 and 2 have no label, the determinant is 0.
    assert float(dmi_loss(LOGITS, LABELS)) == pytest.approx(-math.log(1e-3))
    logits, labels = tensor([[3.0, 1.0], [1.0, 1.0], [1.0, 4.0]]).log(), tensor([0, 0, 1])
    # rows: label 0 has 3/4 + 1/2 and 1/4 + 1/2, label 1 has 1/5 and 4/5: 5/4 * 4/5 - 3/4 * 1/5 = 0.85
    assert float(dmi_loss(logits, labels)) == pytest.approx(-math.log(0.851))
    assert float(dmi_loss(logits, 1 - labels)) == pytest.approx(-math.log(0.851))  # which class is which does not count


def test_the_local_dimensionality_of_a_line_by_hand() -> None:
    # Points 0, 1, 3: distances to the two nearest are (1, 3), (1, 2), (2, 3).
    features = tensor([[0.0], [1.0], [3.0]])
    each = [-2 / math.log(1 / 3), -2 / math.log(1 / 2), -2 / math.log(2 / 3)]
    assert float(local_dimensionality(features, 2)) == pytest.approx(sum(each) / 3)
    assert math.isnan(float(local_dimensionality(torch.ones(4, 2), 2)))
    space = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    flat = functional.pad(space[:, :2], (0, 6))
    assert float(local_dimensionality(flat, 20)) < 3 < 5 < float(local_dimensionality(space, 20))


def test_a_turn_is_two_deviations_above_what_was() -> None:
    before = [4.0, 6.0, 4.0, 6.0]  # mean 5, deviation 1
    assert turns_at([*before, 7.01], 4) and not turns_at([*before, 6.99], 4)
    assert not turns_at([9.0, *before, 7.01], 5) and not turns_at(before, 4)
    assert trust_of_labels([2.0, 4.0, 3.0], 5, 10) == pytest.approx(math.exp(-0.5 * 3 / 2))


def test_a_curriculum_fades_out_above_its_threshold() -> None:
    losses = tensor([0.5, 1.0, 1.5, 3.0])
    assert self_paced_weights(losses, 1.0, 1.0).tolist() == [1, 1, 0.5, 0]
    assert self_paced_weights(losses, 1.0, 0.0).tolist() == [1, 1, 0, 0]


def test_a_temperature_flattens_a_sample_of_its_own() -> None:
    # exp(log 2) = 2: the first row's softmax of half the logits is that of (sqrt 2, 1, 1).
    found = temperature_loss(LOGITS, LABELS, tensor([math.log(2), 0.0]))
    assert float(found) == pytest.approx((math.log(math.sqrt(2) + 2) + math.log(4 / 3)) / 2)


def test_the_learners_of_the_paper_are_there() -> None:
    assert ROBUST == [
        "bootstrap-hard", "bootstrap-soft", "co-teaching", "d2l", "data-parameters", "dmi", "dy-bootstrap", "mentornet",
        "random-weights",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ROBUST)
def test_a_learner_learns_the_same_again_and_stops_when_it_is_stopped(name: str) -> None:
    problem, learn = clouds(epochs=12, batch_size=32), all_learners()[name].function
    shares: list[float] = []
    first, again = learn(problem, 1, shares.append), learn(problem, 1, lambda share: None)
    assert torch.equal(first.probabilities, again.probabilities) and first.test is None
    assert torch.allclose(first.probabilities.sum(1), torch.ones(90), atol=1e-5)
    assert 0 <= min(shares) <= max(shares) <= 1 and len(shares) >= 12 * 3
    assert all(len(values) == 12 and all(map(math.isfinite, values)) for values in first.trace.values())
    assert not torch.equal(first.probabilities, learn(problem, 2, lambda share: None).probabilities)

    def stop(share: float) -> None:
        if share > 0.3:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        learn(problem, 1, stop)


@pytest.fixture(scope="module")
def corrected() -> Callable[[str], tuple[float, float]]:
    """The share of wrong and of right labels for which a learner predicts the true class, of three classes far apart."""
    problem = clouds(n=600, wrong=0.3, epochs=20, batch_size=64)
    samples = problem.samples
    wrong = samples.labels != samples.true_labels

    def shares(name: str) -> tuple[float, float]:
        learned = all_learners()[name].function(problem, 0, lambda share: None)
        right = (learned.probabilities.argmax(1) == samples.true_labels).float()
        return float(right[wrong].mean()), float(right[~wrong].mean())

    return shares


def test_learners_correct_more_wrong_labels_than_plain_training(
    corrected: Callable[[str], tuple[float, float]],
) -> None:
    plain, _ = corrected("cross-entropy")
    # A fixed weight of the prediction hardly keeps a network from the wrong labels: the paper found no more.
    for name in sorted(set(ROBUST) - {"bootstrap-hard", "bootstrap-soft"}):
        wrong, right = corrected(name)
        assert wrong > plain + 0.05 and right > 0.95, name


@pytest.mark.parametrize("name", ROBUST)
def test_a_lost_class_and_a_tiny_set_are_learned_from(name: str) -> None:
    problem = made(torch.randn(5, 3), [0, 0, 1, 1, 0], classes=4, epochs=12, batch_size=4)
    learned = all_learners()[name].function(problem, 0, lambda share: None)
    assert learned.probabilities.shape == (5, 4) and torch.isfinite(learned.probabilities).all()
    with pytest.raises(SpecError, match="needs at least 2"):
        all_learners()[name].function(made(torch.randn(1, 3), [0]), 0, lambda share: None)


def test_a_wrong_label_gets_a_high_temperature_and_a_doubted_share() -> None:
    problem = clouds(n=600, wrong=0.3, epochs=20, batch_size=64)
    assert robust.data_parameters(problem, 0, lambda share: None).trace["temperature"][-1] > 1
    noisy = robust.dynamic_bootstrap(problem, 0, lambda share: None).trace["noisy"]
    assert noisy[:7] == [0] * 7 and noisy[-1] == pytest.approx(0.3, abs=0.1)
    kept = robust.co_teaching(problem, 0, lambda share: None).trace["kept"]
    assert kept[0] == 1 and kept[-1] == pytest.approx(0.7, abs=0.15)
    assert robust.co_teaching(problem, 0, lambda share: None, noise=0.4).trace["kept"][-1] == pytest.approx(0.6)
