"""What the columns of a table mean: which is the label, the true label, the split, and which are kept as metadata.

The tables are CSV and Parquet files, those that `winnow export` writes among them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from typing import Any

import numpy as np

from engine.data.parts import TEST_NAMES, Labels
from engine.errors import SourceError, SpecError, unknown_name
from engine.store.tables import PROPERTIES

ROLES = ("path", "label", "true_label", "split")
PATH_COLUMNS = ("path", "file_name", "filename", "source")
"""What the column of paths may be called: `source` is what an export calls it."""

MOST_COLUMNS = 200
MOST_CHARACTERS = 10_000
"""Of a value that is kept as metadata."""
_MOST_NAME = 200

OF_A_RUN = ("p_wrong", "flagged", "suspicion_rank", "given_label", "given_class", "decision")
TAKEN = ("sample_id", "split", "label", "true_label", "class_name", "source", "true_class_name", *OF_A_RUN)
"""The columns of an export that are no metadata; a column of a source that is called so, or as what is measured of an
image (PROPERTIES), is kept as column_NAME."""

_UNKNOWN = {"", "-1", "?", "nan", "na", "n/a", "<na>", "null", "none"}
"""How an unknown true label is written, where no class is called so."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Wanted:
    """What --columns and --metadata say. roles: the column that has a role; metadata: those to keep, None = all."""

    roles: Mapping[str, str] = field(default_factory=dict)
    metadata: tuple[str, ...] | None = None


def parse_wanted(columns: str | None, metadata: str) -> Wanted:
    """Read --columns (`label=breed,split=fold`) and --metadata (all, none, or names separated by commas).

    Raises: SpecError for another form, an unknown role, or a role or a column that is named twice
    """
    roles: dict[str, str] = {}
    for part in columns.split(",") if columns is not None else ():
        role, equals, column = (word.strip() for word in part.partition("="))
        if not equals or not column:
            raise SpecError(f"--columns has '{part.strip()[:200]}'; write ROLE=COLUMN, as in label=breed,split=fold")
        if role not in ROLES:
            raise SpecError(unknown_name("role", role, ROLES, "--columns"))
        if role in roles or column in roles.values():
            raise SpecError(
                f"--columns names '{(role if role in roles else column)[:200]}' twice; allowed: each role once"
            )
        roles[role] = column
    if metadata in ("all", "none"):
        return Wanted(roles, None if metadata == "all" else ())
    names = tuple(name.strip() for name in metadata.split(","))
    if not all(names):
        raise SpecError(f"--metadata is '{metadata[:200]}'; write all, none, or names of columns separated by commas")
    return Wanted(roles, names)


@dataclass(frozen=True)
class Chosen:
    """The columns of one table. roles: role -> column, for those that are there; metadata: column -> name as it is kept;
    names: those that may hold the names behind numbers in the label and the true label."""

    roles: Mapping[str, str]
    metadata: Mapping[str, str]
    names: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """All that must be read."""
        return [*dict.fromkeys([*self.roles.values(), *self.metadata, *self.names])]


def choose_columns(
    where: str,
    header: Sequence[str],
    wanted: Wanted,
    defaults: Mapping[str, str],
    plain: Callable[[str], bool] = lambda column: True,
) -> Chosen:
    """Which columns of a table are read, and as what.

    Args:    where: the file, for messages; header: its columns; defaults: role -> column, found by the caller; plain:
             whether a column can be metadata without being named
    Raises:  SourceError for a column that is not there or there twice, and for too many or too long names
    """
    for column in [*wanted.roles.values(), *(wanted.metadata or ())]:
        if column not in header:
            raise SourceError(f"{where}: {unknown_name('column', column, header)}")
    named = {role: column for role, column in (*defaults.items(), *wanted.roles.items()) if column in header}
    # a column that --columns gives another role has not its usual one as well
    taken = set(wanted.roles.values())
    roles = {role: column for role, column in named.items() if role in wanted.roles or column not in taken}
    exported = "sample_id" in header and roles.get("path") == "source"
    names = tuple(c for c in ("class_name", "true_class_name") if c in header and c not in roles.values())
    left_out = {"sample_id", *names, *OF_A_RUN, *PROPERTIES} if exported else set[str]()
    others = [c for c in dict.fromkeys(header) if c not in roles.values() and c not in left_out]
    others = [c for c in others if (plain(c) if wanted.metadata is None else c in wanted.metadata)]
    if len(others) > MOST_COLUMNS:
        raise SourceError(
            f"{where} has {len(others):,} further columns ({', '.join(others[:3])}, ...); at most {MOST_COLUMNS} are kept "
            "as metadata: name those to keep (--metadata a,b), or keep none (--metadata none)"
        )
    repeated = [column for column in [*roles.values(), *others, *names] if list(header).count(column) > 1]
    if repeated:
        raise SourceError(f"{where} has two columns '{repeated[0]}'; rename one")
    return Chosen(roles, {column: _kept_name(where, column, header) for column in others}, names)


