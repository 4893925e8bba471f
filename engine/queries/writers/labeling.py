"""Formats of other tools that look at labels: cleanlab, Label Studio, FiftyOne, COCO."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import pandas as pd

from engine.queries.connection import SUGGESTED, source_run
from engine.queries.writers.pictures import Problems, put, with_pictures
from engine.queries.writers.registry import Folder, folder_writer, require_verdict, writer
from engine.queries.writers.selection import Selection, records
from engine.queries.writers.tables import csv_of

TASKS = 10_000
"""Tasks of one file for Label Studio, which takes a file whole."""

NOT_A_LABEL = ("drop", "unsure")
"""What a person may say in Label Studio in place of a label."""


@writer(
    "cleanlab",
    title="cleanlab issues",
    ending=".csv",
    media_type="text/csv",
    read_by="what reads Datalab.get_issues()",
    back=("import",),
)
def _cleanlab(selection: Selection, file: BinaryIO) -> None:
    """The table of label issues as cleanlab's Datalab.get_issues gives it, with sample_id, source and label, as CSV.

    label is the one to train on. What has another label than the given one, or what a person kept, is no issue any more.
    """
    require_verdict(selection, "cleanlab")
    applied = selection.choice.decisions == "apply"
    for i, block in enumerate(selection.blocks()):
        names = [selection.classes[label] for label in _suggested(selection, block)["label"]]
        settled = block["label"].ne(block["given_label"]) | (applied & block["decision"].isin(["keep", "relabel"]))
        issues = pd.DataFrame(
            {
                "is_label_issue": block["flagged"] & ~settled,
                "label_score": 1 - block["p_wrong"],
                "given_label": block["given_class"],
                "predicted_label": names,
                "sample_id": block["sample_id"],
                "source": block["source"],
                "label": block["class_name"],
            }
        )
        file.write(csv_of(issues, header=i == 0).encode())


@writer(
    "coco",
    title="COCO",
    ending=".json",
    media_type="application/json",
    read_by="what reads COCO annotations",
    back=("ingest", "import"),
)
def _coco(selection: Selection, file: BinaryIO) -> None:
    """Images, categories and a category per image as COCO JSON, without boxes."""
    about = {"description": f"{selection.dataset}, {selection.fingerprint}"}
    categories = [{"id": label, "name": name} for label, name in enumerate(selection.classes)]
    file.write(f'{{"info": {_json(about)}, "categories": {_json(categories)}, "images": '.encode())
    rows = (row for block in selection.blocks() for row in records(block))
    _write_list(file, ({"id": row["sample_id"], "file_name": row["source"], "split": row["split"]} for row in rows))
    file.write(b', "annotations": ')
    rows = (row for block in selection.blocks() for row in records(block))
    annotations = (
        {
            "id": row["sample_id"],
            "image_id": row["sample_id"],
            "category_id": row["label"],
            "given_category_id": row["given_label"],
        }
        for row in rows
    )
    _write_list(file, annotations)
    file.write(b"}\n")


@folder_writer("labelstudio", title="Label Studio", read_by="Label Studio", back=("import",))
def _labelstudio(selection: Selection, folder: Folder) -> None:
    """Tasks with the suggested label as a prediction, in files of 10,000, and config.xml with the classes."""
    (folder.path / "config.xml").write_text(_config(selection.classes), encoding="utf-8")
    tasks = _tasks(selection)
    for number in range(max(1, -(-len(selection) // TASKS))):
        some = (task for _, task in zip(range(min(TASKS, len(selection) - number * TASKS)), tasks, strict=False))
        with open(folder.path / f"tasks-{number:05d}.json", "wb") as file:
            _write_list(file, some)
            file.write(b"\n")


_NOT_IN_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def _config(classes: Iterable[str]) -> str:
    """What the page of Label Studio shows: an image, its classes, and what may be chosen in their place."""
    names = (_NOT_IN_XML.sub("\ufffd", name) for name in classes)
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in names)
    others = "\n".join(f'    <Choice value="{word}"/>' for word in NOT_A_LABEL)
    return (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <Choices name="label" toName="image" choice="single">\n{choices}\n  </Choices>\n'
        f'  <Choices name="decision" toName="image" choice="single">\n{others}\n  </Choices>\n</View>\n'
    )


def _tasks(selection: Selection) -> Iterator[dict[str, Any]]:
    for block in selection.blocks():
        suggested = _suggested(selection, block)
        for row, label, score in zip(records(block), suggested["label"], suggested["confidence"], strict=True):
            place = row["source"] or ""
            result = {
                "from_name": "label",
                "to_name": "image",
                "type": "choices",
                "value": {"choices": [selection.classes[label]]},
            }
            yield {
                "id": row["sample_id"],
                "data": {
                    "image": f"/data/local-files/?d={quote(place.lstrip('/'), errors='replace')}",
                    "sample_id": row["sample_id"],
                    "source": place,
                    "dataset": selection.dataset,
                    "given_label": row["given_class"],
                    "p_wrong": row["p_wrong"],
                },
                "predictions": [{"model_version": selection.run or "given", "score": score, "result": [result]}],
            }


@folder_writer("fiftyone", title="FiftyOne", read_by="FiftyOne", back=("import",), images=True)
def _fiftyone(selection: Selection, folder: Folder) -> None:
    """The images as data/ID and labels.json, a FiftyOneImageClassificationDataset."""
    problems = Problems()
    (folder.path / "data").mkdir()
    with open(folder.path / "labels.json", "wb") as file:
        file.write(f'{{"classes": {_json(list(selection.classes))}, "labels": {{'.encode())
        first = True
        for block, pictures in with_pictures(selection, folder):
            for row, picture in zip(records(block), pictures, strict=True):
                if problems.has(picture, str(row["source"])):
                    continue
                put(picture, folder.path / "data" / f"{picture.sample_id}{picture.suffix}", folder)
                about = {
                    "label": row["class_name"],
                    "attributes": {name: row[name] for name in ("given_class", "split", "p_wrong", "flagged")},
                }
                file.write(f'{"" if first else ","}\n"{picture.sample_id}": {_json(about)}'.encode())
                first = False
        file.write(b"\n}}\n")
    problems.refuse(len(selection), folder)


def _suggested(selection: Selection, block: pd.DataFrame) -> pd.DataFrame:
    """label, confidence for each sample of a block: the suggested label, or where there is none the label to train on."""
    found = selection.values(
        f"SELECT sample_id, {SUGGESTED} AS label, max(confidence) AS confidence FROM suggestions WHERE run_id = $run "
        "AND sample_id BETWEEN $first AND $last GROUP BY sample_id",
        {
            "run": source_run(selection.cursor, "suggestions", selection.run) if selection.run else "",
            "first": int(block["sample_id"].min()) if len(block) else 0,
            "last": int(block["sample_id"].max()) if len(block) else -1,
        },
    ).set_index("sample_id")
    labels = found["label"].reindex(block["sample_id"]).reset_index(drop=True)
    scores = found["confidence"].reindex(block["sample_id"]).reset_index(drop=True)
    return pd.DataFrame(
        {
            "label": labels.fillna(block["label"].reset_index(drop=True)).astype("int64"),
            "confidence": scores.astype(object).where(scores.notna(), None),
        }
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


def _write_list(file: BinaryIO, values: Iterable[object]) -> None:
    """A JSON list, an element a line."""
    file.write(b"[")
    for i, value in enumerate(values):
        file.write(f"{',' if i else ''}\n{_json(value)}".encode())
    file.write(b"\n]")
