"""The precision of a training step: float32, or bfloat16 with a last layer in float32.

Under bfloat16 the weights, the optimizer, the loss and the last layer stay float32; what lies before it is computed with
8 bits of mantissa, and convolutions on images whose channels lie together. Logits in bfloat16 would tie: the margins of
confident samples would take some thousand values. Evaluation passes are float32 always.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.spec import TrainingSpec


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32 whatever autocast does around it."""

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, enabled=False):
            return functional.linear(inputs.float(), self.weight, self.bias)


def prepare_network(network: nn.Module, training: TrainingSpec) -> None:
    """Keep the last linear layer of a network in float32 through a training in bfloat16.

    Names and values of its weights stay as they are. A network of one's own whose last layer is of another kind is left
    as it is.
    """
    if training.precision == "bfloat16":
        linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
        if linear and type(linear[-1]) is nn.Linear:
            linear[-1].__class__ = Float32Linear


def prepare_inputs(inputs: Tensor, training: TrainingSpec) -> Tensor:
    """Inputs (B, ...) as a training step takes them: under bfloat16 the channels of images (B, C, H, W) lie together."""
    if training.precision == "bfloat16" and inputs.ndim == 4:
        return inputs.contiguous(memory_format=torch.channels_last)
    return inputs


@contextlib.contextmanager
def precision_of(training: TrainingSpec, device: torch.device) -> Iterator[None]:
    """Compute the forward pass of a step in the precision of a training."""
    with torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bfloat16"):
        yield
