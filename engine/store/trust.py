"""What this user trusts in a workspace: folders of originals, and models of one's own. No torch.

A spec or a dataset names files and code. Where somebody else wrote it, that is no reason to open or to run them. So what
this user named on a command line of their own is kept in their own configuration folder, by workspace, and a copied
workspace brings none of it along:

    roots     folders (or files) that this user ingested from, gave as --originals, or named to a run
    models    PACKAGE.MODULE:FACTORY -> the SHA-256 of its source, and the folder that it lies in

A workspace is known by the inode and the change time of its winnow.json, which is written once. Whoever unpacks or
copies files cannot choose either, so a copy, an archive unpacked in the same place, or one that was swapped is another
workspace, of which nothing is trusted; a link or a hard link in place of winnow.json is another file, too. A workspace
that is moved or renamed on its disk keeps what is trusted. One that is moved to another disk, restored from a backup, or
whose owner or permissions were changed has to be given it again: --originals FOLDER, --trust-model. On a network disk
every user, and every machine with a home of its own, has their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from engine.errors import BusyError, SpecError, StorageError
from engine.store.atomic import replacing, storage_errors
from engine.store.documents import read_json
from engine.store.workspace import Workspace

VERSION = 1
_WAIT_SECONDS = 10.0


@dataclass(frozen=True)
class Roots:
    """Folders, and single files, that may be read. Links are resolved at both ends.

    suggestion: the folder that a refusal names, where one holds all that is wanted; "" = that of the file
    """

    paths: tuple[Path, ...] = ()
    suggestion: str = ""

    @cached_property
    def _resolved(self) -> tuple[str, ...]:
        return tuple(os.path.realpath(path) for path in self.paths)

    @cached_property
    def _folders(self) -> dict[str, str]:
        return {}

    def cover(self, path: Path | str) -> bool:
        """Whether a file, or what it links to, lies below one of them."""
        folder, name = os.path.split(path)
        if name in ("", ".", "..") or os.path.islink(path):
            found = os.path.realpath(path)
        else:  # of a million files in a folder, the folder is resolved once
            if folder not in self._folders:
                self._folders[folder] = os.path.realpath(folder)
            found = os.path.join(self._folders[folder], name)
        return any(found == root or found.startswith(os.path.join(root, "")) for root in self._resolved)

    def require(self, path: Path) -> Path:
        """The path, if it may be read; ValueError, a reason in a few words, if not."""
        if os.path.isfile(path) and not self.cover(path):  # what is no file is refused by whoever opens it
            folder = os.path.dirname(os.path.realpath(path))
            wanted = self.suggestion or folder
            raise ValueError(f"it lies in {folder}, outside of what was named (--originals {wanted} reads it)")
        return path

    def __add__(self, others: Iterable[Path]) -> Roots:
        return Roots((*self.paths, *others))


@dataclass(frozen=True)
class TrustedModel:
    """The source of a model. sha256: of all that it covers; folder: where its package or module lies."""

    sha256: str
    folder: str


@dataclass(frozen=True)
class Trust:
    """What is trusted in one workspace. problem: why nothing could be read, one line, or ""."""

    roots: Roots = Roots()
    models: Mapping[str, TrustedModel] = field(default_factory=dict)
    problem: str = ""


_named: dict[str, Trust] = {}
"""What was named in this process, by workspace: it counts here even where the file cannot be written."""


def trust_file() -> Path:
    """Where it is kept: outside every workspace, in this user's configuration folder."""
    return Path(platformdirs.user_config_path("winnow", appauthor=False)) / "trust.json"


def fetch_trust(workspace: Workspace) -> Trust:
    """What this user trusts in a workspace; nothing, with the reason, where the file cannot be believed."""
    named = Trust()
    try:
        key = _key(workspace)
        named = _named.get(key, named)
        kept = _entry(_read().get(key, {}))
    except StorageError as error:
        return replace(named, problem=f"{error}; until then nothing is trusted")
    return Trust(kept.roots + named.roots.paths, {**kept.models, **named.models})


