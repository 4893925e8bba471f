"""The papers' networks: parameters counted by hand, shapes, and that a step of training changes every weight."""

import pytest
import torch
from torch import nn

from engine.errors import SpecError
from engine.features.penultimate import compute_features, head_of
from engine.training.models import MODELS, build_model


def _count(name, shape=(3, 32, 32), classes=10):
    return sum(p.numel() for p in build_model(name, shape, classes, 0).parameters())


def _convolution(into, out, size=3):
    return into * out * size * size + 2 * out  # and the batch normalization behind or before it


def test_parameters_of_resnet32():
    stages = 10 * _convolution(16, 16)
    stages += _convolution(16, 32) + 9 * _convolution(32, 32) + _convolution(32, 64) + 9 * _convolution(64, 64)
    assert _count("resnet32") == _convolution(3, 16) + stages + 65 * 10 == 464_154


def test_parameters_of_vgg16():
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum(_convolution(a, b) for a, b in zip(widths, widths[1:], strict=False))
    linear = 512 * 4096 + 2 * 4096 + 4096 * 4096 + 2 * 4096 + 4097 * 10
    assert _count("vgg16") == convolutions + linear
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in build_model("vgg16", (3, 32, 32), 10, 0).modules()) == 16


def test_parameters_of_the_small_stem_resnets():
    # torchvision's own, with 7x7 and 3 channels replaced by 3x3, and 1,000 outputs by 10.
    assert _count("resnet18") == 11_689_512 - 64 * 3 * (49 - 9) - 513 * 990
    assert _count("resnet50") == 25_557_032 - 64 * 3 * (49 - 9) - 2049 * 990


def test_parameters_of_preact_resnet18():
    def block(into, width):
        shortcut = 0 if into == width else into * width
        return 2 * into + 9 * into * width + 2 * width + 9 * width * width + shortcut

    pairs = [(64, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    assert _count("preact_resnet18") == 9 * 3 * 64 + sum(block(a, b) for a, b in pairs) + 2 * 512 + 513 * 10


@pytest.mark.parametrize("name", [n for n in MODELS if n != "mlp"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28)])
def test_logits_and_features_of_small_images(name, shape):
    network = build_model(name, shape, 7, 0).eval()
    inputs = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, features = network(inputs), compute_features(network, inputs)
        assert logits.shape == (2, 7) and bool(torch.isfinite(logits).all())
        assert torch.allclose(head_of(network)(features), logits, atol=1e-5)
    same = build_model(name, shape, 7, 0)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), same.parameters(), strict=True))


@pytest.mark.parametrize("name", ["resnet32", "preact_resnet18", "vgg16"])
def test_every_weight_takes_part(name):
    network = build_model(name, (3, 16, 16), 4, 0)
    inputs = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.autograd.backward(nn.functional.cross_entropy(network(inputs), torch.arange(4)))
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


def test_torchvision_models_by_name():
    network = build_model("torchvision:mobilenet_v3_small", (1, 32, 32), 5, 0).eval()
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, 5)
    network = build_model("torchvision:resnet18", (3, 64, 64), 5, 0).eval()
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_messages():
    with pytest.raises(SpecError, match="unknown torchvision model 'resnet19'; did you mean 'resnet18'?"):
        build_model("torchvision:resnet19", (3, 32, 32), 10, 0)
    with pytest.raises(
        SpecError, match=r"--model vgg16 takes images; this dataset holds inputs of shape \(64,\): use mlp"
    ):
        build_model("vgg16", (64,), 10, 0)
    with pytest.raises(SpecError, match="unknown model 'resnet33'"):
        build_model("resnet33", (3, 32, 32), 10, 0)
