"""Sources made of files: a folder per class, a CSV of paths, MNIST's IDX files."""

from __future__ import annotations

import csv
import gzip
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.data.images import SUFFIXES, open_image
from engine.data.parts import TEST_NAMES, Labels, Part, Source, label_indices, name_classes, rename_labels
from engine.data.sources.kinds import Named, source
from engine.errors import SourceError

# A folder per class ---------------------------------------------------------------------------------------


@source("a folder with one sub-folder per class", matches=lambda named: named.path.is_dir())
def class_folders(named: Named) -> Source:
    """A folder with one sub-folder per class, or with train/ and test/ (or val/) that each have them.

    Files are found at any depth, in the order of their names; other files than images are listed as ignored.
    """
    root = named.path
    folders = {p.name: p for p in _folders(root)}
    split_names = {"train", *TEST_NAMES}
    if "train" not in folders or not set(folders) <= split_names or not _folders(folders["train"]):
        classes, train = _read_classes(root)
        return Source(classes, train)
    classes, train = _read_classes(folders["train"])
    for name in TEST_NAMES:
        if name in folders:
            test_classes, test = _read_classes(folders[name])
            return Source(classes, train, rename_labels(test, test_classes, classes, str(folders[name])))
    return Source(classes, train)


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _read_classes(root: Path) -> tuple[tuple[str, ...], Part]:
    folders = _folders(root)
    if not folders:
        raise SourceError(
            f"{root} has no class folders, Parquet or IDX files; allowed: one sub-folder per class with its images, "
            "or train/ and test/ with them"
        )
    paths: list[Path] = []
    labels: list[int] = []
    ignored: list[tuple[str, str]] = []
    for label, folder in enumerate(folders):
        before = len(paths)
        for parent, below, names in os.walk(folder, followlinks=True):
            below[:] = sorted(name for name in below if not name.startswith("."))
            for name in sorted(n for n in names if not n.startswith(".")):
                path = Path(parent, name)
                if path.suffix.lower() in SUFFIXES:
                    paths.append(path)
                    labels.append(label)
                else:
                    ignored.append((str(path), "not an image file"))
        if len(paths) == before:
            raise SourceError(f"class folder {folder} has no images ({' '.join(sorted(SUFFIXES))}); fill or remove it")
    part = Part(np.array(labels, np.int64), [str(p) for p in paths], lambda i: open_image(paths[i]), tuple(ignored))
    return tuple(f.name for f in folders), part


# A CSV of paths -------------------------------------------------------------------------------------------


@source("a CSV with path,label", matches=lambda named: named.is_file(".csv"), priority=10, suffixes=(".csv",))
def csv_of_paths(named: Named) -> Source:
    """A CSV with the columns path (relative to the CSV) and label, and if wanted split (train, test or val)."""
    path = named.path
    rows = read_csv(path)
    for column in ("path", "label"):
        if column not in rows:
            raise SourceError(f"{path} has no column '{column}'; its columns are: {', '.join(rows)}")
    splits = [value.strip().lower() for value in rows.get("split", ["train"] * len(rows["path"]))]
    for row, (split, label) in enumerate(zip(splits, rows["label"], strict=True)):
        if split not in ("train", *TEST_NAMES):
            raise SourceError(f"{path}, row {row}: split is '{split}'; allowed: train, {', '.join(TEST_NAMES)}")
        if not label:
            raise SourceError(f"{path}, row {row}: the label is empty")
    test_name = next((name for name in TEST_NAMES if name in splits), "")
    train, test = ([i for i, s in enumerate(splits) if s == name] for name in ("train", test_name))
    if not train:
        raise SourceError(f"{path} has no training rows; it needs rows, and a split column must say train for some")
    classes = name_classes([rows["label"][i] for i in train])

    def part(which: list[int]) -> Part:
        names = [rows["path"][i] for i in which]
        labels = label_indices([rows["label"][i] for i in which], classes, str(path))
        return Part(labels, [str(path.parent / n) for n in names], lambda i: open_image(path.parent / names[i]))

    return Source(classes, part(train), part(test) if test else None)


