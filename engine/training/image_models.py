"""The networks of the papers, for images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from engine.errors import SpecError, unknown_name


def image_channels(name: str, input_shape: Sequence[int]) -> int:
    """The channels of an image; SpecError when the inputs are none."""
    if len(input_shape) != 3:
        raise SpecError(
            f"--model {name} takes images; this dataset holds inputs of shape {tuple(input_shape)}: use mlp"
        )
    return int(input_shape[0])


def vgg16(input_shape: Sequence[int], classes: int) -> nn.Module:
    """VGG-16 with batch normalization before every ReLU, hidden linear layers of 4,096 (PRUNE, section 3.2).

    Departs from the paper: the last layer has as many outputs as there are classes, not 1,000; the features are
    averaged to one position, which 32 x 32 images are at that depth anyway, and smaller images are padded.
    """
    into = image_channels("vgg16", input_shape)
    layers: list[nn.Module] = []
    for widths in ([64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3):
        for width in widths:
            layers += [nn.Conv2d(into, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            into = width
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for _ in range(2):
        layers += [nn.Linear(into, 4096, bias=False), nn.BatchNorm1d(4096), nn.ReLU()]
        into = 4096
    return _he_init(nn.Sequential(*layers, nn.Linear(4096, classes)))


def resnet18(input_shape: Sequence[int], classes: int) -> nn.Module:
    """ResNet-18 with the stem for small images: one 3x3 convolution of stride 1, no pooling (He et al. 2016)."""
    return _small_stem("resnet18", input_shape, classes)


def resnet50(input_shape: Sequence[int], classes: int) -> nn.Module:
    """ResNet-50 with the stem for small images: one 3x3 convolution of stride 1, no pooling (CG, appendix D.3)."""
    return _small_stem("resnet50", input_shape, classes)


def resnet32(input_shape: Sequence[int], classes: int) -> nn.Module:
    """The 32-layer residual network for CIFAR: 3 stages of 5 blocks, widths 16, 32, 64 (He et al. 2016, section 4.2).

    Shortcuts across stages subsample and pad with zeros (option A): 0.46 million parameters.
    """
    channels = image_channels("resnet32", input_shape)
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    into = 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        for block in range(5):
            layers.append(_Basic(into, width, stride if block == 0 else 1))
            into = width
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
    return _he_init(network)


def preact_resnet18(input_shape: Sequence[int], classes: int) -> nn.Module:
    """ResNet-18 with normalization and ReLU before each convolution, stem for small images (ROP, appendix C)."""
    channels = image_channels("preact_resnet18", input_shape)
    layers: list[nn.Module] = [nn.Conv2d(channels, 64, 3, padding=1, bias=False)]
    into = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [_PreAct(into, width, stride), _PreAct(width, width, 1)]
        into = width
    layers += [nn.BatchNorm2d(512), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)]
    return _he_init(nn.Sequential(*layers))


def torchvision_model(name: str, input_shape: Sequence[int], classes: int) -> nn.Module:
    """A classification model of torchvision, untrained, with as many outputs as there are classes.

    Where the images have other than 3 channels, its first convolution takes theirs.
    Raises: SpecError for a name torchvision does not have, or inputs that are no images
    """
    import torchvision.models

    channels = image_channels(f"torchvision:{name}", input_shape)
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise SpecError(unknown_name("torchvision model", name, known))
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # inception's note on the speed of its initialization
        network: Any = torchvision.models.get_model(name, weights=None, num_classes=classes, **extra)
    if channels != 3:
        path, first = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
        parent, _, attribute = path.rpartition(".")
        arguments: dict[str, Any] = {
            "kernel_size": first.kernel_size,
            "stride": first.stride,
            "padding": first.padding,
            "bias": first.bias is not None,
        }
        setattr(network.get_submodule(parent), attribute, nn.Conv2d(channels, first.out_channels, **arguments))
    return network  # type: ignore[no-any-return]


class _Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters."""

    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(into, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.stride, self.extra = stride, width - into

    def forward(self, inputs: Tensor) -> Tensor:
        shortcut = inputs[:, :, :: self.stride, :: self.stride]
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return functional.relu(self.body(inputs) + shortcut)


class _PreAct(nn.Module):
    """Normalization and ReLU before each of two 3x3 convolutions (He et al. 2016b)."""

    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        self.open = nn.Sequential(nn.BatchNorm2d(into), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(into, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
        )
        same = into == width and stride == 1
        self.shortcut = None if same else nn.Conv2d(into, width, 1, stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        opened = self.open(inputs)
        body: Tensor = self.body(opened)
        return body + (inputs if self.shortcut is None else self.shortcut(opened))


def _small_stem(name: str, input_shape: Sequence[int], classes: int) -> nn.Module:
    import torchvision.models

    channels = image_channels(name, input_shape)
    network: Any = torchvision.models.get_model(name, weights=None, num_classes=classes)
    network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return network  # type: ignore[no-any-return]


def _he_init(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
