"""Ways out: every format holds what was chosen, under the label to train on, and comes back as the same set."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.data.exporting import export_set
from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import SpecError, WinnowError
from engine.queries.connection import connected
from engine.queries.writers import MANIFEST, WRITERS, Choice, Exported, export_bytes, fetch_selected, find_writer
from engine.queries.writers.pictures import safe_name
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec
from engine.store.decisions import decide
from engine.store.workspace import Workspace

CLASSES = ["../up", "=1+1", "Cat", "a/b", "cat", "nul", "x" * 250, "ünï 猫"]
"""Each holds three training samples and one test sample; the second class also the file that has no ending."""
N = 4 * len(CLASSES)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """`set`, made of the folder `images` beside the workspace: samples 1 and 2 are dropped, 3 is relabeled, 4 is kept."""
    root = tmp_path_factory.mktemp("made")
    rows = []
    for i in range(N):
        name = ["one.png", "ONE.png", "it's, =1+1.jpg", "no ending"][i // len(CLASSES)]
        path = root / "images" / f"{i}" / name
        path.parent.mkdir(parents=True)
        pixels = np.random.default_rng(i).integers(0, 255, (12, 10, 3), np.uint8)
        Image.fromarray(pixels).resize((20, 24)).save(path, "PNG" if name.endswith("png") else "JPEG")
        label = CLASSES[i % len(CLASSES)]
        rows.append([f"images/{i}/{name}", label, label, "test" if i >= 3 * len(CLASSES) else "train", f"note {i}"])
    with open(root / "set.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "label", "true_label", "split", "about"], *rows])
    found = Workspace.open(root / "workspace", create=True)
    ingest(found, IngestSpec("set", str(root / "set.csv")))
    compute(
        found,
        plan_run(found, "set", ["aum", "heldout_margin"], TrainingSpec(model="mlp", epochs=2, seeds=1, batch_size=8)),
        "cpu",
    )
    decide(found, "set", [1, 2], "drop")
    decide(found, "set", [3], "relabel", new_label=4)
    decide(found, "set", [4], "keep")
    return found


@pytest.fixture
def images(workspace: Workspace) -> Path:
    """Where its images lie."""
    return workspace.root.parent / "images"


def write(workspace: Workspace, to: Path, format: str, choice: Choice | None = None, **given: Any) -> Exported:
    chosen = choice or Choice(split="all", decisions="apply")
    return export_set(workspace, "set", chosen, to, find_writer(format), **given)


def rows_of(workspace: Workspace, decisions: Any = "apply") -> pd.DataFrame:
    with connected(workspace, "set") as connection:
        return fetch_selected(connection, "", split="all", decisions=decisions).set_index("sample_id")


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def written(root: Path, name: str) -> dict[str, bytes]:
    """What an export wrote, its manifest included."""
    path = root / name
    return files(path) if path.is_dir() else {p.name: p.read_bytes() for p in sorted(root.glob(f"{name}*"))}


def test_decisions_change_the_label_to_train_on_and_leave_the_given_one_beside_it(workspace: Workspace) -> None:
    applied, given = rows_of(workspace), rows_of(workspace, "ignore")
    assert [i for i in given.index if i not in applied.index] == [1, 2]
    assert applied.loc[3, ["label", "class_name", "given_label", "given_class"]].tolist() == [4, "cat", 3, "a/b"]
    assert applied.loc[[0, 3, 4], "decision"].fillna("").tolist() == ["", "relabel", "keep"]
    assert given.loc[3, ["label", "class_name", "given_label"]].tolist() == [3, "a/b", 3]
    others = applied.drop(index=3)
    assert (others["label"] == others["given_label"]).all()


@pytest.mark.parametrize("format", WRITERS)
def test_a_format_is_written_twice_alike_with_the_hashes_of_its_files(
    workspace: Workspace, images: Path, tmp_path: Path, format: str
) -> None:
    found = []
    for turn in ("first", "second"):
        (tmp_path / turn).mkdir()
        done = write(workspace, tmp_path / turn / f"out{WRITERS[format].ending}", format)
        assert (done.kept, done.total, done.left_out, done.relabeled) == (N - 2, N, 2, 1)
        found.append(written(tmp_path / turn, f"out{WRITERS[format].ending}"))
    assert found[0] == found[1]
    (manifest,) = (name for name in found[0] if name.endswith(MANIFEST))
    told = json.loads(found[0].pop(manifest))
    assert {name: about["sha256"] for name, about in told["files"].items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in found[0].items()
    }
    assert (told["format"], told["samples"], told["relabeled"], told["left_out_by_decisions"]) == (format, N - 2, 1, 2)
    assert [c["name"] for c in told["classes"]] == CLASSES and sum(c["test"] for c in told["classes"]) == len(CLASSES)


@pytest.mark.parametrize("format", [name for name, found in WRITERS.items() if found.write_file])
def test_a_page_has_the_bytes_that_the_command_writes(workspace: Workspace, tmp_path: Path, format: str) -> None:
    write(workspace, tmp_path / "out", format)
    with connected(workspace, "set") as connection:
        assert (
            export_bytes(connection, Choice(split="all", decisions="apply"), format) == (tmp_path / "out").read_bytes()
        )


@pytest.mark.parametrize("format", WRITERS)
def test_an_export_of_nothing_says_so_in_its_format(workspace: Workspace, tmp_path: Path, format: str) -> None:
    done = write(workspace, tmp_path / "out", format, Choice("label > 1000"))
    assert (done.kept, done.total) == (0, 3 * len(CLASSES))
    assert written(tmp_path, "out")


def test_class_folders_come_back_as_the_same_set(workspace: Workspace, images: Path, tmp_path: Path) -> None:
    done = write(workspace, tmp_path / "out", "imagefolder")
    rows, told = rows_of(workspace), json.loads((tmp_path / "out" / MANIFEST).read_text())
    folders = told["class_folders"]
    assert sorted(folders.values()) == sorted(CLASSES)
    assert len({folder.casefold() for folder in folders}) == len(CLASSES)
    assert all(len(name.encode()) < 250 and "/" not in name for name in folders)
    assert any("is no name of a folder" in note for note in done.notes)
    index = pd.read_csv(tmp_path / "out" / "samples.csv", index_col="sample_id", keep_default_na=False)
    assert index.index.tolist() == rows.index.tolist()
    for sample, row in index.iterrows():
        split, folder, name = row["file"].split("/")
        assert (split, folders[folder]) == (rows["split"][sample], rows["class_name"][sample])
        assert (tmp_path / "out" / row["file"]).read_bytes() == Path(rows["source"][sample]).read_bytes()
        assert name.endswith((".png", ".jpg"))
    assert (tmp_path / "out" / "train" / "nul_" / "one.png").exists()

    again = ingest(workspace, IngestSpec("again", str(tmp_path / "out")))
    with connected(workspace, "again") as connection:
        back = fetch_selected(connection, "", split="all")
        keys = connection.execute("SELECT sample_id, content FROM dataset_file.samples").df().set_index("sample_id")
    with connected(workspace, "set") as connection:
        before = connection.execute("SELECT sample_id, content FROM dataset_file.samples").df().set_index("sample_id")
    assert again.train + again.test == len(rows)
    names = {keys["content"][row.sample_id]: (row.split, row.class_name) for row in back.itertuples()}
    assert names == {before["content"][i]: (rows["split"][i], rows["class_name"][i]) for i in rows.index}


@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_links_lead_to_the_originals(workspace: Workspace, images: Path, tmp_path: Path, link: Any) -> None:
    write(workspace, tmp_path / "out", "imagefolder", link=link)
    index, rows = pd.read_csv(tmp_path / "out" / "samples.csv", index_col="sample_id"), rows_of(workspace)
    for sample, file in index["file"].items():
        path = tmp_path / "out" / file
        assert os.path.samefile(path, rows["source"][sample]) and path.is_symlink() == (link == "symlink")


def test_originals_that_are_gone_changed_or_not_trusted_are_counted_and_named(
    workspace: Workspace, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (images / "5", images / "9"):
        shutil.copytree(path, tmp_path / path.name)
    try:
        (images / "5" / "one.png").unlink()
        Image.new("RGB", (20, 24), "white").save(images / "9" / "ONE.png")
        for format in ("imagefolder", "hf"):
            with pytest.raises(WinnowError, match=f"2 of {N - 2} originals cannot be read") as error:
                write(workspace, tmp_path / "out", format)
            assert "5/one.png: there is no such file" in str(error.value)
            assert "9/ONE.png: the file holds another image now" in str(error.value)
            assert "--thumbnails" in str(error.value) and not list(tmp_path.glob("*out*"))
        done = write(workspace, tmp_path / "out", "imagefolder", thumbnails=True)
        assert "2 images are thumbnails, because their originals cannot be read" in done.notes
        index = pd.read_csv(tmp_path / "out" / "samples.csv", index_col="sample_id")
        assert [name for name in index["file"] if name.endswith(".webp")] == index.loc[[5, 9], "file"].tolist()
    finally:
        for name in ("5", "9"):
            shutil.copytree(tmp_path / name, images / name, dirs_exist_ok=True)


def test_originals_outside_of_what_was_named_are_not_read(workspace: Workspace, tmp_path: Path) -> None:
    shutil.copytree(workspace.root, tmp_path / "copied")
    workspace = Workspace.open(tmp_path / "copied")
    with pytest.raises(WinnowError, match="outside of what was named"):
        write(workspace, tmp_path / "out", "imagefolder")


def test_hugging_face_files_hold_the_images_and_the_names(
    workspace: Workspace, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queries.writers.pictures.SHARD", 5)
    write(workspace, tmp_path / "out", "hf")
    rows, names = rows_of(workspace), sorted(p.name for p in (tmp_path / "out" / "data").iterdir())
    assert names == [f"test-{i:05d}-of-00002.parquet" for i in range(2)] + [
        f"train-{i:05d}-of-00005.parquet" for i in range(5)
    ]
    table = pd.concat(pq.read_table(tmp_path / "out" / "data" / n).to_pandas() for n in names).set_index("sample_id")
    assert sorted(table.index) == rows.index.tolist()
    for sample, row in table.iterrows():
        assert row["image"]["bytes"] == Path(rows["source"][sample]).read_bytes()
        assert (row["label"], row["given_label"]) == (rows["label"][sample], rows["given_label"][sample])


def test_a_folder_that_is_there_is_left_as_it_is(workspace: Workspace, images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(WinnowError, match="is there already"):
        write(workspace, tmp_path / "out", "imagefolder")
    assert files(tmp_path / "out") == {"mine": b"mine"}
    (tmp_path / "out" / "mine").unlink()
    write(workspace, tmp_path / "out", "imagefolder")
    with pytest.raises(WinnowError, match="no folder"):
        write(workspace, tmp_path / "no" / "out", "imagefolder")


class Stopped(Exception):
    """Whatever ends an export from outside."""


@pytest.mark.parametrize("format", WRITERS)
def test_an_export_that_is_stopped_leaves_nothing(
    workspace: Workspace, images: Path, tmp_path: Path, format: str
) -> None:
    seen = []

    def listen(stage: str, share: float, left: float | None) -> None:
        seen.append(share)
        if share >= 0.9:
            raise Stopped

    (tmp_path / "there").mkdir()
    if WRITERS[format].write_folder or WRITERS[format].name not in ("npy", "txt"):
        with pytest.raises(Stopped):
            write(workspace, tmp_path / "there" / "out", format, listen=listen)
        assert list((tmp_path / "there").iterdir()) == [] and seen == sorted(seen)


FULL_DISK = """
import json, resource, sys
from pathlib import Path
from engine.data.exporting import export_set
from engine.errors import WinnowError
from engine.queries.writers import Choice, find_writer
from engine.store.workspace import Workspace
resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
for format in sys.argv[3:]:
    try:
        export_set(Workspace.open(Path(sys.argv[1])), "set", Choice(), Path(sys.argv[2]), find_writer(format))
    except WinnowError as error:
        print(error)
