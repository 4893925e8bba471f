"""Stored features: computed once from the originals, resumed after a kill, found again by content; files of one's own."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from engine.data.ingest import ingest
from engine.data.originals import Originals
from engine.data.request import IngestSpec
from engine.errors import Cancelled, NotFoundError, SourceError, SpecError, StorageError
from engine.features.backbones import find_backbone
from engine.features.embedding import embed, ready
from engine.features.stored import compute_part, compute_stored, is_stored, key_of, load_stored, notes_of, read_about
from engine.runs.cluster import HERE
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec
from engine.store.progress import Progress
from engine.store.workspace import Workspace

LITE = "efficientnet_lite0:64"
CPU = torch.device("cpu")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace", create=True)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A CSV of 40 windows of scikit-learn's photographs, 180 x 120 JPEG files: sky and flowers."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    write_photographs(folder, range(40))
    return folder / "list.csv"


def write_photographs(folder: Path, which: Sequence[int]) -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, (300, 440), (100, 2))
    images = load_sample_images().images
    rows = []
    for i in which:
        y, x = corners[i]
        Image.fromarray(images[i % 2][y : y + 120, x : x + 180]).save(folder / f"{i:03d}.jpg", quality=92)
        rows.append((f"{i:03d}.jpg", ("temple", "flower")[i % 2]))
    with open(folder / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])


def compute(workspace: Workspace, dataset: str, source: str = LITE, tasks=HERE) -> str:
    """Compute the stored features and return their key."""
    folder = workspace.root / "journal"
    folder.mkdir(exist_ok=True)
    progress = Progress(folder, {"features": 1.0})
    progress.stage("features")
    compute_stored(workspace, dataset, source, CPU, progress, tasks)
    return key_of(workspace, dataset, source)


def by_hand(paths: Sequence[Path], side: int) -> torch.Tensor:
    """Features of files: the middle square, resized, without any of the streaming."""
    backbone = find_backbone(f"efficientnet_lite0:{side}")
    pixels = []
    for path in paths:
        image = Image.open(path).convert("RGB")
        width, height = image.size
        box = ((width - height) / 2, 0, (width + height) / 2, height)
        pixels.append(np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box)))
    batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    with torch.no_grad():
        return backbone.load()((batch.float() - 127) / 128)


def test_features_come_from_the_originals_and_not_from_what_is_stored(workspace, photographs):
    ingest(workspace, IngestSpec(name="mine", source=str(photographs), image_size=16, test_fraction=0.25))
    key = compute(workspace, "mine", "efficientnet_lite0:96")
    train, test = (load_stored(workspace, "mine", key, split) for split in ("train", "test"))
    assert train.shape == (30, 1280) and test.shape == (10, 1280) and train.dtype == torch.float32
    places = [Path(place) for place in Originals(workspace, "mine", 96).places]
    assert torch.allclose(torch.cat([train, test]), by_hand(places, 96), rtol=1e-4, atol=1e-4)
    about = read_about(workspace, "mine", key)
    assert (about["computed"], about["copied"], about["stand_ins"], about["precision"]) == (40, 0, 0, "float32")
    assert notes_of(workspace, "mine", key) == []


def test_features_of_a_part_are_kept_until_all_are_computed(workspace, photographs):
    ingest(workspace, IngestSpec(name="mine", source=str(photographs), test_fraction=0))
    (workspace.root / "journal").mkdir()
    progress = Progress(workspace.root / "journal", {})
    ids = [3, 4, 11, 39]
    part = compute_part(workspace, "mine", LITE, ids, CPU, progress, HERE)
    places = [Path(place) for place in Originals(workspace, "mine", 64).places]
    assert torch.allclose(part, by_hand([places[i] for i in ids], 64), rtol=1e-4, atol=1e-4)
    key = key_of(workspace, "mine", LITE)
    (folder,) = workspace.feature_sets(key)
    assert not is_stored(workspace, "mine", key)
    again = compute_part(workspace, "mine", LITE, ids, CPU, progress, HERE)
    more = compute_part(workspace, "mine", LITE, [4, 5], CPU, progress, HERE)
    assert torch.equal(again, part) and torch.equal(more[0], part[1]) and len(workspace.feature_sets(key)) == 2
    compute(workspace, "mine")
    about = read_about(workspace, "mine", key)
    assert (about["computed"], about["copied"]) == (35, 5)
    assert not folder.exists() and len(workspace.feature_sets(key)) == 1
    assert torch.equal(load_stored(workspace, "mine", key, "train")[ids], part)
    shutil.rmtree(photographs.parent)  # nothing is read again
    assert torch.equal(compute_part(workspace, "mine", LITE, ids, CPU, progress, HERE), part)


def test_a_relabeled_copy_has_its_features_already(workspace, photographs):
    ingest(workspace, IngestSpec(name="mine", source=str(photographs)))
    key = compute(workspace, "mine")
    ingest(workspace, IngestSpec(name="noisy", source="dataset:mine", noise="symmetric:0.3"))
    shutil.rmtree(photographs.parent)  # nothing is read again
    assert is_stored(workspace, "noisy", key)
    assert compute(workspace, "noisy") == key
    assert torch.equal(load_stored(workspace, "noisy", key, "train"), load_stored(workspace, "mine", key, "train"))
    assert len(workspace.feature_sets(key)) == 1


def test_images_that_are_added_compute_only_themselves(workspace, photographs):
    ingest(workspace, IngestSpec(name="first", source=str(photographs), test_fraction=0))
    key = compute(workspace, "first")
    write_photographs(photographs.parent, range(50))  # the first 40 get new times, and the same bytes
    (photographs.parent / "moved").mkdir()
    rows = (photographs.parent / "list.csv").read_text().replace("007.jpg", "moved/seven.jpg")
    (photographs.parent / "007.jpg").rename(photographs.parent / "moved" / "seven.jpg")
    photographs.write_text(rows)
    ingest(workspace, IngestSpec(name="more", source=str(photographs), test_fraction=0))
    assert compute(workspace, "more") == key
    about = read_about(workspace, "more", key)
    assert (about["computed"], about["copied"]) == (10, 40)
    first, more = (load_stored(workspace, name, key, "train") for name in ("first", "more"))
    assert torch.equal(more[:40], first)
    places = [Path(place) for place in Originals(workspace, "more", 64).places]
    assert torch.allclose(more, by_hand(places, 64), rtol=1e-4, atol=1e-4)


def test_images_added_to_a_dataset_compute_only_themselves(workspace, photographs):
    spec = IngestSpec(name="mine", source=str(photographs), test_fraction=0.25)
    ingest(workspace, spec)
    before = compute(workspace, "mine"), load_stored(workspace, "mine", compute(workspace, "mine"), "train")
    write_photographs(photographs.parent, range(46))
    ingest(workspace, replace(spec, add=True))
    key = compute(workspace, "mine")
    about = read_about(workspace, "mine", key)
    assert key == before[0] and (about["computed"], about["copied"]) == (6, 40)
    places = [Path(place) for place in Originals(workspace, "mine", 64).places]
    found = torch.cat([load_stored(workspace, "mine", key, split) for split in ("train", "test")])
    assert torch.equal(found[:30], before[1]) and torch.allclose(found, by_hand(places, 64), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("given", ["{0}", "../{0}", "../../{1}/{0}"])
def test_relative_places_of_earlier_versions_are_found_from_elsewhere(workspace, photographs, monkeypatch, given):
    ingest(workspace, IngestSpec(name="mine", source=str(photographs), image_size=16, test_fraction=0))
    with duckdb.connect(str(workspace.dataset_path("mine"))) as connection:
        folder = given.format(photographs.parent.name, photographs.parent.parent.name)
        connection.execute("UPDATE samples SET source = ? || '/' || parse_filename(source)", [folder])
    monkeypatch.chdir("/")
    assert not any(seen.stands_in for seen in Originals(workspace, "mine", 64).read(range(40), lambda: None))


def test_files_that_are_known_by_their_time_are_not_read(workspace, photographs, monkeypatch):
    ingest(workspace, IngestSpec(name="first", source=str(photographs), test_fraction=0))
    key = compute(workspace, "first")
    rows = photographs.read_text().splitlines()
    fewer = photographs.with_name("fewer.csv")
    fewer.write_text("\n".join(rows[:1] + rows[11:]))
    ingest(workspace, IngestSpec(name="fewer", source=str(fewer), test_fraction=0))
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    compute(workspace, "fewer")
    assert torch.equal(
        load_stored(workspace, "fewer", key, "train"), load_stored(workspace, "first", key, "train")[10:]
    )


def test_equal_small_inputs_of_other_files_are_not_taken_for_them(workspace, tmp_path):
    """Two sets whose stored inputs are the same bytes: the one of fine stripes, the other of the gray that they make."""
    for name in ("stripes", "gray"):
        for i, label in enumerate(("a", "b")):
            folder = tmp_path / name / label
            folder.mkdir(parents=True)
            pixels = np.full((64, 64), 100 + i, np.uint8)
            if name == "stripes":
                pixels[::2] += 40
                pixels[1::2] -= 40
            Image.fromarray(pixels).save(folder / "one.png")
    keys = []
    for name in ("stripes", "gray"):
        ingest(workspace, IngestSpec(name=name, source=str(tmp_path / name), image_size=4, test_fraction=0))
        keys.append(compute(workspace, name))
    assert keys[0] == keys[1]
    assert read_about(workspace, "gray", keys[0])["computed"] == 2
    fine, even = (load_stored(workspace, name, keys[0], "train") for name in ("stripes", "gray"))
    assert not torch.allclose(fine, even, atol=0.1)


def test_what_is_gone_broken_or_another_image_is_replaced_by_the_stored_input_and_counted(workspace, photographs):
    ingest(workspace, IngestSpec(name="mine", source=str(photographs), image_size=32, test_fraction=0))
    folder = photographs.parent
    (folder / "003.jpg").unlink()
    (folder / "005.jpg").write_bytes(b"not an image any more")
    (folder / "008.jpg").write_bytes((folder / "009.jpg").read_bytes())
    (folder / "011.jpg").unlink()
    os.mkfifo(folder / "011.jpg")  # reading it would wait for ever
    (folder / "013.jpg").unlink()
    (folder / "013.jpg").mkdir()
    key = compute(workspace, "mine")
    assert read_about(workspace, "mine", key)["stand_ins"] == 5
    (note,) = notes_of(workspace, "mine", key)
    assert note.startswith("the originals of 5 of 40 images are gone or have changed, such as ") and "003.jpg" in note
    found = load_stored(workspace, "mine", key, "train")
    assert torch.allclose(found[9], by_hand([folder / "009.jpg"], 64)[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[8], found[9], atol=0.1)
    assert torch.isfinite(found).all()


def test_a_photograph_is_turned_upright_and_a_gray_one_has_three_channels(workspace, tmp_path):
    image = load_sample_images().images[0][:200, :200]
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "set" / "a" / "upright.png")
    Image.fromarray(np.rot90(image, 1)).save(tmp_path / "set" / "a" / "turned.png", exif=turned)
    Image.fromarray(image).convert("L").save(tmp_path / "set" / "b" / "gray.png")
    ingest(workspace, IngestSpec(name="set", source=str(tmp_path / "set"), test_fraction=0))
    originals = Originals(workspace, "set", 64)
    turned_pixels, upright_pixels, gray_pixels = (seen.pixels for seen in originals.read(range(3), lambda: None))
    assert np.array_equal(turned_pixels, upright_pixels)
    assert np.array_equal(gray_pixels[0], gray_pixels[2])


def test_sources_that_are_no_files_give_their_images_too(workspace, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = load_sample_images().images
    blobs = []
    for i in range(12):
        path = tmp_path / f"{i}.png"
        Image.fromarray(images[i % 2][i : i + 100, i : i + 100]).save(path)
        blobs.append({"bytes": path.read_bytes(), "path": None})
    pq.write_table(pa.table({"image": blobs, "label": [i % 2 for i in range(12)]}), tmp_path / "blobs.parquet")
    ingest(
        workspace, IngestSpec(name="blobs", source=str(tmp_path / "blobs.parquet"), image_size=16, test_fraction=0.25)
    )
    key = compute(workspace, "blobs")
    found = torch.cat([load_stored(workspace, "blobs", key, split) for split in ("train", "test")])
    rows = [int(place.rpartition(":")[2]) for place in Originals(workspace, "blobs", 64).places]
    wanted = by_hand([tmp_path / f"{row}.png" for row in rows], 64)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)
    (tmp_path / "blobs.parquet").unlink()
    other = compute(workspace, "blobs", "efficientnet_lite0:96")
    assert read_about(workspace, "blobs", other)["stand_ins"] == 12


def test_digits_are_enlarged(workspace):
    ingest(workspace, IngestSpec(name="digits", source="digits", limit=20))
    key = compute(workspace, "digits")
    assert read_about(workspace, "digits", key)["stand_ins"] == 0
    assert load_stored(workspace, "digits", key, "train").shape == (20, 1280)


def test_vectors_take_a_file_and_no_backbone(workspace, tmp_path, monkeypatch):
    ingest(workspace, IngestSpec(name="vectors", source="synthetic", limit=20))
    with pytest.raises(SpecError, match="network for images; dataset 'vectors' holds vectors of shape"):
        compute(workspace, "vectors")
    rows = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    monkeypatch.chdir(tmp_path)
    plan = plan_run(workspace, "vectors", ["near_duplicate"], TrainingSpec(), neighbors=2, features="rows.npy")
    monkeypatch.chdir("/")
    key = compute(workspace, "vectors", plan.features)
    assert key == plan.features_hash
    assert torch.equal(load_stored(workspace, "vectors", key, "train"), torch.from_numpy(rows))


KILLED = """
import sys, time
from pathlib import Path
import torch
from engine.features import computing
from engine.features.stored import compute_stored
from engine.runs.cluster import HERE
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec
from engine.store.progress import Progress
from engine.store.workspace import Workspace

