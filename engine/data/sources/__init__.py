"""What can follow `--from`: one declared function for each kind of source, in any module of this package.

`@source` says how it is written and recognized, and the function opens it: a new kind is one function, and the
help and the messages follow.
"""

from __future__ import annotations

import glob
import importlib
import pkgutil
from dataclasses import replace

import numpy as np

from engine.data.columns import Wanted
from engine.data.parts import Source, alike, rename_labels
from engine.data.sources.kinds import Named, SourceKind, declared_sources
from engine.errors import SourceError, SpecError, unknown_name

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def source_help() -> str:
    """What --from may be, in one line of help."""
    kinds = declared_sources()
    named, paths = ([k.form for k in kinds if bool(k.resolved) == by_name] for by_name in (True, False))
    return f"{', '.join(named)}, or a path: {', '.join(paths)}"


def open_source(text: str, seed: int, test: str | None = None, wanted: Wanted | None = None) -> Source:
    """The source that `--from` names, with the test split of `--test` in place of its own.

    wanted: the columns of a table; None = those that are called as usual

    Raises: SourceError when it is missing or malformed; SpecError when the text names no kind of source.
    """
    source = _open(Named(text, seed, wanted or Wanted()))
    if test is not None:
        other = _open(Named(test, seed, wanted or Wanted()))
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
        return SourceError(f"{text} matches 0 files; allowed: a pattern that matches Parquet files only")
    if "/" not in text and "." not in text:
        words = [form for form in by_name if form.isidentifier()]
        return SpecError(unknown_name("source", text, words, f"and there is no such path; allowed: {source_help()}"))
    return SourceError(f"there is no {path}; give an existing path, or one of: {', '.join(by_name)}")
