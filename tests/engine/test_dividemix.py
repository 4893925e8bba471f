"""DivideMix: each part of a step against values worked out by hand, and the learner on small problems."""

from dataclasses import replace
from math import exp, log

import numpy as np
import pytest
import torch
from learner_problems import clouds, pictures
from sklearn.mixture import GaussianMixture

from engine.errors import Cancelled, SpecError
from engine.relabel.dividemix import (
    clean_probabilities,
    guess,
    learn_dividemix,
    mix_up,
    mixed_loss,
    refine,
    sharpen,
    unlabeled_weight,
    warm_up_loss,
)
from engine.relabel.learner_settings import DivideMixSettings

QUICK = DivideMixSettings(warm_up=2, ramp=4, lambda_u=5.0)


def double(rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# The parts, by hand ----------------------------------------------------------------------------------------------


def test_the_mixture_tells_small_losses_from_large_ones():
    """Losses 0, .02 and .04 beside .9, .95 and 1, ten of each: two Gaussians by k-means, which no EM step moves."""
    losses = double([0, 0.02, 0.04, 0.9, 0.95, 1.0]).repeat(10)
    # softmax(z)_0 = exp(-loss), label 0
    logits = torch.stack([-losses, (1 - (-losses).exp()).clamp_min(1e-300).log()], 1)
    clean = clean_probabilities(logits, torch.zeros(60, dtype=torch.int64))
    # Means .02 and .95, variances .0002667 and .0016667, each + .0005, weights 1/2. At .9, the nearest to the lower one:
    low = exp(-0.5 * (0.9 - 0.02) ** 2 / 0.00076667) / 0.00076667**0.5
    high = exp(-0.5 * (0.9 - 0.95) ** 2 / 0.00216667) / 0.00216667**0.5
    assert clean.view(10, 6)[:, 3].double().numpy() == pytest.approx(low / (low + high), abs=1e-6)
    assert clean.view(10, 6)[:, :3].min() > 0.999999 and clean.view(10, 6)[:, 3:].max() < 1e-6


def test_the_mixture_is_that_of_the_published_code_where_the_groups_overlap():
    rng = np.random.default_rng(0)
    losses = np.concatenate([rng.normal(0.3, 0.12, 300), rng.normal(1.2, 0.3, 200)]).clip(0.01)
    logits = torch.stack([-torch.as_tensor(losses), (1 - torch.exp(-torch.as_tensor(losses))).log()], 1)
    clean = clean_probabilities(logits, torch.zeros(500, dtype=torch.int64)).numpy()
    losses = torch.nn.functional.cross_entropy(logits.float(), torch.zeros(500, dtype=torch.int64), reduction="none")
    scaled = ((losses - losses.min()) / (losses.max() - losses.min())).double().numpy()[:, None]
    published = GaussianMixture(2, max_iter=2000, tol=1e-9, reg_covar=5e-4, random_state=0).fit(scaled)
    expected = published.predict_proba(scaled)[:, published.means_.argmin()]
    # beyond the means a posterior is kept from turning back; in between both are the same
    between = (scaled[:, 0] > published.means_.min()) & (scaled[:, 0] < published.means_.max())
    assert between.sum() > 200 and 0.05 < expected[between].mean() < 0.95
    np.testing.assert_allclose(clean[between], expected[between], atol=2e-3)


def test_losses_that_do_not_differ_leave_all_labels_clean():
    assert clean_probabilities(torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64)).tolist() == [1] * 5


def test_sharpening():
    # T = 1/2 squares: .36, .09, .01 of .46
    torch.testing.assert_close(sharpen(double([[0.6, 0.3, 0.1]]), 0.5), double([[0.36, 0.09, 0.01]]) / 0.46)
    torch.testing.assert_close(sharpen(double([[0.6, 0.3, 0.1]]), 1.0), double([[0.6, 0.3, 0.1]]))
    assert sharpen(torch.tensor([[1.0, 0.0, 0.0]]), 0.5).tolist() == [[1, 0, 0]]
    assert sharpen(torch.tensor([[0.4, 0.35, 0.25]]), 0.01).isfinite().all()  # 0.4^100 is 0 in float32


