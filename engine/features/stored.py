"""Features of a dataset's images, computed once and kept: workspace/features/<key>-<hash of the images>/.

The key is the backbone with all that decides its numbers, or a person's own file. The hash is of the images and of
where they came from; labels play no part, so a relabeled copy of a dataset has its features already. Row by row they are
found again by content: a dataset with images added computes only those.

    features.npy    (N, D) float32, by sample id
    index.npy       (N, 3, 16) uint8: what each sample's stored input, its original and its file are recognized by
    about.json      the backbone, precision, how many were computed, copied, or lacked their originals
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from engine.data.dataset_file import fetch_one, reading
from engine.errors import BusyError, NotFoundError, SpecError, StorageError
from engine.features.backbones import backbone_help, find_backbone, is_backbone
from engine.features.computing import Tasks, compute_rows, join_pieces
from engine.features.own_file import SUFFIXES, is_own_file, own_file, read_rows
from engine.store.atomic import file_hash, remove_path
from engine.store.contents import fetch_contents, images_of
from engine.store.documents import number, read_json
from engine.store.progress import Reporter
from engine.store.verified import checked_file
from engine.store.version import winnow_version
from engine.store.workspace import Workspace

WAIT_SECONDS = 0.5


def features_help() -> str:
    """What --features may be, in one line of help."""
    return f"{backbone_help()}, or a file of features ({', '.join(SUFFIXES)})"


def key_of(workspace: Workspace, dataset: str, source: str, download: bool = False) -> str:
    """The key of the features that --features names: `<name>@<12 hexadecimal digits of all that decides the numbers>`.

    Args:   download: whether weights that are not on this machine may be fetched
    Raises: SpecError for what is neither a backbone nor a file; SourceError when a file is not there
    """
    if is_backbone(source):
        return find_backbone(source, download).key
    if is_own_file(source):
        return f"file@{file_hash(own_file(source))}"
    raise SpecError(f"--features is '{source}'; allowed: {features_help()}")


def absolute(source: str) -> str:
    """What --features names as a run keeps it: a file by its whole path, so that the run goes on from any folder."""
    return str(own_file(source).resolve()) if is_own_file(source) else source


def _query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with reading(path) as connection:
        return connection.execute(f"{sql} ORDER BY sample_id").fetchall()


def is_stored(workspace: Workspace, dataset: str, key: str) -> bool:
    """Whether a dataset's features of that key are there."""
    return _folder(workspace, dataset, key).is_dir()


def _folder(workspace: Workspace, dataset: str, key: str) -> Path:
    if not re.fullmatch(r"[\w.-]+@[0-9a-f]{12}", key):  # a spec's, in which somebody may have written a path
        raise SpecError(f"there are no features of the key {key!r}; remove the run that names them")
    return workspace.features_dir(f"{key}-{images_of(workspace.require_dataset(dataset))}")


def compute_stored(
    workspace: Workspace,
    dataset: str,
    source: str,
    device: torch.device,
    progress: Reporter,
    tasks: Tasks,
    download: bool = False,
) -> list[str]:
    """Compute and keep the features that --features names, of all samples of a dataset, or find them.

    A backbone's are computed from the originals at its own resolution, what is known already of other datasets' images
    copied; a process that was killed goes on with its blocks. Of a file, the rows are copied into the workspace.

    Args:    device: of the network; tasks: where blocks of images are computed, `engine.runs.cluster`
    Returns: `notes_of` them
    Raises:  as `key_of`; SpecError for vectors and a backbone; SourceError for a file that does not fit; Cancelled
    """
    key = key_of(workspace, dataset, source, download)
    name = f"{key}-{images_of(workspace.require_dataset(dataset))}"
    while not workspace.features_dir(name).is_dir():
        progress.heartbeat()
        try:
            with workspace.building_features(name) as (pieces, target):
                started = time.monotonic()
                if is_own_file(source):
                    about = _copy_file(workspace, dataset, own_file(source), target)
                else:
                    about = _compute(workspace, dataset, source, download, device, pieces, target, progress, tasks)
                _write_about(target, {"key": key, "dataset": dataset, "device": str(device), **about}, started)
        except BusyError:  # another run computes just these: they will be there
            time.sleep(WAIT_SECONDS)
    for part in workspace.feature_sets(f"{key}-{images_of(workspace.require_dataset(dataset))}"):
        remove_path(part)
    return notes_of(workspace, dataset, key)