def trust_roots(workspace: Workspace, roots: Iterable[Path]) -> str:
    """Trust folders or files in a workspace.

    Returns: why it could not be kept for later commands, one line, or ""
    """
    wanted = tuple(Path(os.path.realpath(root)) for root in roots)
    if not wanted:
        return ""
    try:
        key = _key(workspace)
    except StorageError as error:
        return str(error)
    before = _named.get(key, Trust())
    _named[key] = replace(before, roots=before.roots + (path for path in wanted if path not in before.roots.paths))
    try:
        if set(wanted) <= set(_entry(_read().get(key, {})).roots.paths):
            return ""
        with _changing(workspace, key) as entry:
            entry["roots"] = sorted({*entry["roots"], *map(str, wanted)})
    except (StorageError, BusyError) as error:
        return f"{error}; later commands that read the originals need --originals {wanted[0]}"
    return ""


def named_folders(text: str | None) -> tuple[Path, ...]:
    """The folders that --originals names; SpecError when one is not there."""
    folders = [Path(part).expanduser() for part in (text or "").split(os.pathsep) if part]
    for folder in folders:
        if not folder.is_dir():
            raise SpecError(
                f"--originals is {folder}; allowed: an existing folder of images, several separated by '{os.pathsep}'"
            )
    return tuple(Path(os.path.abspath(folder)) for folder in folders)


def trust_model(workspace: Workspace, name: str, model: TrustedModel) -> None:
    """Trust a model of one's own in a workspace. StorageError when that cannot be kept."""
    with _changing(workspace, _key(workspace)) as entry:
        entry["models"][name] = {"sha256": model.sha256, "folder": model.folder}


# The file ------------------------------------------------------------------------------------------------------------


def _key(workspace: Workspace) -> str:
    """What stands for a workspace: see the module's docstring."""
    try:
        found = os.lstat(workspace.root / "winnow.json")
    except OSError as error:
        raise StorageError(f"{workspace.root} has no winnow.json") from error
    return f"{found.st_ino}-{found.st_ctime_ns}"


@contextlib.contextmanager
def _changing(workspace: Workspace, key: str) -> Iterator[dict[str, Any]]:
    """The entry of a workspace, to change it; the whole file is written when the block ends well."""
    path = trust_file()
    with storage_errors("what is trusted", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = filelock.FileLock(path.with_name(".trust.lock"), timeout=_WAIT_SECONDS)
        try:
            with lock:
                content = _read()
                kept = _entry(content.get(key, {}))
                models = {name: {"sha256": m.sha256, "folder": m.folder} for name, m in kept.models.items()}
                entry = {
                    "workspace": os.path.realpath(workspace.root),  # for people: the key is what counts
                    "roots": [str(root) for root in kept.roots.paths],
                    "models": models,
                }
                yield entry
                content[key] = entry
                with replacing(path, "what is trusted") as temp:
                    handle = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                    with open(handle, "w", encoding="utf-8") as file:
                        file.write(json.dumps({"version": VERSION, "workspaces": content}, indent=1) + "\n")
        except filelock.Timeout as error:
            raise BusyError(f"{path} is being written by another process; run the same command again") from error


def _read() -> dict[str, Any]:
    """The entries of all workspaces; StorageError for a file that is broken, of a newer version or open to others."""
    path = trust_file()
    if not path.is_absolute():  # without a home it would be one of the current folder
        raise StorageError(f"there is no folder for the settings of this user ({path.parent}); set HOME")
    try:
        about = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}); change its permissions") from error
    if os.name == "posix" and (about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise StorageError(f"{path} can be written by others; make it yours alone (chmod 600), or remove it")
    try:
        content = read_json(path)
    except StorageError as error:
        raise StorageError(f"{error}; correct or remove it") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise StorageError(f"{path} is not of version {VERSION}; upgrade winnow, or remove it")
    entries = content.get("workspaces")
    if not isinstance(entries, dict):
        raise StorageError(f"{path} is damaged; correct or remove it")
    for entry in entries.values():
        _entry(entry)
    return entries


def _entry(entry: Any) -> Trust:
    """What an entry says; StorageError for one that is damaged."""
    try:
        roots = tuple(Path(root) for root in entry.get("roots", []))
        models = {str(n): TrustedModel(m["sha256"], m["folder"]) for n, m in entry.get("models", {}).items()}
        texts = [*entry.get("roots", []), *(text for m in models.values() for text in (m.sha256, m.folder))]
        if not all(isinstance(text, str) for text in texts) or not all(root.is_absolute() for root in roots):
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{trust_file()} is damaged; correct or remove it") from error
    return Trust(Roots(roots), models)