def _kept_name(where: str, column: str, header: Sequence[str]) -> str:
    """The name under which a column is kept: its own, unless an export has another column of that name."""
    if len(column) > _MOST_NAME:
        raise SourceError(
            f"{where} has a column with a name of {len(column):,} characters, '{column[:20]}...'; allowed: {_MOST_NAME} "
            "(--metadata names those to keep)"
        )
    name = re.sub(r"[\x00-\x1f\x7f]+", " ", column).strip()
    if not name:  # pandas writes its index so
        return f"column_{list(header).index(column) + 1}"
    return f"column_{name}" if name.lower() in TAKEN or name in PROPERTIES else name


def metadata_texts(where: str, columns: Mapping[str, Sequence[Any]], chosen: Chosen) -> dict[str, list[str | None]]:
    """The values of the metadata as text, by the name that is kept; None where there is none.

    Raises: SourceError for a value that is too long
    """
    kept = {}
    for column, name in chosen.metadata.items():
        texts = [as_text(value) for value in columns[column]]
        for row, text in enumerate(texts):
            if text is not None and len(text) > MOST_CHARACTERS:
                raise SourceError(
                    f"{where}, row {row}, column '{column}' has {len(text):,} characters; allowed as metadata: "
                    f"{MOST_CHARACTERS:,} (--metadata names the columns to keep)"
                )
        if any(text is not None for text in texts):
            kept[name] = texts
    return kept


def as_text(value: Any) -> str | None:
    """A value as metadata holds it: numbers so that they are read back as they were; None for a missing one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (date, time)):
        return value.isoformat()
    text = repr(value) if isinstance(value, float) else str(value)
    return text.replace("\0", "") or None


def as_number(text: str | None) -> float | None:
    """The finite number that a text is, true and false as 1 and 0; None for any other text."""
    if text is None:
        return None
    if _NUMBER.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else None
    return {"true": 1.0, "false": 0.0}.get(text.lower())


def named_classes(labels: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """The name behind each number, of labels (N,) that are numbers and the names beside them; {} unless it is one to one."""
    found = {label: name for label, name in zip(labels, names, strict=True) if name}
    one_to_one = len(set(found.values())) == len(found) == len(set(labels))
    consistent = all(found.get(label) == name for label, name in zip(labels, names, strict=True))
    numbers = all(label.isdecimal() and len(label) < 10 for label in found)
    return dict(sorted(found.items(), key=lambda item: int(item[0]))) if one_to_one and consistent and numbers else {}


def true_indices(values: Sequence[str], classes: Sequence[str], numbers: Mapping[str, int], where: str) -> Labels:
    """The true labels (N,) int64 behind texts, -1 where unknown.

    A value is the name of a class; where all that are known are whole numbers and not all are names, a number.
    numbers: the class that each number means
    Raises: SourceError naming the row (from 0) of the first value that is no class
    """
    found = np.full(len(values), -1, np.int64)
    index: Mapping[str, int] = {name: i for i, name in enumerate(classes)}
    texts = [re.sub(r"^(\d+)\.0$", r"\1", value) for value in values]  # pandas writes whole numbers with gaps so
    known = [i for i, text in enumerate(texts) if text in index or text.lower() not in _UNKNOWN]
    given = {texts[i] for i in known}
    if all(text.isdecimal() for text in given) and not given <= index.keys():
        index = numbers
    for i in known:
        if texts[i] not in index:
            shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise SourceError(
                f"{where}, row {i}: the true label '{texts[i][:50]}' is none of the classes ({shown}); leave it empty "
                "where it is unknown"
            )
        found[i] = index[texts[i]]
    return found


def is_test(split: str, where: str, row: int) -> bool:
    """Whether a value of the split column means the test part; SourceError for one that means nothing."""
    name = split.strip().lower()
    if name not in ("train", "training", *TEST_NAMES, "testing"):
        raise SourceError(f"{where}, row {row}: split is '{split[:50]}'; allowed: train, {', '.join(TEST_NAMES)}")
    return name not in ("train", "training")
