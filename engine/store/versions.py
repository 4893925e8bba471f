"""Named versions of the curated set, kept beside the decisions: a recipe, and the set that it gave. Append-only.

A version is held whole - which training samples stay, with which label and why, and the content of every image - so that
it outlives its runs, later decisions, and its dataset being ingested again: it follows its images, as decisions do.

Table `versions` has a row for each that was created or removed, the latest of a name counts: samples, how many training
samples the dataset had then; labels, zlib of their int32 labels, -1 = dropped; reasons, zlib of a byte each, why
(engine/queries/recipes.py); classes, their names as a JSON list, because another ingest may number them otherwise. Table
`version_images` has the content (engine/store/contents.py) of every training sample, 16 bytes each by id, once for each
dataset that was ingested.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from engine.errors import NotFoundError, SpecError, StorageError, unknown_name
from engine.store.decision_file import MOST_AUTHOR, MOST_NOTE, check_text, next_number, read, write
from engine.store.schema import VERSIONS_COLUMNS
from engine.store.workspace import Workspace

Labels = np.ndarray[tuple[int], np.dtype[np.int32]]
Reasons = np.ndarray[tuple[int], np.dtype[np.uint8]]

DROPPED = -1
"""In place of a label: the sample is not in the set."""

MOST_SAMPLES = 1 << 27
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MOST_SHRUNK = 1_100  # times that zlib makes anything smaller at most


@dataclass(frozen=True)
class Recipe:
    """What gives a version its samples: all training samples of a dataset, less what is dropped.

    The first rule that applies to a sample decides: each condition of `drop` in order; then a suggestion of the run whose
    confidence is at least `relabel_above` gives its label; then what is on the run's shortlist is dropped. A person's
    decision comes before every rule.

    dataset, fingerprint: the data. run: whose scores, shortlist and suggestions, "" where there was none; suggests: the
    relabeling whose suggestions count in place of that run's, "" where none does; runs: all runs that the rules read.
    decisions: the batch of the log up to which they count, 0 = there was none yet, None = they are passed over. unsure: what
    becomes of samples that a person was unsure of: keep, drop, or "" = what the rules say.
    """

    dataset: str
    fingerprint: str
    run: str = ""
    suggests: str = ""
    runs: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    relabel_above: float | None = None
    drop_shortlist: bool = False
    decisions: int | None = None
    unsure: str = ""
    split: str = "train"

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Version:
    """One version as it is stored, without its samples.

    entry: its number in the file; hash: SHA-256 of its set (see `set_hash`); facts: its numbers
    """

    entry: int
    dataset: str
    name: str
    author: str
    note: str
    created_at: datetime
    fingerprint: str
    recipe: Recipe
    facts: Mapping[str, Any]
    classes: tuple[str, ...]
    hash: str
    samples: int


def set_hash(sample_ids: Labels, labels: Labels) -> str:
    """The SHA-256 of a set: its sample ids, ascending, then their labels, as little-endian 32-bit numbers."""
    found = hashlib.sha256(sample_ids.astype("<i4").tobytes())
    found.update(labels.astype("<i4").tobytes())
    return found.hexdigest()


def kept_set(labels: Labels) -> tuple[Labels, Labels]:
    """The sample ids that stay, ascending, and their labels, of a label per training sample."""
    ids = np.flatnonzero(labels != DROPPED).astype(np.int32)
    return ids, labels[ids]


def check_name(name: str) -> None:
    """SpecError for what no version can be called."""
    if not _NAME.fullmatch(name):
        raise SpecError(
            f"a version cannot be called '{name[:80]}'; allowed: 1 to 64 letters, digits, '_', '.' and '-', a letter or digit "
            "first"
        )


def add_version(
    workspace: Workspace,
    recipe: Recipe,
    name: str,
    labels: Labels,
    reasons: Reasons,
    *,
    contents: bytes,
    facts: Mapping[str, Any],
    classes: tuple[str, ...],
    author: str = "",
    note: str = "",
) -> Version:
    """Store a version, whole or not at all.

    Args:   labels: of every training sample, DROPPED of those that do not stay; contents: 16 bytes of each
    Raises: SpecError when the dataset has a version of that name: of two people at once, the second
    """
    check_name(name)
    check_text("note", note, MOST_NOTE)
    check_text("author", author, MOST_AUTHOR)
    found = set_hash(*kept_set(labels))
    now = datetime.now(UTC).replace(tzinfo=None)
    packed = zlib.compress(labels.astype("<i4").tobytes(), 6), zlib.compress(reasons.astype("u1").tobytes(), 6)

    def append(connection: duckdb.DuckDBPyConnection) -> Version:
        _require_free(_listed(connection, recipe.dataset), recipe.dataset, name)
        known = connection.execute("SELECT 1 FROM version_images WHERE fingerprint = ?", [recipe.fingerprint])
        if not known.fetchone():
            connection.execute("INSERT INTO version_images VALUES (?, ?)", [recipe.fingerprint, contents])
        number = _append(
            connection,
            dataset=recipe.dataset,
            name=name,
            action="create",
            author=author,
            note=note,
            created_at=now,
            fingerprint=recipe.fingerprint,
            recipe=recipe.to_json(),
            facts=json.dumps(facts),
            classes=json.dumps(classes),
            hash=found,
            samples=len(labels),
            labels=packed[0],
            reasons=packed[1],
        )
        return Version(
            number, recipe.dataset, name, author, note, now, recipe.fingerprint, recipe, facts, classes, found, len(labels)
        )  # fmt: skip

    return write(workspace, append)


def remove_version(workspace: Workspace, dataset: str, name: str, author: str = "") -> None:
    """Take a version out of the list: a row that says so is appended, and its name is free again.

    Raises: NotFoundError when there is none of that name
    """

    def append(connection: duckdb.DuckDBPyConnection) -> None:
        _require(_listed(connection, dataset), dataset, name)
        now = datetime.now(UTC).replace(tzinfo=None)
        _append(connection, dataset=dataset, name=name, action="remove", author=author, note="", created_at=now)

    write(workspace, append)


def stored_versions(workspace: Workspace, dataset: str) -> list[Version]:
    """The versions of a dataset, the oldest first."""
    return read(workspace, lambda connection, tables: _listed(connection, dataset, tables["versions"])) or []


def version_rows(workspace: Workspace, dataset: str) -> pd.DataFrame:
    """The rows of the view `versions`."""
    rows = [
        {
            "name": found.name,
            "dataset": found.dataset,
            "created_at": found.created_at,
            "author": found.author,
            "note": found.note,
            "samples": found.samples,
            "dropped": found.samples - found.facts["kept"],
            **{key: int(found.facts[key]) for key in ("kept", "relabeled", "unsure")},
            **{key: found.facts[key] for key in ("noise_before", "noise_left")},
            "run_id": found.recipe.run,
            "fingerprint": found.fingerprint,
            "hash": found.hash,
            "recipe": found.recipe.to_json(),
        }
        for found in stored_versions(workspace, dataset)
    ]
    return pd.DataFrame(rows, columns=[*VERSIONS_COLUMNS], dtype=object)  # as they are: NULL where one is None


def require_free_name(workspace: Workspace, dataset: str, name: str) -> None:
    """SpecError when no version can be called so, or the dataset has one of that name."""
    check_name(name)
    _require_free(stored_versions(workspace, dataset), dataset, name)


def stored_version(workspace: Workspace, dataset: str, name: str) -> Version:
    """One version; NotFoundError, with the nearest name, when there is none."""
    return _require(stored_versions(workspace, dataset), dataset, name)


def load_version(workspace: Workspace, version: Version) -> tuple[Labels, Reasons]:
    """What a version makes of every training sample: its label, DROPPED where it does not stay, and why.

    Raises: StorageError when what is stored is not what was stored
    """
    row = _fetch(workspace, "versions", "labels, reasons", "entry", version.entry)
    n = version.samples
    try:
        labels = np.frombuffer(_unpacked(row[0], 4 * n), "<i4").astype(np.int32)
        reasons = np.frombuffer(_unpacked(row[1], n), np.uint8)
    except (zlib.error, ValueError, TypeError, IndexError) as error:
        raise StorageError(_damaged(version)) from error
    if set_hash(*kept_set(labels)) != version.hash:
        raise StorageError(_damaged(version))
    return labels, reasons


def load_contents(workspace: Workspace, version: Version) -> bytes:
    """The content of every training sample that its dataset had then, 16 bytes each by id."""
    row = _fetch(workspace, "version_images", "contents", "fingerprint", version.fingerprint)
    if not row or not isinstance(row[0], bytes) or len(row[0]) != 16 * version.samples:
        raise StorageError(_damaged(version))
    return row[0]


def _damaged(version: Version) -> str:
    return (
        f"version '{version.name}' of dataset '{version.dataset}' is damaged; winnow version remove {version.dataset} "
        f"{version.name}, and make it again"
    )


def _unpacked(blob: bytes, size: int) -> bytes:
    """What zlib made small, when it is of that size; ValueError otherwise."""
    if not 0 <= size <= _MOST_SHRUNK * len(blob):
        raise ValueError("not of its size")
    unpacker = zlib.decompressobj()
    found = unpacker.decompress(blob, size + 1)
    if len(found) != size:
        raise ValueError("not of its size")
    return found


# The tables ---------------------------------------------------------------------------------------------------


def _append(connection: duckdb.DuckDBPyConnection, **row: Any) -> int:
    row = {"entry": next_number(connection), **row}
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO versions ({names}) VALUES ({marks})", [*row.values()])
    return int(row["entry"])


def _listed(connection: duckdb.DuckDBPyConnection, dataset: str, table: str = "versions") -> list[Version]:
    """The versions that stand. What no version writes is passed over: the file may be somebody else's."""
    rows = connection.execute(
        "SELECT entry, dataset, name, author, note, created_at, fingerprint, recipe, facts, classes, hash, samples FROM "
        f"(FROM {table} WHERE dataset = ? QUALIFY row_number() OVER (PARTITION BY name ORDER BY entry DESC) = 1) "
        "WHERE action = 'create' ORDER BY entry",
        [dataset],
    ).fetchall()
    return [version for row in rows if (version := _version(row))]


