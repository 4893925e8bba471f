"""Ways back: what people labeled in another tool becomes decisions, one batch that one undo takes back."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.data.exporting import export_set
from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.data.returning import bring_back
from engine.errors import SourceError, SpecError
from engine.queries.writers import Choice, find_writer
from engine.store.decisions import fetch_batches, fetch_decisions_log, undo
from engine.store.workspace import Workspace

CLASSES = ["=1+1", "<b>", "a/b"]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """`set`: nine images, the class of sample i is i % 3."""
    (tmp_path / "images").mkdir()
    for i in range(9):
        pixels = np.random.default_rng(i).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    with open(tmp_path / "set.csv", "w", newline="") as file:
        rows = [[f"images/{i}.png", CLASSES[i % 3]] for i in range(9)]
        csv.writer(file).writerows([["path", "label"], *rows])
    found = Workspace.open(tmp_path / "workspace", create=True)
    ingest(found, IngestSpec("set", str(tmp_path / "set.csv"), test_fraction=0))
    return found


def export(workspace: Workspace, to: Path, format: str) -> None:
    export_set(workspace, "set", Choice(), to, find_writer(format))


def stands(workspace: Workspace) -> dict[int, tuple[str, int | None]]:
    rows = fetch_decisions_log(workspace, "set")
    return {
        int(row.sample_id): (row.action, int(row.new_label) if row.action == "relabel" else None)
        for row in rows.itertuples()
    }


def given(workspace: Workspace) -> dict[int, str]:
    from engine.queries.connection import connected

    with connected(workspace, "set") as connection:
        return dict(connection.execute("SELECT sample_id, class_name FROM samples").fetchall())


def test_label_studio_gives_back_what_was_annotated(workspace: Workspace, tmp_path: Path) -> None:
    export(workspace, tmp_path / "out", "labelstudio")
    tasks = json.loads((tmp_path / "out" / "tasks-00000.json").read_text())
    classes = given(workspace)
    assert [t["data"]["given_label"] for t in tasks] == list(classes.values())
    order = sorted(CLASSES)

    def answer(task: dict[str, Any], **said: str) -> None:
        result = [
            {"from_name": n, "to_name": "image", "type": "choices", "value": {"choices": [v]}} for n, v in said.items()
        ]
        task["annotations"] = [{"result": result, "was_cancelled": False}]

    answer(tasks[0], label=classes[0])
    answer(tasks[1], label=classes[0])
    answer(tasks[2], decision="drop")
    answer(tasks[3], label=classes[3], decision="unsure")
    tasks[4]["annotations"] = [{"result": [], "was_cancelled": True}]
    tasks[5]["annotations"] = []
    tasks[6]["data"]["sample_id"] = 700  # as if it had been ingested in another order: found by its path
    answer(tasks[6], label=classes[1])
    tasks[7]["data"]["source"] = "/elsewhere/7.png"
    answer(tasks[7], label=classes[0])
    (tmp_path / "back.json").write_text(json.dumps(tasks))
    done = bring_back(workspace, "set", tmp_path / "back.json", author="ann", note="round 1")
    expected = {
        0: ("keep", None),
        1: ("relabel", order.index(classes[0])),
        2: ("drop", None),
        3: ("unsure", None),
        4: ("unsure", None),
        6: ("relabel", order.index(classes[1])),
    }
    assert stands(workspace) == expected
    assert done.counts == {"drop": 1, "keep": 1, "relabel": 2, "unsure": 2}
    assert (done.unmatched, done.unlabeled, done.named) == (1, 2, ("task 7 (/elsewhere/7.png)",))
    log = fetch_batches(workspace, "set").iloc[0]
    assert (log["author"], log["action"], log["n"], log["note"]) == ("ann", "several", 6, "round 1")
    assert undo(workspace, "set") == done.batch and stands(workspace) == {}


def test_a_csv_gives_back_what_was_edited(workspace: Workspace, tmp_path: Path) -> None:
    export(workspace, tmp_path / "out.csv", "csv")
    with open(tmp_path / "out.csv", newline="") as file:
        header, *rows = csv.reader(file)
    at, classes, order = header.index, given(workspace), sorted(CLASSES)
    rows[0][at("class_name")] = "'" + classes[1] if classes[1].startswith("=") else classes[1]
    rows[1][at("label")] = str(order.index(classes[0]))  # the number alone
    rows[2][at("decision")] = "drop"
    del rows[3]
    with open(tmp_path / "back.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    done = bring_back(workspace, "set", tmp_path / "back.csv")
    assert stands(workspace) == {
        0: ("relabel", order.index(classes[1])),
        1: ("relabel", order.index(classes[0])),
        2: ("drop", None),
        **{i: ("keep", None) for i in range(4, 9)},
    }
    assert done.counts == {"drop": 1, "keep": 5, "relabel": 2}
    (tmp_path / "by_hand.csv").write_text("sample_id,label\n8,2\n99,1\n")
    done = bring_back(workspace, "set", tmp_path / "by_hand.csv")
    assert done.unmatched == 1 and stands(workspace)[8] == (
        ("keep", None) if order.index(classes[8]) == 2 else ("relabel", 2)
    )
    rows[0][at("label")], rows[0][at("class_name")] = "2", order[[i for i in range(2) if order[i] != classes[0]][0]]
    rows[0][at("label")] = str(next(i for i in range(3) if order[i] not in (classes[0], rows[0][at("class_name")])))
    rows[0][at("class_name")] = (
        f"'{rows[0][at('class_name')]}" if rows[0][at("class_name")][0] == "=" else rows[0][at("class_name")]
    )
    with open(tmp_path / "back.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    with pytest.raises(SourceError, match="row 0: its label is . and its class_name"):
        bring_back(workspace, "set", tmp_path / "back.csv")


def test_fiftyone_gives_back_its_labels_and_tags(workspace: Workspace, tmp_path: Path) -> None:
    export(workspace, tmp_path / "out", "fiftyone")
    classes, order = given(workspace), sorted(CLASSES)
    assert bring_back(workspace, "set", tmp_path / "out").counts == {"keep": 9}
    labels = {"classes": order, "labels": {"0": order.index(classes[1]), "1": {"label": classes[1]}, "77": classes[0]}}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    done = bring_back(workspace, "set", tmp_path / "labels.json")
    assert done.counts == {"keep": 1, "relabel": 1} and done.unmatched == 1
    assert stands(workspace)[0] == ("relabel", order.index(classes[1]))
    samples = [
        {
            "filepath": "/data/3.png",
            "ground_truth": {"_cls": "Classification", "label": classes[0]},
            "tags": ["rejected"],
        },
        {"filepath": "data\\4.png", "ground_truth": {"label": classes[0]}, "tags": ["train"]},
        {"filepath": "5.png", "ground_truth": None, "tags": []},
    ]
    (tmp_path / "samples.json").write_text(json.dumps({"samples": samples}))
    done = bring_back(workspace, "set", tmp_path / "samples.json")
    assert done.counts == {"drop": 1, "relabel": 1} and done.unlabeled == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "sample_id,label\n1,horse\n", "row 0: unknown class 'horse'"),
        ("a.csv", "name,label\n1,a/b\n", "has no column sample_id, source or path"),
        ("a.csv", "sample_id,name\n1,a/b\n", "has no column label, class_name or decision"),
        ("a.csv", "sample_id,label\n", "holds no samples"),
        ("a.json", "[1, 2]", "holds no list of samples"),
        ("a.json", '{"samples": 1}', "holds no list of samples"),
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "[" * 100_000, "cannot be read as JSON"),
        ("a.json", '[{"data": [1]}]', "task 0: it has no data"),
        ("a.json", '[{"data": {"sample_id": 1}, "annotations": [{"result": [{"value": 1}]}]}]', None),
    ],
)
def test_a_file_that_says_something_else_is_one_line_and_decides_nothing(
    workspace: Workspace, tmp_path: Path, name: str, content: str, said: str | None
) -> None:
    (tmp_path / name).write_text(content)
    if said is None:
        assert bring_back(workspace, "set", tmp_path / name).batch is None
    else:
        with pytest.raises(SourceError, match=said) as error:
            bring_back(workspace, "set", tmp_path / name)
        assert "\n" not in str(error.value)
    assert stands(workspace) == {}
    with pytest.raises(SpecError, match="unknown format 'voc'"):
        bring_back(workspace, "set", tmp_path / name, "voc")
    with pytest.raises(SourceError):
        bring_back(workspace, "set", tmp_path / "missing.json")
