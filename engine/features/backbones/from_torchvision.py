"""The image models of torchvision: weights from a file, or torchvision's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import SourceError, SpecError, unknown_name
from engine.features.backbones.declared import Backbone, Request, backbone
from engine.features.penultimate import compute_features
from engine.store.atomic import file_hash

SIDE = 224
"""Pixels a side, as torchvision's models are trained."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, which torchvision's models are trained on, for values 0..1."""


@backbone("torchvision:NAME[:FILE]")
def torchvision(request: Request) -> Backbone:
    """Any image classifier of torchvision: the features that go into its last linear layer.

    With FILE, weights of your own; without, torchvision's, which must be on this machine already or be fetched with
    --download.
    """
    name, colon, given = request.rest.partition(":")
    if not name or (colon and not given):
        raise SpecError(
            f"--features is '{request.text}'; allowed: torchvision:NAME:FILE, the file holding the model's weights, or "
            "torchvision:NAME"
        )
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise SpecError(unknown_name("torchvision model", name, known, "--features"))
    if given:
        file = Path(given).expanduser()
        if not file.is_file():
            raise SourceError(
                f"there is no {file} (--features); give the file of {name}'s weights, .pth or .safetensors"
            )
        weights = file_hash(file)
    else:
        file = _own_weights(name, request.download)
        weights = file.stem  # it ends with eight digits of the file's SHA-256
    return Backbone(
        f"torchvision-{name}",
        f"{name} {weights}",
        SIDE,
        mean=[255 * value for value in MEAN],
        std=[255 * value for value in STD],
        load=lambda: load_model(name, file),
    )


def _own_weights(name: str, download: bool) -> Path:
    """The file where torch keeps the weights that torchvision recommends for a model."""
    from torchvision.models import get_model_weights

    weights: Any = get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    if file.is_file():
        return file
    if not download:
        size = weights.meta.get("_file_size", 0)
        raise SourceError(
            f"the weights of {name} are not on this machine ({file}); --download fetches them ({size:.0f} MB from "
            f"{weights.url}), or give a file: torchvision:{name}:FILE"
        )
    try:
        weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise SourceError(f"{weights.url} cannot be fetched ({error}); give a file: torchvision:{name}:FILE") from error
    return file


class _Penultimate(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return compute_features(self.network, images)


def load_model(name: str, path: Path) -> nn.Module:
    """The model up to its last linear layer with the weights of a file, in evaluation mode.

    Raises: SourceError when the file is no state dict, or not one of this model
    """
    from torchvision.models import get_model

    weights = _read_weights(path)
    heads = [value for key, value in weights.items() if key.endswith("weight") and value.ndim == 2]
    network: nn.Module = get_model(name, weights=None, num_classes=len(heads[-1]) if heads else 1000)
    try:
        network.load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        raise SourceError(
            f"{path} does not hold the weights of {name}: {' '.join(str(error).split())[:160]}"
        ) from error
    return _Penultimate(network.eval())


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
