"""What can follow `--from`: one declared function for each kind of source, in any module of this package.

`@source` says how it is written and recognized, and the function opens it: a new kind is one function, and the
help and the messages follow.
"""

from __future__ import annotations

import glob
import importlib
import os
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.data.columns import Wanted
from engine.data.parts import Source, alike, rename_labels
from engine.data.sources.kinds import Named, SourceKind, declared_sources
from engine.errors import SourceError, SpecError, unknown_name
from engine.store.trust import Roots

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def source_help() -> str:
    """What --from may be, in one line of help."""
    kinds = declared_sources()
    named, paths = ([k.form for k in kinds if bool(k.resolved) == by_name] for by_name in (True, False))
    return f"{', '.join(named)}, or a path: {', '.join(paths)}"


def open_source(
    text: str, seed: int, test: str | None = None, wanted: Wanted | None = None, within: Roots | None = None
) -> Source:
    """The source that `--from` names, with the test split of `--test` in place of its own.

    wanted: the columns of a table; None = those that are called as usual; within: below what its files must lie; None =
    what the texts name

    Raises: SourceError when it is missing or malformed; SpecError when the text names no kind of source.
    """
    within = Roots((*roots_of(text), *roots_of(test))) if within is None else within
    source = _open(Named(text, seed, wanted or Wanted(), within))
    if test is not None:
        other = _open(Named(test, seed, wanted or Wanted(), within))
        part = other.test or other.train
        source = Source(source.classes, source.train, rename_labels(part, other.classes, source.classes, test))
    used = len(np.unique(source.train.labels))
    if used < 2:
        raise SourceError(f"{text} has training samples of {used} class{'es' * (used != 1)}; at least 2 are needed")
    if same := alike(source.classes):
        note = f"classes that look alike are kept apart: '{same[0]}' is written in two ways of Unicode"
        source = replace(source, notes=(*source.notes, note))
    return source


def resolve(text: str) -> str:
    """A source as it is compared: paths made absolute, so that the same words elsewhere are another source."""
    for kind in declared_sources():
        if kind.resolved and kind.matches(Named(text)):
            return kind.resolved(text)
    return str(Named(text).path.resolve())


def base_of(text: str) -> Path | None:
    """The folder or file that a source begins at, found without looking at it; None for one that needs no file."""
    for kind in declared_sources():
        if kind.resolved and kind.matches(Named(text)):
            return kind.base(text) if kind.base else None
    path = Named(text).path
    return next((above.parent for above in reversed((path, *path.parents)) if glob.has_magic(above.name)), path)


def roots_of(text: str | None) -> tuple[Path, ...]:
    """What a person trusts who names a source: its folder, or that of its file; and where links lead that are its splits,
    its classes or its files."""
    base = None if text is None else base_of(text)
    if text is None or base is None:
        return ()
    found: list[Path] = []
    try:
        found += [base, *_linked_folders(base, levels=2)] if base.is_dir() else [base.parent]
        for kind in declared_sources():
            if kind.files and not kind.resolved:
                found += [path for path in kind.files(Named(text)) if path.is_symlink()]
    except OSError:
        pass  # whoever opens the source says what is wrong with it
    return tuple(dict.fromkeys(found))


def _linked_folders(folder: Path, levels: int) -> Iterator[Path]:
    """The folders below one, down to some level, that are links."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink() and entry.is_dir():
                yield Path(entry.path)
            if levels > 1 and entry.is_dir() and not entry.name.startswith("."):
                yield from _linked_folders(Path(entry.path), levels - 1)


def _open(named: Named) -> Source:
    if not _is_utf8(named.text):
        raise SpecError(f"--from {_shown(named.text)} is not valid UTF-8; rename what it names, or write it again")
    try:
        for kind in declared_sources():
            if kind.matches(named):
                if not kind.resolved and not _is_utf8(str(named.path)):
                    raise SourceError(f"{named.path} has a name that is not valid UTF-8; rename it")
                return kind.open(named)
    except PermissionError as error:
        raise SourceError(f"not allowed to read {error.filename}; change its permissions or choose another") from error
    except OSError as error:
        raise SourceError(f"--from {_shown(named.text)} cannot be read: {error.strerror or error}") from error
    raise _unknown(named, declared_sources())


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(text: str) -> str:
    text = text if len(text) <= 200 else f"{text[:200]}... ({len(text):,} characters)"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _unknown(named: Named, kinds: list[SourceKind]) -> SourceError | SpecError:
    """The error for a text that is no kind of source."""
    text, path = named.text, named.path
    by_name = [kind.form for kind in kinds if kind.resolved]
    if path.is_file():
        suffixes = ", ".join(suffix for kind in kinds for suffix in kind.suffixes)
        return SourceError(f"{path} is not understood; allowed: {suffixes}, or {source_help()}")
    if glob.has_magic(text):
        return SourceError(f"{_shown(text)} matches 0 files; allowed: a pattern that matches Parquet files only")
    if "/" not in text and "." not in text:
        words = [form for form in by_name if form.isidentifier()]
        return SpecError(unknown_name("source", text, words, f"and there is no such path; allowed: {source_help()}"))
    return SourceError(f"there is no {_shown(str(path))}; give an existing path, or one of: {', '.join(by_name)}")
