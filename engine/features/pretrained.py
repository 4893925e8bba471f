"""Features of a torchvision model with weights from a file: neighborhoods without training, and without a network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.data.loader import Samples
from engine.errors import SourceError, SpecError, unknown_name
from engine.features.penultimate import compute_features

SIDE = 224
"""Pixels to which images are resized, as torchvision's models are trained."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, which torchvision's models are trained on."""

BATCH = 64


def parse_source(text: str) -> tuple[str, Path]:
    """The model's name and the file of `torchvision:NAME:FILE`.

    Raises: SpecError for another form or an unknown model; SourceError when there is no such file
    """
    from torchvision.models import list_models

    kind, _, rest = text.partition(":")
    name, _, file = rest.partition(":")
    if kind != "torchvision" or not file:
        raise SpecError(f"--features is '{text}'; allowed: torchvision:NAME:FILE, the file holding the model's weights")
    if name not in list_models():
        raise SpecError(unknown_name("torchvision model", name, list_models(), "--features"))
    path = Path(file)
    if not path.is_file():
        raise SourceError(f"there is no {path} (--features); give the file of {name}'s weights, .pth or .safetensors")
    return name, path


def file_hash(path: Path) -> str:
    """12 hexadecimal digits of the SHA-256 of a file: the same name with other weights is another run."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def load_pretrained(text: str) -> nn.Module:
    """The model of `torchvision:NAME:FILE` with its weights, in evaluation mode.

    Raises: SourceError when the file is no state dict, or not one of this model
    """
    from torchvision.models import get_model

    name, path = parse_source(text)
    weights = _read_weights(path)
    heads = [value for key, value in weights.items() if key.endswith("weight") and value.ndim == 2]
    network: nn.Module = get_model(name, weights=None, num_classes=len(heads[-1]) if heads else 1000)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise SourceError(
            f"{path} does not hold the weights of {name}: {' '.join(str(error).split())[:160]}"
        ) from error
    return network.eval()


@torch.no_grad()
def compute_pretrained_features(network: nn.Module, samples: Samples, heartbeat: Callable[[], None]) -> Tensor:
    """Penultimate features of images in a pretrained model.

    Args:    network as `load_pretrained` gives it; samples of images, one or three channels; heartbeat: called at every
             batch, may raise to stop
    Returns: (N, D) float32 on the CPU
    Raises:  SpecError for vectors
    """
    images = samples.inputs
    if images.ndim != 4:
        raise SpecError(f"--features takes images; this dataset holds inputs of shape {tuple(images.shape[1:])}")
    network = network.to(images.device)
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (MEAN, STD))
    parts = []
    for start in range(0, len(images), BATCH):
        heartbeat()
        batch = images[start : start + BATCH].float() / 255
        batch = functional.interpolate(batch, (SIDE, SIDE), mode="bilinear", antialias=True).expand(-1, 3, -1, -1)
        parts.append(compute_features(network, (batch - mean) / std).cpu())
    return torch.cat(parts)


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    """A state dict from safetensors or from torch.save, which is read without running code of the file."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SourceError(f"{path} cannot be read as weights: {str(error).splitlines()[0]}") from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise SourceError(f"{path} holds no state dict; save model.state_dict()")
    return found
