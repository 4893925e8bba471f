"""What there is to reproduce: the papers, their sizes, and their tables and figures, each one function with its findings.

A module of this package declares one paper (`declare_paper`), and a function for each of its tables (`table`) and figures
(`figure`). A function is given a `Bench`, computes on it, and puts values into it: `bench.put(row, column, value, seed)`.
The command line and the guide read these declarations, so there is no list to extend.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeVar

from engine import reproduce as package
from engine.errors import SpecError, unknown_name
from engine.reproduce.bench import Bench
from engine.reproduce.size import Size
from engine.reproduce.values import Holds, Values

F = TypeVar("F", bound=Callable[[Bench], None])
SizeName = Literal["small", "paper"]

Published = Mapping[tuple[str, str], str]
"""(row, column) -> what the paper prints there."""


@dataclass(frozen=True)
class Finding:
    """A sentence of a paper that values can bear out. check: of the values of its table or figure"""

    sentence: str
    check: Callable[[Values], Holds]


@dataclass(frozen=True)
class Part:
    """One table or figure.

    unit: what its values are, as in "test error, %"; percent: whether they are shares 0..1 that are shown in percent;
    published: by the paper's name of the dataset; line: whether the columns are numbers along which a line is drawn; note:
    what a reader of the values should know: the rest of the function's docstring
    """

    paper: str
    kind: Literal["table", "figure"]
    number: int
    title: str
    unit: str
    function: Callable[[Bench], None]
    note: str = ""
    percent: bool = True
    line: str = ""
    published: Mapping[str, Published] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def name(self) -> str:
        """As `--only` takes it: table-2, figure-4."""
        return f"{self.kind}-{self.number}"


@dataclass(frozen=True)
class Paper:
    """One paper. sizes: small and paper"""

    name: str
    title: str
    sizes: Mapping[SizeName, Size]


_PAPERS: dict[str, Paper] = {}
_PARTS: dict[tuple[str, str], Part] = {}


def declare_paper(name: str, title: str, *, small: Size, paper: Size) -> None:
    """Put a paper into the list. Args: name: as the command takes it; small, paper: how much is computed"""
    _PAPERS[name] = Paper(name, title, {"small": small, "paper": paper})


def table(paper: str, number: int, **facts: Any) -> Callable[[F], F]:
    """Put a function into the list as a table of a paper. Its docstring begins with the title. Args: facts: see `Part`"""
    return _part(paper, "table", number, facts)


def figure(paper: str, number: int, **facts: Any) -> Callable[[F], F]:
    """Put a function into the list as a figure of a paper. Its docstring begins with the title. Args: facts: see `Part`"""
    return _part(paper, "figure", number, facts)


def _part(paper: str, kind: Literal["table", "figure"], number: int, facts: dict[str, Any]) -> Callable[[F], F]:
    facts["published"] = {name: parse_published(text) for name, text in facts.get("published", {}).items()}

    def add(function: F) -> F:
        first, _, rest = (function.__doc__ or "").strip().partition("\n")
        title, note = first.rstrip("."), " ".join(rest.split())
        part = Part(paper=paper, kind=kind, number=number, title=title, function=function, note=note, **facts)
        known = _PARTS.get((paper, part.name))
        if not title or (known and known.function.__module__ != function.__module__):
            raise TypeError(f"{paper} {part.name} has no docstring, or is declared twice")
        _PARTS[paper, part.name] = part
        return function

    return add


def parse_published(text: str) -> dict[tuple[str, str], str]:
    """A table as the paper prints it: a line of column names, then lines of a row's name and its values.

    Cells are apart by two blanks or more; "-" is an empty one.

    >>> parse_published('''
    ...             20 %        40 %
    ... Standard    25.0        43.3 ± 0.4
    ... ''')
    {('Standard', '20 %'): '25.0', ('Standard', '40 %'): '43.3 ± 0.4'}
    """
    head, *lines = [re.split(r"\s{2,}", line.strip()) for line in text.strip("\n").splitlines() if line.strip()]
    for row, *cells in lines:
        if len(cells) != len(head):
            raise TypeError(f"row {row} of a published table has {len(cells)} values for {len(head)} columns")
    return {
        (row, column): cell for row, *cells in lines for column, cell in zip(head, cells, strict=True) if cell != "-"
    }


@cache
def _load() -> None:
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def all_papers() -> dict[str, Paper]:
    """Every paper by name."""
    _load()
    return dict(sorted(_PAPERS.items()))


def find_paper(name: str) -> Paper:
    """The paper of that name; SpecError with the nearest one when there is none."""
    known = all_papers()
    if name not in known:
        raise SpecError(unknown_name("paper", name, known))
    return known[name]


def parts_of(paper: str, only: str = "") -> list[Part]:
    """The tables and figures of a paper, in its order: tables first.

    Args:   only: names such as table-2, separated by commas; "" = all
    Raises: SpecError for a name that the paper does not have, and for commas without a name
    """
    _load()
    known = {name: part for (of, name), part in _PARTS.items() if of == paper}
    found = sorted(known.values(), key=lambda part: (part.kind != "table", part.number))
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    if only and not wanted:
        raise SpecError(f"--only is '{only}'; allowed: {', '.join(part.name for part in found)}")
    for name in wanted:
        if name not in known:
            raise SpecError(unknown_name(f"part of {paper}", name, [part.name for part in found]))
    return [part for part in found if not wanted or part.name in wanted]
