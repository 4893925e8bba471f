"""Gradients of single samples, with those of linear layers left as what they are outer products of.

Of one sample, the gradient of a linear layer's weight is the outer product of the gradient of what goes out of the layer
and of what came in: two vectors, where the product has a value for every weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

CHECKED = 8
"""Samples on which it is checked that a layer's gradient is an outer product."""


@dataclass(frozen=True)
class Parts:
    """The trained parameters of a network in evaluation mode.

    linear: the layers by name whose gradient of a sample is an outer product; rest: all other trained parameters; fixed:
    what is not differentiated
    """

    network: nn.Module
    linear: Mapping[str, nn.Linear]
    rest: Mapping[str, Tensor]
    fixed: Mapping[str, Tensor]

    def shifts(self, inputs: Tensor) -> dict[str, Tensor]:
        """Zeros to be added to the outputs of the linear layers: the gradient by them is that of the outputs."""
        return {name: torch.zeros(1, layer.out_features).to(inputs) for name, layer in self.linear.items()}

    def call(
        self, rest: Mapping[str, Tensor], shifts: Mapping[str, Tensor], inputs: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits (B, C), and what came into each of the linear layers, (B, in)."""
        return _call_shifted(self.network, {**self.fixed, **rest}, shifts, inputs)


def part_network(network: nn.Module, inputs: Tensor) -> Parts:
    """Find the linear layers whose gradients need not be formed.

    They are called once, with one row for each sample, and their parameters play no other part: a few samples tell.

    Args: network: is put into evaluation mode; inputs (B, ...) as it takes them
    """
    network.eval()
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    few = inputs[:CHECKED]
    found = {
        name: layer
        for name, layer in network.named_modules()
        if type(layer) is nn.Linear and _called_once(network, layer, few)
    }
    own = {name: [p for p in (f"{name}.weight", f"{name}.bias") if p in trained] for name in found}
    leaves = {p: parameters[p].clone().requires_grad_() for names in own.values() for p in names}
    shifts = {name: few.new_zeros(len(few), layer.out_features, requires_grad=True) for name, layer in found.items()}
    if leaves:
        with torch.enable_grad():
            logits, seen = _call_shifted(network, leaves, shifts, few)
            wanted = [*leaves.values(), *shifts.values()]
            grads = torch.autograd.grad(
                logits.float().square().sum(), wanted, allow_unused=True, materialize_grads=True
            )
        by_name = dict(zip([*leaves, *shifts], grads, strict=True))
        found = {name: found[name] for name in found if own[name] and _is_outer(name, own[name], by_name, seen[name])}
    else:
        found = {}
    outer = {p for name in found for p in own[name]}
    fixed = {name: p for name, p in parameters.items() if name in outer or name not in trained}
    rest = {name: parameters[name] for name in parameters if name in trained and name not in outer}
    return Parts(network, found, rest, {**fixed, **dict(network.named_buffers())})


def _is_outer(name: str, own: list[str], gradients: Mapping[str, Tensor], seen: Tensor) -> bool:
    """Whether the gradients of a layer's parameters are those of its outputs times its inputs, and not all zero."""
    out = gradients[name]
    expected = {f"{name}.weight": out.T @ seen, f"{name}.bias": out.sum(0)}
    largest = {p: float(expected[p].abs().max()) for p in own}
    return all(
        largest[p] > 0 and torch.allclose(gradients[p], expected[p], rtol=1e-3, atol=1e-4 * largest[p]) for p in own
    )


@torch.no_grad()
def _called_once(network: nn.Module, layer: nn.Linear, inputs: Tensor) -> bool:
    """Whether a layer is called once in a pass, with one row for each sample."""
    shapes: list[torch.Size] = []
    handle = layer.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    try:
        network(inputs)
    finally:
        handle.remove()
    return shapes == [torch.Size((len(inputs), layer.in_features))]


def _call_shifted(
    network: nn.Module, values: Mapping[str, Tensor], shifts: Mapping[str, Tensor], inputs: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits with some parameters replaced and shifts added to the outputs of layers, and the inputs of those layers."""
    seen: dict[str, Tensor] = {}

    def hook_of(name: str) -> object:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            seen[name] = args[0].detach()
            return output + shifts[name]

        return network.get_submodule(name).register_forward_hook(hook)

    handles = [hook_of(name) for name in shifts]
    try:
        logits: Tensor = functional_call(network, dict(values), (inputs,))
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]
    return logits, seen
