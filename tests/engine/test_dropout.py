"""Dropout that follows from (seed, epoch): its masks, and networks trained with it."""

import pytest
import torch
from torch import nn

from engine.training.dropout import Dropout, draw_from, draw_mask
from engine.training.loop import epoch_generator


def test_half_are_dropped_and_the_others_doubled():
    mask = draw_mask(1000, 130, torch.Generator().manual_seed(1))
    assert mask.shape == (1000, 130) and set(mask.unique().tolist()) == {0.0, 2.0}
    # 130,000 fair coins: the mean of the factors is 1 within 5 of their standard deviations of 1 / sqrt(n)
    assert abs(float(mask.mean()) - 1) < 5 / 130_000**0.5
    # every column and every row is fair, and no column is another one shifted by a word of 64 bits
    assert ((mask.mean(0) - 1).abs() < 5 / 1000**0.5).all() and ((mask.mean(1) - 1).abs() < 5 / 130**0.5).all()
    signs = mask - 1
    together = (signs.T @ signs / 1000).fill_diagonal_(0)
    assert together.abs().max() < 6 / 1000**0.5


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 5), (2, 64), (33, 512)])
def test_masks_have_any_shape(rows, width):
    assert draw_mask(rows, width, torch.Generator().manual_seed(0)).shape == (rows, width)


def test_masks_follow_from_seed_and_epoch():
    first, again, next_epoch, other = (
        draw_mask(4, 64, epoch_generator(*of)) for of in ((1, 2), (1, 2), (1, 3), (2, 2))
    )
    assert torch.equal(first, again) and not torch.equal(first, next_epoch) and not torch.equal(first, other)


def test_the_gradient_is_that_of_the_mask():
    layer, inputs = Dropout(), torch.randn(8, 70, requires_grad=True)
    draw_from(layer, torch.Generator().manual_seed(3))
    out = layer(inputs)
    mask = draw_mask(8, 70, torch.Generator().manual_seed(3))
    assert torch.equal(out, inputs * mask)
    out.sum().backward()
    assert torch.equal(inputs.grad, mask)


def test_evaluation_keeps_every_value_and_needs_no_generator():
    inputs = torch.randn(8, 70)
    assert torch.equal(Dropout().eval()(inputs), inputs)


def test_dropout_without_a_generator_is_refused():
    with pytest.raises(RuntimeError, match="draw_from"):
        Dropout()(torch.ones(2, 2))


def test_layers_of_one_network_draw_unlike_masks_and_none_from_the_process():
    network = nn.Sequential(Dropout(), nn.Identity(), Dropout())
    before = torch.get_rng_state()
    draw_from(network, torch.Generator().manual_seed(0))
    # one mask twice would keep half of the values, two keep a quarter
    kept = float((network(torch.ones(200, 500)) > 0).float().mean())
    assert abs(kept - 0.25) < 0.01 and torch.equal(before, torch.get_rng_state())
