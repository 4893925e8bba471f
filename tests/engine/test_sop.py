"""SOP+: its loss and gradients against values worked out by hand, and its steps against the published algorithm."""

from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch
from learner_problems import clouds, pictures
from torch.nn import functional

from engine.data.loader import epoch_batches
from engine.errors import Cancelled, SpecError
from engine.relabel.learner_settings import SopSettings
from engine.relabel.sop import draw_start, fit_sop, learn_sop, sop_loss
from engine.relabel.steps import begin_epoch, draw_view, new_network

UNIFORM = torch.full((3,), 1 / 3, dtype=torch.float64)


# The loss, by hand -----------------------------------------------------------------------------------------------

# Three samples: a right label, a wrong one, and one whose u and v are beyond 1, where they are cut.
P = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 2])
U = torch.tensor([[0.5], [0.6], [1.2]], dtype=torch.float64)
V = torch.tensor([[0.3, 0.2, 0.1], [0.5, 0.4, 0.2], [0.0, 1.5, 0.0]], dtype=torch.float64)
SECOND = torch.tensor([[0.5, 0.4, 0.1], [0.25, 0.5, 0.25], [0.2, 0.2, 0.6]], dtype=torch.float64)

# p + U - V, cut at eps = 1e-4 below, and its sum. V of the given class counts for nothing.
#   0: U = .25 on class 0, V = .04 and .01:             .85     .26     .09
#   1: U = .36 on class 2, V = .25 and .16:    .2 - .25 < 0     .54     .46
#   2: U = 1.44 cut at 1 on class 2, V = 2.25 cut at 1:  .1  .1 - 1 < 0    1.8
RAISED = [(0.85, 0.26, 0.09), (1e-4, 0.54, 0.46), (0.1, 1e-4, 1.8)]
SUMS = [1.2, 1.0001, 1.9001]

# h + U - V - y, h one-hot of the largest p: classes 0, 1 and 2.
#   0: (1 + .25 - 1, -.04, -.01)    1: (-.25, 1 - .16, .36 - 1)    2: (0, -1, 1 + 1 - 1)
RESIDUES = [(0.25, -0.04, -0.01), (-0.25, 0.84, -0.64), (0.0, -1.0, 1.0)]


def loss_and_gradients(seconds=False, **settings):
    leaves = [(torch.cat([P, SECOND]) if seconds else P).log().requires_grad_(), U.clone(), V.clone()]
    u, v = (leaf.requires_grad_() for leaf in leaves[1:])
    loss = sop_loss(leaves[0], LABELS, u, v, UNIFORM, SopSettings(**settings))
    loss.backward()
    return float(loss.detach()), [leaf.grad for leaf in leaves]


def test_cross_entropy_and_squared_error_are_those_worked_out_by_hand():
    loss, _ = loss_and_gradients(balance=0.0)
    cross_entropy = -(log(0.85 / 1.2) + log(0.46 / 1.0001) + log(1.8 / 1.9001)) / 3
    squared = (0.0625 + 0.0016 + 0.0001 + 0.0625 + 0.7056 + 0.4096 + 0 + 1 + 1) / 3
    assert loss == pytest.approx(cross_entropy + squared, abs=1e-12)


def test_balance_is_the_cross_entropy_of_the_prior_with_the_mean_prediction():
    plain, _ = loss_and_gradients(balance=0.0)
    loss, _ = loss_and_gradients(balance=0.1)
    # 1e-4 / 1.0001 and 1e-4 / 1.9001 are below eps, and cut at it once more
    means = [
        (0.85 / 1.2 + 1e-4 + 0.1 / 1.9001) / 3,
        (0.26 / 1.2 + 0.54 / 1.0001 + 1e-4) / 3,
        (0.09 / 1.2 + 0.46 / 1.0001 + 1.8 / 1.9001) / 3,
    ]
    assert loss - plain == pytest.approx(-0.1 * sum(log(mean) for mean in means) / 3, abs=1e-9)


def test_consistency_is_the_divergence_of_the_second_view_from_the_first():
    one, _ = loss_and_gradients(balance=0.0)
    two, gradients = loss_and_gradients(seconds=True, balance=0.0)
    divergence = (
        (0.6 * log(0.6 / 0.5) + 0.3 * log(0.3 / 0.4))
        + (0.2 * log(0.2 / 0.25) + 0.7 * log(0.7 / 0.5) + 0.1 * log(0.1 / 0.25))
        + (0.1 * log(0.1 / 0.2) * 2 + 0.8 * log(0.8 / 0.6))
    ) / 3
    assert two - one == pytest.approx(0.9 * divergence, abs=1e-12)
    # Only the second view follows: d KL / dz' = softmax(z') - softmax(z).
    torch.testing.assert_close(gradients[0][3:], 0.9 * (SECOND - P) / 3)
    torch.testing.assert_close(gradients[0][:3], loss_and_gradients(balance=0.0)[1][0])


