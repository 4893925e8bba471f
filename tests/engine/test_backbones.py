"""Backbones: EfficientNet-Lite0 against its package on photographs, torchvision's models by weights from a file."""

from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torchvision.models import get_model

from engine.data.ingest import ingest
from engine.data.loader import load_split
from engine.data.request import IngestSpec
from engine.errors import SourceError, SpecError
from engine.features.backbones import find_backbone, is_backbone
from engine.features.backbones.efficientnet import _weights_file, load_lite0
from engine.features.backbones.from_torchvision import SIDE
from engine.features.embedding import embed, faster_precision, ready
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.store.workspace import Workspace


@pytest.fixture(scope="module")
def photographs() -> Tensor:
    """Twelve windows of scikit-learn's two photographs, (12, 3, 224, 224) uint8."""
    windows = [
        image[y : y + 224, x : x + 224]
        for image in load_sample_images().images
        for y in (0, 200)
        for x in (0, 200, 400)
    ]
    return torch.from_numpy(np.stack(windows).transpose(0, 3, 1, 2).copy())


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    """The network of the package efficientnet-lite-pytorch, with the same weights."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    network: nn.Module = package.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(_weights_file(), weights_only=True))
    return network.eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small model with 7 outputs, as anybody may have trained one."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "squeezed.pth"
    torch.save(get_model("mnasnet0_5", weights=None, num_classes=7).state_dict(), path)
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Workspace:
    workspace = Workspace.open(tmp_path / "workspace", create=True)
    ingest(workspace, IngestSpec(name="tiny", source="digits", limit=40))
    return workspace


def expected(reference: nn.Module, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return reference.extract_features((pixels.float() - 127) / 128).mean((2, 3))


@pytest.mark.parametrize("side", [128, 224])
def test_efficientnet_is_that_of_its_package(photographs, reference, side):
    pixels = photographs[..., :side, :side]
    wanted = expected(reference, pixels)
    with torch.no_grad():
        found = load_lite0(_weights_file())((pixels.float() - 127) / 128)
    assert found.shape == (12, 1280) and wanted.std() > 0.1
    assert torch.allclose(found, wanted, rtol=0, atol=1e-5)


def test_made_ready_it_gives_the_same_up_to_rounding(photographs, reference):
    pixels = photographs[..., :128, :128]
    whole = ready(find_backbone("efficientnet_lite0"), torch.device("cpu"))
    wanted = expected(reference, pixels)
    assert torch.allclose(embed(whole, pixels, lambda share: None), wanted, rtol=1e-5, atol=1e-4)
    half = embed(replace(whole, precision="bfloat16"), pixels, lambda share: None)
    assert half.dtype == torch.float32
    assert torch.cosine_similarity(half, wanted).median() > 0.99  # bfloat16 keeps eight bits of each activation
    assert faster_precision(whole, 32) in ("float32", "bfloat16")


def test_a_key_names_all_that_decides_the_numbers(weights, tmp_path):
    lite, other_side = find_backbone("efficientnet_lite0"), find_backbone("efficientnet_lite0:128")
    assert lite.side == 160 and other_side.side == 128
    assert lite.key.startswith("efficientnet_lite0@") and lite.key != other_side.key
    assert find_backbone("efficientnet_lite0:160").key == lite.key
    moved = tmp_path / "elsewhere.pth"
    moved.write_bytes(weights.read_bytes())
    here, there = (find_backbone(f"torchvision:mnasnet0_5:{file}").key for file in (weights, moved))
    assert here == there
    moved.write_bytes(weights.read_bytes() + b"more")
    assert find_backbone(f"torchvision:mnasnet0_5:{moved}").key != here


def test_neighbors_and_scores_come_from_the_file_without_training(tiny, weights, small_training):
    source = f"torchvision:mnasnet0_5:{weights}"
    names = ["near_duplicate", "cg_feature", "knn_shapley", "random"]
    spec = plan_run(tiny, "tiny", names, small_training(model="cnn"), neighbors=3, features=source)
    assert spec.training is None and spec.features_hash == find_backbone(source).key
    published, _ = compute(tiny, spec, "cpu")
    folder = tiny.published_dir(published)
    assert not (folder / "weights.safetensors").exists() and not (folder / "features.safetensors").exists()
    # The same by hand: resize, three channels, ImageNet's mean and deviation, the input of the last linear layer.
    network = get_model("mnasnet0_5", weights=None, num_classes=7)
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.classifier[1] = torch.nn.Identity()
    small = [Image.fromarray(image[0].numpy()).convert("RGB") for image in load_split(tiny, "tiny", "train").inputs]
    large = [np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in small]
    images = torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        features = network.eval()((images - mean[:, None, None]) / std[:, None, None])
    unit = features / features.norm(dim=1, keepdim=True)
    cosine = unit @ unit.T
    cosine.fill_diagonal_(-2)
    with duckdb.connect(str(folder / "results.duckdb"), read_only=True) as connection:
        rows = connection.execute(
            "SELECT value FROM scores WHERE score = 'near_duplicate' ORDER BY sample_id"
        ).fetchall()
        ids = connection.execute("SELECT neighbor_ids[1] FROM neighbor_lists ORDER BY sample_id").fetchall()
    assert [v for (v,) in rows] == pytest.approx(cosine.amax(1).tolist(), abs=1e-5)
    assert [v for (v,) in ids] == cosine.argmax(1).tolist()


def test_a_score_of_the_trained_head_does_not_take_them(tiny, weights, small_training):
    source, cnn = f"torchvision:mnasnet0_5:{weights}", small_training(model="cnn")
    with pytest.raises(SpecError, match="nli reads the trained network's last layer"):
        compute(tiny, plan_run(tiny, "tiny", ["nli"], cnn, neighbors=3, features=source), "cpu")
    assert "nli" not in plan_run(tiny, "tiny", ["all"], cnn, features=source).scores


def test_wrong_sources_are_named(weights, tmp_path):
    assert is_backbone("torchvision:") and not is_backbone("features.npy")
    with pytest.raises(SpecError, match="unknown backbone 'efficientnet_lite'; did you mean 'efficientnet_lite0'"):
        find_backbone("efficientnet_lite")
    for side in ("31", "1025", "many", "-64"):
        with pytest.raises(SpecError, match=f"efficientnet_lite0:{side}: the side is .*; allowed: 32 to 1024"):
            find_backbone(f"efficientnet_lite0:{side}")
    for form in ("torchvision:", "torchvision:resnet18:", "torchvision"):
        with pytest.raises(SpecError, match="allowed: torchvision:NAME:FILE"):
            find_backbone(form)
    with pytest.raises(SpecError, match="unknown torchvision model 'resnet81'; did you mean 'resnet18'"):
        find_backbone(f"torchvision:resnet81:{weights}")
    with pytest.raises(SourceError, match="there is no .*absent.pth"):
        find_backbone(f"torchvision:resnet18:{tmp_path / 'absent.pth'}")
    with pytest.raises(SourceError, match="does not hold the weights of resnet18"):
        find_backbone(f"torchvision:resnet18:{weights}").load()
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"no weights")
    with pytest.raises(SourceError, match="damaged.pth cannot be read as weights"):
        find_backbone(f"torchvision:resnet18:{damaged}").load()
    with pytest.raises(SourceError, match="damaged.pth cannot be read as weights .*install it again"):
        load_lite0(damaged)


def test_weights_of_torchvision_are_fetched_only_when_the_user_says_so(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        SourceError, match="the weights of mnasnet0_5 are not on this machine .*--download fetches them"
    ):
        find_backbone("torchvision:mnasnet0_5")
    # Those that torchvision fetched earlier are taken without asking.
    kept = tmp_path / "hub" / "checkpoints" / "mnasnet0.5_top1_67.823-3ffadce67e.pth"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(weights.read_bytes())
    assert find_backbone("torchvision:mnasnet0_5").load()(torch.zeros(1, 3, 64, 64)).shape == (1, 1280)
