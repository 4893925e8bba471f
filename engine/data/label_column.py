"""The labels of `--labels FILE:COLUMN`: one column of a CSV or Parquet file, in the source's own order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.data.parts import Labels, label_indices
from engine.data.sources.files import read_csv
from engine.data.sources.kinds import expanded
from engine.data.sources.parquet_files import open_parquet, read_column
from engine.errors import SourceError, SpecError, unknown_name


def split_labels(text: str) -> tuple[Path, str]:
    """FILE:COLUMN as (FILE, COLUMN); SpecError when it is written otherwise."""
    file, _, column = text.rpartition(":")
    if not file or not column or Path(file).suffix.lower() not in (".csv", ".parquet"):
        raise SpecError(
            f"--labels is '{text[:200]}'; write FILE:COLUMN with a CSV or Parquet file, as in labels.csv:human"
        )
    return Path(expanded(file)), column


def read_labels(text: str, classes: Sequence[str], count: int) -> Labels:
    """The column as labels (count,) int64.

    A value is the name of a class; where all are whole numbers and not all are names, the number of one, from 0.
    Raises: SourceError for a missing file or column, another length, or a row that names no class.
    """
    path, column = split_labels(text)
    if not path.is_file():
        raise SourceError(f"there is no {path} (--labels); give an existing CSV or Parquet file")
    if path.suffix.lower() == ".csv":
        columns = read_csv(path)
        if column not in columns:
            raise SourceError(f"{path}: {unknown_name('column', column, columns)}")
        values: Sequence[object] = columns[column]
    else:
        file = open_parquet(path)
        if column not in file.schema_arrow.names:
            raise SourceError(f"{path}: {unknown_name('column', column, file.schema_arrow.names)}")
        values = read_column(file, path, column)
    if len(values) != count:
        raise SourceError(
            f"{path}, column '{column}' has {len(values)} labels; the source has {count} training samples, and each "
            "needs one, in the source's order"
        )
    texts = [str(value) for value in values]
    are_numbers = all(text.removeprefix("-").isdecimal() for text in texts) and not set(texts) <= set(classes)
    names = [str(i) for i in range(len(classes))] if are_numbers else classes
    return label_indices(texts, names, f"{path}, column '{column}'")
