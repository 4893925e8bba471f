"""Features of a torchvision model whose weights come from a file."""

from pathlib import Path

import duckdb
import pytest
import torch
from torchvision.models import get_model

from engine.data.ingest import ingest
from engine.data.loader import load_split
from engine.data.request import IngestSpec
from engine.errors import SourceError, SpecError
from engine.features.pretrained import SIDE, load_pretrained, parse_source
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.store.workspace import Workspace


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


def test_neighbors_and_scores_come_from_the_file_without_training(tiny, weights, small_training):
    source = f"torchvision:mnasnet0_5:{weights}"
    names = ["near_duplicate", "cg_feature", "knn_shapley", "random"]
    spec = plan_run(tiny, "tiny", names, small_training(), neighbors=3, features=source)
    assert spec.training is None and len(spec.features_hash) == 12
    published, _ = compute(tiny, spec, "cpu")
    folder = tiny.published_dir(published)
    assert not (folder / "weights.safetensors").exists() and not (folder / "features.safetensors").exists()
    # The same by hand: resize, three channels, ImageNet's mean and deviation, the input of the last linear layer.
    network = get_model("mnasnet0_5", weights=None, num_classes=7)
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.classifier[1] = torch.nn.Identity()
    images = load_split(tiny, "tiny", "train").inputs.float() / 255
    images = torch.nn.functional.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True).expand(
        -1, 3, -1, -1
    )
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
    source = f"torchvision:mnasnet0_5:{weights}"
    with pytest.raises(SpecError, match="nli reads the trained network's last layer"):
        compute(tiny, plan_run(tiny, "tiny", ["nli"], small_training(), neighbors=3, features=source), "cpu")
    assert "nli" not in plan_run(tiny, "tiny", ["all"], small_training(), features=source).scores


def test_wrong_sources_are_named(weights, tmp_path):
    with pytest.raises(SpecError, match="allowed: torchvision:NAME:FILE"):
        parse_source("resnet18")
    with pytest.raises(SpecError, match="unknown torchvision model 'resnet81'; did you mean 'resnet18'"):
        parse_source(f"torchvision:resnet81:{weights}")
    with pytest.raises(SourceError, match="there is no .*absent.pth"):
        parse_source(f"torchvision:resnet18:{tmp_path / 'absent.pth'}")
    with pytest.raises(SourceError, match="does not hold the weights of resnet18"):
        load_pretrained(f"torchvision:resnet18:{weights}")
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"no weights")
    with pytest.raises(SourceError, match="damaged.pth cannot be read as weights"):
        load_pretrained(f"torchvision:resnet18:{damaged}")
