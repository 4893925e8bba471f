"""Kernel velocity: how fast the tangent kernel of a group of samples turns while a network trains (CG, appendix I)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from engine.errors import ScoreInputError
from engine.scores.outer import Parts, part_network

GROUPS, GROUP_SIZE = 10, 125
"""The paper's groups: deciles by a score, and samples of each."""

BLOCK_VALUES = 1 << 26
"""Values of the logits' Jacobian held at a time where nothing else is said (256 MB)."""


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


@dataclass(frozen=True)
class _Jacobian:
    """The derivatives of the logits of b samples, the C of a sample next to each other.

    formed: (b C, P) of each parameter; linear: of each linear layer the derivatives (b C, out) of its output, its input
    (b, in), and whether its weight and its bias are trained
    """

    formed: Sequence[Tensor]
    linear: Sequence[tuple[Tensor, Tensor, bool, bool]]


def compute_ntk(network: nn.Module, inputs: Tensor, block_values: int = BLOCK_VALUES) -> Tensor:
    """Gram matrix of the logits' gradients: the data-dependent neural tangent kernel.

    K = J J', J the derivative of every logit of every sample by all parameters

    J is never whole in memory where it is large: that of a block of samples is held, and those of the blocks after it come
    and go. Of linear layers it is not formed: their share of K is the product of two small kernels.

    Args:    network, taken in evaluation mode; inputs (m, ...) as it takes them; block_values: of J, held at a time
    Returns: (m C, m C) float64 on the inputs' device, the logits of a sample next to each other
    """
    parts = part_network(network, inputs)

    def logits(
        rest: Mapping[str, Tensor], shifts: Mapping[str, Tensor], one: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        found, seen = parts.call(rest, shifts, one[None])
        return found[0], seen

    per_sample = vmap(jacrev(logits, argnums=(0, 1), has_aux=True), in_dims=(None, None, 0))

    def jacobian(rows: Tensor) -> _Jacobian:
        (formed, outputs), seen = per_sample(parts.rest, parts.shifts(rows), rows)
        linear = [
            (
                outputs[name].flatten(0, 1).flatten(1),
                seen[name].flatten(1),
                layer.weight.requires_grad,
                layer.bias is not None and layer.bias.requires_grad,
            )
            for name, layer in parts.linear.items()
        ]
        return _Jacobian([values.flatten(0, 1).flatten(1) for values in formed.values()], linear)

    classes, values = _logit_values(parts, inputs[:1])
    step = max(1, len(inputs) if len(inputs) * values <= block_values else block_values // (2 * values))
    rows = classes * len(inputs)
    kernel = torch.empty(rows, rows, dtype=torch.float64, device=inputs.device)
    for first in range(0, len(inputs), step):
        held, ours = jacobian(inputs[first : first + step]), slice(classes * first, classes * (first + step))
        for start in range(first, len(inputs), step):
            block = held if start == first else jacobian(inputs[start : start + step])
            theirs = slice(classes * start, classes * (start + step))
            kernel[ours, theirs] = _gram(held, block, classes)
            kernel[theirs, ours] = kernel[ours, theirs].T.clone()
    return kernel


def _logit_values(parts: Parts, one: Tensor) -> tuple[int, int]:
    """The classes, and about how many values the derivatives of one sample's logits are while they are computed."""
    sizes: list[int] = []

    def count(layer: nn.Module, args: object, output: object) -> None:
        sizes.append(output.numel() if isinstance(output, Tensor) else 0)

    layers = [layer for layer in parts.network.modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad():
            classes = int(parts.network(one).shape[1])
    finally:
        for handle in handles:
            handle.remove()
    return classes, classes * (sum(p.numel() for p in parts.rest.values()) + sum(sizes))


def _gram(one: _Jacobian, other: _Jacobian, classes: int) -> Tensor:
    """The products of the derivatives of two blocks of a and b samples, (a C, b C) float64."""
    total: Tensor = torch.zeros((), dtype=torch.float64)
    for ours, theirs in zip(one.formed, other.formed, strict=True):
        total = total + (ours @ theirs.T).double()
    for (out, seen, weight, bias), (others_out, others_seen, *_) in zip(one.linear, other.linear, strict=True):
        inputs = weight * (seen @ others_seen.T).double() + bias
        each = inputs.repeat_interleave(classes, 0).repeat_interleave(classes, 1)
        total = total + (out @ others_out.T).double() * each
    return total


def compute_kernel_velocity(networks: Sequence[nn.Module], inputs: Tensor, block_values: int = BLOCK_VALUES) -> Tensor:
    """How far the tangent kernel of a group of samples turns from each network to the next.

    v_t = 1 - <K_t, K_{t+1}> / (||K_t|| ||K_{t+1}||), in the Frobenius product

    Args:    networks: one network after successive epochs, two or more; inputs (m, ...) of the group;
             block_values: as `compute_ntk`
    Returns: (len(networks) - 1,) float64 in [0, 1]; higher = the features of the group change more
    Raises:  ScoreInputError for fewer than two networks, an empty group or a kernel of zeros
    """
    if len(networks) < 2 or not len(inputs):
        raise ScoreInputError(
            f"kernel velocity of {len(networks)} networks and {len(inputs)} samples; allowed: 2 or more networks, "
            "1 or more samples"
        )
    before, out = compute_ntk(networks[0], inputs, block_values), []
    for t, network in enumerate(networks[1:]):
        after = compute_ntk(network, inputs, block_values)
        norms = torch.linalg.matrix_norm(before) * torch.linalg.matrix_norm(after)
        if not bool(norms > 0):
            raise ScoreInputError(
                f"the tangent kernel of network {t} or {t + 1} is zero or not finite; it has no direction"
            )
        out.append(1 - (before * after).sum() / norms)
        before = after
    return torch.stack(out).clamp(0.0, 1.0)
