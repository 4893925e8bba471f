"""Mixtures against scikit-learn and SciPy, cross-validated scores against numbers worked out by hand."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from engine.errors import ScoreInputError
from engine.scores.mixture import (
    class_thresholds,
    confident_learning,
    draw_folds,
    estimate_consistency,
    estimate_noise_rate,
    fit_beta_mixture,
    fit_gaussian_mixture,
    incv,
    select_incv,
)
from engine.scores.registry import find_score


def _two_groups(seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.r_[rng.gamma(1.5, 0.1, 300), rng.normal(3, 0.7, 100).clip(0.01)]).float()


def test_gmm_is_scikit_learns_after_ten_iterations():
    losses = _two_groups().double()
    x = ((losses - losses.min()) / (losses.max() - losses.min())).numpy()[:, None]
    model = GaussianMixture(
        2,
        max_iter=10,
        tol=0,
        reg_covar=5e-4,
        weights_init=[0.5, 0.5],
        means_init=[[0.0], [1.0]],
        precisions_init=np.full((2, 1, 1), 1 / (x.var() + 5e-4)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # ten iterations are asked, not convergence
        expected = model.fit(x).predict_proba(x)[:, model.means_.argmax()]
    assert np.allclose(fit_gaussian_mixture(losses.float()).numpy(), expected, atol=1e-5)


def test_bmm_is_a_plain_em_over_scipys_beta_distributions():
    losses = _two_groups(1).double().numpy()
    low, high = np.percentile(losses, [5, 95])
    x = ((losses.clip(low, high) - low) / (high - low)).clip(1e-4, 1 - 1e-4)
    shapes, weights = [(1.0, 2.0), (2.0, 1.0)], [0.5, 0.5]

    def posterior():
        density = np.stack([w * scipy.stats.beta.pdf(x, *s) for w, s in zip(weights, shapes, strict=True)])
        return density / density.sum(0)

    for _ in range(10):
        share = posterior()
        means = [np.average(x, weights=s) for s in share]
        variances = [np.average((x - m) ** 2, weights=s) for m, s in zip(means, share, strict=True)]
        sizes = [m * (1 - m) / v - 1 for m, v in zip(means, variances, strict=True)]
        shapes = [(m * s, (1 - m) * s) for m, s in zip(means, sizes, strict=True)]
        weights = share.mean(1)
    expected = posterior()[int(np.argmax(means))]
    assert np.allclose(fit_beta_mixture(torch.from_numpy(losses)).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("fit", [fit_beta_mixture, fit_gaussian_mixture])
@pytest.mark.parametrize(
    "losses",
    [
        torch.zeros(20),
        torch.full((20,), 2.3),
        torch.tensor([1.0]),
        torch.tensor([0.0] * 99 + [50.0]),
        torch.tensor([0.0] * 50 + [1e-30] * 50),
        torch.tensor([0.0, 1.0] * 50),
        torch.cat([torch.zeros(90), torch.linspace(0, 80, 10)]),
        torch.linspace(0, 1, 100) ** 20,
    ],
)
def test_mixtures_never_give_nan(fit, losses):
    posterior = fit(losses)
    assert posterior.shape == losses.shape
    assert bool(((posterior >= 0) & (posterior <= 1)).all())
    if losses.max() == losses.min():
        assert not posterior.any()


@pytest.mark.parametrize("fit", [fit_beta_mixture, fit_gaussian_mixture])
def test_mixtures_separate_two_groups(fit):
    posterior = fit(_two_groups())
    assert float((posterior[:300] > 0.5).float().mean()) < 0.1
    assert float((posterior[300:] > 0.5).float().mean()) > 0.9


def test_noise_rate_solves_its_equation():
    for classes in (2, 10, 100):
        for rate in (0.0, 0.1, 0.4, 0.45):
            agreement = (1 - rate) ** 2 + rate**2 / (classes - 1)
            assert estimate_noise_rate(agreement, classes) == pytest.approx(rate, abs=1e-9)
    assert estimate_noise_rate(0.0, 10) == pytest.approx(0.9)  # below chance is chance


PROBS = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8], [0.8, 0.2]])
LABELS = torch.tensor([0, 0, 0, 1, 1])


def test_incv_by_hand():
    # Disagree: samples 2 (label 0, predicted 1) and 4 (label 1, predicted 0).
    expected = [(0 + 0.1) / 2, (0 + 0.4) / 2, (1 + 0.7) / 2, (0 + 0.2) / 2, (1 + 0.8) / 2]
    assert incv(PROBS, LABELS).tolist() == pytest.approx(expected)


def test_confident_learning_by_hand():
    # t_0 = (0.9 + 0.6 + 0.3) / 3 = 0.6; t_1 = (0.8 + 0.2) / 2 = 0.5.
    assert class_thresholds(PROBS, LABELS).tolist() == pytest.approx([0.6, 0.5])
    assert confident_learning(PROBS, LABELS).tolist() == pytest.approx([-0.3, 0.0, 0.3, -0.3, 0.3])
    # 0 -> class 0, 1 -> class 0 (0.6 >= 0.6), 2 -> class 1 (0.7), 3 -> class 1, 4 -> class 0.
    assert confident_flags(PROBS, LABELS) == [False, False, True, False, True]


def confident_flags(probs, labels):
    found = find_score("confident_learning")
    return (found.flags_by(probs, labels) > found.flags_above).tolist()


def test_the_rule_is_the_off_diagonal_of_the_confident_joint():
    # Counted as the paper writes it: of the classes a sample is confidently of, the most probable one.
    generator = torch.Generator().manual_seed(3)
    probs, labels = torch.rand(200, 5, generator=generator).softmax(1), torch.randint(5, (200,), generator=generator)
    thresholds = [float(probs[labels == j, j].mean()) for j in range(5)]
    expected = []
    for p, y in zip(probs.tolist(), labels.tolist(), strict=True):
        confident = [(p[j], j) for j in range(5) if p[j] >= thresholds[j]]
        expected.append(bool(confident) and max(confident)[1] != y)
    assert confident_flags(probs, labels) == expected
    assert 0 < sum(expected) < 200


def test_an_uncertain_sample_is_in_no_confident_class():
    probs = torch.tensor([[0.9, 0.1], [0.45, 0.55], [0.1, 0.9]])
    # t_0 = 0.675, t_1 = 0.9: sample 1 reaches neither.
    assert confident_flags(probs, torch.tensor([0, 0, 1])) == [False] * 3


def test_a_class_without_samples_is_never_confident():
    probs = torch.tensor([[0.3, 0.1, 0.6], [0.1, 0.3, 0.6]])
    assert confident_flags(probs, torch.tensor([0, 1])) == [False] * 2


def test_consistency_by_hand():
    heldout = torch.tensor([[True, False], [True, True], [True, True], [False, True]])
    correct = torch.tensor([[True, True], [False, True], [True, False], [True, True]])
    # Sample 0: held out in runs 0..2, right in 2 of 3; sample 1: runs 1..3, right in 2 of 3.
    assert estimate_consistency(heldout, correct).tolist() == pytest.approx([2 / 3, 2 / 3])
    with pytest.raises(ScoreInputError, match="sample 1 was in every random subset"):
        estimate_consistency(torch.tensor([[True, False]]), torch.tensor([[True, False]]))


def test_folds_spread_every_class():
    labels = torch.tensor([0] * 10 + [1] * 5 + [2])
    fold = draw_folds(labels, 5, torch.Generator().manual_seed(1))
    assert [int(((fold == k) & (labels == 0)).sum()) for k in range(5)] == [2] * 5
    assert [int(((fold == k) & (labels == 1)).sum()) for k in range(5)] == [1] * 5
    assert torch.equal(fold, draw_folds(labels, 5, torch.Generator().manual_seed(1)))
    with pytest.raises(ScoreInputError, match="cross-validation of 16 samples in 17 folds; allowed: 2 to 16"):
        draw_folds(labels, 17, torch.Generator())


def test_incv_rounds_select_the_clean_and_estimate_the_noise():
    # A predictor that has learned the classes, wrong on a tenth, and copies the noise at its rate.
    generator = torch.Generator().manual_seed(0)
    n, classes, rate = 4000, 10, 0.2
    truth = torch.randint(classes, (n,), generator=generator)
    labels = truth.clone()
    labels[: int(rate * n)] = (truth[: int(rate * n)] + 1) % classes
    seen = []

    def predict(parts):
        return [predict_one(train, test) for train, test in parts]

    def predict_one(train, test):
        assert not set(train.tolist()) & set(test.tolist())
        seen.append(len(train))
        wrong = torch.rand(len(test), generator=generator) < rate
        guess = torch.where(
            wrong, (truth[test] + torch.randint(1, classes, (len(test),), generator=generator)), truth[test]
        )
        probs = torch.full((len(test), classes), 0.01)
        probs[torch.arange(len(test)), guess % classes] = 0.91
        return probs

    selected, estimated = select_incv(predict, labels, generator, rounds=3)
    assert estimated == pytest.approx(rate, abs=0.03)
    clean = labels == truth
    assert float(clean[selected].float().mean()) > 0.9
    assert float(selected[clean].float().mean()) > 0.75
    assert len(seen) == 6


def test_not_a_number_is_refused():
    with pytest.raises(ScoreInputError, match="heldout_probs of sample 1 is not finite"):
        incv(torch.tensor([[0.5, 0.5], [math.nan, 0.5]]), torch.tensor([0, 1]))