"""


def test_a_full_disk_is_one_line_and_leaves_what_was_there(workspace: Workspace, tmp_path: Path) -> None:
    """A limit on the size of a file is refused by the system like a full disk."""
    formats = [name for name in WRITERS if name not in ("npy", "txt")]  # which are smaller than the limit
    (tmp_path / "there").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(workspace.root), str(tmp_path / "there" / "out"), *formats],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(formats) and all(line.startswith("no space left to write out") for line in lines), lines
    assert list((tmp_path / "there").iterdir()) == []


def test_names_are_safe_everywhere() -> None:
    names = ["..", ".", "", "a/b", "a\\b", "CON", "con.txt", "x.", " x ", ".hidden", "a\0b", "\u202ea", "猫" * 100]
    safe = [safe_name(name) for name in names]
    assert safe == [
        *("_", "_", "_", "a_b", "a_b", "CON_", "con.txt_", "x", "x", "_hidden", "a_b", "_a"),
        "猫" * 66,
    ]


def test_what_cannot_be_written_is_one_line(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="unknown score 'aun'; did you mean 'aum'"):
        write(workspace, tmp_path / "out", "csv", Choice(scores=("aun",)))
    with pytest.raises(SpecError, match="unknown decisions 'maybe'; allowed: apply, ignore"):
        Choice(decisions="maybe")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="whose name has no ending; name the format"):
        find_writer("", tmp_path / "out")
