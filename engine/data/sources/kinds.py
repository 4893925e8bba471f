"""How a kind of source is declared: beside the function that opens it, with how it is written and recognized."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from PIL import Image

from engine.data.columns import Wanted
from engine.data.parts import Source, Vector
from engine.store.trust import Roots

Rows = Callable[[int], Image.Image | Vector]
"""Opens one row of something that holds many images, by its index."""


def expanded(text: str) -> str:
    """A path with the home folder for a leading ~; as it is where nobody is called so, or it can be no path."""
    return text if "\0" in text else os.path.expanduser(text)


@dataclass(frozen=True)
class Named:
    """What --from names. text: as it was written; seed: of what is drawn; wanted: the columns of a table; within: below
    what its files must lie."""

    text: str
    seed: int = 0
    wanted: Wanted = field(default_factory=Wanted)
    within: Roots = field(default_factory=Roots)

    @cached_property
    def path(self) -> Path:
        """The text as an absolute path, a leading ~ expanded: samples are found again from any folder."""
        return Path(os.path.abspath(expanded(self.text)))

    def is_file(self, *suffixes: str) -> bool:
        """Whether it is a file with one of these suffixes, in any case."""
        return self.path.suffix.lower() in suffixes and self.path.is_file()


@dataclass(frozen=True)
class SourceKind:
    """One kind of source.

    form: how it is written, for help; matches: whether a text is of this kind; open: reads it; priority: kinds are
    tried from the highest down; resolved: the text as it is compared and stored, None for a path, which is made
    absolute; suffixes: of files that it reads; base: where the files of such a text begin, None where it has none; files:
    which files a path names, be they links or not; rows: what opens the rows of a text that stands before the last colon
    of a sample's place, or None where the text is of another kind
    """

    form: str
    matches: Callable[[Named], bool]
    open: Callable[[Named], Source]
    priority: int
    resolved: Callable[[str], str] | None
    suffixes: tuple[str, ...]
    base: Callable[[str], Path] | None
    files: Callable[[Named], list[Path]] | None
    rows: Callable[[str], Rows | None] | None


F = TypeVar("F", bound=Callable[[Named], Source])

_REGISTRY: dict[str, SourceKind] = {}


def source(
    form: str,
    *,
    matches: Callable[[Named], bool],
    priority: int = 0,
    resolved: Callable[[str], str] | None = None,
    suffixes: tuple[str, ...] = (),
    base: Callable[[str], Path] | None = None,
    files: Callable[[Named], list[Path]] | None = None,
    rows: Callable[[str], Rows | None] | None = None,
) -> Callable[[F], F]:
    """Put a function that opens a kind of source into the table; the arguments are the fields of `SourceKind`."""

    def add(function: F) -> F:
        if not inspect.getdoc(function) or form in _REGISTRY:
            raise TypeError(f"source '{form}' has no docstring, or is declared twice")
        _REGISTRY[form] = SourceKind(form, matches, function, priority, resolved, suffixes, base, files, rows)
        return function

    return add


def declared_sources() -> list[SourceKind]:
    """Every kind of source, those that are tried first in front."""
    return sorted(_REGISTRY.values(), key=lambda kind: -kind.priority)
