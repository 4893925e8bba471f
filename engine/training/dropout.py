"""Dropout whose masks follow from the network's seed and the epoch, not from the process's random generator.

So that networks with dropout can be trained side by side, as one stack, and again after a kill, with the same numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.training.device import send


class Dropout(nn.Module):
    """Dropout of one half: in training each value is 0 with probability 1/2, else doubled; in evaluation it stays.

    (B, ...) -> same. Whoever trains sets the generator at the start of every epoch (`draw_from`).
    """

    generator: torch.Generator | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return inputs
        if self.generator is None:
            raise RuntimeError("dropout in training mode needs a generator: call draw_from(network, generator) first")
        mask = draw_mask(len(inputs), inputs[0].numel(), self.generator).view(inputs.shape)
        return inputs * send(mask, inputs.device).to(inputs.dtype)


def draw_from(network: nn.Module, generator: torch.Generator) -> None:
    """Let every dropout of a network draw from a generator on the CPU, in the sequence of its layers."""
    for layer in network.modules():
        if isinstance(layer, Dropout):
            layer.generator = generator


def draw_mask(rows: int, width: int, generator: torch.Generator) -> Tensor:
    """The factors of one batch, (rows, width) float32 on the CPU: 0 or 2, each with probability 1/2.

    One random number of 64 bits serves 64 values: drawing one each takes longer than the layer before it.
    """
    words = torch.empty(-(-rows * width // 64), dtype=torch.int64).random_(-(1 << 63), None, generator=generator)
    bits = words[:, None].bitwise_right_shift(torch.arange(64)).bitwise_and_(1)
    return bits.flatten()[: rows * width].view(rows, width).mul_(2).float()
