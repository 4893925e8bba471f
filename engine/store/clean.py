"""What a workspace holds that nothing reads any more, and removing it. No torch.

Whatever a process may be at is looked at again, and removed, under the lock that the process holds; what is locked is left.
What has no lock is removed a week after it was written last. A link is never followed, and what Winnow did not write stays.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from engine.errors import BusyError, StorageError
from engine.store.atomic import storage_errors
from engine.store.contents import fetch_contents, images_of
from engine.store.links import link_in
from engine.store.records import dataset_facts
from engine.store.usage import bytes_of
from engine.store.workspace import Workspace, exclusive, is_locked

OLD_SECONDS = 7 * 24 * 3600.0
"""What no lock tells about is taken for left over when it was not written to for so long."""

_TEMPORARY = re.compile(r"\..+\.\d+-\d+\.tmp(\.wal)?")
_FEATURES = re.compile(r"(?P<key>.+@[0-9a-f]{12})-(?P<images>[0-9a-f]{12})(-(?P<part>[0-9a-f]{8}))?")
_OF_RUN = re.compile(
    rf"lock|cancel|journal\.jsonl|velocity-.*\.json|gap\.json|published|\.publishing|partial|{_TEMPORARY.pattern}"
)
_HIDDEN = re.compile(r"\.(?P<name>.+)\.(?P<what>partial|publishing|removing)")


@dataclass(frozen=True)
class Leftover:
    """Something that nothing reads. bytes: of it on the disk; reason: why nothing reads it."""

    path: Path
    bytes: int
    reason: str


@dataclass(frozen=True)
class Found:
    """left: what may be a leftover and is not touched, by path, with the reason; resumable: the checkpoints that `winnow
    resume` reads, by run."""

    leftovers: Sequence[Leftover]
    left: dict[Path, str] = field(default_factory=dict)
    resumable: dict[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(leftover.bytes for leftover in self.leftovers)


def find_leftovers(workspace: Workspace) -> Found:
    """What `remove_leftovers` would remove now. Nothing is written."""
    left: dict[Path, str] = {}
    leftovers: list[Leftover] = []
    for lock, find in _places(workspace, left):
        found = list(find())
        if found and lock is not None and is_locked(lock):
            left |= {leftover.path: "it is being computed" for leftover in found}
        else:
            leftovers += found
    gone = {leftover.path for leftover in leftovers}
    resumable = {}
    for run_id in workspace.run_ids():
        path = workspace.run_dir(run_id) / "partial"
        if path not in gone and not workspace.is_published(run_id) and (count := bytes_of(path)):
            resumable[run_id] = count
    return Found(leftovers, left, resumable)


def remove_leftovers(workspace: Workspace, wanted: Collection[Path]) -> Found:
    """Remove those of the wanted paths that are leftovers still. Killed at any moment, it leaves nothing half-read.

    Returns: what was removed, and what was left because a process is at it or the disk refuses
    """
    left: dict[Path, str] = {}
    removed: list[Leftover] = []
    for lock, find in _places(workspace, left):
        if not any(leftover.path in wanted for leftover in find()):
            continue
        try:
            with contextlib.nullcontext() if lock is None else exclusive(lock, f"{lock.parent} is in use"):
                for leftover in [leftover for leftover in find() if leftover.path in wanted]:
                    if why := _remove(leftover.path):
                        left[leftover.path] = why
                    else:
                        removed.append(leftover)
        except BusyError:
            left |= {leftover.path: "it is being computed" for leftover in find() if leftover.path in wanted}
        except (StorageError, OSError) as error:  # a lock that cannot be taken, such as a folder in its place
            left |= {leftover.path: str(error) for leftover in find() if leftover.path in wanted}
    return Found(removed, left)


def _remove(path: Path) -> str:
    """Delete a file or a folder. Returns why it is still there; "" when it is gone."""
    try:
        with storage_errors("a removal", path.parent):
            if not path.is_dir():
                path.unlink(missing_ok=True)
            elif _FEATURES.fullmatch(path.name):
                aside = path.with_name(f".{path.name}.removing")  # so that a kill leaves no half of what is read
                shutil.rmtree(aside, ignore_errors=True)
                os.rename(path, aside)
                shutil.rmtree(aside)
            else:
                shutil.rmtree(path)
    except FileNotFoundError:  # by another process, just now
        return ""
    except (StorageError, OSError) as error:
        return str(error)
    return ""


# Where to look ------------------------------------------------------------------------------------------------

Place = tuple[Path | None, Callable[[], Iterator[Leftover]]]
"""A lock, None where there is none, and what finds the leftovers that it guards."""


def _places(workspace: Workspace, left: dict[Path, str]) -> Iterator[Place]:
    """Every place of a workspace. left: takes what is not looked into, with the reason."""
    for path in _entries(workspace.root / "runs", left):
        if path.is_symlink():
            left[path] = "it is a link"
        elif path.is_dir() and path.name.startswith(".recording-"):
            yield None, partial(_of_recording, path)
        elif path.is_dir() and re.fullmatch(r"\..+\.removing", path.name):
            yield None, partial(_given, [path], "of a removal that was killed")
        elif path.is_dir() and not path.name.startswith("."):
            yield path / "lock", partial(_of_run, workspace, path)
            yield None, partial(_temporary, path)
    features: dict[str, None] = {}
    for path in _entries(workspace.root / "features", left):
        hidden = _HIDDEN.fullmatch(path.name)
        name = hidden["name"] if hidden else path.name
        if path.is_symlink():
            left[path] = "it is a link"
        elif path.is_dir() and _FEATURES.fullmatch(name):
            features[name] = None
    for name in features:
        folder = workspace.root / "features" / name
        if found := link_in(folder):
            left[found] = "it is a link"
            continue
        yield folder.with_name(f".{name}.lock"), partial(_of_features, workspace, folder)
    for name, path in _dataset_temporaries(workspace.root / "datasets", left):
        yield path.with_name(f".{name}.lock"), partial(_given, [path], "of an ingest that was killed")
    for part in ("datasets", "detectors", ""):
        yield None, partial(_temporary, workspace.root / part)
    yield None, partial(_logs, _entries(workspace.root / "jobs", left))


def _entries(folder: Path, left: dict[Path, str]) -> list[Path]:
    """What is in a folder of the workspace; nothing where it is a link or cannot be read."""
    if folder.is_symlink():
        left[folder] = "it is a link"
        return []
    return _listed(folder)


def _listed(folder: Path) -> list[Path]:
    if folder.is_symlink():
        return []
    try:
        return sorted(folder.iterdir())
    except OSError:  # not there, gone since, or no folder
        return []


def _of_run(workspace: Workspace, folder: Path) -> Iterator[Leftover]:
    if not os.path.lexists(folder / "spec.json"):
        # Written before the lock is there. What has other names in it is no run, but somebody's own folder.
        a_run = all(_OF_RUN.fullmatch(path.name) for path in _listed(folder))
        if a_run and (os.path.lexists(folder / "lock") or _is_old(folder)):
            yield from _given([folder], "of a run whose removal was interrupted")
        return
    yield from _given([folder / ".publishing"], "of a process that was killed")
    checkpoints = [folder / "partial"]
    if workspace.is_published(folder.name):
        yield from _given(checkpoints, "checkpoints of a run that is published")
    elif gone := _why_unusable(workspace, folder.name):
        yield from _given(checkpoints, f"checkpoints of a run that cannot be resumed: {gone}")


def _of_recording(folder: Path) -> Iterator[Leftover]:
    if _is_old(folder):
        yield from _given([folder], "a recording that was never closed, a week old")


def _of_features(workspace: Workspace, folder: Path) -> Iterator[Leftover]:
    def hidden(what: str) -> list[Path]:
        return [folder.with_name(f".{folder.name}.{what}")]

    yield from _given([*hidden("publishing"), *hidden("removing")], "of a process that was killed")
    complete = _is_folder(folder)
    if complete:
        yield from _given(hidden("partial"), "pieces of features that are complete")
    if why := _why_unread(workspace, folder):
        yield from _given([folder] if complete else hidden("partial"), why)


def _dataset_temporaries(folder: Path, left: dict[Path, str]) -> Iterator[tuple[str, Path]]:
    for path in _entries(folder, left):
        if found := re.fullmatch(r"\.(.+)\.duckdb\.\d+-\d+\.tmp(\.wal|\.tmp)?", path.name):
            yield found[1], path


def _temporary(folder: Path) -> Iterator[Leftover]:
    """Small files that were being replaced; those of datasets that are being ingested have a lock."""
    found = [path for path in _listed(folder) if _TEMPORARY.fullmatch(path.name) and ".duckdb." not in path.name]
    yield from _given([path for path in found if _is_old(path)], "of a process that was killed")


def _logs(files: Sequence[Path]) -> Iterator[Leftover]:
    found = [path for path in files if path.suffix == ".log"]
    yield from _given([path for path in found if _is_old(path)], "the output of a command, a week old")


def _given(paths: Sequence[Path], reason: str) -> Iterator[Leftover]:
    """Those of the paths that are there, and are no links."""
    for path in paths:
        if path.exists() and not path.is_symlink():
            yield Leftover(path, bytes_of(path), reason)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_old(path: Path) -> bool:
    """Whether nothing in it was written to for a week."""
    times = [os.lstat(path).st_mtime] if os.path.lexists(path) else []
    for folder, _, files in os.walk(path):
        for inside in (folder, *(os.path.join(folder, file) for file in files)):
            with contextlib.suppress(OSError):  # gone meanwhile
                times.append(os.lstat(inside).st_mtime)
    return bool(times) and time.time() - max(times) > OLD_SECONDS


# What is read -------------------------------------------------------------------------------------------------


def _unreadable(workspace: Workspace) -> str:
    """A dataset that cannot be read, of which nobody knows what it needs; "" when all can."""
    for name in workspace.datasets():
        try:
            dataset_facts(workspace.dataset_path(name))
            images_of(workspace.dataset_path(name))
        except (StorageError, OSError):
            return name
    return ""


def _dataset_paths(workspace: Workspace) -> list[Path]:
    return [workspace.dataset_path(name) for name in workspace.datasets()]


def _why_unusable(workspace: Workspace, run_id: str) -> str:
    """Why no run can go on from the checkpoints of one that is not published; "" when one can, or nobody knows.

    The networks in them serve any run of the same training on the same data, under whatever name."""
    try:
        record = workspace.read_record(run_id)
    except StorageError:
        return ""
    if not record.fingerprint or _unreadable(workspace):
        return ""
    if record.fingerprint in {dataset_facts(path).fingerprint for path in _dataset_paths(workspace)}:
        return ""
    there = record.dataset in workspace.datasets()
    return f"dataset '{record.dataset}' " + ("has other samples now" if there else "is gone")


def _why_unread(workspace: Workspace, folder: Path) -> str:
    """Why nothing reads the features in a folder, or their finished pieces; "" when something does, or nobody knows."""
    found = _FEATURES.fullmatch(folder.name)
    if found is None or _unreadable(workspace):
        return ""
    key, a_file = found["key"], found["key"].startswith("file@")
    if found["images"] in {images_of(path) for path in _dataset_paths(workspace)}:
        if found["part"] and _is_folder(folder.with_name(f"{key}-{found['images']}")):
            return "features of some images, which those of all images hold too"
        if a_file and not any(key in str(record.spec) for record in workspace.read_records()[0]):
            return "features of a file that no run names"
        return ""
    if a_file or not _copied_from(workspace, folder, key):
        return "features of images that no dataset has"
    return ""


def _copied_from(workspace: Workspace, folder: Path, key: str) -> bool:
    """Whether a dataset that has no features of that key has some of these images: their rows will be copied."""
    try:
        index = np.load(folder / "index.npy", allow_pickle=False)
        contents = {row.tobytes() for row in np.ascontiguousarray(index[:, 0])}
    except (OSError, ValueError, EOFError, IndexError):  # nothing can be copied from it
        return False
    for path in _dataset_paths(workspace):
        images = images_of(path)
        if not _is_folder(folder.with_name(f"{key}-{images}")) and not contents.isdisjoint(_contents(path, images)):
            return True
    return False


@lru_cache(maxsize=8)
def _contents(path: Path, images: str) -> frozenset[bytes]:
    """The contents of a dataset's samples. images: what it holds, so that it is read again when that has changed."""
    return frozenset(bytes.fromhex(content) for content in fetch_contents(path))
