"""Sources in Parquet files of the Hugging Face layout."""

from __future__ import annotations

import glob
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from engine.data.images import open_image
from engine.data.parts import TEST_NAMES, Part, Source, label_indices, name_classes, rename_labels
from engine.data.sources.kinds import Named, source
from engine.errors import SourceError

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")
_SPLIT = re.compile(rf"(train|{'|'.join(TEST_NAMES)})(?![a-z])", re.IGNORECASE)


def _find(named: Named) -> list[Path]:
    """The Parquet files of a folder, a glob or a single file; a pattern may match anything else, too."""
    path = named.path
    if path.is_dir():
        files = [*path.glob("*.parquet"), *path.glob("*/*.parquet")]
        return sorted(p for p in files if not p.name.startswith("."))
    if path.exists():
        return [path] if named.is_file(".parquet") else []
    return [Path(p) for p in sorted(glob.glob(str(path), recursive=True))] if glob.has_magic(named.text) else []


@source(
    "Parquet (a file, a glob or a folder)",
    matches=lambda named: bool(_find(named)),
    priority=20,
    suffixes=(".parquet",),
)
def parquet(named: Named) -> Source:
    """Parquet files with an image column (a struct of bytes and path, or bytes) and a label column.

    Files whose name (or folder) starts with train, test or val are those splits, and others beside them are
    left out; if none is called so, all are training samples. Class names come from the `huggingface` schema
    metadata, else from the labels.
    """
    paths, splits = _find(named), dict[str, list[Path]]()
    if any(path.suffix.lower() != ".parquet" for path in paths):
        raise SourceError(
            f"{named.text} matches {len(paths)} files; allowed: a pattern that matches Parquet files only"
        )
    for path in paths:
        match = _SPLIT.match(path.name) or _SPLIT.fullmatch(path.parent.name)
        splits.setdefault(match[1].lower() if match else "", []).append(path)
    if len(splits) == 1:
        (alone,) = splits.values()
        classes, train = _read_files(alone)
        return Source(classes, train)
    if "train" not in splits:
        raise SourceError(f"no file of {', '.join(p.name for p in paths[:5])} starts with train; name the files apart")
    classes, train = _read_files(splits["train"])
    for name in TEST_NAMES:
        if name in splits:
            test_classes, test = _read_files(splits[name])
            return Source(classes, train, rename_labels(test, test_classes, classes, str(splits[name][0])))
    return Source(classes, train)


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file; SourceError when it is none or damaged."""
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def read_column(file: pq.ParquetFile, path: Path, column: str) -> list[Any]:
    """The values of one column; SourceError when the data are damaged."""
    try:
        values: list[Any] = file.read(columns=[column]).column(column).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path}, column '{column}' is damaged: {str(error).splitlines()[0]}") from error
    return values


def _read_files(paths: Sequence[Path]) -> tuple[tuple[str, ...], Part]:
    files = [open_parquet(path) for path in paths]
    features = _features(files[0])
    names = files[0].schema_arrow.names
    image_column = _find_column(paths[0], names, "image", IMAGE_COLUMNS, features)
    label_column = _find_column(paths[0], names, "label", LABEL_COLUMNS, features)
    given = features.get(label_column, {}).get("names")
    values: list[str] = []
    places: list[str] = []
    for file, path in zip(files, paths, strict=True):
        missing = [c for c in (image_column, label_column) if c not in file.schema_arrow.names]
        if missing:
            raise SourceError(
                f"{path} has no column '{missing[0]}'; its columns are: {', '.join(file.schema_arrow.names)}"
            )
        for row, value in enumerate(read_column(file, path, label_column)):
            if value is None or value == -1:
                raise SourceError(f"{path}, row {row}: no label ({value}); leave this split out or label it")
            if isinstance(value, int) and given:
                if not 0 <= value < len(given):
                    raise SourceError(f"{path}, row {row}: label {value}; the file names classes 0 to {len(given) - 1}")
                value = given[value]
            elif not isinstance(value, int | str):
                raise SourceError(f"{path}, row {row}: column '{label_column}' is neither a whole number nor text")
            values.append(str(value))
            places.append(f"{path.name}:{row}")
    classes = tuple(given) if given else name_classes(values)
    images = _RowGroups(files, paths, image_column)
    return classes, Part(label_indices(values, classes, str(paths[0])), places, images.load)


def _features(file: pq.ParquetFile) -> dict[str, dict[str, Any]]:
    """The `huggingface` schema metadata: per column `_type` and, of a ClassLabel, `names`."""
    try:
        text = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
        features = json.loads(text).get("info", {}).get("features", {})
    except (ValueError, AttributeError):
        return {}
    return {k: v for k, v in features.items() if isinstance(v, dict)} if isinstance(features, dict) else {}


def _find_column(
    path: Path, names: Sequence[str], kind: str, known: Sequence[str], features: dict[str, dict[str, Any]]
) -> str:
    found = [name for name in known if name in names]
    wanted = {"image": "Image", "label": "ClassLabel"}[kind]
    declared = [name for name in names if features.get(name, {}).get("_type") == wanted]
    if found:
        return found[0]
    if len(declared) == 1:
        return declared[0]
    raise SourceError(
        f"{path} has no {kind} column; allowed: {', '.join(known)} or one that the schema metadata calls {wanted}; "
        f"its columns are: {', '.join(names)}"
    )


class _RowGroups:
    """Images by row over several files, with the few row groups last read kept; safe from several threads."""

    KEPT = 3

    def __init__(self, files: Sequence[pq.ParquetFile], paths: Sequence[Path], column: str) -> None:
        self._files, self._paths, self._column = files, paths, column
        self._groups = [(f, g) for f, file in enumerate(files) for g in range(file.num_row_groups)]
        rows = [files[f].metadata.row_group(g).num_rows for f, g in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(rows)])
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, row: int) -> Image.Image:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        value = self._read(group)[row - int(self._starts[group])].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(data, bytes):
            return open_image(data)
        if isinstance(value, dict) and isinstance(value.get("path"), str):
            return open_image(self._paths[self._groups[group][0]].parent / value["path"])
        raise ValueError(f"column '{self._column}' holds no image bytes here")

    def _read(self, group: int) -> Any:
        with self._lock:
            if group not in self._kept:
                file, index = self._groups[group]
                try:
                    table = self._files[file].read_row_group(index, columns=[self._column])
                except pa.ArrowException as error:
                    raise ValueError(f"row group {index} of the file is damaged") from error
                self._kept[group] = table.column(0)
                if len(self._kept) > self.KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            return self._kept[group]
