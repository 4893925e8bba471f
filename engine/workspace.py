"""The workspace on disk: paths, journals, checkpoints and publishing. The only code that renames.

workspace/
  winnow.json                   the format of the workspace
  datasets/<name>.duckdb        immutable, published by ingest
  runs/<run_id>/spec.json       what was asked
                journal.jsonl   append-only while running
                partial/         checkpoints and growing dynamics, gone when published
                lock            held by the process that computes the run
                published/      appears whole, by one rename, and never changes
                velocity-*.json  what `winnow velocity` found
  jobs/                         what the commands said that the dashboard started
  decisions.duckdb              the only mutable database
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import filelock
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from engine.errors import BusyError, NotFoundError, StorageError, WinnowError, unknown_name

FORMAT = 1
"""Raised when an older version could misread what this one writes."""

DEFAULT_ROOT = "winnow-workspace"

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextlib.contextmanager
def storage_errors(what: str, place: Path) -> Iterator[None]:
    """Turn the disk's refusals (full, read-only) into one StorageError that names what was being written."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(
                f"no space left to write {what} in {place}; free some space and run the same command again"
            ) from error
        if error.errno in _REFUSED:
            raise StorageError(f"not allowed to write {what} in {place}: {error.strerror}") from error
        raise
    except SafetensorError as error:
        if any(text in str(error) for text in ("os error 28", "os error 27", "os error 122")):
            raise StorageError(f"no space left to write {what} in {place}; free some space and run again") from error
        raise
    except (duckdb.IOException, duckdb.FatalException, duckdb.OutOfMemoryException) as error:
        text = str(error)
        if any(word in text for word in ("No space left", "File too large", "Disk quota", "Could not write")):
            raise StorageError(
                f"no space left to write {what} in {place}; free some space and run the same command again"
            ) from error
        raise StorageError(f"{what} in {place}: {text.splitlines()[0]}") from error


def default_root(given: Path | None = None) -> Path:
    """The workspace asked for, else WINNOW_WORKSPACE, else ./winnow-workspace."""
    return given or Path(os.environ.get("WINNOW_WORKSPACE") or DEFAULT_ROOT)


@dataclass(frozen=True)
class Workspace:
    """The paths of one workspace. `open` checks the format first."""

    root: Path

    @classmethod
    def open(cls, root: Path | None = None, *, create: bool = False) -> Workspace:
        """The workspace at root.

        Raises: NotFoundError when it is not there and create is False; StorageError when it is of a newer
        format, damaged or cannot be created.
        """
        path = default_root(root)
        marker = path / "winnow.json"
        if marker.is_file():
            try:
                found = json.loads(marker.read_text())["format"]
            except (ValueError, KeyError, TypeError) as error:
                raise StorageError(f'{marker} is damaged; it should read {{"format": {FORMAT}}}') from error
            if not isinstance(found, int) or found > FORMAT:
                raise StorageError(
                    f"workspace {path} has format {found}, this winnow reads up to {FORMAT}; "
                    "upgrade winnow (pip install -U winnow) or choose another --workspace"
                )
            return cls(path)
        if not create:
            raise NotFoundError(f"no workspace at {path}; `winnow demo` or `winnow ingest` makes one (see --workspace)")
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise StorageError(f"{path} is not a winnow workspace and not empty; choose another --workspace")
        with storage_errors("the workspace", path):
            (path / "datasets").mkdir(parents=True, exist_ok=True)
            (path / "runs").mkdir(exist_ok=True)
            _write_atomically(marker, json.dumps({"format": FORMAT}) + "\n")
        return cls(path)

    # Datasets ---------------------------------------------------------------------------------------------

    def dataset_path(self, name: str) -> Path:
        return self.root / "datasets" / f"{name}.duckdb"

    def datasets(self) -> list[str]:
        return sorted(p.stem for p in (self.root / "datasets").glob("*.duckdb") if not p.name.startswith("."))

    def require_dataset(self, name: str) -> Path:
        """The path of a dataset; NotFoundError, with the nearest name, when there is none."""
        path = self.dataset_path(name)
        if name not in self.datasets():
            raise NotFoundError(unknown_name("dataset", name, self.datasets(), "winnow ingest makes one"))
        return path

    @contextlib.contextmanager
    def building_dataset(self, name: str) -> Iterator[Path]:
        """A temporary path to write a dataset to; published under its name when the block ends well."""
        final = self.dataset_path(name)
        temp = final.with_name(f".{name}.{os.getpid()}.tmp")
        with exclusive(final.with_name(f".{name}.lock"), f"dataset '{name}' is being ingested"):
            for stale in final.parent.glob(f".{name}.*.tmp*"):  # of a process that was killed
                stale.unlink(missing_ok=True)
            try:
                with storage_errors(f"dataset '{name}'", final.parent):
                    yield temp
                    _fsync(temp)
                    os.replace(temp, final)
                    _fsync(final.parent)
            finally:
                for left in (temp, temp.with_name(temp.name + ".wal")):
                    left.unlink(missing_ok=True)

    # Runs -------------------------------------------------------------------------------------------------

    def run_dir(self, run_id: str) -> Path:
        return self.root / "runs" / run_id

    def run_ids(self) -> list[str]:
        return sorted(p.parent.name for p in (self.root / "runs").glob("*/spec.json"))

    def require_run(self, given: str) -> str:
        """The run id that starts with what was given; NotFoundError when none or several do."""
        found = [r for r in self.run_ids() if given and r.startswith(given)]
        if len(found) == 1:
            return found[0]
        if found:
            raise NotFoundError(f"run '{given}' is not unique: {', '.join(found[:5])}; give more digits")
        raise NotFoundError(unknown_name("run", given, self.run_ids(), "winnow runs lists them"))

    def published_dir(self, run_id: str) -> Path:
        return self.run_dir(run_id) / "published"

    def velocity_path(self, run_id: str, score: str) -> Path:
        """Where the kernel velocity by decile of a score is kept: beside the run, which itself never changes."""
        return self.run_dir(run_id) / f"velocity-{score}.json"

    def is_published(self, run_id: str) -> bool:
        return self.published_dir(run_id).is_dir()

    def published_runs(self) -> list[str]:
        return [r for r in self.run_ids() if self.is_published(r)]

    def start_run(self, run_id: str, spec: dict[str, Any]) -> Path:
        """Make a run's folder and write its spec.json, unless they are there."""
        folder = self.run_dir(run_id)
        with storage_errors(f"run {run_id}", self.root):
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "spec.json").exists():
                _write_atomically(folder / "spec.json", json.dumps(spec, indent=1) + "\n")
        return folder

    def read_spec(self, run_id: str) -> dict[str, Any]:
        """The content of a run's spec.json: `spec`, `environment`, `created_at`."""
        path = self.run_dir(run_id) / "spec.json"
        try:
            content: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{path} cannot be read; remove the run (winnow remove {run_id}) and ask again"
            ) from error
        return content

    @contextlib.contextmanager
    def building_run(self, run_id: str) -> Iterator[Path]:
        """A private folder to write a run's results in; published whole when the block ends well.

        A manifest with the SHA-256 of every file is added last. What the run needed only while it was being
        computed (checkpoint, spilled dynamics) is removed after the rename.
        """
        folder = self.run_dir(run_id)
        temp = folder / ".publishing"
        shutil.rmtree(temp, ignore_errors=True)
        try:
            with storage_errors(f"the results of run {run_id}", folder):
                temp.mkdir()
                yield temp
                manifest = {p.name: {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in sorted(temp.iterdir())}
                (temp / "manifest.json").write_text(json.dumps({"format": FORMAT, "files": manifest}, indent=1) + "\n")
                for path in temp.iterdir():
                    _fsync(path)
                os.rename(temp, self.published_dir(run_id))
                _fsync(folder)
        finally:
            shutil.rmtree(temp, ignore_errors=True)
        remove_path(folder / "partial")

    def remove_run(self, run_id: str) -> None:
        """Delete a run; spec.json goes first, so that a half-deleted run is never listed."""
        folder = self.run_dir(run_id)
        with exclusive(folder / "lock", f"run {run_id} is being computed (winnow cancel {run_id})"):
            (folder / "spec.json").unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)

    def remove_dataset(self, name: str) -> None:
        """Delete a dataset file. Its runs are the caller's to remove first."""
        self.require_dataset(name).unlink()


