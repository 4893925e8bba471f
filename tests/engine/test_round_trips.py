"""Every format goes out and comes back as the same set: the same samples under the same labels."""

from __future__ import annotations

import csv
import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hostile_names import HOSTILE
from PIL import Image

from engine.data.answers import FORMATS
from engine.data.exporting import export_set
from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.data.returning import bring_back
from engine.data.sources import open_source
from engine.errors import SourceError, SpecError
from engine.queries.connection import connected
from engine.queries.writers import MANIFEST, WRITERS, Choice, fetch_selected, find_writer
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec
from engine.store.decisions import decide, fetch_batches, fetch_decisions_log
from engine.store.trust import trust_roots
from engine.store.workspace import Workspace

CLASSES = ["../up", "=1+1", "<b>x</b>", "a/b", "nul", "ünï 猫", "7", HOSTILE[12]]
PER_CLASS = 5
N = len(CLASSES) * PER_CLASS
NO_LABELS = ("npy", "txt")
"""Formats that say which samples, and nothing of their labels: these are what was decided."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """`set`, curated: files have names that are formulas or markup, and the last of every class is a test sample.

    Beside it lie copies in which people have decided nothing (`untouched`), or otherwise (`otherwise`).
    """
    root = tmp_path_factory.mktemp("made")
    rows = []
    for i in range(N):
        name = [f"{i}.png", "=1+1.png", "<b>.png", "it's, ünï.png", "two  blanks.png"][i % PER_CLASS]
        path = root / "images" / f"{i}" / name
        path.parent.mkdir(parents=True)
        pixels = np.random.default_rng(i).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        rows.append([f"images/{i}/{name}", CLASSES[i // PER_CLASS], "test" if i % PER_CLASS == 4 else "train"])
    with open(root / "set.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])
    found = Workspace.open(root / "workspace", create=True)
    ingest(found, IngestSpec("set", str(root / "set.csv")))
    training = TrainingSpec(model="mlp", epochs=2, seeds=1, batch_size=8)
    compute(found, plan_run(found, "set", ["aum", "heldout_margin"], training), "cpu")
    shutil.copytree(found.root, root / "untouched")
    shutil.copytree(found.root, root / "otherwise")
    other = Workspace.open(root / "otherwise")
    actions = ["drop", "relabel", "keep", "unsure"]
    decide(other, "set", range(N), [actions[i % 4] for i in range(N)], new_label=[7 - i % 8 for i in range(N)])
    with connected(found, "set") as connection:  # what is flagged and not decided is an issue in cleanlab's table
        flagged = fetch_selected(connection, "flagged")["sample_id"].tolist()
    decide(found, "set", [*flagged, 5], "keep")
    decide(found, "set", [1, 2, 30], "drop")
    decide(found, "set", [3, 4, 20], "relabel", new_label=[5, 6, 0])
    return found


@pytest.fixture(params=["untouched", "otherwise"])
def target(request: pytest.FixtureRequest, workspace: Workspace, tmp_path: Path) -> Workspace:
    """A copy that a set is brought back into."""
    shutil.copytree(workspace.root.with_name(request.param), tmp_path / "target")
    return Workspace.open(tmp_path / "target")


def stands(workspace: Workspace, dataset: str = "set") -> pd.DataFrame:
    """The set: split, source, class_name by sample id."""
    with connected(workspace, dataset) as connection:
        found = fetch_selected(connection, "", split="all", decisions="apply")
    return found.set_index("sample_id")[["split", "source", "class_name"]]


@functools.cache
def sets(workspace: Workspace) -> dict[str, pd.DataFrame]:
    """What stands in each copy before anything is brought back."""
    names = ("workspace", "untouched", "otherwise")
    return {name: stands(Workspace.open(workspace.root.with_name(name))) for name in names}


def write(workspace: Workspace, to: Path, format: str, split: str = "all") -> Path:
    path = to / f"out{WRITERS[format].ending}"
    export_set(workspace, "set", Choice(split=split, decisions="apply"), path, find_writer(format))
    return path


def annotated(path: Path, wanted: pd.DataFrame) -> Path:
    """The tasks of Label Studio as people give them back who choose those labels."""
    tasks = json.loads((path / "tasks-00000.json").read_text())
    for task in tasks:
        chosen = {"choices": [wanted["class_name"][task["data"]["sample_id"]]]}
        result = [{"from_name": "label", "to_name": "image", "type": "choices", "value": chosen}]
        task["annotations"] = [{"result": result, "was_cancelled": False}]
    (path.parent / "labeled.json").write_text(json.dumps(tasks))
    return path.parent / "labeled.json"


def keys(workspace: Workspace, dataset: str) -> dict[int, bytes]:
    """The content of every image."""
    with connected(workspace, dataset) as connection:
        return dict(connection.execute("SELECT sample_id, content FROM dataset_file.samples").fetchall())


def test_every_format_says_how_it_comes_back() -> None:
    assert [name for name, found in WRITERS.items() if not found.back] == []
    assert {name for name, found in WRITERS.items() if "import" in found.back} == set(FORMATS)


@pytest.mark.parametrize("format", [name for name, found in WRITERS.items() if "ingest" in found.back])
def test_an_export_is_ingested_as_the_same_set(workspace: Workspace, tmp_path: Path, format: str) -> None:
    wanted, known = sets(workspace)["workspace"], keys(workspace, "set")
    path = write(workspace, tmp_path, format)
    fresh = Workspace.open(tmp_path / "fresh", create=True)
    trust_roots(fresh, [workspace.root.parent])
    ingest(fresh, IngestSpec("again", str(path)))
    back, theirs = stands(fresh, "again"), keys(fresh, "again")
    assert {theirs[row.Index]: (row.split, row.class_name) for row in back.itertuples()} == {
        known[row.Index]: (row.split, row.class_name) for row in wanted.itertuples()
    }
    assert len(back) == len(wanted) == N - 3


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_is_imported_as_the_same_set(
    workspace: Workspace, target: Workspace, tmp_path: Path, format: str, request: pytest.FixtureRequest
) -> None:
    """Into a dataset of which nothing is decided, or about every sample something else."""
    wanted, before = sets(workspace)["workspace"], sets(workspace)[request.node.callspec.params["target"]]
    path = write(workspace, tmp_path, format)
    if format == "labelstudio":
        path = annotated(path, wanted)
    done = bring_back(target, "set", path, format, rest="drop")
    found = stands(target)
    if format in NO_LABELS:
        assert found.index.equals(wanted.index)
        stayed = [i for i in wanted.index if i in before.index]
        assert found.loc[stayed].equals(before.loc[stayed])
    else:
        assert found.equals(wanted)
    assert done.rest == len([i for i in before.index if i not in wanted.index])
    assert len(fetch_batches(target, "set")) == (2 if before is sets(workspace)["otherwise"] else 1)  # one undo


def test_of_a_part_that_was_not_exported_nothing_is_decided(workspace: Workspace, tmp_path: Path) -> None:
    path = write(workspace, tmp_path, "npy", split="train")
    shutil.copytree(workspace.root.with_name("untouched"), tmp_path / "target")
    target = Workspace.open(tmp_path / "target")
    done = bring_back(target, "set", path)
    assert (done.counts, done.rest, done.unchanged) == ({"drop": 3}, 3, N - N // PER_CLASS - 3)
    assert {int(row.sample_id) for row in fetch_decisions_log(target, "set").itertuples()} == {1, 2, 30}
    assert bring_back(target, "set", path).batch is None  # it is that set now
    (tmp_path / "own.txt").write_text("0\n1\n")  # without a manifest: the part that it names samples of
    assert bring_back(target, "set", tmp_path / "own.txt").rest == N - N // PER_CLASS - 2 - 2
    assert stands(target)["split"].value_counts().to_dict() == {"test": N // PER_CLASS, "train": 2}


# What is no such file ----------------------------------------------------------------------------------------------


COCO = {"images": [{"id": 0, "file_name": "a.png"}], "categories": [{"id": 1, "name": "a/b"}],
        "annotations": [{"image_id": 0, "category_id": 1}]}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("ids.txt", "0\n99\n", "names 1 samples that 'set' has not: sample 99"),
        ("ids.txt", "0\ncat\n", "holds 'cat' where a sample id belongs"),
        ("ids.txt", "", "holds no samples"),
        ("ids.npy", "no array", "cannot be read as sample ids"),
        ("kept.py", "import os; os.abort()", "is no recipe that winnow export wrote"),
        ("kept.py", 'CLASSES = _read("AAAA")\nKEPT = _read("""\nAAAA\n""")\n', "is damaged"),
        ("issues.csv", "is_label_issue\nTrue\n", "has no column sample_id or source"),
        ("issues.csv", "sample_id,is_label_issue\n0,maybe\n", "row 0: is_label_issue is 'maybe'; allowed: True, False"),
        ("issues.csv", "sample_id,is_label_issue,label,given_label\n0,False,horse,cow\n", "unknown class 'horse'"),
        ("a.parquet", "no parquet", "cannot be read as Parquet"),
        ("croissant.json", "{}", "does not describe one Parquet file beside it"),
        ("croissant.json", '{"distribution": [{"contentUrl": "../x.parquet"}]}', "does not describe one Parquet file"),
        ("croissant.json", '{"distribution": [{"contentUrl": "x.parquet"}]}', "x.parquet cannot be read"),
        ("coco.json", json.dumps(COCO), "names 1 samples that 'set' has not: image 0 .a.png."),
        ("coco.json", json.dumps(COCO | {"images": []}), "annotation 0: image_id 0 is that of no image"),
        ("coco.json", json.dumps(COCO | {"images": [{"id": []}]}), "no whole number as its id"),
        ("coco.json", json.dumps(COCO | {"categories": [1]}), "is no COCO file"),
        ("coco.json", json.dumps(COCO | {"categories": [{"id": 1, "name": "\ud800"}]}), "cannot be read as JSON"),
        ("coco.json", '{"images": 1, "annotations": [' + "[" * 99_999, "cannot be read as JSON"),
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_one_line_and_decides_nothing(
    workspace: Workspace, tmp_path: Path, name: str, content: str, said: str
) -> None:
    before = len(fetch_batches(workspace, "set"))
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=said) as error:
        bring_back(workspace, "set", tmp_path / name)
    assert "\n" not in str(error.value)
    if name.endswith(".json") and "has not" not in said:
        with pytest.raises(SourceError, match=said) as error:
            open_source(str(tmp_path / name), 0)
        assert "\n" not in str(error.value)
    assert len(fetch_batches(workspace, "set")) == before


def test_another_datasets_export_or_one_that_was_changed_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    other = Workspace.open(tmp_path / "other", create=True)
    ingest(other, IngestSpec("digits", "digits", limit=100))
    for format in FORMATS:
        if format in ("cleanlab", "labelstudio"):  # no run; and what comes back is another file
            continue
        path = tmp_path / f"digits-{format}{WRITERS[format].ending}"
        export_set(other, "digits", Choice(), path, find_writer(format), thumbnails=True)
        with pytest.raises(SourceError, match="samples that 'set' has not|unknown class '.'") as error:
            bring_back(workspace, "set", path, format)
        assert "\n" not in str(error.value) and len(str(error.value)) < 1_000
    for format in ("npy", "txt", "torch"):
        path = write(workspace, tmp_path, format)
        path.write_bytes(path.read_bytes().replace(b"8", b"9") + b"\n")
        with pytest.raises(SourceError, match="is not the file that out.* describes: it was changed since"):
            bring_back(workspace, "set", path, format)
        manifest = path.with_name(f"{path.name}.{MANIFEST}")
        manifest.write_text("{")
        with pytest.raises(SourceError, match="cannot be read as JSON"):
            bring_back(workspace, "set", path, format)
        manifest.unlink()
    (tmp_path / "out.txt").write_text("0\n")  # a list of one's own
    path = write(workspace, tmp_path, "croissant")
    (path / "samples.parquet").write_bytes(b"")
    for read in (lambda: bring_back(workspace, "set", path), lambda: open_source(str(path), 0)):
        with pytest.raises(SourceError, match="is not the file that croissant.json describes"):
            read()
    with pytest.raises(SpecError, match="unknown format 'hf'.*winnow ingest reads it as a dataset"):
        bring_back(workspace, "set", path, "hf")
    with pytest.raises(SpecError, match="unknown rest 'keep'; allowed: drop, leave"):
        bring_back(workspace, "set", path, rest="keep")


def test_an_issue_that_is_open_drops_its_sample(workspace: Workspace, tmp_path: Path) -> None:
    """As cleanlab writes it, without the column of labels to train on."""
    shutil.copytree(workspace.root.with_name("untouched"), tmp_path / "target")
    target = Workspace.open(tmp_path / "target")
    (tmp_path / "issues.csv").write_text(
        "sample_id,is_label_issue,label_score,given_label,predicted_label\n0,True,0.1,a/b,7\n1,False,0.9,7,7\n"
    )
    done = bring_back(target, "set", tmp_path / "issues.csv")
    assert (done.counts, done.unchanged) == ({"drop": 1}, 1) and 0 not in stands(target).index


def test_coco_of_others_is_a_dataset(workspace: Workspace, tmp_path: Path) -> None:
    """With boxes, an image that nobody labeled, ids of its own, and no split."""
    for i in range(6):
        Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
    content = {
        "images": [{"id": 10 * i, "file_name": f"{i}.png", "width": 8, "height": 8} for i in range(6)],
        "categories": [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}, {"id": 8, "name": "emu"}],
        "annotations": [{"id": i, "image_id": 10 * i, "category_id": 90 if i % 2 else 7, "bbox": [0, 0, 4, 4]} for i in range(5)],
    }  # fmt: skip
    content["annotations"].append({"id": 9, "image_id": 0, "category_id": 7})
    (tmp_path / "coco.json").write_text(json.dumps(content))
    found = open_source(str(tmp_path / "coco.json"), 0)
    assert found.classes == ("cat", "emu", "dog")
    assert found.train.labels.tolist() == [0, 2, 0, 2, 0]
    assert found.train.ignored == (("5.png", "an image without an annotation"),)
    assert [Path(place).name for place in found.train.places] == [f"{i}.png" for i in range(5)]
    content["annotations"].append({"id": 10, "image_id": 0, "category_id": 8})
    (tmp_path / "coco.json").write_text(json.dumps(content))
    with pytest.raises(
        SourceError, match="annotation 6: image 0 has a second category; allowed: one category an image"
    ):
        open_source(str(tmp_path / "coco.json"), 0)
