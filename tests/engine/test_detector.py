"""The LSTM noise detector: what it learns, what it refuses, and that the shipped one finds mislabeled samples."""

import numpy as np
import pytest
import torch

from engine.errors import ScoreInputError
from engine.queries.explanations import PERTURBATIONS, detect, explain
from engine.scores.evaluation import evaluate_detection
from engine.scores.lstm import (
    SHIPPED,
    Detector,
    lstm_detector,
    resample,
    shipped_detector,
    train_detector,
)
from engine.store import detector_files


def _curves(n: int, epochs: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Dynamics as networks make them: the clean rise early, the mislabeled late. (T, N) and (N,) bool."""
    generator = torch.Generator().manual_seed(seed)
    mislabeled = torch.rand(n, generator=generator) < 0.3
    middle = torch.where(mislabeled, 0.85, 0.2) + 0.1 * torch.randn(n, generator=generator)
    time = torch.linspace(0, 1, epochs)[:, None]
    noise = 0.3 * torch.randn(epochs, n, generator=generator)
    return torch.sigmoid((time - middle) * 10 + noise), mislabeled


def test_resampling_is_numpys_interpolation():
    p_given = torch.rand(7, 5, generator=torch.Generator().manual_seed(0))
    for epochs in (1, 3, 7, 20):
        places = np.linspace(0, 6, epochs) if epochs > 1 else np.zeros(1)
        expected = np.stack([np.interp(places, np.arange(7), p_given[:, i]) for i in range(5)], 1)
        assert np.allclose(resample(p_given, epochs).numpy(), expected, atol=1e-6)
    assert resample(p_given[:1], 4).tolist() == p_given[:1].repeat(4, 1).tolist()


def test_a_detector_is_learned_and_goes_to_another_length():
    fit = train_detector(*_curves(600, 12, 0), seed=0, epochs=4)
    assert fit.metrics["roc_auc"] > 0.95
    p_given, mislabeled = _curves(400, 30, 1)
    value = lstm_detector(p_given, fit.detector)
    assert value.shape == (400,) and float(value.min()) >= 0 and float(value.max()) <= 1
    assert evaluate_detection(value.numpy(), mislabeled.numpy())["average_precision"] > 0.9


def test_the_same_seed_gives_the_same_detector():
    first, second = (train_detector(*_curves(200, 6, 0), seed=3, epochs=1).detector for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_learning_rate_that_diverges_is_lowered_and_said():
    fit = train_detector(*_curves(600, 12, 0), seed=0, lr=1.0, epochs=4)
    assert fit.lr < 1 and fit.metrics["roc_auc"] > 0.95
    assert fit.notes[0].startswith("learning rate 1 diverged: held-out AUC 0.")


def test_fine_tuning_never_loses_on_what_is_held_out():
    start = train_detector(*_curves(600, 12, 0), seed=0, epochs=4).detector
    before = [p.clone() for p in start.parameters()]
    p_given, mislabeled = _curves(300, 12, 5)
    untouched = train_detector(p_given, mislabeled, seed=0, start=start, epochs=0)
    tuned = train_detector(p_given, mislabeled, seed=0, start=start, epochs=3)
    assert tuned.metrics["average_precision"] >= untouched.metrics["average_precision"]
    assert all(torch.equal(a, b) for a, b in zip(before, start.parameters(), strict=True))


def test_the_shipped_detector_knows_late_learners():
    p_given, mislabeled = _curves(500, 20, 2)
    assert evaluate_detection(lstm_detector(p_given, None).numpy(), mislabeled.numpy())["roc_auc"] > 0.95


def test_the_shipped_detector_knows_the_few_epochs_of_a_head():
    # After 4 epochs most right ones are still below 1/2, and the wrong ones lower. One that knows long dynamics of
    # networks alone takes them all for wrong: average precision .38, ROC AUC .83.
    p_given, mislabeled = _head(epochs=4)
    assert float((p_given[-1, ~mislabeled] < 0.5).float().mean()) > 0.5
    found = evaluate_detection(lstm_detector(p_given, None).numpy(), mislabeled.numpy())
    assert found["average_precision"] > 0.65 and found["roc_auc"] > 0.95


def _head(epochs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The dynamics of a linear head on features of ten classes that overlap, 8 % of the labels wrong."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(10, (1500,), generator=generator)
    features = torch.randn(10, 32, generator=generator)[truth] * 0.6 + torch.randn(1500, 32, generator=generator)
    mislabeled = torch.rand(1500, generator=generator) < 0.08
    labels = torch.where(mislabeled, (truth + torch.randint(1, 10, (1500,), generator=generator)) % 10, truth)
    torch.manual_seed(0)
    head = torch.nn.Linear(32, 10)
    optimizer, recorded = torch.optim.Adam(head.parameters(), 0.003), torch.zeros(epochs, 1500)
    for epoch in range(epochs):
        for batch in torch.randperm(1500, generator=generator).split(64):
            logits = head(features[batch])
            recorded[epoch, batch] = logits.detach().softmax(1)[torch.arange(len(batch)), labels[batch]]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, labels[batch]).backward()
            optimizer.step()
    return recorded, mislabeled


def test_an_explanation_points_at_the_epochs_that_differ():
    file = detector_files.shipped_detectors()[SHIPPED]
    reference = np.linspace(0.3, 0.98, shipped_detector().epochs, dtype=np.float32)
    sequence = reference.copy()
    sequence[5:10] = 0.02
    weights = explain(file, sequence, reference)
    assert weights.shape == sequence.shape
    assert set(np.argsort(-abs(weights))[:3]) <= set(range(5, 10))
    assert weights[5:10].sum() > 0
    # Where masking changes nothing, there is nothing to say.
    assert abs(explain(file, reference, reference)).max() < 1e-6


@pytest.mark.parametrize("epochs", [1, 2, 7, 20, 33])
def test_what_explains_detects_as_the_score_does(epochs):
    p_given = torch.rand(epochs, 40, generator=torch.Generator().manual_seed(0))
    found = detect(detector_files.shipped_detectors()[SHIPPED], p_given.numpy())
    assert np.allclose(found, lstm_detector(p_given, None).numpy(), atol=1e-5)
    assert found.std() > 0.01


def test_an_explanation_is_scikit_learns_ridge_on_the_masks():
    from sklearn.linear_model import Ridge

    file = detector_files.shipped_detectors()[SHIPPED]
    p_given, _ = _curves(2, 12, 3)
    sequence, reference = p_given.numpy().T
    masks = np.random.default_rng(0).random((PERTURBATIONS, 12)) < 0.5
    masks[0] = True
    probability = lstm_detector(torch.from_numpy(np.where(masks, sequence, reference).T), None).numpy()
    weight = np.exp(-((1 - np.sqrt(masks.mean(1))) ** 2) / 0.25**2)
    fitted = Ridge(alpha=1.0).fit(masks.astype(float), probability.astype(float), sample_weight=weight)
    assert np.allclose(explain(file, sequence, reference), fitted.coef_, atol=1e-5)


def test_messages():
    with pytest.raises(ScoreInputError, match="p_given of sample 2 is not a probability at every epoch"):
        lstm_detector(torch.tensor([[0.5, 0.5, 1.5]]), None)
    with pytest.raises(ScoreInputError, match=r"p_given has shape \(3,\)"):
        lstm_detector(torch.rand(3), None)
    with pytest.raises(ScoreInputError, match="0 of 5 samples are mislabeled; a detector needs at least 2 of each"):
        train_detector(torch.rand(4, 5), torch.zeros(5, dtype=torch.bool), seed=0)
    with pytest.raises(ScoreInputError, match="4 sequences but 5 labels"):
        train_detector(torch.rand(3, 4), torch.zeros(5, dtype=torch.bool), seed=0)


def test_a_detector_has_two_layers_of_64():
    assert sum(p.numel() for p in Detector(20).parameters()) == 4 * (64 * (1 + 64) + 128) + 4 * (64 * 128 + 128) + 65
