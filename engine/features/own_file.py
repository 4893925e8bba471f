"""A file of features that a person computed with any network: its rows, put in the order of a dataset's samples."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.sources.files import listed
from engine.data.sources.kinds import expanded
from engine.data.sources.parquet_files import BIG, MOST_TIMES, leaves_of, open_parquet, read_group
from engine.errors import SourceError

SUFFIXES = (".npy", ".npz", ".safetensors", ".parquet")
FEATURE_NAMES = ("features", "embeddings", "embedding", "X")
"""What the table (N, D) may be called where a file holds several; else it is the only one of floating-point numbers."""
ID_NAMES = ("sample_id", "id", "ids")
PATH_NAMES = ("path", "paths", "source", "file", "filename")

Rows = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Table:
    """What a file holds. rows: (N, D); ids: sample ids or None; paths: or None."""

    rows: np.ndarray[Any, Any]
    ids: np.ndarray[Any, Any] | None = None
    paths: Sequence[str] | None = None


def is_own_file(text: str) -> bool:
    """Whether --features is written like a file of features."""
    return text.lower().endswith(SUFFIXES) and not text.startswith("torchvision:")


def own_file(text: str) -> Path:
    """The file that --features names; SourceError when it is not there."""
    path = Path(expanded(text))
    if not path.is_file():
        raise SourceError(f"there is no {path} (--features); give a file of features: {', '.join(SUFFIXES)}")
    return path


def read_rows(path: Path, places: Sequence[str], train: int, columns: Sequence[str] = ()) -> Rows:
    """The features of a dataset's samples, in the order of their ids.

    Rows are matched by a column of paths, else by a column of sample ids; a file without either has them in order. A
    file may leave out the test samples.

    Args:    places: of each sample, its file or another name, as in the view samples; train: how many are training samples,
             which come first
             columns: what the columns of a CSV or Parquet file may be called, in the order that is wanted
    Returns: (N, D) or (train, D) float32
    Raises:  SourceError for what is no table of finite numbers, or lacks samples
    """
    table = _read(path, columns)
    rows = _checked(path, table.rows)
    if table.paths is not None:
        return rows[_places(path, table.paths, places, train)]
    if table.ids is not None:
        return rows[_ids(path, table.ids, len(places), train)]
    if len(rows) not in (len(places), train):
        allowed = (
            f"{len(places):,}, the training samples and then the test samples, or {train:,}, the training samples alone"
        )
        raise SourceError(
            f"{path} has {len(rows):,} rows; allowed: "
            + (f"{train:,}, one for each sample" if train == len(places) else allowed)
            + ". Or add a column path or sample_id"
        )
    return rows


def _checked(path: Path, rows: np.ndarray[Any, Any]) -> Rows:
    if rows.ndim != 2 or not rows.shape[1] or rows.dtype.kind not in "fiu":
        raise SourceError(
            f"{path} holds {rows.dtype} numbers of shape {rows.shape}; allowed: one row of numbers for each sample, "
            "(N, D) with D at least 1"
        )
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is named below
        found = np.ascontiguousarray(rows, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(found).all(1))
    if len(bad):
        raise SourceError(
            f"{path}, row {bad[0]}: a number that is not finite, in {len(bad):,} of {len(found):,} rows; mend them"
        )
    return found


def _places(path: Path, given: Sequence[str], places: Sequence[str], train: int) -> list[int]:
    by_name: dict[str, int] = {}
    for i, name in enumerate(given):
        for form in (name, os.path.abspath(path.parent / expanded(name))):
            if by_name.setdefault(form, i) != i and form == name:
                raise SourceError(f"{path}, row {i}: {name} is there a second time; keep one row for each sample")
    found = [by_name.get(place, by_name.get(os.path.abspath(place), -1)) for place in places]
    return _complete(path, found, places, train, f"its paths are like {given[0]}" if len(given) else "it has no rows")


def _ids(path: Path, given: np.ndarray[Any, Any], count: int, train: int) -> list[int]:
    if given.dtype.kind not in "iu":
        raise SourceError(f"{path}: the sample ids are {given.dtype}; allowed: whole numbers, 0 to {count - 1}")
    by_id = {int(sample): i for i, sample in enumerate(given)}
    if len(by_id) != len(given):
        raise SourceError(f"{path}: a sample id is there a second time; keep one row for each sample")
    names = [f"sample {i}" for i in range(count)]
    return _complete(path, [by_id.get(i, -1) for i in range(count)], names, train, f"allowed: ids 0 to {count - 1}")


def _complete(path: Path, found: list[int], names: Sequence[str], train: int, hint: str) -> list[int]:
    """The rows of all samples, or of the training samples where no test sample has one."""
    if max(found[train:], default=-1) < 0:
        found = found[:train]
    missing = [i for i, row in enumerate(found) if row < 0]
    if missing:
        raise SourceError(
            f"{path} has no row for {len(missing):,} of {len(names):,} samples, such as {names[missing[0]]}; {hint}"
        )
    return found


# Reading -------------------------------------------------------------------------------------------------------------


def _read(path: Path, columns: Sequence[str] = ()) -> Table:
    read = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors}
    try:
        if path.suffix.lower() in (".parquet", ".csv"):
            return _from_table(path, _read_table(path), columns)
        return read[path.suffix.lower()](path)
    except SourceError:
        raise
    except MemoryError as error:
        raise SourceError(f"{path} does not fit in memory") from error
    except Exception as error:  # of a library, about a file that may hold anything
        text = (str(error).splitlines() or [""])[0][:120]
        if "pickle" in text:
            text = "it holds pickled objects, which could run code; save plain numbers"
        raise SourceError(f"{path} cannot be read as features: {text or type(error).__name__}") from error


def _read_npy(path: Path) -> Table:
    return Table(np.load(path, allow_pickle=False))


def _read_npz(path: Path) -> Table:
    with zipfile.ZipFile(path) as archive:
        for one in archive.infolist():
            if one.file_size > max(BIG, MOST_TIMES * one.compress_size):
                raise SourceError(f"{path}: {one.filename[:100]} unpacks to more than {MOST_TIMES} times its size")
    with open(path, "rb") as binary, np.load(binary, allow_pickle=False) as file:
        # of a member that is no array, NumPy gives the bytes
        return _from_arrays(path, {name: np.asarray(file[name]) for name in file.files})


def _read_safetensors(path: Path) -> Table:
    from safetensors.torch import load_file

    # by torch, because numpy has no bfloat16
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in load_file(path).items()}
    return _from_arrays(path, {name: value.numpy() for name, value in tensors.items()})


def _from_arrays(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> Table:
    tables = [name for name, values in arrays.items() if values.ndim == 2 and values.dtype.kind == "f"]
    named = [name for name in FEATURE_NAMES if name in arrays] or tables
    if not named or (len(named) > 1 and named[0] not in FEATURE_NAMES):
        raise SourceError(
            f"{path} holds {listed([f'{name} {values.shape}' for name, values in arrays.items()]) or 'nothing'}; "
            f"allowed: one table (N, D) of numbers, called {', '.join(FEATURE_NAMES)} where there are several"
        )
    rows = arrays[named[0]]
    ids = next((arrays[name] for name in ID_NAMES if name in arrays), None)
    paths = next((arrays[name] for name in PATH_NAMES if name in arrays), None)
    for column in (ids, paths):
        if column is not None and column.shape != rows.shape[:1]:
            raise SourceError(f"{path}: {rows.shape[0]:,} rows, but {column.shape} paths or ids; one for each row")
    return Table(rows, ids, None if paths is None else [str(name) for name in paths])


def _read_table(path: Path) -> Any:
    """A Parquet file, or a CSV file with or without a line of names; whole numbers as floating-point ones."""
    import pyarrow as pa
    import pyarrow.csv as pc

    if path.suffix.lower() == ".parquet":
        try:
            file = open_parquet(path)
        except SourceError as error:
            raise ValueError(str(error).removeprefix(f"{path} ")) from error
        names = file.schema_arrow.names
        leaves = leaves_of(file, names)
        groups = [read_group(file, group, names, leaves) for group in range(file.num_row_groups)]
        return pa.concat_tables(groups) if groups else file.schema_arrow.empty_table()
    with open(path, encoding="utf-8-sig") as file:
        first = file.readline().strip().split(",")
    # A line of numbers may be names too: of classes that are called 0, 1, 2, or pandas' names of columns without any.
    numbered = len(first) > 2 and sorted(first) == sorted(map(str, range(len(first))))
    named = numbered or not all(_is_number(cell) for cell in first)
    table = pc.read_csv(path, pc.ReadOptions(autogenerate_column_names=not named))
    for i, field in enumerate(table.schema):
        if pa.types.is_integer(field.type) and field.name not in ID_NAMES:
            table = table.set_column(i, field.name, table.column(i).cast(pa.float64()))
    return table


def _is_numeric(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _from_table(path: Path, table: Any, columns: Sequence[str]) -> Table:
    import pyarrow as pa
    from pyarrow import compute

    kinds = {field.name: field.type for field in table.schema}
    is_list = {
        name: pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        for name, kind in kinds.items()
    }
    lists = [name for name in FEATURE_NAMES if is_list.get(name)] or [name for name in kinds if is_list[name]]
    numbers = [name for name, kind in kinds.items() if pa.types.is_floating(kind)]
    if columns and all(name in kinds and _is_numeric(kinds[name]) for name in columns):
        numbers = list(columns)
    if len(lists) == 1 or (lists and lists[0] in FEATURE_NAMES):
        column = table.column(lists[0]).combine_chunks()
        if column.null_count:
            raise SourceError(f"{path}: column {lists[0]} is empty in {column.null_count:,} rows; fill or drop them")
        widths = set(compute.list_value_length(column).to_pylist()) or {0}
        if len(widths) > 1:
            raise SourceError(f"{path}: column {lists[0]} has rows of {min(widths)} and of {max(widths)} numbers")
        rows = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), widths.pop())
    elif numbers and not lists:
        rows = np.stack([table.column(name).to_numpy() for name in numbers], 1)
    else:
        raise SourceError(
            f"{path} has the columns {listed(list(kinds))}; allowed: one column of lists of numbers, or a column of "
            "floating-point numbers for each feature"
        )
    ids = next((table.column(name).to_numpy() for name in ID_NAMES if name in kinds), None)
    paths = next((table.column(name).to_pylist() for name in PATH_NAMES if name in kinds), None)
    if paths is not None and any(not isinstance(name, str) for name in paths):
        raise SourceError(f"{path}: a path is empty or no text; give each row one")
    return Table(rows, ids, paths)
