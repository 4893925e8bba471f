"""The estimate of the wrong labels and their probabilities: against sets whose truth is known, and values by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine.errors import ScoreInputError
from engine.runs.verdict import rank_suspects, suggest
from engine.scores.verdict import Noise, along_ranking, fit_noise, mean_rank, noise_of_joint, probability_wrong


def simulate(n: int, classes: int, share: float, seed: int, spread: float = 4.0) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions that are right as often as they say, given labels of which that share is wrong, and which are.

    The true class is drawn from the predictions, and a wrong label evenly from the others. Returns: logs of the
    predictions (n, classes), labels (n,), wrong (n,) bool
    """
    generator = torch.Generator().manual_seed(seed)
    logs = torch.log_softmax(spread * torch.randn(n, classes, generator=generator), 1)
    truth = torch.multinomial(logs.exp(), 1, generator=generator)[:, 0]
    wrong = torch.rand(n, generator=generator) < share
    other = (truth + torch.randint(1, classes, (n,), generator=generator)) % classes
    return logs, torch.where(wrong, other, truth), wrong


def calibration_error(p_wrong: Tensor, wrong: Tensor, bins: int = 10) -> float:
    """Expected calibration error, 0..1: the mean over samples of | mean p_wrong - share of wrong | of their bin."""
    at = (p_wrong * bins).long().clamp_max(bins - 1)
    gaps = [
        float((at == b).double().mean()) * abs(float(p_wrong[at == b].mean()) - float(wrong[at == b].double().mean()))
        for b in at.unique().tolist()
    ]
    return sum(gaps)


# The estimated share ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("share", [0.03, 0.1, 0.3])
def test_the_interval_has_the_share_of_wrong_labels(classes: int, share: float) -> None:
    n = 800 if classes == 100 else 2000
    logs, labels, _ = simulate(n, classes, share, seed=classes)
    found = fit_noise(logs.exp(), labels)
    assert found.low <= share <= found.high and found.low <= found.share <= found.high
    assert found.high - found.low < 0.1
    assert found.scale == pytest.approx(1, abs=0.25)  # the predictions are calibrated already


def test_a_clean_set_has_none() -> None:
    for seed in range(3):
        logs, labels, _ = simulate(1500, 10, 0.0, seed)
        found = fit_noise(logs.exp(), labels)
        assert found.low == 0 and found.share < 0.01 and found.high < 0.03


@pytest.mark.parametrize("temperature", [0.4, 2.5])
def test_the_scale_of_the_predictions_is_found_along(temperature: float) -> None:
    logs, labels, _ = simulate(2000, 10, 0.1, seed=0)
    right = fit_noise(logs.exp(), labels)
    found = fit_noise(torch.softmax(logs / temperature, 1), labels)
    # They are log-linear in one another, so that the model is the same.
    assert found.scale == pytest.approx(temperature * right.scale, rel=0.02)
    assert found.share == pytest.approx(right.share, abs=1e-3)


def test_the_estimate_is_the_maximum_of_the_likelihood() -> None:
    logs, labels, _ = simulate(400, 3, 0.15, seed=1, spread=3.0)
    found = fit_noise(logs.exp(), labels)

    def likelihood(share: float, scale: float) -> float:
        q = torch.softmax(logs.double() * scale, 1)[torch.arange(400), labels]
        return float(((1 - share) * q + share / 2 * (1 - q)).log().sum())

    best = likelihood(found.share, found.scale)
    scales = torch.linspace(0.3, 3, 60).tolist()
    shares = torch.linspace(0, 0.6, 61).tolist()
    profile = {share: max(likelihood(share, scale) for scale in scales) for share in shares}
    assert max(profile.values()) <= best + 1e-3
    # The interval: where twice the log likelihood lies within 3.84 of its best.
    inside = [share for share, value in profile.items() if 2 * (best - value) <= 3.84]
    assert found.low == pytest.approx(min(inside), abs=0.011) and found.high == pytest.approx(max(inside), abs=0.011)


