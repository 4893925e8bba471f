import pytest
import torch
from torch import nn

from engine.errors import ScoreInputError
from engine.scores import kernel
from engine.scores.kernel import compute_kernel_velocity, compute_ntk, decile_groups
from engine.training.models import build_model


def linear(weight: float, bias: bool = False) -> nn.Module:
    network = nn.Linear(2, 1, bias=bias)
    nn.init.constant_(network.weight, weight)
    return network


def scaled(a: float, b: float) -> nn.Module:
    """f(x) = b * (a * x), one number in and out."""
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    nn.init.constant_(network[0].weight, a)
    nn.init.constant_(network[1].weight, b)
    return network


def test_the_kernel_of_a_linear_layer_is_the_gram_matrix_of_its_inputs():
    inputs = torch.tensor([[1.0, 2], [3, -1], [0, 1]])
    assert torch.allclose(compute_ntk(linear(0.3), inputs), (inputs @ inputs.T).double())
    assert torch.allclose(compute_ntk(linear(0.3, bias=True), inputs), (inputs @ inputs.T + 1).double())


def test_the_kernel_equals_autograd_sample_by_sample(monkeypatch):
    monkeypatch.setattr(kernel, "BLOCK_VALUES", 300_000)  # slices of columns and of samples
    network = build_model("cnn", (1, 8, 8), 3, seed=0).eval()
    inputs = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = []
    for one in inputs:
        for logit in network(one[None])[0]:
            grads = torch.autograd.grad(logit, list(network.parameters()), retain_graph=True)
            rows.append(torch.cat([g.flatten() for g in grads]))
    jacobian = torch.stack(rows).double()
    assert torch.allclose(compute_ntk(network, inputs), jacobian @ jacobian.T, rtol=1e-4, atol=1e-6)


def test_velocity_by_hand():
    # K of a x b at inputs 1 and 2 is (a^2 + b^2) x x': always the same direction.
    inputs = torch.tensor([[1.0], [2.0]])
    assert compute_kernel_velocity([scaled(1, 1), scaled(3, 2)], inputs).tolist() == pytest.approx([0], abs=1e-6)
    # Dead for the one and then for the other sample: the kernels diag(1, 0) and diag(0, 1) share no direction.
    first, second = (nn.Sequential(linear(1.0), nn.ReLU(), nn.Linear(1, 1, bias=False)) for _ in range(2))
    with torch.no_grad():
        first[0].weight.copy_(torch.tensor([[1.0, -1.0]]))
        second[0].weight.copy_(torch.tensor([[-1.0, 1.0]]))
    assert compute_kernel_velocity([first, first, second], torch.eye(2)).tolist() == pytest.approx([0, 1], abs=1e-6)


def test_groups_are_the_easiest_of_each_share():
    ranks = torch.tensor([5, 0, 3, 1, 4, 2, 7, 6])
    assert decile_groups(ranks, groups=2, size=3).tolist() == [[1, 3, 5], [4, 0, 7]]
    with pytest.raises(ScoreInputError, match="4 groups of 3 do not fit into 8 samples; allowed: 1 to 2 each"):
        decile_groups(ranks, groups=4, size=3)


def test_what_cannot_turn_is_refused():
    with pytest.raises(ScoreInputError, match="1 networks and 2 samples"):
        compute_kernel_velocity([linear(1.0)], torch.eye(2))
    with pytest.raises(ScoreInputError, match="network 0 or 1 is zero"):
        compute_kernel_velocity([linear(1.0), linear(1.0)], torch.zeros(2, 2))
