"""Opening Parquet files and reading their columns, whatever their footers say: texts once each, and no more than fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.errors import SourceError

MOST_TIMES = 100
"""How many times larger than its file a column may be in memory, above BIG: images and texts shrink to a half or a tenth."""
BIG = 1 << 28
_DICTIONARY = 1 << 30
"""Arrow has no dictionary of more than 2 GB, and a column that is so large holds images, which are all different."""
MOST_ROWS = 1_000_000
"""Rows that any file may have; above, each must take a byte of the file, as it does unless all are alike."""
MOST_LEAVES = 10_000
MOST_TEXT = 1_000_000
"""Bytes of one text."""

_FAILURES = (OSError, pa.ArrowException, ValueError, OverflowError, KeyError, NotImplementedError)
"""What pyarrow raises for damaged data, and for values that Python does not know."""


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file whose texts and bytes are read as dictionaries: a value that is there a million times is kept once.

    Raises: SourceError when it is none, damaged, not a regular file, or says that it holds more than it can
    """
    if not path.is_file():  # a pipe would be waited for
        raise SourceError(f"{path} cannot be read as Parquet: not a regular file")
    try:
        with pq.ParquetFile(path) as file:
            footer = file.metadata
        rows, size = footer.num_rows, path.stat().st_size
        if rows > max(MOST_ROWS, size):
            raise SourceError(f"{path} says that it has {rows:,} rows in {size:,} bytes; write it again")
        if footer.num_columns > MOST_LEAVES:
            raise SourceError(f"{path} has {footer.num_columns:,} columns; allowed: {MOST_LEAVES:,}")
        texts = []
        for i in range(footer.num_columns):
            leaf = footer.schema.column(i)
            if leaf.physical_type == "BYTE_ARRAY" and all(
                footer.row_group(g).column(i).total_uncompressed_size < _DICTIONARY
                for g in range(footer.num_row_groups)
            ):
                texts.append(leaf.path)
        return pq.ParquetFile(path, metadata=footer, read_dictionary=texts)
    except _FAILURES as error:
        raise SourceError(f"{path} cannot be read as Parquet: {_first_line(error)}") from error


def leaves_of(file: pq.ParquetFile, columns: list[str]) -> list[int]:
    """Where the leaves of some columns are in a file; a column may be named with one of its leaves, as `image.bytes`."""
    schema = file.metadata.schema
    paths = [schema.column(i).path for i in range(file.metadata.num_columns)]
    return [i for i, path in enumerate(paths) if any(path == name or path.startswith(f"{name}.") for name in columns)]


def read_group(file: pq.ParquetFile, group: int, columns: list[str], leaves: list[int]) -> pa.Table:
    """Some columns, whose `leaves_of` are given, of one row group.

    Raises: ValueError when the data are damaged, or much larger than the file
    """
    about = file.metadata.row_group(group)
    for chunk in (about.column(i) for i in leaves):
        unpacked = chunk.total_uncompressed_size
        # Of a column of lists, values are not rows, and equal ones take no bytes.
        if max(unpacked, chunk.num_values) > max(BIG, MOST_TIMES * chunk.total_compressed_size):
            raise ValueError(f"row group {group} unpacks to more than {MOST_TIMES} times its size")
    try:
        table = file.read_row_group(group, columns=columns)
        table.validate(full=True)  # that indices are within their dictionary, and texts UTF-8
        return table
    except _FAILURES as error:
        raise ValueError(f"row group {group} of the file is damaged") from error


def read_column(file: pq.ParquetFile, path: Path, column: str) -> list[Any]:
    """The values of one column; SourceError when the data are damaged, too large, or values that Python does not know."""
    values: list[Any] = []
    leaves = leaves_of(file, [column])
    try:
        for group in range(file.num_row_groups):
            for chunk in read_group(file, group, [column], leaves).column(column).chunks:
                values += _values(chunk)
    except _FAILURES as error:
        raise SourceError(f"{path}, column '{column}' is damaged: {_first_line(error)}") from error
    return values


def _values(chunk: pa.Array) -> list[Any]:
    """The values of an array; equal texts are one object."""
    if not pa.types.is_dictionary(chunk.type):
        return list(chunk.to_pylist())
    lengths = pc.binary_length(chunk.dictionary) if _is_bytes(chunk.type.value_type) else pa.array([0])
    longest = pc.max(lengths).as_py() or 0
    if longest > MOST_TEXT:
        raise ValueError(f"a text of {longest:,} bytes; allowed: {MOST_TEXT:,}")
    kept = chunk.dictionary.to_pylist()
    return [None if i is None else kept[i] for i in chunk.indices.to_pylist()]


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    )


def is_plain(kind: pa.DataType) -> bool:
    """Whether a column of this type holds one number, text, date or the like per row, as labels and metadata do."""
    types = pa.types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    is_text = types.is_string(kind) or types.is_large_string(kind)
    is_bytes = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    return is_text or (not types.is_nested(kind) and not is_bytes)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