def test_the_estimate_is_the_same_again_and_in_any_order_of_samples_and_classes() -> None:
    logs, labels, _ = simulate(500, 4, 0.2, seed=2)
    found = fit_noise(logs.exp(), labels)
    assert fit_noise(logs.exp(), labels) == found
    generator = torch.Generator().manual_seed(0)
    order, renamed = torch.randperm(500, generator=generator), torch.randperm(4, generator=generator)
    for probs, given in (
        (logs.exp()[order], labels[order]),
        (logs.exp()[:, renamed], torch.argsort(renamed)[labels]),
    ):
        again = fit_noise(probs, given)
        assert (again.share, again.low, again.high) == pytest.approx((found.share, found.low, found.high), abs=1e-3)


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ScoreInputError, match="1 class; which labels are wrong can be told from two on"):
        fit_noise(torch.ones(3, 1), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ScoreInputError, match="3 held-out predictions but 2 labels"):
        fit_noise(torch.full((3, 2), 0.5), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ScoreInputError, match="heldout_probs of sample 1 is not finite"):
        fit_noise(torch.tensor([[0.5, 0.5], [math.nan, 1]]), torch.zeros(2, dtype=torch.int64))


# The probability of each label -----------------------------------------------------------------------------------


def test_the_probability_of_a_wrong_label_is_bayes_rule() -> None:
    probs, labels = torch.tensor([[0.9, 0.06, 0.04], [0.01, 0.59, 0.4], [0.5, 0.3, 0.2]]), torch.tensor([0, 0, 2])
    # A tenth of the labels wrong, half of these either other class: .05 (1 - q) / (.9 q + .05 (1 - q)).
    expected = [0.005 / 0.815, 0.0495 / 0.0585, 0.04 / 0.22]
    assert probability_wrong(probs, labels, Noise(0.1, 0, 1, 1.0)).tolist() == pytest.approx(expected)
    # On twice the scale q is that of the squares: .2^2 / (.5^2 + .3^2 + .2^2) = .04 / .38 of the third.
    q = 0.04 / 0.38
    found = probability_wrong(probs, labels, Noise(0.1, 0, 1, 2.0))
    assert float(found[2]) == pytest.approx(0.05 * (1 - q) / (0.9 * q + 0.05 * (1 - q)))
    assert probability_wrong(probs, labels, Noise(0.0, 0, 0, 1.0)).tolist() == [0, 0, 0]


def test_a_prediction_that_excludes_its_label_is_wrong_and_one_that_is_sure_is_right() -> None:
    probs, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])
    assert probability_wrong(probs, labels, Noise(0.1, 0, 1, 1.0)).tolist() == [0, 1]


@pytest.mark.parametrize("noise", ["even", "neighbor", "one class"])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_of_the_labels_with_a_probability_so_many_are_wrong(noise: str, temperature: float) -> None:
    # Overconfident and underconfident predictions, and noise that the model does not assume.
    logs, labels, wrong = simulate(2500, 8, 0.12, seed=5, spread=3.0)
    if noise != "even":
        clean, truth, _ = simulate(2500, 8, 0.0, seed=5, spread=3.0)
        assert torch.equal(clean, logs)
        wrong = wrong if noise == "neighbor" else wrong | ((truth == 3) & (torch.arange(2500) % 3 == 0))
        labels = torch.where(wrong, (truth + 1) % 8, truth)
    probs = torch.softmax(logs / temperature, 1)
    p_wrong = probability_wrong(probs, labels, fit_noise(probs, labels))
    assert 0 <= float(p_wrong.min()) and float(p_wrong.max()) <= 1
    assert calibration_error(p_wrong, wrong) <= 0.1
    assert float(p_wrong.mean()) == pytest.approx(float(wrong.double().mean()), abs=0.04)


# Joint and ranks -------------------------------------------------------------------------------------------------


