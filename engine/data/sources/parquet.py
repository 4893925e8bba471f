"""Sources in Parquet files of the Hugging Face layout."""

from __future__ import annotations

import glob
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from engine.data.columns import choose_columns
from engine.data.images import open_image
from engine.data.parts import TEST_NAMES, Source, check_classes, joined, rename_labels
from engine.data.sources.files import column_defaults, listed
from engine.data.sources.kinds import Named, Rows, source
from engine.data.sources.parquet_files import is_plain, leaves_of, open_parquet, read_column, read_group
from engine.data.sources.patterns import matching
from engine.data.sources.tables import Table, read_table, table_of_paths
from engine.errors import SourceError
from engine.store.trust import Roots

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
    return matching(path) if glob.has_magic(named.text) else []


@source(
    "Parquet (a file, a glob or a folder)",
    matches=lambda named: bool(_find(named)),
    priority=20,
    suffixes=(".parquet",),
    files=_find,
    rows=lambda text: _open_rows(Path(text)),
)
def parquet(named: Named) -> Source:
    """Parquet files with an image column (a struct of bytes and path, or bytes), or one of paths, and a label column.

    Files whose name (or folder) starts with train, test or val are those splits, and others beside them are
    left out; if none is called so, all are training samples, unless a column split says otherwise. Class names come
    from the `huggingface` schema metadata, else from the labels. Columns are as those of a CSV.
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
        return _read_files(alone, named, splits_by_column=True)
    if "train" not in splits:
        raise SourceError(f"no file of {', '.join(p.name for p in paths[:5])} starts with train; name the files apart")
    train = _read_files(splits["train"], named)
    others = [(str(path), "not of a split") for path in splits.get("", [])]
    train_part = replace(train.train, ignored=tuple(others))
    tests = {}
    for name in (name for name in TEST_NAMES if name in splits):
        found = _read_files(splits[name], named)
        tests[name] = rename_labels(found.train, found.classes, train.classes, str(splits[name][0]))
    if not tests:
        return Source(train.classes, train_part)
    if len(tests) == 1:
        (test,) = tests.values()
        return Source(train.classes, train_part, test)
    counted = " and ".join(f"{name} ({len(part):,} images)" for name, part in tests.items())
    marked = [
        replace(part, metadata={**part.metadata, "source_split": [name] * len(part)})
        for name, part in (("train", train_part), *tests.items())
    ]
    return Source(train.classes, marked[0], joined(marked[1:]), notes=(f"{counted} are the test part",))


def _read_files(paths: Sequence[Path], named: Named, splits_by_column: bool = False) -> Source:
    """Files of the same columns as one table: without a column split unless splits_by_column."""
    wanted = named.wanted
    files = [open_parquet(path) for path in paths]
    schema = files[0].schema_arrow
    where, header = str(paths[0]), list(schema.names)
    plain = {name: is_plain(kind) for name, kind in zip(header, schema.types, strict=True)}
    features = _features(files[0])
    defaults = column_defaults(header)
    image = _find_column(where, header, "image", IMAGE_COLUMNS, features)
    if given_path := wanted.roles.get("path"):  # a column of paths, or else of images
        is_image = given_path in header and not plain[given_path]
        image = given_path if is_image else None
    elif image is not None:
        defaults["path"] = image
    if label := _find_column(where, header, "label", LABEL_COLUMNS, features):
        defaults["label"] = label
    if not splits_by_column:
        del defaults["split"]
    chosen = choose_columns(where, header, wanted, defaults, lambda column: plain[column])
    for role, allowed, kind in (("path", IMAGE_COLUMNS, "Image"), ("label", LABEL_COLUMNS, "ClassLabel")):
        if role not in chosen.roles:
            raise SourceError(
                f"{where} has no {kind.lower().replace('class', '')} column; allowed: {', '.join(allowed)} or one that the "
                f"schema metadata calls {kind}; its columns are: {listed(header)}"
            )
    images_inside = chosen.roles["path"] == image
    for role in ("label", "true_label", "split"):
        if role in chosen.roles and not plain[chosen.roles[role]]:
            kind = schema.field(header.index(chosen.roles[role])).type
            raise SourceError(
                f"{where}: column '{chosen.roles[role]}' is {str(kind)[:100]}; allowed as {role}: whole numbers or texts"
            )
    columns: dict[str, list[Any]] = {name: [] for name in chosen.columns if not images_inside or name != image}
    places: list[str] = []
    for file, path in zip(files, paths, strict=True):
        names = file.schema_arrow.names
        for name in chosen.columns:
            if name not in names:
                raise SourceError(f"{path} has no column '{name}'; its columns are: {listed(names)}")
        for name, values in columns.items():
            values += read_column(file, path, name)
        places += [f"{path}:{row}" for row in range(file.metadata.num_rows)]
    given = class_names(where, features.get(chosen.roles["label"], {}).get("names"))
    if not images_inside:
        table = table_of_paths(where, paths[0].parent, columns, chosen, named.within)
        return read_table(replace(table, classes=given))
    load = _RowGroups(files, paths, chosen.roles["path"], named.within).load
    return read_table(Table(where, columns, chosen, places, load, given))


def class_names(where: str, found: Any) -> tuple[str, ...]:
    """The names of classes that a file lists, () when there are none; SourceError when they are no names."""
    if found is None or found == []:
        return ()
    if not isinstance(found, list) or not all(isinstance(name, str) and name for name in found):
        raise SourceError(f"{where}: the names of its classes are not texts: {str(found)[:50]}; write it again")
    if len(set(found)) < len(found):
        raise SourceError(f"{where} has two classes of the same name; rename one")
    try:
        "".join(found).encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"{where}: the name of a class is not valid Unicode; write it again") from error
    check_classes(found, where)
    return tuple(found)


def _features(file: pq.ParquetFile) -> dict[str, dict[str, Any]]:
    """The `huggingface` schema metadata: per column `_type` and, of a ClassLabel, `names`."""
    try:
        text = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
        features = json.loads(text).get("info", {}).get("features", {})
    except (ValueError, AttributeError, RecursionError):
        return {}
    return {k: v for k, v in features.items() if isinstance(v, dict)} if isinstance(features, dict) else {}


def _open_rows(path: Path) -> Rows | None:
    """Opens the images of a Parquet file, when it is one."""
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return None
    file = open_parquet(path)
    image = _find_column(str(path), file.schema_arrow.names, "image", IMAGE_COLUMNS, _features(file))
    return None if image is None else _RowGroups([file], [path], image, Roots((path.parent,))).load


def _find_column(
    where: str, names: Sequence[str], kind: str, known: Sequence[str], features: dict[str, dict[str, Any]]
) -> str | None:
    """The column of a kind by its name, else by the schema metadata; None when there is none or there are several."""
    found = [name for name in known if name in names]
    wanted = {"image": "Image", "label": "ClassLabel"}[kind]
    declared = [name for name in names if features.get(name, {}).get("_type") == wanted]
    if found:
        return found[0]
    return declared[0] if len(declared) == 1 else None


class _RowGroups:
    """Images by row over several files, with the few row groups last read kept; safe from several threads."""

    KEPT = 3

    def __init__(self, files: Sequence[pq.ParquetFile], paths: Sequence[Path], column: str, within: Roots) -> None:
        self._files, self._paths, self._column, self._within = files, paths, column, within
        self._groups = [(f, g) for f, file in enumerate(files) for g in range(file.num_row_groups)]
        rows = [files[f].metadata.row_group(g).num_rows for f, g in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(rows)])
        self._wanted = [_image_columns(file.schema_arrow, column) for file in files]
        self._leaves = [leaves_of(file, wanted) for file, wanted in zip(files, self._wanted, strict=True)]
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, row: int) -> Image.Image:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        value = self._read(group)[row - int(self._starts[group])].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(data, bytes):
            return open_image(data)
        if isinstance(value, dict) and isinstance(value.get("path"), str):
            return open_image(self._within.require(self._paths[self._groups[group][0]].parent / value["path"]))
        raise self._no_image()

    def _no_image(self) -> ValueError:
        return ValueError(f"column '{self._column}' holds no image bytes here")

    def _read(self, group: int) -> Any:
        with self._lock:
            if group not in self._kept:
                file, index = self._groups[group]
                if not self._wanted[file]:
                    raise self._no_image()
                table = read_group(self._files[file], index, self._wanted[file], self._leaves[file])
                self._kept[group] = table.column(0)
                if len(self._kept) > self.KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            return self._kept[group]


def _image_columns(schema: pa.Schema, column: str) -> list[str]:
    """What is read of a column of images: itself, or the bytes and path of a struct; nothing where it can hold none."""
    found = [kind for name, kind in zip(schema.names, schema.types, strict=True) if name == column]
    if len(found) != 1:
        return []
    if not pa.types.is_struct(found[0]):
        return [] if pa.types.is_nested(found[0]) else [column]
    fields = [found[0].field(i) for i in range(found[0].num_fields)]
    return [
        f"{column}.{one.name}" for one in fields if one.name in ("bytes", "path") and not pa.types.is_nested(one.type)
    ]
