"""COCO JSON of images with one category each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.data.columns import Chosen
from engine.data.exported import read_json
from engine.data.parts import Source
from engine.data.sources.kinds import Named, source
from engine.data.sources.parquet import class_names
from engine.data.sources.tables import read_table, table_of_paths
from engine.errors import SourceError


@dataclass(frozen=True)
class Coco:
    """What a COCO file says. classes: in the order of their ids; ids, paths, labels, splits: of every image that has a
    category, "" where an image names no split; without: the images that have none."""

    classes: tuple[str, ...]
    ids: Sequence[int]
    paths: Sequence[str]
    labels: Sequence[int]
    splits: Sequence[str]
    without: Sequence[str]


@source("COCO JSON", matches=lambda named: named.is_file(".json"), suffixes=(".json",))
def coco(named: Named) -> Source:
    """A COCO file of images, categories and annotations, of which all of an image have one category.

    Files are relative to it, or absolute; boxes and masks are not read, and images without an annotation are listed as
    ignored. A split of an image (train, test or val), as winnow export writes it, decides what is for testing.
    """
    path = named.path
    found = read_coco(path)
    columns: dict[str, Sequence[Any]] = {"path": found.paths, "label": found.labels}
    if any(found.splits):
        columns["split"] = [split or "train" for split in found.splits]
    chosen = Chosen({role: role for role in columns}, {}, ())
    table = table_of_paths(str(path), path.parent, columns, chosen, named.within)
    made = read_table(replace(table, classes=found.classes))
    ignored = tuple((place, "an image without an annotation") for place in found.without)
    return replace(made, train=replace(made.train, ignored=ignored))


def read_coco(path: Path) -> Coco:
    """The images of a COCO file and the category of each; SourceError for anything else."""
    content = read_json(path)
    images, categories, annotations = (_rows(path, content, name) for name in ("images", "categories", "annotations"))
    if not all(_is_id(one.get("id")) for one in (*images, *categories)):
        raise SourceError(f"{path}: an image or a category has no whole number as its id")
    ordered = sorted(categories, key=lambda one: one["id"])
    classes = class_names(str(path), [one.get("name") for one in ordered])
    numbers = {one["id"]: label for label, one in enumerate(ordered)}
    known = {one["id"] for one in images}
    if len(known) < len(images) or len(numbers) < len(categories):
        raise SourceError(f"{path}: two images or two categories have one id")
    labels: dict[int, int] = {}
    for place, one in enumerate(annotations):
        image, category = one.get("image_id"), one.get("category_id")
        if not isinstance(image, int) or image not in known:
            raise SourceError(f"{path}, annotation {place}: image_id {str(image)[:50]} is that of no image")
        if not isinstance(category, int) or category not in numbers:
            raise SourceError(f"{path}, annotation {place}: category_id {str(category)[:50]} is that of no category")
        if labels.setdefault(image, numbers[category]) != numbers[category]:
            raise SourceError(
                f"{path}, annotation {place}: image {image} has a second category; allowed: one category an image"
            )
    rows = [one for one in images if one["id"] in labels]
    for one in images:
        if not isinstance(one.get("file_name"), str) or not isinstance(one.get("split", ""), str):
            raise SourceError(f"{path}: image {one['id']} has no text as its file_name, or none as its split")
    return Coco(
        classes,
        [one["id"] for one in rows],
        [one["file_name"] for one in rows],
        [labels[one["id"]] for one in rows],
        [one.get("split", "") for one in rows],
        [one["file_name"] for one in images if one["id"] not in labels],
    )


def _rows(path: Path, content: Any, name: str) -> list[dict[str, Any]]:
    rows = content.get(name) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SourceError(f"{path} is no COCO file; allowed: JSON with lists called images, categories and annotations")
    return rows


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
