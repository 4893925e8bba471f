"""Kernel velocity: how fast the tangent kernel of a group of samples turns while a network trains (CG, appendix I)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from engine.errors import ScoreInputError

GROUPS, GROUP_SIZE = 10, 125
"""The paper's groups: deciles by a score, and samples of each."""

BLOCK_VALUES = 1 << 26
"""Values of the logits' Jacobian held at a time (256 MB)."""


def decile_groups(ranks: Tensor, groups: int = GROUPS, size: int = GROUP_SIZE) -> Tensor:
    """The first samples of each of equally many groups, from the easiest on.

    Args:    ranks (N,) int64, 0 = easiest; size: samples of a group, at most N / groups
    Returns: (groups, size) int64 positions, a group's easiest first
    Raises:  ScoreInputError when a group has fewer samples than size
    """
    n = len(ranks)
    if not 1 <= size <= n // max(1, groups) or groups < 1:
        raise ScoreInputError(
            f"{groups} groups of {size} do not fit into {n} samples; allowed: 1 to {n // max(1, groups)} each"
        )
    starts = torch.arange(groups) * n // groups
    return torch.argsort(ranks)[starts[:, None] + torch.arange(size)]


def compute_ntk(network: nn.Module, inputs: Tensor) -> Tensor:
    """Gram matrix of the logits' gradients: the data-dependent neural tangent kernel.

    K = J J', J the derivative of every logit of every sample by all parameters

    Each parameter's share is added in turn, a slice of its columns at a time, so that J is never whole in memory.

    Args:    network, taken in evaluation mode; inputs (m, ...) as it takes them
    Returns: (m C, m C) float64 on the inputs' device, the logits of a sample next to each other
    """
    network.eval()
    parameters = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    buffers = dict(network.named_buffers())
    with torch.no_grad():
        rows = int(network(inputs[:1]).shape[1]) * len(inputs)
    kernel = torch.zeros(rows, rows, dtype=torch.float64, device=inputs.device)
    for name, parameter in parameters.items():

        def logits(values: Tensor, one: Tensor, name: str = name) -> Tensor:
            called: Tensor = functional_call(network, ({**parameters, name: values}, buffers), (one[None],))
            return called[0]

        size = parameter.numel()
        width = max(1, min(size, BLOCK_VALUES // rows))
        step = max(1, min(len(inputs), BLOCK_VALUES * len(inputs) // (rows * size)))
        for column in range(0, size, width):
            parts = []
            for start in range(0, len(inputs), step):
                jacobian = vmap(jacrev(logits), in_dims=(None, 0))(parameter, inputs[start : start + step])
                parts.append(jacobian.reshape(-1, size)[:, column : column + width].clone())
            share = torch.cat(parts)
            kernel += (share @ share.T).double()
    return kernel


def compute_kernel_velocity(networks: Sequence[nn.Module], inputs: Tensor) -> Tensor:
    """How far the tangent kernel of a group of samples turns from each network to the next.

    v_t = 1 - <K_t, K_{t+1}> / (||K_t|| ||K_{t+1}||), in the Frobenius product

    Args:    networks: one network after successive epochs, two or more; inputs (m, ...) of the group
    Returns: (len(networks) - 1,) float64 in [0, 1]; higher = the features of the group change more
    Raises:  ScoreInputError for fewer than two networks, an empty group or a kernel of zeros
    """
    if len(networks) < 2 or not len(inputs):
        raise ScoreInputError(
            f"kernel velocity of {len(networks)} networks and {len(inputs)} samples; allowed: 2 or more networks, "
            "1 or more samples"
        )
    before, out = compute_ntk(networks[0], inputs), []
    for t, network in enumerate(networks[1:]):
        after = compute_ntk(network, inputs)
        norms = torch.linalg.matrix_norm(before) * torch.linalg.matrix_norm(after)
        if not bool(norms > 0):
            raise ScoreInputError(
                f"the tangent kernel of network {t} or {t + 1} is zero or not finite; it has no direction"
            )
        out.append(1 - (before * after).sum() / norms)
        before = after
    return torch.stack(out).clamp(0.0, 1.0)
