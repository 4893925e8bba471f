"""Formats that are one table, or a list of ids."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

from engine.queries.writers.registry import writer
from engine.queries.writers.selection import Selection
from engine.text import csv_text


@writer("csv", title="CSV", media_type="text/csv", read_by="pandas, spreadsheets", back=("ingest", "import"))
def _csv(selection: Selection, file: BinaryIO) -> None:
    """Every column, as text."""
    for i, block in enumerate(selection.blocks()):
        file.write(csv_of(block, header=i == 0).encode())


@writer("parquet", title="Parquet", read_by="pandas, Polars, DuckDB", back=("ingest", "import"))
def _parquet(selection: Selection, file: BinaryIO) -> None:
    """Every column, typed and compressed."""
    with contextlib.ExitStack() as stack:
        opened: pq.ParquetWriter | None = None
        for block in selection.blocks():
            if opened is None:
                schema = _schema(block)
                about = {**(schema.metadata or {}), b"PANDAS_ATTRS": json.dumps(selection.attrs)}
                opened = stack.enter_context(pq.ParquetWriter(file, schema.with_metadata(about)))
            opened.write_table(pa.Table.from_pandas(block, opened.schema, preserve_index=False).cast(opened.schema))


def _schema(block: pd.DataFrame) -> pa.Schema:
    """The columns of every block. A column of which nothing is known in the first one has its type nonetheless."""
    schema = pa.Schema.from_pandas(block, preserve_index=False)
    for i, name in enumerate(block.columns):
        if pa.types.is_null(schema.field(i).type):
            schema = schema.set(i, pa.field(name, pa.string()))
    return schema


@writer("npy", title="NumPy", read_by="NumPy", back=("import",))
def _npy(selection: Selection, file: BinaryIO) -> None:
    """The sample ids, int64."""
    np.save(file, selection.ids.astype(np.int64), allow_pickle=False)


@writer("txt", title="Ids", media_type="text/plain", read_by="any program", back=("import",))
def _txt(selection: Selection, file: BinaryIO) -> None:
    """The sample ids, one a line."""
    file.write("".join(f"{i}\n" for i in selection.ids.tolist()).encode())


class _Lines(io.StringIO):
    """Takes rows that end as lines of a CSV do, "\\r\\n", and keeps them with "\\n"."""

    def write(self, row: str) -> int:
        return super().write(row.removesuffix("\r\n") + "\n" if row.endswith("\r\n") else row)


def csv_of(frame: pd.DataFrame, header: bool = True) -> str:
    """A table as CSV in which a spreadsheet computes no text: see engine/text.py. Numbers are as they are."""
    written = frame.copy(deep=False)
    names = [csv_text(str(name)) for name in frame.columns]
    written.columns, returns = pd.Index(names), "\r" in "".join(names)
    for place in range(frame.shape[1]):
        column = frame.iloc[:, place]
        if not is_numeric_dtype(column) and not is_datetime64_any_dtype(column):
            if isinstance(column.dtype, pd.StringDtype):  # most hold few texts, each many times
                at, texts = pd.factorize(column)
                safe = [*(csv_text(text) for text in texts), None]
                cells: Any = np.array(safe, object)[at]
            else:
                safe = [csv_text(cell) if isinstance(cell, str) else cell for cell in column]
                cells = pd.array(safe, object)
            written.isetitem(place, cells)
            returns = returns or any("\r" in cell for cell in safe if isinstance(cell, str))
    if not returns:
        return written.to_csv(index=False, header=header, lineterminator="\n")
    lines = _Lines(newline="")  # the writer puts quotes around a carriage return only where lines end with one
    written.to_csv(lines, index=False, header=header, lineterminator="\r\n")
    return lines.getvalue()
