"""How a kind of source is declared: beside the function that opens it, with how it is written and recognized."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from engine.data.parts import Source


@dataclass(frozen=True)
class Named:
    """What --from names. text: as it was written; seed: of what is drawn."""

    text: str
    seed: int = 0

    @cached_property
    def path(self) -> Path:
        """The text as a path, a leading ~ expanded."""
        return Path(self.text).expanduser()

    def is_file(self, *suffixes: str) -> bool:
        """Whether it is a file with one of these suffixes, in any case."""
        return self.path.suffix.lower() in suffixes and self.path.is_file()


@dataclass(frozen=True)
class SourceKind:
    """One kind of source.

    form: how it is written, for help; matches: whether a text is of this kind; open: reads it; priority: kinds are
    tried from the highest down; resolved: the text as it is compared and stored, None for a path, which is made
    absolute; suffixes: of files that it reads
    """

    form: str
    matches: Callable[[Named], bool]
    open: Callable[[Named], Source]
    priority: int
    resolved: Callable[[str], str] | None
    suffixes: tuple[str, ...]


F = TypeVar("F", bound=Callable[[Named], Source])

_REGISTRY: dict[str, SourceKind] = {}


def source(
    form: str,
    *,
    matches: Callable[[Named], bool],
    priority: int = 0,
    resolved: Callable[[str], str] | None = None,
    suffixes: tuple[str, ...] = (),
) -> Callable[[F], F]:
    """Put a function that opens a kind of source into the table; the arguments are the fields of `SourceKind`."""

    def add(function: F) -> F:
        if not inspect.getdoc(function) or form in _REGISTRY:
            raise TypeError(f"source '{form}' has no docstring, or is declared twice")
        _REGISTRY[form] = SourceKind(form, matches, function, priority, resolved, suffixes)
        return function

    return add


def declared_sources() -> list[SourceKind]:
    """Every kind of source, those that are tried first in front."""
    return sorted(_REGISTRY.values(), key=lambda kind: -kind.priority)
