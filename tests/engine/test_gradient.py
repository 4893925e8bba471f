"""Gradient scores against autograd, one sample at a time."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from engine.features.penultimate import compute_features
from engine.scores import gradient
from engine.scores.gradient import (
    checkpoint_epochs,
    compute_gradient_norms,
    compute_influence,
    grand_last_layer,
    tracin_self,
)
from engine.training.models import build_model

N, C = 9, 4


def _network():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(3 * 25, C)
    )
    network(torch.randn(30, 1, 5, 5))  # running statistics other than 0 and 1
    return network.eval()


def _samples():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, 1, 5, 5, generator=generator), torch.randint(C, (N,), generator=generator)


def _gradients(network, inputs, labels, only=None):
    rows = []
    for one, label in zip(inputs, labels, strict=True):
        loss = functional.cross_entropy(network(one[None]), label[None])
        parameters = [p for p in (only or network).parameters() if p.requires_grad]
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    return torch.stack(rows)


def test_gradient_norms_are_autograds(monkeypatch):
    network, (inputs, labels) = _network(), _samples()
    expected = _gradients(network, inputs, labels).norm(dim=1)
    assert torch.allclose(compute_gradient_norms(network, inputs, labels), expected, rtol=1e-4)
    monkeypatch.setattr(gradient, "GRADIENT_BYTES", 2 * 4 * sum(p.numel() for p in network.parameters()))
    assert torch.allclose(compute_gradient_norms(network, inputs, labels), expected, rtol=1e-4)  # two at a time


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet18"])
def test_gradient_norms_of_the_models(name):
    network = build_model(name, (1, 8, 8), C, 0).eval()
    inputs = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([1, 3])
    expected = _gradients(network, inputs, labels).norm(dim=1)
    assert torch.allclose(compute_gradient_norms(network, inputs, labels), expected, rtol=1e-3)


def test_frozen_parameters_do_not_count():
    network, (inputs, labels) = _network(), _samples()
    for p in network[0].parameters():
        p.requires_grad_(False)
    only = nn.ModuleList([network[1], network[4]])
    expected = _gradients(network, inputs, labels, only).norm(dim=1)
    assert torch.allclose(compute_gradient_norms(network, inputs, labels), expected, rtol=1e-4)


def test_last_layer_scores_are_autograds():
    network, (inputs, labels) = _network(), _samples()
    last = _gradients(network, inputs, labels, network[4]).detach()
    probs, features = network(inputs).softmax(1).detach(), compute_features(network, inputs)
    assert torch.allclose(grand_last_layer(probs, labels, features), last.norm(dim=1), rtol=1e-4)
    squares = features.square().sum(1)
    value = tracin_self(torch.stack([probs, probs]), torch.stack([squares, squares]), torch.tensor([0.5, 0.0]), labels)
    assert torch.allclose(value, 0.5 * last.square().sum(1), rtol=1e-4)
    influence = compute_influence(probs[:6], features[:6], labels[:6], probs[6:], features[6:], labels[6:])
    assert torch.allclose(influence, (last[:6] @ last[6:].T).mean(1), atol=1e-5)


def test_grand_last_layer_by_hand():
    # p - y = (-0.5, 0.5), norm sqrt 0.5; ||h||^2 = 3, so the score is sqrt 0.5 * 2.
    value = grand_last_layer(torch.tensor([[0.5, 0.5]]), torch.tensor([0]), torch.ones(1, 3))
    assert float(value[0]) == pytest.approx(2 * math.sqrt(0.5))


def test_checkpoints_are_even_and_end_with_the_last():
    assert checkpoint_epochs(20) == [4, 8, 12, 16, 20]
    assert checkpoint_epochs(3) == [1, 2, 3]
    assert checkpoint_epochs(1) == [1]
