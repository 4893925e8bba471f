"""The networks that can be trained by name. A model is one function and one line in MODELS."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from engine.errors import SpecError, unknown_name
from engine.training.dropout import Dropout
from engine.training.image_models import (
    image_channels,
    preact_resnet18,
    resnet18,
    resnet32,
    resnet50,
    torchvision_model,
    vgg16,
)
from engine.training.own_models import import_factory

Factory = Callable[[Sequence[int], int], nn.Module]
"""(input shape without the batch axis, number of outputs) -> a network that gives logits (B, outputs)."""


def mlp(input_shape: Sequence[int], classes: int) -> nn.Module:
    """Two hidden layers of 512, batch normalization before each ReLU (PRUNE, section 3.2).

    The biases before the normalizations, which take them out again, stay as drawn: their gradients are rounding
    errors, of which Adam would make steps as long as any.
    """
    width = int(torch.Size(input_shape).numel())
    network = nn.Sequential(
        nn.Flatten(),
        nn.Linear(width, 512),
        nn.BatchNorm1d(512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.BatchNorm1d(512),
        nn.ReLU(),
        nn.Linear(512, classes),
    )
    for hidden in (network[1], network[4]):
        hidden.bias.requires_grad_(False)
    return network


def linear(input_shape: Sequence[int], classes: int) -> nn.Module:
    """One linear layer: logistic regression on the inputs."""
    return nn.Sequential(nn.Flatten(), nn.Linear(int(torch.Size(input_shape).numel()), classes))


def head(input_shape: Sequence[int], classes: int) -> nn.Module:
    """One hidden layer of 512 with dropout of one half, for the features of a pretrained network."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(int(torch.Size(input_shape).numel()), 512),
        nn.ReLU(),
        Dropout(),
        nn.Linear(512, classes),
    )


def lenet(input_shape: Sequence[int], classes: int) -> nn.Module:
    """Three 3x3 convolutions (16, 32, 64), each halving the sides, and one linear layer on all positions (LeCun et al. 1998).

    A quarter of the cost of `cnn`; a flattened head knows where in the image something is, averaged positions do not.
    Departs from the paper: ReLU, batch normalization and maxima, of images of any size.
    """
    into, height, width = image_channels("lenet", input_shape), *input_shape[1:]
    layers: list[nn.Module] = []
    for out in (16, 32, 64):
        layers += [
            nn.Conv2d(into, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
        ]
        into, height, width = out, -(-height // 2), -(-width // 2)
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(into * height * width, classes))
    # With the channels of a position side by side, a step on a CPU takes two thirds of the time.
    return network.to(memory_format=torch.channels_last)


def cnn(input_shape: Sequence[int], classes: int) -> nn.Module:
    """A small convolutional network for CPUs: three 3x3 stages (32, 64, 128), average pooling, one linear layer."""

    def stage(into: int, out: int) -> list[nn.Module]:
        return [
            nn.Conv2d(into, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
        ]

    channels = image_channels("cnn", input_shape)
    return nn.Sequential(
        *stage(channels, 32),
        *stage(32, 64),
        *stage(64, 128),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, classes),
    )


MODELS: dict[str, Factory] = {
    "mlp": mlp,
    "linear": linear,
    "head": head,
    "lenet": lenet,
    "cnn": cnn,
    "vgg16": vgg16,
    "resnet18": resnet18,
    "resnet32": resnet32,
    "resnet50": resnet50,
    "preact_resnet18": preact_resnet18,
}

HEADS = ("linear", "head", "mlp")
"""The models that are trained on features where a run names some; the others see the dataset's own images."""

RANDOM = threading.Lock()
"""Held while the process's random generator is seeded or drawn from: networks may be trained side by side."""


def build_model(name: str, input_shape: Sequence[int], classes: int, seed: int) -> nn.Module:
    """The network of that name, freshly initialized; the same seed gives the same weights.

    Args:   name: one of MODELS, torchvision:NAME, or PACKAGE.MODULE:FACTORY, a function (input_shape, classes) -> nn.Module
    Raises: SpecError for an unknown name, or a factory that may not or cannot be imported (engine.training.own_models), or
            cannot be called
    """
    factory = find_factory(name)
    try:
        with RANDOM:
            torch.manual_seed(seed)
            network = factory(tuple(input_shape), classes)
    except SpecError:
        raise
    except Exception as error:
        raise SpecError(
            f"--model {name} failed for input {tuple(input_shape)} and {classes} classes: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        raise SpecError(f"--model {name} gave a {type(network).__name__}; it must return a torch.nn.Module")
    return network


def is_built_in(name: str) -> bool:
    """Whether a model is one of this package's or torchvision's, not one of a user's own."""
    return name in MODELS or name.startswith("torchvision:")


def draws_while_training(name: str) -> bool:
    """Whether a network may draw from the process's random generator in a step: any that is not of this package may.

    Such a network is trained alone.
    """
    return name not in MODELS


def find_factory(name: str) -> Factory:
    """The function that builds a model; SpecError when there is none of that name."""
    if name in MODELS:
        return MODELS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        hint = "or torchvision:NAME, or PACKAGE.MODULE:FACTORY for one of your own"
        raise SpecError(unknown_name("model", name, MODELS, hint))
    if module == "torchvision":
        return partial(torchvision_model, attribute)
    try:
        factory = import_factory(name)
    except SpecError:
        raise
    except Exception as error:  # importing runs code of anybody's
        text = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise SpecError(f"--model {name} cannot be imported: {text}") from error
    if not callable(factory):
        raise SpecError(f"--model {name} is no function; it must be (input_shape, classes) -> torch.nn.Module")
    return factory  # type: ignore[no-any-return]
