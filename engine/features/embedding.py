"""A backbone at work: batches of pixels to features, in the quicker of two precisions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from engine.features.backbones import Backbone

STEP_PIXELS = 16 * 128**2
"""Pixels per step of a processor: as many as stay in its cache, which is half as fast again as four times as many."""

STEP_GPU = 256
"""Images per step of a GPU."""

PAYS = 1.2
"""How many times faster bfloat16 has to be in one timed step to be used."""


@dataclass(frozen=True)
class Embedding:
    """A backbone made ready. Shared with all machines of a cluster.

    network: (B, 3, S, S) -> (B, D); mean, std: (3, 1, 1); precision: float32, or bfloat16 for the
    layers that autocast computes so, their result being float32 again
    """

    network: nn.Module
    mean: Tensor
    std: Tensor
    device: torch.device
    precision: str = "float32"


def ready(backbone: Backbone, device: torch.device) -> Embedding:
    """A backbone with its weights, on a device, in float32."""
    network = backbone.load().to(device).to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(list(values)).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    return Embedding(network, mean, std, device)


def embed(embedding: Embedding, pixels: Tensor, report: Callable[[float], None]) -> Tensor:
    """The features (B, D) float32 on the CPU of images (B, 3, S, S) uint8. report: gets the share done, may raise."""
    # a process of a cluster gets the network on the processor, its weights in the usual order
    embedding.network.to(embedding.device).to(memory_format=torch.channels_last)
    parts, step = [], step_size(embedding.device, pixels.shape[-1])
    for start in range(0, len(pixels), step):
        report(start / len(pixels))
        parts.append(_features(embedding, pixels[start : start + step]))
    return torch.cat(parts)


def step_size(device: torch.device, side: int) -> int:
    """Images per step on a device; few of them enough that a run stops soon when it is to."""
    return max(1, min(16, STEP_PIXELS // side**2)) if device.type == "cpu" else STEP_GPU


@torch.inference_mode()
def _features(embedding: Embedding, pixels: Tensor) -> Tensor:
    device = embedding.device
    images = (pixels.to(device).float() - embedding.mean.to(device)) / embedding.std.to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    # float32 first, whatever autocast is on around; and again at the end, where a head may be bfloat16
    with torch.autocast(device.type, torch.bfloat16, enabled=embedding.precision == "bfloat16"):
        features: Tensor = embedding.network(images)
    return features.float().cpu()


def faster_precision(embedding: Embedding, side: int) -> str:
    """bfloat16 where one timed step says that it pays on this device, else float32."""
    device = embedding.device
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_bf16_supported()):
        return "float32"
    # of one thread, as blocks are computed; and its own time, which other work on the machine does not change
    clock, threads = (time.thread_time if device.type == "cpu" else time.perf_counter), torch.get_num_threads()
    pixels = torch.zeros(step_size(device, side), 3, side, side, dtype=torch.uint8)
    seconds = {}
    torch.set_num_threads(1)
    try:
        for precision in ("float32", "bfloat16"):
            tried = replace(embedding, precision=precision)
            _features(tried, pixels)  # the first step chooses algorithms and fills caches
            started = clock()
            _features(tried, pixels)
            seconds[precision] = clock() - started
    finally:
        torch.set_num_threads(threads)
    return "bfloat16" if seconds["float32"] > PAYS * seconds["bfloat16"] else "float32"