def test_the_gradient_of_v_comes_from_the_squared_error_alone():
    for settings in ({"balance": 0.0}, {"balance": 5.0}):
        _, (_, _, v) = loss_and_gradients(**settings)
        # d/dv = -2 (h + U - V - y) 2 v / 3; none on the given class, none where V is cut at 1
        by_hand = [
            [0, -2 * -0.04 * 2 * 0.2 / 3, -2 * -0.01 * 2 * 0.1 / 3],
            [-2 * -0.25 * 2 * 0.5 / 3, -2 * 0.84 * 2 * 0.4 / 3, 0],
            [0, 0, 0],
        ]
        torch.testing.assert_close(v, torch.tensor(by_hand, dtype=torch.float64))


def test_the_gradient_of_u_is_that_worked_out_by_hand():
    _, (_, u, _) = loss_and_gradients(balance=0.0)
    # Of -log q_y by U: -1 / (p + U - V)_y + 1 / sum. Of the squared error: 2 (h + U - V - y)_y. dU/du = 2 u.
    by_hand = [
        [(-1 / 0.85 + 1 / 1.2 + 2 * 0.25) * 2 * 0.5 / 3],
        [(-1 / 0.46 + 1 / 1.0001 + 2 * -0.64) * 2 * 0.6 / 3],
        [0],  # cut at 1
    ]
    torch.testing.assert_close(u, torch.tensor(by_hand, dtype=torch.float64))
    assert u[1] < 0 < 0.5 * -u[1] - u[0]  # a step down the gradient grows u of the wrong label, and most


def test_the_gradient_of_the_logits_is_that_worked_out_by_hand():
    _, (z, _, _) = loss_and_gradients(balance=0.0)
    # By p: 1 / sum on every class that is not cut, -1 / (p + U - V)_y more on the given one; then through the softmax.
    by_p = np.array(
        [
            [1 / 1.2 - 1 / 0.85, 1 / 1.2, 1 / 1.2],
            [0, 1 / 1.0001, 1 / 1.0001 - 1 / 0.46],
            [1 / 1.9001, 0, 1 / 1.9001 - 1 / 1.8],
        ]
    )
    p = P.numpy()
    by_hand = p * (by_p - (p * by_p).sum(1, keepdims=True)) / 3
    np.testing.assert_allclose(z.numpy(), by_hand, rtol=1e-9)


def test_the_balance_moves_u_as_worked_out_by_hand():
    _, (_, plain, _) = loss_and_gradients(balance=0.0)
    _, (_, u, _) = loss_and_gradients(balance=0.1)
    # Sample 0: dq/dU = ((1 - .85 / 1.2) / 1.2, -.26 / 1.44, -.09 / 1.44); q is averaged over 3 samples, the prior is 1/3.
    means = [
        (0.85 / 1.2 + 1e-4 + 0.1 / 1.9001) / 3,
        (0.26 / 1.2 + 0.54 / 1.0001 + 1e-4) / 3,
        (0.09 / 1.2 + 0.46 / 1.0001 + 1.8 / 1.9001) / 3,
    ]
    moved = ((1 - 0.85 / 1.2) / 1.2, -0.26 / 1.44, -0.09 / 1.44)
    by_hand = -0.1 / 3 * sum(d / 3 / mean for d, mean in zip(moved, means, strict=True)) * 2 * 0.5
    assert float(u[0] - plain[0]) == pytest.approx(by_hand, rel=1e-6)


# The algorithm ---------------------------------------------------------------------------------------------------


