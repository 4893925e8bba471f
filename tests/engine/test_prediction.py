import math

import pytest
import torch

from engine.scores.prediction import el2n, entropy, loss_last, margin_last, top2_gap


def test_el2n_by_hand():
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    values = el2n(probs, torch.tensor([0, 1, 2]))
    # sqrt(0.3^2 + 0.2^2 + 0.1^2), a perfect prediction, and a certain wrong one
    assert values.tolist() == pytest.approx([math.sqrt(0.14), 0.0, math.sqrt(2)], abs=1e-6)


def test_margin_is_given_minus_largest_other():
    logits = torch.tensor([[3.0, 1.0, -2.0], [3.0, 1.0, -2.0], [0.5, 0.5, 0.1]])
    assert margin_last(logits, torch.tensor([0, 2, 0])).tolist() == pytest.approx([2.0, -5.0, 0.0])


def test_loss_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    assert loss_last(logits, torch.tensor([1])).item() == pytest.approx(math.log(4))


def test_entropy_by_hand_and_at_its_ends():
    probs = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert entropy(probs).tolist() == pytest.approx([math.log(2), 0.0, math.log(3)])


def test_top2_gap_ignores_the_label():
    assert top2_gap(torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.5, 0.0]])).tolist() == pytest.approx([0.3, 0.0])