def compute_part(
    workspace: Workspace,
    dataset: str,
    source: str,
    ids: Sequence[int],
    device: torch.device,
    progress: Reporter,
    tasks: Tasks,
    download: bool = False,
) -> Tensor:
    """The features of some samples, ids ascending, (M, D) float32 on the CPU: of the stored ones, or computed now.

    What is computed is kept, as features of a part, until `compute_stored` has copied it: no image is computed twice.

    Raises: as `compute_stored`; StorageError when what is stored is damaged
    """
    key = key_of(workspace, dataset, source, download)
    if is_own_file(source):
        compute_stored(workspace, dataset, source, device, progress, tasks)
    if is_stored(workspace, dataset, key):
        return _read_rows(_folder(workspace, dataset, key), ids)
    which = hashlib.sha256(np.asarray(ids, "<i8").tobytes()).hexdigest()[:8]
    name = f"{key}-{images_of(workspace.require_dataset(dataset))}-{which}"
    while not workspace.features_dir(name).is_dir():
        progress.heartbeat()
        try:
            with workspace.building_features(name) as (pieces, target):
                started = time.monotonic()
                about = _compute(workspace, dataset, source, download, device, pieces, target, progress, tasks, ids)
                _write_about(target, {"key": key, "dataset": dataset, "device": str(device), **about}, started)
        except BusyError:  # another process computes just these: they will be there
            time.sleep(WAIT_SECONDS)
    return _read_rows(workspace.features_dir(name), range(len(ids)))