@contextlib.contextmanager
def exclusive(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file that the system releases when this process ends, however it ends. BusyError if held."""
    lock = filelock.FileLock(path)
    try:
        with storage_errors("a lock", path.parent):
            # Not at once: a reader that asks whether the lock is held holds it for a moment itself.
            lock.acquire(timeout=1.0, poll_interval=0.05)
    except filelock.Timeout as error:
        raise BusyError(f"{busy}; wait for it to end") from error
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock at path."""
    if not path.exists():
        return False
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    lock.release()
    return False


# Journal ------------------------------------------------------------------------------------------------------


def append_journal(folder: Path, event: str, *, durable: bool = False, **values: Any) -> None:
    """Append one event as one line in one write; with durable, it is on the disk when this returns."""
    line = json.dumps({"at": time.time(), "event": event, **values}) + "\n"
    with storage_errors("the journal", folder):
        handle = os.open(folder / "journal.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            # A process killed in the middle of a write leaves a torn line: end it, so that this one stays whole.
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = "\n" + line
            os.write(handle, line.encode())
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)


def read_journal(folder: Path, last_bytes: int | None = None) -> list[dict[str, Any]]:
    """The events of a run, oldest first; torn lines are passed over. last_bytes reads only the journal's end."""
    try:
        with open(folder / "journal.jsonl", "rb") as file:
            if last_bytes is not None:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - last_bytes))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    events = []
    for line in lines:
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and "event" in event:
                events.append(event)
    return events


# Tensors ------------------------------------------------------------------------------------------------------


def save_tensors(path: Path, tensors: dict[str, np.ndarray[Any, Any]], meta: dict[str, Any]) -> None:
    """Write or replace a safetensors file atomically: temporary file, fsync, rename."""
    temp = path.with_name(f".{path.name}.tmp")
    with storage_errors(path.name, path.parent):
        save_file(tensors, temp, metadata={"meta": json.dumps(meta)})
        _fsync(temp)
        os.replace(temp, path)


def load_tensors(path: Path, prefix: str = "") -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]] | None:
    """The content of a file written by `save_tensors` as (tensors, meta), or None when there is none.

    With a prefix, only the tensors whose names begin with it are read.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            meta = json.loads((file.metadata() or {})["meta"])
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}, meta
    except (SafetensorError, KeyError, ValueError) as error:
        raise StorageError(f"{path} is damaged; remove it and run again") from error


# Files --------------------------------------------------------------------------------------------------------


def write_export(path: Path, write: Any) -> None:
    """Write a file by write(temporary path) and put it at path only when it is whole."""
    if not path.parent.is_dir():
        raise WinnowError(f"no folder {path.parent}; make it first or choose another --to")
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with storage_errors(path.name, path.parent):
            write(temp)
            _fsync(temp)
            os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def remove_path(path: Path) -> None:
    """Delete a file or a folder if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _write_atomically(path: Path, text: str) -> None:
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temp.write_text(text)
        _fsync(temp)
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