def test_steps_are_those_of_the_published_algorithm():
    """Dense u and v in an optimizer of their own, one-hot labels, and each term as the authors' release has it."""
    problem = clouds(30, model="linear", optimizer="sgd", lr=0.05, weight_decay=1e-3, batch_size=7, epochs=4)
    settings = SopSettings(lr_u=20.0, lr_v=30.0, start=1e-2)
    samples = problem.samples
    network = new_network(problem, 5)
    u, v = (start.clone().requires_grad_() for start in draw_start(30, 3, settings, 5, torch.device("cpu")))
    own = torch.optim.SGD([{"params": [u], "lr": 20.0}, {"params": [v], "lr": 30.0}], lr=1.0)
    weights = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)
    one_hot = torch.eye(3)[samples.labels]
    for epoch in range(4):
        generator = begin_epoch(network, 5, epoch)
        for index in epoch_batches(samples, 7, 5, epoch):
            data, data2 = (draw_view(problem, index, settings.view_noise, generator) for _ in range(2))
            output, output2 = network(torch.cat([data, data2])).chunk(2)
            target = one_hot[index]
            u_square = torch.clamp(u[index] ** 2 * target, 0, 1)
            v_square = torch.clamp(v[index] ** 2 * (1 - target), 0, 1)
            prediction = torch.clamp(functional.softmax(output, 1) + u_square - v_square.detach(), min=1e-4)
            prediction = torch.clamp(functional.normalize(prediction, p=1, eps=1e-4), min=1e-4, max=1.0)
            hard = torch.zeros(len(index), 3).scatter_(1, output.argmax(1, keepdim=True), 1)
            loss = torch.mean(-torch.sum(target * torch.log(prediction), -1))
            loss = loss + functional.mse_loss(hard + u_square - v_square, target, reduction="sum") / len(index)
            average = torch.clamp(prediction.mean(0), min=1e-4, max=1.0)
            loss = loss + 0.1 * -(torch.ones(3) / 3 * average.log()).sum()
            first = functional.softmax(output, 1).detach()
            divergence = functional.kl_div(functional.log_softmax(output2, 1), first, reduction="none").sum(1)
            loss = loss + 0.9 * divergence.mean()
            own.zero_grad()
            weights.zero_grad()
            loss.backward()
            own.step()
            weights.step()

    fit = fit_sop(problem, 5, lambda share: None, settings)
    torch.testing.assert_close(fit.u, u.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(fit.v, v.detach(), rtol=1e-4, atol=1e-6)
    for name, weight in network.state_dict().items():
        torch.testing.assert_close(fit.network.state_dict()[name], weight, rtol=1e-4, atol=1e-6)
    assert float(fit.u.square().max()) > 0.01  # they have moved


def test_u_and_v_grow_on_wrong_labels_and_stay_on_right_ones():
    problem = clouds(120, epochs=30, batch_size=16, lr=0.005)
    fit = fit_sop(problem, 0, lambda share: None, SopSettings())
    wrong = problem.samples.labels != problem.samples.true_labels
    u, v = fit.u.square()[:, 0], fit.v.square()
    assert float(u[wrong].min()) > 0.5 and float(u[~wrong].quantile(0.9)) < 0.01
    # V takes away where the network has put the sample: at its true class, at no other
    true = problem.samples.true_labels[:, None]
    assert float(v.gather(1, true)[wrong].quantile(0.1)) > 0.5
    assert float(v[~wrong].quantile(0.9)) < 0.01
    assert [len(values) for values in fit.trace.values()] == [30] * 3
    assert fit.trace["u"][0] < 0.01 < fit.trace["u"][-1]


# The learner -----------------------------------------------------------------------------------------------------


def test_wrong_labels_get_the_true_one():
    problem = clouds(120, wrong=0.4, epochs=30, batch_size=16, lr=0.005)
    shares: list[float] = []
    learned = learn_sop(replace(problem, test=problem.samples), 1, shares.append)
    samples = problem.samples
    assert learned.probabilities.shape == (120, 3) and learned.probabilities.dtype == torch.float32
    torch.testing.assert_close(learned.probabilities.sum(1), torch.ones(120))
    assert torch.equal(learned.test, learned.probabilities)
    assert float((learned.probabilities.argmax(1) == samples.true_labels).float().mean()) > 0.97
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1 and len(shares) >= 30 * 8


@pytest.mark.parametrize("images", [False, True])
def test_a_seed_decides_all(images):
    problem = pictures() if images else clouds(30, model="head")
    first, again, other = (learn_sop(problem, seed, lambda share: None) for seed in (3, 3, 4))
    assert torch.equal(first.probabilities, again.probabilities) and first.trace == again.trace
    assert first.test is None
    assert not torch.equal(first.probabilities, other.probabilities)


def test_nothing_is_drawn_from_the_generator_of_the_process():
    torch.manual_seed(1)
    learn_sop(pictures(), 0, lambda share: None)
    torch.manual_seed(2)
    torch.rand(5)
    seen = [learn_sop(pictures(), 0, lambda share: None).probabilities for _ in range(2)]
    assert torch.equal(*seen)


def test_it_stops_within_a_batch():
    reports = iter(range(100))

    def report(share):
        if next(reports) == 2:
            raise Cancelled()

    with pytest.raises(Cancelled):
        learn_sop(clouds(40), 0, report)
    assert next(reports) == 3  # nothing was reported behind it


def test_a_class_without_labels_is_not_predicted():
    problem = clouds(60, wrong=0.0, classes=3, epochs=20)
    wider = replace(problem, samples=replace(problem.samples, classes=5))
    learned = learn_sop(wider, 0, lambda share: None)
    assert learned.probabilities.shape == (60, 5)
    assert float(learned.probabilities[:, 3:].max()) < 0.1


@pytest.mark.parametrize("n", [2, 3, 9])
def test_sets_smaller_than_a_batch_and_a_last_batch_of_one(n):
    learned = learn_sop(clouds(n, wrong=0.0, batch_size=8), 0, lambda share: None)
    assert torch.isfinite(learned.probabilities).all()


def test_what_cannot_be_learned_from_is_refused():
    with pytest.raises(SpecError, match="1 samples; it needs at least 2"):
        learn_sop(clouds(1, wrong=0.0), 0, lambda share: None)
    with pytest.raises(SpecError, match="takes images"):
        learn_sop(clouds(8, augment="crop"), 0, lambda share: None)
    with pytest.raises(SpecError, match="--balance is -1; allowed: 0 to 100"):
        SopSettings(balance=-1)
