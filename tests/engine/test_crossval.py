"""Cross-validation holds out what it says it holds out."""

from dataclasses import replace

import pytest
import torch

from engine.data.loader import Samples, normalization
from engine.errors import Cancelled
from engine.runs.crossval import CrossValidation, compute_heldout_correct, compute_heldout_probs, compute_incv
from engine.spec import TrainingSpec
from engine.training.loop import Normalization

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


class Steps:
    """A reporter that remembers; `stop_after` pulses it raises."""

    def __init__(self, stop_after=10**9):
        self.reports, self.pulses, self.stop_after = [], 0, stop_after

    def step(self, done, total, detail=""):
        self.reports.append(done / total)

    def heartbeat(self):
        self.pulses += 1
        if self.pulses > self.stop_after:
            raise Cancelled()

    def stop(self, stopped=True):
        pass


def how(samples, folder, epochs=12, steps=None):
    return CrossValidation(samples, TRAINING, epochs, Normalization(*normalization(samples)), folder, steps or Steps())


def test_heldout_probabilities_are_of_networks_that_did_not_see_the_label(tmp_path):
    probs = compute_heldout_probs(how(_samples(), tmp_path / "a"), torch.Generator().manual_seed(0))
    assert torch.allclose(probs.sum(1), torch.ones(N), atol=1e-5)
    assert float((probs.argmax(1) == _samples().labels).float().mean()) > 0.95
    # A network that had been trained on the wrong label would have memorised it.
    spoiled = compute_heldout_probs(how(_samples(spoiled=7), tmp_path / "b"), torch.Generator().manual_seed(0))
    assert int(spoiled[7].argmax()) == 7 % CLASSES


def test_epochs_are_those_asked(tmp_path):
    steps = Steps()
    compute_heldout_probs(how(_samples(), tmp_path, 3, steps), torch.Generator().manual_seed(0))
    # Five networks, three epochs of 64 / 16 batches, and one evaluation pass of one batch.
    assert steps.pulses == 5 * (3 * 4 + 1)
    assert max(steps.reports) == 1.0


def test_what_was_trained_before_it_was_stopped_is_not_trained_again(tmp_path):
    whole = compute_heldout_probs(how(_samples(), tmp_path / "whole"), torch.Generator().manual_seed(0))
    folder, each = tmp_path / "broken", 12 * 4 + 1  # 12 epochs of 64 samples in batches of 16, one evaluation pass
    with pytest.raises(Cancelled):
        compute_heldout_probs(how(_samples(), folder, steps=Steps(3 * each)), torch.Generator().manual_seed(0))
    kept = len(list(folder.iterdir()))
    assert 1 <= kept < 5
    steps = Steps()
    again = compute_heldout_probs(how(_samples(), folder, steps=steps), torch.Generator().manual_seed(0))
    assert torch.equal(again, whole)
    assert steps.pulses == (5 - kept) * each


def test_every_sample_is_held_out_equally_often(tmp_path):
    generator = torch.Generator().manual_seed(0)
    heldout, correct = compute_heldout_correct(how(_samples(spoiled=7), tmp_path), generator, repeats=2)
    assert heldout.shape == correct.shape == (4, N)
    assert heldout.sum(0).tolist() == [2] * N
    assert not bool((correct & ~heldout).any())
    assert int(correct[:, 7].sum()) == 0
    assert float(correct.sum() / heldout.sum()) > 0.9


def test_the_iteration_keeps_the_clean_and_says_how_many_are_not(tmp_path):
    samples = _samples()
    labels = samples.labels.clone()
    labels[:8] = (labels[:8] + 1) % CLASSES  # a tenth
    selected, rate = compute_incv(how(replace(samples, labels=labels), tmp_path), torch.Generator().manual_seed(0))
    assert 0.02 < rate < 0.25
    assert int(selected[:8].sum()) <= 1 and float(selected[8:].float().mean()) > 0.9
