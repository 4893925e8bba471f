"""Mixtures against scikit-learn and SciPy."""

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import precision_score, recall_score
from sklearn.mixture import GaussianMixture

from engine.scores.mixture import _split_in_two, fit_beta_mixture, fit_gaussian_mixture


def _two_groups(seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.r_[rng.gamma(1.5, 0.1, 300), rng.normal(3, 0.7, 100).clip(0.01)]).float()


def noisy_losses(rate, n=4000, seed=0, outlier=0.0):
    """Losses of so many samples, the last rate of them high: the clean near 0, the others around 3, one far out."""
    rng = np.random.default_rng(seed)
    bad = round(rate * n)
    losses = np.r_[rng.gamma(1.5, 0.1, n - bad), rng.normal(3, 0.7, bad).clip(0.01)]
    losses[-1] = outlier or losses[-1]
    return torch.from_numpy(losses).float(), np.arange(n) >= n - bad


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.6])
@pytest.mark.parametrize("seed", [0, 1])
def test_gmm_is_scikit_learns_at_convergence(rate, seed):
    losses, _ = noisy_losses(rate, seed=seed)
    x = ((losses - losses.min()) / (losses.max() - losses.min())).double().numpy()[:, None]
    model = GaussianMixture(2, max_iter=2000, tol=1e-9, reg_covar=5e-4, random_state=0).fit(x)
    expected = model.predict_proba(x)[:, model.means_.argmax()]
    found = fit_gaussian_mixture(losses).numpy()
    assert np.allclose(found, expected, atol=1e-3)
    above = x[:, 0] >= model.means_.min()
    assert np.allclose(found[above], expected[above], atol=1e-5)


@pytest.mark.parametrize("outlier", [0.0, 9.0])
def test_gmm_finds_the_mislabeled_where_most_are(outlier):
    # Ten steps from the extremes put the one sample far out into a group of its own: a recall of .13 and .31.
    losses, wrong = noisy_losses(0.6, outlier=outlier)
    flagged = fit_gaussian_mixture(losses).numpy() > 0.5
    assert recall_score(wrong, flagged) > 0.99 and precision_score(wrong, flagged) > 0.99


def test_gmm_starts_at_the_two_groups_of_k_means():
    for seed in range(5):
        x = torch.from_numpy(np.random.default_rng(seed).gamma(1.0, 1.0, 200).round(1))
        groups = KMeans(2, n_init=20, random_state=0).fit(x[:, None].numpy())
        labels = groups.labels_ == groups.cluster_centers_.argmax()
        assert ((x > _split_in_two(x)).numpy() == labels).all()


def test_a_wide_group_of_low_losses_does_not_take_the_highest_back():
    # The narrow group around 3 is the upper one; far above it the wide lower one is again the more probable.
    rng = np.random.default_rng(0)
    losses = torch.from_numpy(np.sort(np.r_[rng.normal(1, 1, 600).clip(0), rng.normal(3, 0.1, 400), 4.5])).float()
    x = ((losses - losses.min()) / (losses.max() - losses.min())).double().numpy()[:, None]
    model = GaussianMixture(2, max_iter=2000, tol=1e-9, reg_covar=5e-4, random_state=0).fit(x)
    falls = model.predict_proba(x)[:, model.means_.argmax()]
    posterior = fit_gaussian_mixture(losses).numpy()
    assert falls[-1] < 0.5 < posterior[-1] and (np.diff(posterior) >= 0).all()
    rising = (x[:, 0] >= model.means_.min()) & (np.arange(len(x)) <= falls.argmax())
    assert np.allclose(posterior[rising], falls[rising], atol=1e-3)


def test_bmm_is_a_plain_em_over_scipys_beta_distributions():
    losses = _two_groups(1).double().numpy()
    low, high = np.percentile(losses, [5, 95])
    scaled = ((losses - low) / (high - low)).clip(1e-4, 1 - 1e-4)
    x = scaled[(losses >= low) & (losses <= high)]  # the tails are left out
    shapes, weights = [(1.0, 2.0), (2.0, 1.0)], [0.5, 0.5]

    def posterior(x):
        density = np.stack([w * scipy.stats.beta.pdf(x, *s) for w, s in zip(weights, shapes, strict=True)])
        return density / density.sum(0)

    for _ in range(10):
        share = posterior(x)
        means = [np.average(x, weights=s) for s in share]
        variances = [np.average((x - m) ** 2, weights=s) for m, s in zip(means, share, strict=True)]
        sizes = [m * (1 - m) / v - 1 for m, v in zip(means, variances, strict=True)]
        shapes = [(m * s, (1 - m) * s) for m, s in zip(means, sizes, strict=True)]
        weights = share.mean(1)
    upper = int(np.argmax(means))
    order = np.argsort(losses)
    expected = posterior(scaled)[upper][order]
    # After its peak the authors keep the posterior at the peak, which they look up on a grid of a hundredth.
    grid = posterior(np.linspace(1e-4, 1 - 1e-4, 10_001))[upper]
    peak = np.linspace(1e-4, 1 - 1e-4, 10_001)[grid.argmax()]
    expected[scaled[order] > peak] = grid.max()
    assert np.allclose(fit_beta_mixture(torch.from_numpy(losses)).numpy()[order], expected, atol=1e-5)


def dipping_losses():
    """Losses with a group just above the lowest: half of them at both ends of a wide group around it."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(np.sort(np.r_[rng.normal(0.2, 0.02, 600), rng.uniform(0, 1, 400)]).clip(0))


def test_bmm_flags_the_highest_losses_and_not_the_lowest():
    for losses in (_two_groups().sort().values, dipping_losses(), noisy_losses(0.2)[0].sort().values):
        posterior = fit_beta_mixture(losses)
        assert bool((posterior.diff() >= 0).all())
        assert bool((posterior[-len(losses) // 50 :] > 0.5).all())  # the highest 2 %
        assert not bool((posterior[:50] > 0.5).any())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["exponential", "lognormal", "gamma"])
def test_the_lowest_losses_of_a_clean_set_are_not_flagged(seed, kind):
    rng = np.random.default_rng(seed)
    drawn = {
        "exponential": lambda: rng.exponential(0.2, 2000),
        "lognormal": lambda: rng.lognormal(-4, 2, 2000),
        "gamma": lambda: rng.gamma(8, 0.02, 2000),  # few losses near 0
    }
    posterior = fit_beta_mixture(torch.from_numpy(np.sort(drawn[kind]())).float())
    assert not bool((posterior[:50] > 0.5).any())
    assert bool((posterior.diff() >= 0).all())


def test_bmm_knows_one_group_where_a_component_has_collapsed():
    # All but a few losses are the same: the other component has next to nothing.
    losses = torch.cat([torch.full((1900,), 0.1), torch.linspace(0, 0.2, 100)])
    posterior = fit_beta_mixture(losses)
    assert bool(torch.isfinite(posterior).all()) and float((posterior > 0.5).float().mean()) < 0.1
    assert not bool((posterior[losses < 0.1] > 0.5).any())


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
