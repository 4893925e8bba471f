"""Sources made of files: a CSV of paths, MNIST's IDX files."""

from __future__ import annotations

import contextlib
import csv
import gzip
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image

from engine.data.columns import PATH_COLUMNS, choose_columns
from engine.data.parts import Labels, Part, Source
from engine.data.sources.kinds import Named, Rows, source
from engine.data.sources.tables import read_table, table_of_paths
from engine.errors import SourceError
from engine.text import from_csv_text

# A CSV of paths -------------------------------------------------------------------------------------------


@source("a CSV with path,label", matches=lambda named: named.is_file(".csv"), priority=10, suffixes=(".csv",))
def csv_of_paths(named: Named) -> Source:
    """A CSV with the columns path and label, and if wanted true_label and split (train, test or val); others are metadata.

    Paths are absolute or relative to the CSV, and lie below its folder or --originals. An export of winnow is such a CSV.
    """
    path = named.path
    header = read_header(path)
    chosen = choose_columns(str(path), header, named.wanted, column_defaults(header))
    for role in ("path", "label"):
        if role not in chosen.roles:
            raise SourceError(
                f"{path} has no column '{role}'; its columns are: {listed(header)} (--columns {role}=NAME names it)"
            )
    return read_table(table_of_paths(str(path), path.parent, read_csv(path, chosen.columns), chosen, named.within))


def column_defaults(header: Sequence[str]) -> dict[str, str]:
    """The columns that have a role without an option that names them."""
    found = {role: role for role in ("label", "true_label", "split")}
    return {"path": next((name for name in PATH_COLUMNS if name in header), "path"), **found}


def listed(names: Sequence[str]) -> str:
    """The first of some names, for a message."""
    return ", ".join(name[:50] for name in names[:20]) + (", ..." if len(names) > 20 else "")


def read_header(path: Path) -> list[str]:
    """The names of the columns of a CSV, as often as they are there."""
    with _rows(path) as rows:
        return [from_csv_text(name) for name in next(rows, [])]


def read_csv(path: Path, wanted: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Columns of a CSV with a header, as text; None = all.

    Fields are separated by commas, semicolons or tabs, and the text is UTF-8 or UTF-16. What an export has put before text
    that a spreadsheet would compute is taken away (engine/text.py).
    Raises: SourceError naming the row (from 0) that has another length
    """
    with _rows(path) as rows:
        header = [from_csv_text(name) for name in next(rows, [])]
        names = header if wanted is None else wanted
        places = [header.index(name) for name in names]
        columns: list[list[str]] = [[] for _ in places]
        for number, row in enumerate(row for row in rows if row):
            if len(row) != len(header):
                raise SourceError(f"{path}, row {number}: {len(row)} fields; the header has {len(header)}")
            for column, place in zip(columns, places, strict=True):
                column.append(from_csv_text(row[place]))
    return dict(zip(names, columns, strict=True))


@contextlib.contextmanager
def _rows(path: Path) -> Iterator[Iterator[list[str]]]:
    """The rows of a CSV; every way in which it cannot be read is a SourceError."""
    try:
        with open(path, "rb") as binary:
            wide = binary.read(2) in (b"\xff\xfe", b"\xfe\xff")
        encoding = "utf-16" if wide else "utf-8-sig"
        with open(path, newline="", encoding=encoding) as file:
            delimiter = _delimiter(next(_lines(file), ""))
        with open(path, newline="", encoding=encoding) as file:
            yield csv.reader(_lines(file), delimiter=delimiter)
    except UnicodeError as error:
        raise SourceError(f"{path} cannot be read as CSV: it is not UTF-8 text; save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read as CSV: {error}") from error


_MOST_LINE = 1 << 24
"""Characters of one line of a CSV."""


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of a file, as itself gives them; csv.Error at one without an end, which would be read into memory whole."""
    while line := file.readline(_MOST_LINE):
        if len(line) == _MOST_LINE:
            raise csv.Error(f"a line has more than {_MOST_LINE:,} characters")
        yield line


def _delimiter(line: str) -> str:
    """What separates the fields of a header: what makes a column `label` or the most of them."""
    fields = {mark: [name.strip() for name in next(csv.reader([line], delimiter=mark), [])] for mark in ",;\t"}
    return max(fields, key=lambda mark: ("label" in fields[mark], len(fields[mark])))


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
    files=lambda named: list(_idx_files(named.path).values()) if named.path.is_dir() else [],
    rows=lambda text: _idx_rows(Path(text)),
)
def idx_folder(named: Named) -> Source:
    """A folder of MNIST-like IDX files, gzipped or not."""
    root, files = named.path, _idx_files(named.path)
    for key in (("train", "images"), ("train", "labels")):
        if key not in files:
            raise SourceError(f"{root} has no IDX file of the training {key[1]}; it has {_names(files)}")
    train_images, train_labels = _read_pair(files, "train")
    classes = tuple(str(c) for c in range(int(train_labels.max(initial=0)) + 1))
    train = _idx_part(train_images, train_labels, files["train", "images"])
    if ("test", "images") not in files:
        return Source(classes, train)
    if ("test", "labels") not in files:
        raise SourceError(f"{root} has IDX test images but no test labels; it has {_names(files)}")
    test_images, test_labels = _read_pair(files, "test")
    if test_labels.max(initial=0) >= len(classes):
        raise SourceError(
            f"{files['test', 'labels']} has label {test_labels.max()}; the training labels end at {len(classes) - 1}"
        )
    return Source(classes, train, _idx_part(test_images, test_labels, files["test", "images"]))


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


def _idx_part(images: np.ndarray[Any, Any], labels: Labels, path: Path) -> Part:
    return Part(labels, [f"{path}:{i}" for i in range(len(labels))], lambda i: Image.fromarray(images[i]))


def _idx_rows(path: Path) -> Rows | None:
    """Opens the images of an IDX file, when it is one."""
    if not _IDX_FILE.search(path.name) or not path.is_file():
        return None
    images = _read_idx(path, 3)
    return lambda i: Image.fromarray(images[i])


_MOST_TIMES = 100
"""How many times larger than its file a gzipped IDX file may be: MNIST's are 5 times."""


def _read_idx(path: Path, dims: int) -> np.ndarray[Any, Any]:
    """An IDX file of unsigned bytes: 0, 0, 8, dims, then each size as a big-endian int32, then the values."""
    start = 4 + 4 * dims
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            header = file.read(start)
            if len(header) < start or header[:4] != bytes([0, 0, 8, dims]):
                file.read(1 << 16)  # a file that was cut short says so
                raise SourceError(
                    f"{path} is not an IDX file of unsigned bytes with {dims} dimension{'s' * (dims > 1)}"
                )
            sizes = [int(s) for s in np.frombuffer(header[4:], ">u4")]
            wanted = math.prod(sizes)
            if not wanted:
                raise SourceError(f"{path} says that it is {' x '.join(str(s) for s in sizes)}, so it holds nothing")
            if wanted > _MOST_TIMES * max(path.stat().st_size, 4096):
                raise SourceError(
                    f"{path} unpacks to more than {_MOST_TIMES} times its size; allowed: an IDX file of images"
                )
            data = file.read(wanted + 1)  # and no more, whatever follows
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} is damaged or truncated: {error}") from error
    if len(data) != wanted:
        found = len(data) if len(data) < wanted else "more"
        raise SourceError(f"{path} is truncated or damaged: its header says {wanted} bytes, it has {found}")
    return np.frombuffer(data, np.uint8).reshape(sizes)
