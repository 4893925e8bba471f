"""The features of a network: what goes into its last linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from engine.errors import SpecError


def head_of(network: nn.Module) -> nn.Linear:
    """The last linear layer; what goes into it are the penultimate features."""
    linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise SpecError(
            "the model has no torch.nn.Linear layer, so it has no penultimate features; give it one as its head"
        )
    return linear[-1]


def compute_features(network: nn.Module, inputs: Tensor) -> Tensor:
    """Penultimate features (B, D) of a batch: the input of the model's last linear layer."""
    return features_and_logits(network, inputs)[0]


def features_and_logits(network: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The penultimate features (B, D) of a batch and its logits (B, C), in one pass."""
    caught: list[Tensor] = []
    hook = head_of(network).register_forward_pre_hook(lambda _, args: caught.append(args[0].detach()))
    try:
        logits: Tensor = network(inputs)
    finally:
        hook.remove()
    return caught[0].flatten(1).float(), logits