def test_refining_a_label_that_is_clean_with_probability_three_quarters():
    views = double([[[0.2, 0.6, 0.2], [0.0, 1.0, 0.0]], [[0.4, 0.4, 0.2], [0.0, 0.0, 1.0]]])
    # Means .3 .5 .2 and 0 .5 .5. 3/4 y + 1/4 p: .825 .125 .05, and of w = 0, p itself.
    # Squared .680625 .015625 .0025, of .69875; .25 .25 of .5
    expected = double([[0.680625 / 0.69875, 0.015625 / 0.69875, 0.0025 / 0.69875], [0, 0.5, 0.5]])
    torch.testing.assert_close(refine(torch.tensor([0, 0]), double([0.75, 0.0]), views, 0.5), expected)


def test_guessing_by_two_networks_and_two_views():
    own = double([[[0.8, 0.1, 0.1]], [[0.6, 0.3, 0.1]]])
    other = double([[[0.2, 0.7, 0.1]], [[0.4, 0.5, 0.1]]])
    # Mean .5 .4 .1, squared .25 .16 .01, of .42
    torch.testing.assert_close(guess(own, other, 0.5), double([[0.25, 0.16, 0.01]]) / 0.42)


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_mixing_keeps_the_larger_part_of_the_sample_itself(share):
    inputs, targets = double([[0.0], [10.0], [20.0]]), double([[1, 0], [0, 1], [0.5, 0.5]])
    mixed, mixed_targets = mix_up(inputs, targets, share, torch.tensor([1, 2, 0]))
    # .7 of itself, .3 of the next
    torch.testing.assert_close(mixed, double([[3.0], [13.0], [14.0]]))
    torch.testing.assert_close(mixed_targets, double([[0.7, 0.3], [0.15, 0.85], [0.65, 0.35]]))


def test_the_weight_of_the_unlabeled_rises_in_a_straight_line_after_the_warm_up():
    settings = DivideMixSettings(warm_up=10, lambda_u=25, ramp=16)
    assert [unlabeled_weight(epoch, settings) for epoch in (0, 9.9, 10, 14, 18.5, 26, 300)] == pytest.approx(
        [0, 0, 0, 25 * 4 / 16, 25 * 8.5 / 16, 25, 25]
    )


P = double([[0.5, 0.25, 0.25], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]])
TARGETS = double([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5], [0.2, 0.0, 0.8]])
LABELED = -(0.7 * log(0.5) + 0.3 * log(0.25))
UNLABELED = (0.2**2 + 0.1**2 + 0.3**2 + 0.1**2 + 0.1**2 + 0.0**2) / 6
PENALTY = sum(log((1 / 3) / mean) for mean in (0.8 / 3, 0.95 / 3, 1.25 / 3)) / 3


def test_the_loss_of_a_step_is_that_worked_out_by_hand():
    prior = torch.full((3,), 1 / 3, dtype=torch.float64)
    loss = mixed_loss(P.log() + 5, TARGETS, 1, 25.0, prior)  # logits are log p up to a constant
    assert float(loss) == pytest.approx(LABELED + 25 * UNLABELED + PENALTY, abs=1e-12)
    # without unlabeled samples
    alone = mixed_loss(P.log(), TARGETS, 3, 25.0, prior)
    labeled = (LABELED - 0.5 * (log(0.6) + log(0.2)) - 0.2 * log(0.1) - 0.8 * log(0.8)) / 3
    assert float(alone) == pytest.approx(labeled + PENALTY, abs=1e-12)


def test_the_penalty_pulls_towards_the_classes_that_there_are():
    spread = double([[0.9, 0.1, 1e-9], [0.1, 0.9, 1e-9]]).log()
    flat, lost = torch.full((3,), 1 / 3, dtype=torch.float64), double([0.5, 0.5, 0])
    labels = double([[0.9, 0.1, 0], [0.1, 0.9, 0]])
    cross_entropy = -(0.9 * log(0.9) + 0.1 * log(0.1))
    assert float(mixed_loss(spread, labels, 2, 0, lost)) == pytest.approx(cross_entropy, abs=1e-6)
    assert float(mixed_loss(spread, labels, 2, 0, flat)) > cross_entropy + 5  # log(1/3 / 1e-9) / 3 and more
    # a class of probability 0 in float32 leaves the loss finite
    assert mixed_loss(torch.tensor([[200.0, 0, 0]]), torch.tensor([[1.0, 0, 0]]), 1, 0, flat.float()).isfinite()


def test_the_warm_up_may_penalize_confidence():
    logits, labels = P[:2].log(), torch.tensor([0, 1])
    cross_entropy = -(log(0.5) + log(0.6)) / 2
    assert float(warm_up_loss(logits, labels, 0)) == pytest.approx(cross_entropy)
    negative_entropy = (0.5 * log(0.5) + 0.5 * log(0.25) + 0.4 * log(0.2) + 0.6 * log(0.6)) / 2
    assert float(warm_up_loss(logits, labels, 1)) == pytest.approx(cross_entropy + negative_entropy)