def _version(row: tuple[Any, ...]) -> Version | None:
    number, dataset, name, author, note, created_at, fingerprint, recipe, facts, classes, found, samples = row
    try:
        read_recipe, held, names = json.loads(recipe), json.loads(facts), tuple(map(str, json.loads(classes)))
        made = _recipe(read_recipe)
        correct = (
            _NAME.fullmatch(name)
            and made.dataset == dataset
            and isinstance(created_at, datetime)  # a year that Python does not know is given as text
            and 0 <= samples <= MOST_SAMPLES
            and all(_is_count(held[key]) for key in _COUNTS)
            and all(_is_count(held.get(key, 0)) for key in _COUNTS_OF_TRUTH)
            and all(_is_count(count) for key in _LISTS for count in held[key])
            and all(held[key] is None or 0 <= held[key] <= 1 for key in ("noise_before", "noise_left"))
            and len(held["dropped_by_condition"]) == len(made.drop)
            and len(held["before"]) == len(held["after"]) <= len(names)
        )
    except (TypeError, ValueError, KeyError, RecursionError):
        return None
    if not correct:
        return None
    author, note, fingerprint = (str(text or "") for text in (author, note, fingerprint))
    return Version(
        number, dataset, name, author, note, created_at, fingerprint, made, held, names, str(found), samples
    )  # fmt: skip


