"""Cross-validation holds out what it says it holds out."""

import torch

from engine.crossval import compute_heldout_correct, compute_heldout_probs
from engine.data.loader import Samples, normalisation
from engine.spec import TrainingSpec
from engine.training.loop import Normalisation

N, CLASSES = 80, 4


def _samples(spoiled: int | None = None) -> Samples:
    """Well separated vectors, the label of one of them wrong when asked."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % CLASSES
    inputs = 6 * torch.nn.functional.one_hot(labels, CLASSES).float() + torch.randn(N, CLASSES, generator=generator)
    if spoiled is not None:
        labels = labels.clone()
        labels[spoiled] = (labels[spoiled] + 1) % CLASSES
    return Samples(inputs, labels, torch.arange(N), CLASSES, None)


TRAINING = TrainingSpec(epochs=12, seeds=1, batch_size=16, lr=0.01)


def _heldout(samples):
    scale = Normalisation(*normalisation(samples))
    return compute_heldout_probs(samples, TRAINING, 12, scale, torch.Generator().manual_seed(0), lambda: None)


def test_heldout_probabilities_are_of_networks_that_did_not_see_the_label():
    probs = _heldout(_samples())
    assert torch.allclose(probs.sum(1), torch.ones(N), atol=1e-5)
    assert float((probs.argmax(1) == _samples().labels).float().mean()) > 0.95
    # A network that had been trained on the wrong label would have memorised it.
    spoiled = _heldout(_samples(spoiled=7))
    assert int(spoiled[7].argmax()) == 7 % CLASSES


def test_epochs_are_those_asked():
    samples = _samples()
    scale = Normalisation(*normalisation(samples))
    pulses = []
    compute_heldout_probs(
        samples, TRAINING, 3, scale, torch.Generator().manual_seed(0), lambda: pulses.append(1), folds=2
    )
    # Two networks, three epochs of ceil(40 / 16) batches, and one clean pass of one batch.
    assert len(pulses) == 2 * (3 * 3 + 1)


def test_every_sample_is_held_out_equally_often():
    samples = _samples(spoiled=7)
    scale = Normalisation(*normalisation(samples))
    generator = torch.Generator().manual_seed(0)
    heldout, correct = compute_heldout_correct(samples, TRAINING, 12, scale, generator, lambda: None, repeats=2)
    assert heldout.shape == correct.shape == (4, N)
    assert heldout.sum(0).tolist() == [2] * N
    assert not bool((correct & ~heldout).any())
    assert int(correct[:, 7].sum()) == 0
    assert float(correct.sum() / heldout.sum()) > 0.9