# The learner -----------------------------------------------------------------------------------------------------


def test_wrong_labels_get_the_true_one():
    problem = clouds(150, wrong=0.4, epochs=12, batch_size=16, lr=0.005)
    shares: list[float] = []
    learned = learn_dividemix(replace(problem, test=problem.samples), 1, shares.append, QUICK)
    samples = problem.samples
    assert learned.probabilities.shape == (150, 3) and learned.probabilities.dtype == torch.float32
    torch.testing.assert_close(learned.probabilities.sum(1), torch.ones(150))
    assert torch.equal(learned.test, learned.probabilities)
    assert float((learned.probabilities.argmax(1) == samples.true_labels).float().mean()) > 0.95
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1 and len(shares) > 12 * 8
    # The mixtures have found about as many wrong labels as there are.
    assert learned.trace["clean"][:2] == [1, 1] and 0.5 < learned.trace["clean"][-1] < 0.7
    assert learned.trace["lambda_u"] == [0, 0, 1.25, 2.5, 3.75, 5, 5, 5, 5, 5, 5, 5]
    assert len(learned.trace["loss"]) == 12


@pytest.mark.parametrize("images", [False, True])
def test_a_seed_decides_all(images):
    problem = pictures(epochs=4) if images else clouds(30, model="head", epochs=4)
    first, again, other = (learn_dividemix(problem, seed, lambda share: None, QUICK) for seed in (3, 3, 4))
    assert torch.equal(first.probabilities, again.probabilities) and first.trace == again.trace
    assert first.test is None
    assert not torch.equal(first.probabilities, other.probabilities)


def test_it_stops_within_a_batch_wherever_it_is():
    problem = clouds(40, epochs=4)
    whole: list[float] = []
    learn_dividemix(problem, 0, whole.append, QUICK)
    for stop_at in (2, len(whole) // 2, len(whole) - 1):
        reports = iter(range(len(whole) + 1))

        def report(share, reports=reports, stop_at=stop_at):
            if next(reports) == stop_at:
                raise Cancelled()

        with pytest.raises(Cancelled):
            learn_dividemix(problem, 0, report, QUICK)
        assert next(reports) == stop_at + 1


def test_a_class_without_labels_is_not_predicted():
    problem = clouds(60, wrong=0.0, epochs=8)
    wider = replace(problem, samples=replace(problem.samples, classes=5))
    learned = learn_dividemix(wider, 0, lambda share: None, QUICK)
    assert learned.probabilities.shape == (60, 5)
    assert float(learned.probabilities[:, 3:].max()) < 0.1


@pytest.mark.parametrize("n", [2, 3, 9, 17])
def test_sets_smaller_than_a_batch_and_last_batches_of_one(n):
    learned = learn_dividemix(clouds(n, wrong=0.0, batch_size=8, epochs=5), 0, lambda share: None, QUICK)
    assert torch.isfinite(learned.probabilities).all()


@pytest.mark.parametrize("settings", [{"views": 1}, {"views": 3}, {"threshold": 1.0}, {"threshold": 0.0}])
def test_more_views_and_divisions_that_leave_a_side_empty(settings):
    """Nothing is above a probability of 1: an epoch without labeled samples is one more of the warm-up."""
    learned = learn_dividemix(clouds(40, epochs=4), 0, lambda share: None, replace(QUICK, **settings))
    assert torch.isfinite(learned.probabilities).all()
    if settings == {"threshold": 1.0}:
        assert learned.trace["clean"][2:] == [0, 0]


def test_what_cannot_be_learned_from_is_refused():
    with pytest.raises(SpecError, match="1 samples; it needs at least 2"):
        learn_dividemix(clouds(1, wrong=0.0), 0, lambda share: None)
    with pytest.raises(SpecError, match="takes images"):
        learn_dividemix(clouds(8, augment="crop"), 0, lambda share: None)
    with pytest.raises(SpecError, match="--set warm_up is 10 of 2 epochs"):
        learn_dividemix(pictures(), 0, lambda share: None)
    with pytest.raises(SpecError, match="--set warm_up is 3 of 3 epochs"):
        learn_dividemix(clouds(8), 0, lambda share: None)
    with pytest.raises(SpecError, match="--temperature is 0; allowed: 0.01 to 1"):
        DivideMixSettings(temperature=0)
