"""Scores of pictures and of outliers: by hand, against plain formulas, and in a run."""

import math

import duckdb
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from sklearn.neighbors import NearestNeighbors

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import SpecError
from engine.features.neighbors import compute_neighbors
from engine.queries.connection import connected
from engine.runs.pipeline import run
from engine.runs.planning import plan_run
from engine.scores.image_quality import blurred, bright, dark, low_information, odd_shape, odd_size
from engine.scores.outliers import outlier
from engine.scores.registry import all_scores
from engine.spec import TrainingSpec
from engine.store.workspace import Workspace

PICTURES = ("dark", "bright", "blurred", "low_information", "odd_shape", "odd_size")


def one(value):
    return torch.tensor([value], dtype=torch.float64)


def test_by_hand():
    assert float(dark(one(0.3))) == pytest.approx(0.7)
    assert float(bright(one(0.96))) == pytest.approx(0.96)
    assert float(low_information(one(2.5))) == pytest.approx(0.75)
    assert float(odd_shape(one(0.2))) == pytest.approx(0.8)
    # 20 of edges and nothing of the histogram: 1 - (1 - exp(-.2)). 50 of the histogram is above .18 and counts.
    assert float(blurred(one(20.0), one(10.0))) == pytest.approx(math.exp(-0.2))
    assert float(blurred(one(20.0), one(50.0))) == pytest.approx(1 - (1 - math.exp(-0.2)) - (1 - math.exp(-0.5)))
    assert float(blurred(one(300.0), one(300.0))) == 0


def test_odd_size_by_hand():
    # Quartiles 100 and 110: odd below 100 - 30 and above 110 + 30, so the middle is 105 and the span 70.
    sizes = torch.tensor([100.0, 100, 100, 105, 110, 110, 110, 139.9, 140.1]).double()
    assert np.percentile(sizes.numpy(), [25, 75]).tolist() == [100, 110]
    found = odd_size(sizes)
    assert found[-2:].tolist() == pytest.approx([34.9 / 70, 35.1 / 70], rel=1e-6)
    assert (found > 0.5).tolist() == [False] * 8 + [True]
    # All of one size but one: whatever its size, it is odd; and of one size all, none is.
    found = odd_size(torch.tensor([64.0] * 8 + [65]).double())
    assert (found > 0.5).tolist() == [False] * 8 + [True]
    assert odd_size(torch.full((5,), 64.0)).tolist() == [0.0] * 5


def test_the_thresholds_are_those_of_cleanvision():
    """Its defaults: a score below flags; ours is 1 minus its score, so that 1 minus its threshold is ours."""
    theirs = {"dark": 0.32, "bright": 0.05, "blurred": 0.29, "low_information": 0.3, "odd_shape": 0.35, "odd_size": 0.5}
    for name, threshold in theirs.items():
        found = all_scores()[name]
        assert found.flags_above == pytest.approx(1 - threshold) and found.rule == name
        assert found.evidence == "picture"


def test_outlier_is_the_mean_distance_of_scikit_learn():
    features = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    features[7] = -features.mean(0) * 50
    nearest = NearestNeighbors(n_neighbors=11, metric="cosine").fit(features.numpy())
    distances, _ = nearest.kneighbors(features.numpy())
    found = outlier(compute_neighbors(features, 10)[1])
    assert found.tolist() == pytest.approx(distances[:, 1:].mean(1).tolist(), abs=1e-5)
    assert all_scores()["outlier"].evidence == "outlier"


@pytest.fixture
def pictures(tmp_path):
    """40 images of noise, one each of what is odd about pictures."""
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 256, (48, 48, 3), dtype=np.uint8)) for _ in range(40)]
    odd = {
        "dark": images[0].point(lambda v: v // 4),
        "bright": images[1].point(lambda v: 245 + v // 26),
        "blurred": Image.fromarray(np.tile(np.linspace(0, 90, 48).astype(np.uint8), (48, 1))).filter(
            ImageFilter.GaussianBlur(3)
        ),
        "low_information": Image.new("RGB", (48, 48), (120, 60, 200)),
        "odd_shape": images[2].resize((96, 24)),
        "odd_size": images[3].resize((400, 400)),
    }
    for i, (name, image) in enumerate([*(("", image) for image in images[4:]), *odd.items()]):
        folder = tmp_path / "pictures" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{i}{name}.png")
    workspace = Workspace(tmp_path / "workspace")
    ingest(workspace, IngestSpec("pictures", str(tmp_path / "pictures"), test_fraction=0.0))
    return workspace


def test_a_run_flags_the_odd_pictures_and_not_their_labels(pictures):
    spec = plan_run(pictures, "pictures", PICTURES, TrainingSpec())
    assert spec.training is None
    run_id, _ = run(pictures, spec, torch.device("cpu"))
    with connected(pictures, "pictures", [run_id]) as connection:
        for name in PICTURES:
            flagged = connection.execute(
                "SELECT source FROM flags JOIN samples USING (sample_id) WHERE rule = ? AND flagged", [name]
            ).fetchall()
            assert any(name in source for (source,) in flagged), name
            assert len(flagged) <= 3, name  # a blurred picture has little information, too
        unused = connection.execute("SELECT rule, why_unused FROM rules").fetchall()
    assert {rule for rule, why in unused if "no evidence of a wrong label" in why} == set(PICTURES)


def test_vectors_have_no_scores_of_pictures(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    ingest(workspace, IngestSpec("points", "synthetic", limit=100))
    assert not set(PICTURES) & set(plan_run(workspace, "points", ["standard"], TrainingSpec()).scores)
    with pytest.raises(SpecError, match="dataset 'points' holds vectors; scores of how a picture looks need images"):
        run(workspace, plan_run(workspace, "points", ["dark"], TrainingSpec()), torch.device("cpu"))


def test_images_that_were_not_measured_are_named(pictures):
    spec = plan_run(pictures, "pictures", ["dark"], TrainingSpec())
    with duckdb.connect(str(pictures.require_dataset("pictures"))) as connection:
        connection.execute("DELETE FROM metadata WHERE sample_id = 3")
    assert "dark" not in plan_run(pictures, "pictures", ["standard"], TrainingSpec()).scores
    with pytest.raises(SpecError, match="nothing was measured of 1 of 42 images of dataset 'pictures'"):
        run(pictures, spec, torch.device("cpu"))