computing.BLOCK_SAMPLES = (4, 4)
torch.set_num_threads(1)
workspace = Workspace.open(Path(sys.argv[1]))
progress = Progress(Path(sys.argv[2]), {"features": 1.0}, lambda *seen: time.sleep(float(sys.argv[3])))
compute_stored(workspace, "mine", "efficientnet_lite0:64", torch.device("cpu"), progress, HERE)
"""


def test_a_killed_process_goes_on_with_its_blocks(workspace, photographs, tmp_path):
    ingest(workspace, IngestSpec(name="mine", source=str(photographs), test_fraction=0))
    journal = tmp_path / "journal"
    journal.mkdir()

    def start(pause: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-c", KILLED, str(workspace.root), str(journal), str(pause)]
        return subprocess.Popen(command, text=True, stderr=subprocess.PIPE)

    process, features = start(0.5), workspace.root / "features"
    deadline = time.monotonic() + 120
    while len(list(features.glob(".*.partial/block-*.safetensors"))) < 3:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not is_stored(workspace, "mine", key_of(workspace, "mine", LITE))
    kept = {path.name: path.stat().st_mtime_ns for path in features.glob(".*.partial/block-*.safetensors")}
    shutil.move(photographs.parent / "000.jpg", tmp_path / "000.jpg")  # of a block that is done: it is not read again
    resumed = start(0)
    _, errors = resumed.communicate(timeout=180)
    assert resumed.returncode == 0, errors
    key = key_of(workspace, "mine", LITE)
    about = read_about(workspace, "mine", key)
    assert len(kept) >= 3 and about["computed"] == 40 and about["stand_ins"] == 0
    shutil.move(tmp_path / "000.jpg", photographs.parent / "000.jpg")
    places = [Path(place) for place in Originals(workspace, "mine", 64).places]
    assert torch.allclose(load_stored(workspace, "mine", key, "train"), by_hand(places, 64), rtol=1e-4, atol=1e-4)
    assert not list(features.glob(".*.partial")) and not list(features.glob(".*.publishing"))


def test_two_processes_that_want_the_same_compute_it_once(workspace, photographs, tmp_path):
    ingest(workspace, IngestSpec(name="mine", source=str(photographs), test_fraction=0))
    folders = [tmp_path / "one", tmp_path / "two"]
    command = [sys.executable, "-W", "error", "-c", KILLED, str(workspace.root)]
    for folder in folders:
        folder.mkdir()
    started = [subprocess.Popen([*command, str(f), "0.05"], text=True, stderr=subprocess.PIPE) for f in folders]
    for process in started:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors
    assert len(workspace.feature_sets(key_of(workspace, "mine", LITE))) == 1


def test_cancelling_stops_within_two_seconds_and_keeps_what_is_done(workspace, photographs, tmp_path):
    ingest(workspace, IngestSpec(name="mine", source=str(photographs), test_fraction=0))
    cancelled = []

    def listener(stage: str, fraction: float, left: float | None) -> None:
        if not cancelled:
            (tmp_path / "cancel").touch()
            cancelled.append(time.monotonic())
            time.sleep(0.3)  # the file is looked for four times a second; all may be computed sooner

    progress = Progress(tmp_path, {"features": 1.0}, listener)
    with pytest.raises(Cancelled):
        compute_stored(workspace, "mine", LITE, CPU, progress, HERE)
    assert time.monotonic() - cancelled[0] < 2


def test_damaged_or_absent_features_say_what_to_do(workspace, photographs):
    ingest(workspace, IngestSpec(name="mine", source=str(photographs), test_fraction=0))
    key = key_of(workspace, "mine", LITE)
    with pytest.raises(NotFoundError, match="are not stored; winnow run mine --features computes them"):
        load_stored(workspace, "mine", key, "train")
    compute(workspace, "mine")
    with pytest.raises(NotFoundError, match="has no test samples"):
        load_stored(workspace, "mine", key, "test")
    (folder,) = workspace.feature_sets(key)
    (folder / "features.npy").write_bytes((folder / "features.npy").read_bytes()[:1000])
    with pytest.raises(StorageError, match="is damaged .*remove it and run again"):
        load_stored(workspace, "mine", key, "train")
    ingest(workspace, IngestSpec(name="other", source=str(photographs), image_size=16, test_fraction=0))
    (folder / "about.json").write_text("[]")
    with pytest.raises(StorageError, match="is damaged .*remove it and run again"):
        compute(workspace, "other")
    with pytest.raises(SpecError, match="--features is 'nothing.txt'; allowed: efficientnet_lite0"):
        key_of(workspace, "mine", "nothing.txt")


def test_a_bad_network_gives_no_features(workspace, photographs, tmp_path):
    from torchvision.models import get_model

    ingest(workspace, IngestSpec(name="mine", source=str(photographs), test_fraction=0))
    broken = get_model("mnasnet0_5", weights=None).state_dict()
    for value in broken.values():
        value.fill_(torch.nan if value.is_floating_point() else 1)
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(SourceError, match="not finite"):
        compute(workspace, "mine", f"torchvision:mnasnet0_5:{tmp_path / 'broken.pth'}")


def test_a_step_of_any_size_gives_the_same_features():
    pixels = torch.from_numpy(load_sample_images().images[0][:64, :64].transpose(2, 0, 1).copy()).repeat(37, 1, 1, 1)
    shares: list[float] = []
    found = embed(ready(find_backbone(LITE), CPU), pixels, shares.append)
    assert found.shape == (37, 1280) and shares == [0.0, 16 / 37, 32 / 37]
    assert torch.allclose(found, found[:1].expand(37, -1), rtol=1e-4, atol=1e-4)