def read_csv(path: Path) -> dict[str, list[str]]:
    """The columns of a CSV with a header, as text; SourceError naming the row that has another length."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            rows = [row for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read as CSV: {error}") from error
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise SourceError(f"{path}, row {number}: {len(row)} fields; the header has {len(header)}")
    return {name: [row[i].strip() for row in rows] for i, name in enumerate(header)}


# MNIST's IDX files ----------------------------------------------------------------------------------------

_IDX_FILE = re.compile(r"(train|t10k|test).*(images|labels).*(idx3|idx1)", re.IGNORECASE)


def _idx_files(root: Path) -> dict[tuple[str, str], Path]:
    """The IDX files of a folder or of raw/ below it, at any depth of two: {("train", "images"): path, ...}."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted([*root.glob("*idx*"), *root.glob("raw/*idx*"), *root.glob("*/raw/*idx*")]):
        match = _IDX_FILE.search(path.name)
        if match and path.is_file():
            split = "train" if match[1].lower() == "train" else "test"
            found.setdefault((split, match[2].lower()), path)
    return found


@source(
    "a folder of MNIST IDX files",
    matches=lambda named: named.path.is_dir() and bool(_idx_files(named.path)),
    priority=10,
)
def idx_folder(named: Named) -> Source:
    """A folder of MNIST-like IDX files, gzipped or not."""
    root, files = named.path, _idx_files(named.path)
    for key in (("train", "images"), ("train", "labels")):
        if key not in files:
            raise SourceError(f"{root} has no IDX file of the training {key[1]}; it has {_names(files)}")
    train_images, train_labels = _read_pair(files, "train")
    classes = tuple(str(c) for c in range(int(train_labels.max(initial=0)) + 1))
    train = _idx_part(train_images, train_labels, files["train", "images"].name)
    if ("test", "images") not in files:
        return Source(classes, train)
    if ("test", "labels") not in files:
        raise SourceError(f"{root} has IDX test images but no test labels; it has {_names(files)}")
    test_images, test_labels = _read_pair(files, "test")
    if test_labels.max(initial=0) >= len(classes):
        raise SourceError(
            f"{files['test', 'labels']} has label {test_labels.max()}; the training labels end at {len(classes) - 1}"
        )
    return Source(classes, train, _idx_part(test_images, test_labels, files["test", "images"].name))


def _names(files: dict[tuple[str, str], Path]) -> str:
    return ", ".join(sorted(p.name for p in files.values()))


def _read_pair(files: dict[tuple[str, str], Path], split: str) -> tuple[np.ndarray[Any, Any], Labels]:
    images = _read_idx(files[split, "images"], 3)
    labels = _read_idx(files[split, "labels"], 1)
    if len(images) != len(labels):
        raise SourceError(
            f"{files[split, 'images']} has {len(images)} images, {files[split, 'labels'].name} {len(labels)} labels"
        )
    return images, labels.astype(np.int64)


def _idx_part(images: np.ndarray[Any, Any], labels: Labels, name: str) -> Part:
    return Part(labels, [f"{name}:{i}" for i in range(len(labels))], lambda i: Image.fromarray(images[i]))


def _read_idx(path: Path, dims: int) -> np.ndarray[Any, Any]:
    """An IDX file of unsigned bytes: 0, 0, 8, dims, then each size as a big-endian int32, then the values."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} is damaged or truncated: {error}") from error
    start = 4 + 4 * dims
    if len(data) < start or data[:4] != bytes([0, 0, 8, dims]):
        raise SourceError(f"{path} is not an IDX file of unsigned bytes with {dims} dimension{'s' * (dims > 1)}")
    sizes = [int(s) for s in np.frombuffer(data[4:start], ">u4")]
    wanted = int(np.prod(sizes, dtype=object))
    if len(data) - start != wanted:
        raise SourceError(f"{path} is truncated or damaged: its header says {wanted} bytes, it has {len(data) - start}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(sizes)
