"""Random flips and crops of a whole batch at once, on its device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engine.training.device import send


def augment(images: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Flip and shift images as small-image networks are usually trained.

    flip: left to right with probability 1/2. crop: pad by an eighth of the side with zeros (the mean, after
    normalization) and cut a random window of the old size (He et al. 2016: 4 of 32 pixels).

    Args:    images (B, C, H, W), normalized; vectors (B, D) where kind is none
             kind: none, flip, crop or crop+flip; generator: on the CPU
    Returns: (B, C, H, W), a new tensor unless kind is none
    """
    if kind == "none":
        return images  # vectors too
    batch, _, height, width = images.shape
    if "flip" in kind:
        flip = send(torch.rand(batch, generator=generator) < 0.5, images.device)
        images = torch.where(flip[:, None, None, None], images.flip(3), images)
    if "crop" in kind:
        pad = max(1, height // 8)
        shifts = send(torch.randint(0, 2 * pad + 1, (2, batch), generator=generator), images.device)
        rows = shifts[0][:, None] + torch.arange(height, device=images.device)
        columns = shifts[1][:, None] + torch.arange(width, device=images.device)
        padded = functional.pad(images, (pad, pad, pad, pad))
        index = torch.arange(batch, device=images.device)[:, None, None]
        images = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return images