def test_the_share_by_the_joint_leaves_out_the_errors_of_the_predictions() -> None:
    probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.9, 0.1]])
    labels = torch.tensor([0, 0, 1, 1])
    # Thresholds: .85 and .45. Samples 0, 2, 3 are confidently of 0, 1, 0: one of four is off the diagonal. If all labels
    # were right, (.1 + .2 + .1) / 4 would be; if all were wrong, (.9 + .8 + .9) / 4.
    assert noise_of_joint(probs, labels, Noise(0.1, 0, 1, 1.0)) == pytest.approx((0.25 - 0.1) / (0.65 - 0.1))
    # As many as the predictions' own errors explain, or fewer, are none.
    assert noise_of_joint(probs[:3], labels[:3], Noise(0.1, 0, 1, 1.0)) == 0


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_the_share_by_the_joint_is_near_the_truth(share: float) -> None:
    logs, labels, wrong = simulate(3000, 10, share, seed=7)
    found = noise_of_joint(logs.exp(), labels, fit_noise(logs.exp(), labels))
    assert found == pytest.approx(float(wrong.double().mean()), abs=0.03)


def test_probabilities_along_a_ranking_rise_and_mean_the_same() -> None:
    found = along_ranking(torch.tensor([0.1, 0.5, 0.3, 0.9]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert found.tolist() == pytest.approx([0.1, 0.4, 0.4, 0.9])  # the pair that falls takes its mean
    generator = torch.Generator().manual_seed(0)
    p_wrong, suspicion = torch.rand(500, generator=generator), torch.rand(500, generator=generator)
    found = along_ranking(p_wrong, suspicion)
    assert bool((found[suspicion.argsort()].diff() >= 0).all())
    assert float(found.mean()) == pytest.approx(float(p_wrong.mean()), abs=1e-5)


def test_the_mean_rank_shares_the_rank_of_ties() -> None:
    assert mean_rank(torch.tensor([1.0, 2.0, 2.0, 9.0])).tolist() == pytest.approx([0.25, 0.625, 0.625, 1])
    found = mean_rank(torch.tensor([1.0, 2.0, 2.0, 9.0]), torch.tensor([4.0, 3.0, 2.0, 1.0]))
    assert found.tolist() == pytest.approx([0.625, 0.6875, 0.5625, 0.625])


# The ranking of all ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_aum", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.15])
def test_the_ranking_never_contradicts_the_probabilities(with_aum: bool, share: float) -> None:
    logs, labels, _ = simulate(600, 5, 0.15, seed=3)
    aum = logs[torch.arange(600), labels] + torch.randn(600, generator=torch.Generator().manual_seed(1))
    # the last 150 are test samples
    suspicion, p_wrong = rank_suspects(logs.exp(), labels, Noise(share, 0, 1, 1.0), aum[:450] if with_aum else None)
    assert sorted(suspicion.tolist()) == list(range(600))  # no two share a place
    assert bool((p_wrong[suspicion.argsort()].diff() >= 0).all())
    own = probability_wrong(logs.exp(), labels, Noise(share, 0, 1, 1.0))
    assert torch.equal(p_wrong[450:], own[450:])
    assert float(p_wrong.mean()) == pytest.approx(float(own.mean()), abs=1e-5)
    if not with_aum:
        # Where all are equally probable, self-confidence ranks.
        given = logs.exp()[torch.arange(600), labels].double()
        assert float(given[suspicion.argsort()].diff().max()) < 1e-6


def test_the_class_that_held_out_predictions_prefer_is_suggested() -> None:
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.1, 0.6], [0.2, 0.5, 0.3]])
    at, proposed, confidence = suggest(probs, torch.tensor([0, 0, 2]))
    assert (at.tolist(), proposed.tolist()) == ([1, 2], [2, 1]) and confidence.tolist() == pytest.approx([0.6, 0.5])


def test_probabilities_of_a_sure_network_stay_finite() -> None:
    labels = torch.arange(60) % 3
    probs = functional.one_hot(labels, 3).float()
    found = fit_noise(probs, labels)
    assert found.share == 0 and found.high < 0.1 and not bool(probability_wrong(probs, labels, found).any())
    labels[0] = 1  # excluded with certainty
    found = fit_noise(probs, labels)
    p_wrong = probability_wrong(probs, labels, found)
    assert found.share == pytest.approx(1 / 60, abs=0.01) and float(p_wrong[0]) > 0.9 and float(p_wrong[1:].max()) < 0.1
