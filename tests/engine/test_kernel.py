import pytest
import torch
from torch import nn

from engine.errors import ScoreInputError
from engine.scores.kernel import compute_kernel_velocity, compute_ntk, decile_groups
from engine.scores.outer import Parts, part_network
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


def plain_kernel(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """J J' with a row of J for each logit of each sample, by one backward pass each."""
    rows = []
    for one in inputs:
        for logit in network(one[None])[0]:
            trained = [p for p in network.parameters() if p.requires_grad]
            grads = torch.autograd.grad(logit, trained, retain_graph=True, allow_unused=True, materialize_grads=True)
            rows.append(torch.cat([g.flatten() for g in grads]))
    jacobian = torch.stack(rows).double()
    return jacobian @ jacobian.T


@pytest.mark.parametrize("block_values", [1, 600_000, 1 << 26])  # blocks of one sample, of two, and of all
@pytest.mark.parametrize("name", ["cnn", "mlp", "head", "lenet"])
def test_the_kernel_equals_autograd_sample_by_sample(name, block_values):
    network = build_model(name, (1, 8, 8), 3, seed=0).eval()
    inputs = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    kernel = compute_ntk(network, inputs, block_values)
    assert torch.allclose(kernel, plain_kernel(network, inputs), rtol=1e-4, atol=1e-6)


class Odd(nn.Module):
    """Linear layers whose gradients are no outer products of what goes in and out of them once: one is called twice, one
    weighs again what another gave, one works on positions; and a convolution, and a bias that is not trained."""

    def __init__(self):
        super().__init__()
        self.twice, self.again, self.rows, self.plain = (nn.Linear(4, 4) for _ in range(4))
        self.plain.bias.requires_grad_(False)
        self.mix, self.out = nn.Conv1d(1, 2, 3, padding=1), nn.Linear(4, 3, bias=False)

    def forward(self, inputs):
        hidden = self.twice(self.twice(inputs).tanh())
        hidden = nn.functional.linear(self.again(hidden).tanh(), self.again.weight)
        hidden = hidden + self.mix(self.rows(hidden[:, None, :].expand(-1, 3, -1))[:, :1]).sum(1)
        return self.out(self.plain(hidden).tanh())


def test_the_kernel_of_layers_that_are_used_otherwise_is_autograds_too():
    torch.manual_seed(0)
    network, inputs = Odd().eval(), torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    assert set(part_network(network, inputs).linear) == {"plain", "out"}
    assert torch.allclose(compute_ntk(network, inputs), plain_kernel(network, inputs), rtol=1e-4, atol=1e-6)


def test_the_jacobian_of_a_block_of_columns_is_computed_once(monkeypatch):
    passes, call = [], Parts.call
    monkeypatch.setattr(Parts, "call", lambda *args: passes.append(1) or call(*args))
    network = build_model("cnn", (1, 8, 8), 3, seed=0).eval()
    inputs = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    compute_ntk(network, inputs)
    assert len(passes) == 1
    passes.clear()
    compute_ntk(network, inputs, 1)  # a block of each sample, which is held while those of the others come and go
    assert len(passes) == 8 + 7 * 8 // 2


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
