"""What the libraries that an export is for make of it: the same samples, images and labels."""

from __future__ import annotations

import io
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from engine.data.exporting import export_set
from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.queries.connection import connected
from engine.queries.writers import Choice, fetch_selected, find_writer
from engine.store.decisions import decide
from engine.store.workspace import Workspace

CLASSES = ["cat", "dog", "emu"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """`set`, of class folders with four training images and two test images each; samples 0 to 2 are decided about."""
    root = tmp_path_factory.mktemp("made")
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(CLASSES):
            (root / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.full((8, 8, 3), 60 * label + 10 * i + (5 if split == "test" else 0), np.uint8)
                Image.fromarray(pixels).save(root / "images" / split / name / f"{i}.png")
    found = Workspace.open(root / "workspace", create=True)
    ingest(found, IngestSpec("set", str(root / "images")))
    decide(found, "set", [0], "drop")
    decide(found, "set", [1, 2], "relabel", new_label=2)
    return found


def write(workspace: Workspace, to: Path, format: str, split: str = "all") -> pd.DataFrame:
    """Export, and what it should hold, by sample id."""
    export_set(workspace, "set", Choice(split=split, decisions="apply"), to, find_writer(format))
    with connected(workspace, "set") as connection:
        return fetch_selected(connection, "", split=split, decisions="apply").set_index("sample_id")


def pixel(image: Any) -> int:
    return int(np.asarray(image)[0, 0, 0])


def expected(rows: pd.DataFrame) -> list[tuple[int, str]]:
    """The gray and the class of every sample."""
    return sorted((pixel(Image.open(row.source)), row.class_name) for row in rows.itertuples())


def test_torchvision_reads_class_folders(workspace: Workspace, tmp_path: Path) -> None:
    rows = write(workspace, tmp_path / "out", "imagefolder")
    for split in ("train", "test"):
        found = ImageFolder(tmp_path / "out" / split)
        assert found.classes == CLASSES
        assert sorted((pixel(image), found.classes[label]) for image, label in found) == expected(
            rows[rows["split"] == split]
        )


def test_datasets_reads_hugging_face_files(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write(workspace, tmp_path / "out", "hf")
    code = """
import json, sys
from datasets import ClassLabel, Image, load_dataset
found = load_dataset(sys.argv[1], cache_dir=sys.argv[2])
assert isinstance(found["train"].features["image"], Image), found["train"].features
assert isinstance(found["train"].features["label"], ClassLabel)
names = found["train"].features["label"].names
rows = [(s, r["sample_id"], r["image"].getpixel((0, 0))[0], names[r["label"]], names[r["given_label"]])
        for s in found for r in found[s]]
print(json.dumps(rows))
"""
    # in a process of its own: it starts threads, and reads the environment when it is imported
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    for name, value in offline.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out"), str(tmp_path / "cache")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert sorted(map(tuple, json.loads(done.stdout.splitlines()[-1]))) == sorted(
        (row.split, row.Index, pixel(Image.open(row.source)), row.class_name, row.given_class)
        for row in rows.itertuples()
    )


def test_mlcroissant_reads_the_metadata_and_the_samples(workspace: Workspace, tmp_path: Path) -> None:
    rows = write(workspace, tmp_path / "out", "croissant")
    code = """
import json, logging, os, sys
logging.disable()
import mlcroissant
found = mlcroissant.Dataset(sys.argv[1])
assert found.metadata.issues.errors == set(), found.metadata.issues.errors
rows = [{n.split("/")[-1]: v.decode() if isinstance(v, bytes) else v for n, v in r.items()} for r in found.records("samples")]
print(json.dumps(rows, default=int), flush=True)
os._exit(0)  # the libraries that it imports leave threads, which now and then abort an interpreter that ends in order
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out" / "croissant.json")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = pd.DataFrame(json.loads(done.stdout.splitlines()[-1])).set_index("sample_id")
    assert found.index.tolist() == rows.index.tolist()
    for theirs, ours in (
        ("path", "source"),
        ("class_name", "class_name"),
        ("given_class", "given_class"),
        ("label", "label"),
    ):
        assert found[theirs].tolist() == rows[ours].tolist()


def test_torch_reads_the_recipe(workspace: Workspace, tmp_path: Path) -> None:
    """Over an ImageFolder that lies elsewhere and has a class more, so that its numbers are others."""
    rows = write(workspace, tmp_path / "kept.py", "torch", split="train")
    (tmp_path / "moved").mkdir()
    (workspace.root.parent / "images" / "train").rename(tmp_path / "moved" / "t")
    try:
        recipe = runpy.run_path(str(tmp_path / "kept.py"))
        (tmp_path / "moved" / "t" / "ape").mkdir()
        Image.new("RGB", (8, 8), "red").save(tmp_path / "moved" / "t" / "ape" / "0.png")
        folder = ImageFolder(tmp_path / "moved" / "t", transform=pil_to_tensor)
        kept = recipe["subset"](folder)
        assert len(kept) == len(rows) and kept.targets == [label + 1 for label in rows["label"]]
        batches = list(DataLoader(kept, batch_size=4))  # which asks a Subset for several at once
        seen = [
            (int(image[0, 0, 0]), int(label))
            for images, labels in batches
            for image, label in zip(images, labels, strict=True)
        ]
        (tmp_path / "moved" / "t" / "ape" / "0.png").unlink()
        (tmp_path / "moved" / "t" / "ape").rmdir()
    finally:
        (tmp_path / "moved" / "t").rename(workspace.root.parent / "images" / "train")
    assert seen == [(pixel(Image.open(row.source)), row.label + 1) for row in rows.itertuples()]
    (tmp_path / "moved" / "t").mkdir()
    with pytest.raises(LookupError, match="has no class 'cat'"):
        recipe["subset"](type("Other", (), {"samples": [], "classes": ["dog"], "__len__": lambda self: 0})())


def test_a_recipe_of_samples_in_one_file_names_their_places(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "workspace", create=True)
    ingest(workspace, IngestSpec("set", "digits", limit=100))
    with connected(workspace, "set") as connection:
        rows = fetch_selected(connection, "label = 3")
    export_set(workspace, "set", Choice("label = 3"), tmp_path / "kept.py", find_writer("torch"))
    recipe = runpy.run_path(str(tmp_path / "kept.py"))
    digits = [(i, 0) for i in range(1797)]
    kept = recipe["subset"](digits)
    assert [kept[i] for i in range(len(kept))] == [(int(place.split(":")[1]), 3) for place in rows["source"]]
    with pytest.raises(LookupError, match="the dataset has 2 samples"):
        recipe["subset"](digits[:2])


def test_coco_and_fiftyone_files_name_every_sample(workspace: Workspace, tmp_path: Path) -> None:
    rows = write(workspace, tmp_path / "coco.json", "coco")
    coco = json.loads((tmp_path / "coco.json").read_text())
    assert {c["id"]: c["name"] for c in coco["categories"]} == dict(enumerate(CLASSES))
    assert {i["id"]: i["file_name"] for i in coco["images"]} == rows["source"].to_dict()
    assert {a["image_id"]: a["category_id"] for a in coco["annotations"]} == rows["label"].to_dict()
    write(workspace, tmp_path / "fiftyone", "fiftyone")
    labels = json.loads((tmp_path / "fiftyone" / "labels.json").read_text())
    assert labels["classes"] == CLASSES
    assert {int(i): about["label"] for i, about in labels["labels"].items()} == rows["class_name"].to_dict()
    for sample, source in rows["source"].items():
        assert (tmp_path / "fiftyone" / "data" / f"{sample}.png").read_bytes() == Path(source).read_bytes()


def test_cleanlab_issues_are_those_of_the_shortlist(judged_workspace: Path) -> None:
    from engine.queries.writers import export_bytes

    with connected(Workspace.open(judged_workspace), "digits-noisy") as connection:
        content = export_bytes(connection, Choice(split="all"), "cleanlab")
        rows = fetch_selected(connection, "", split="all")
    found = pd.read_csv(io.BytesIO(content), dtype={"given_label": str, "predicted_label": str})
    columns = ["is_label_issue", "label_score", "given_label", "predicted_label", "sample_id", "source", "label"]
    assert list(found) == columns
    assert found["is_label_issue"].sum() == 350
    assert np.allclose(found["label_score"], 1 - rows["p_wrong"].astype(float), atol=1e-6)
    assert found["given_label"].tolist() == rows["class_name"].tolist()
    assert (found["predicted_label"] != found["given_label"]).sum() > 50