def _compute(
    workspace: Workspace,
    dataset: str,
    source: str,
    download: bool,
    device: torch.device,
    pieces: Path,
    target: Path,
    progress: Reporter,
    tasks: Tasks,
    ids: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Compute the features of some samples, of all where ids is None. Returns the facts for about.json."""
    path = workspace.require_dataset(dataset)
    contents = [bytes.fromhex(content) for content in fetch_contents(path)]
    backbone = find_backbone(source, download)
    ids = range(len(contents)) if ids is None else [int(i) for i in ids]
    facts = compute_rows(workspace, dataset, backbone, contents, device, pieces, progress, tasks, ids)
    places = [str(place) for (place,) in _query(path, "SELECT source FROM samples")]
    return {**facts, "samples": len(ids), **join_pieces(pieces, target, backbone.side, places, ids)}


def _copy_file(workspace: Workspace, dataset: str, file: Path, target: Path) -> dict[str, Any]:
    rows = _query(workspace.require_dataset(dataset), "SELECT source, split FROM samples")
    train = sum(split == "train" for _, split in rows)
    features = read_rows(file, [str(place) for place, _ in rows], train)
    np.save(target / "features.npy", features)
    return {"file": file.name, "samples": len(features), "width": features.shape[1]}


def _write_about(target: Path, facts: dict[str, Any], started: float) -> None:
    versions = {"winnow": winnow_version(), "torch": torch.__version__}
    about = {**facts, "versions": versions, "seconds": round(time.monotonic() - started, 1)}
    about["created_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    (target / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def read_about(workspace: Workspace, dataset: str, key: str) -> dict[str, Any]:
    """What is known of stored features: key, samples, width, seconds, of a backbone also side, precision, computed,
    copied and stand_ins.

    Raises: NotFoundError when they are not stored
    """
    about = read_json(checked_file(_require(workspace, dataset, key), "about.json"))
    return about if isinstance(about, dict) else {}


def _require(workspace: Workspace, dataset: str, key: str) -> Path:
    folder = _folder(workspace, dataset, key)
    if not folder.is_dir():
        raise NotFoundError(
            f"the features {key} of dataset '{dataset}' are not stored; winnow run {dataset} --features computes them"
        )
    return folder


def notes_of(workspace: Workspace, dataset: str, key: str) -> list[str]:
    """What a reader of a run on stored features should know, a sentence each."""
    about, notes = read_about(workspace, dataset, key), []
    samples = f"{number(about.get('samples')):,.0f}"
    if number(about.get("stand_ins")) and (example := _example(about.get("examples"))):
        notes.append(
            f"the originals of {number(about['stand_ins']):,.0f} of {samples} images are gone or have changed, such as "
            f"{example}; their features come from the small images that the dataset stores"
        )
    if number(about.get("outside")) and (example := _example(about.get("outside_examples"))):
        notes.append(
            f"the originals of {number(about['outside']):,.0f} of {samples} images, such as {example}, lie in no folder that "
            "you ingested from in this workspace; their features come from the small images that the dataset stores. To "
            "read them: remove this run, and run again with --originals FOLDER"
        )
    return notes


def _example(listed: Any) -> str:
    """The first of the examples that a file lists, which somebody else may have written."""
    return str(listed[0]) if isinstance(listed, list) and listed else ""


def forget_stand_ins(workspace: Workspace, dataset: str, key: str) -> None:
    """Remove stored features for which originals were not read that may be read now; a run computes them again."""
    if key and is_stored(workspace, dataset, key) and read_about(workspace, dataset, key).get("outside"):
        remove_path(_folder(workspace, dataset, key))


def load_stored(workspace: Workspace, dataset: str, key: str, split: Literal["train", "test"]) -> Tensor:
    """The stored features (N, D) float32 of a split, in the order of its sample ids, on the CPU: left on the disk.

    Raises: NotFoundError when they are not stored, or the dataset or a person's file has nothing of the split;
            StorageError when they are damaged
    """
    folder = _require(workspace, dataset, key)
    with reading(workspace.require_dataset(dataset)) as connection:
        first, count = fetch_one(
            connection, f"SELECT coalesce(min(sample_id), 0), count(*) FROM samples WHERE split = '{split}'"
        )
    if not count:
        raise NotFoundError(f"dataset '{dataset}' has no {split} samples; ingest it with --test or --test-fraction")
    return _read_rows(folder, range(first, first + count))


def open_stored(workspace: Workspace, dataset: str, key: str) -> Tensor:
    """The stored features (N, D) float32 of all samples, or of the training samples where a file has no others, left on
    the disk.

    Raises: NotFoundError when they are not stored; StorageError when they are damaged
    """
    return _open(_require(workspace, dataset, key))


def _open(folder: Path) -> Tensor:
    """All rows of stored features, mapped from their file: what is read is in memory as long as there is room for it."""
    with _damaged(folder):
        file = checked_file(folder, "features.npy")
        try:
            # Whoever writes into it gets a page of its own. The system grants this for no more than the memory there is.
            stored = np.load(file, mmap_mode="c", allow_pickle=False)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            stored = np.load(file, mmap_mode="r", allow_pickle=False)
        if stored.dtype != np.float32 or stored.ndim != 2:
            raise ValueError(f"{stored.dtype} of shape {stored.shape}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a map that must not be written into
            return torch.from_numpy(stored)


@contextlib.contextmanager
def _damaged(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, IndexError, EOFError, StorageError) as error:
        raise StorageError(f"{folder} is damaged ({error}); remove it and run again") from error


def _read_rows(folder: Path, rows: Sequence[int]) -> Tensor:
    """Some rows, ascending, of stored features: (M, D) float32; those of a range are left on the disk."""
    stored = _open(folder)
    if rows and rows[0] >= len(stored):
        raise NotFoundError(f"the features in {folder} have no rows of these samples; add them to their file")
    with _damaged(folder):
        found = (
            stored[rows.start : rows.stop] if isinstance(rows, range) else stored[torch.tensor(rows, dtype=torch.int64)]
        )
        if len(found) != len(rows):
            raise ValueError(f"{len(found)} rows of {len(rows)} samples")
    return found