_COUNTS = (
    *("samples", "kept", "dropped_by_shortlist", "dropped_by_person", "relabeled", "relabeled_by_suggestion"),
    *("relabeled_by_person", "kept_by_person", "unsure", "decisions", "judged"),
)
_COUNTS_OF_TRUTH = ("known", "known_kept", "wrong_before", "wrong_left")
_LISTS = ("dropped_by_condition", "before", "after")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= MOST_SAMPLES


def _recipe(read_recipe: dict[str, Any]) -> Recipe:
    """A recipe as it was stored; TypeError, ValueError or KeyError when it is none."""
    given = {field.name: read_recipe[field.name] for field in fields(Recipe) if field.name in read_recipe}
    given |= {key: tuple(map(str, given.get(key, ()))) for key in ("runs", "drop")}
    made = Recipe(**given)
    texts = (made.dataset, made.fingerprint, made.run, made.suggests, made.unsure, made.split)
    if not all(isinstance(text, str) for text in texts) or not isinstance(made.decisions, int | None):
        raise TypeError("no recipe")
    if made.relabel_above is not None:
        float(made.relabel_above)
    return made


def _require(found: list[Version], dataset: str, name: str) -> Version:
    for version in found:
        if version.name == name:
            return version
    hint = f"winnow version list {dataset} lists them" if found else f"winnow version create {dataset} NAME makes one"
    raise NotFoundError(unknown_name("version", name, [version.name for version in found], hint))


def _require_free(found: list[Version], dataset: str, name: str) -> None:
    if name in (version.name for version in found):
        raise SpecError(
            f"dataset '{dataset}' has a version '{name}' already; choose another name, or winnow version remove {dataset} {name}"
        )


def _fetch(workspace: Workspace, table: str, columns: str, key: str, value: object) -> tuple[Any, ...]:
    def fetch(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, str]) -> tuple[Any, ...]:
        sql = f"SELECT {columns} FROM {tables[table]} WHERE {key} = ? LIMIT 1"
        return connection.execute(sql, [value]).fetchone() or ()

    return read(workspace, fetch) or ()
