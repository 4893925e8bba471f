"""The papers' figures, each declared where it is drawn: a function with @paper_figure in a module of this folder.

    @paper_figure("cg-4", title="Learning by complexity gap", caption="What the lines are.")
    def learning(needs: Needs) -> go.Figure | None:

The function asks `needs` for runs and tables and returns the drawing, or None while too little is there; what is
missing, and the commands that make it, is noted in `needs`. The page and the tests read `all_figures()`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from dashboard.figures.needs import Needs

Draw = Callable[[Needs], go.Figure | None]


@dataclass(frozen=True)
class PaperFigure:
    """One figure of a paper. name: paper and number, as in an address: "cg-4"; percentile: whether it reads
    `needs.percentile`."""

    name: str
    title: str
    caption: str
    draw: Draw
    percentile: bool = False

    @property
    def source(self) -> str:
        """The paper and the number as people write them: CG 4."""
        return self.name.replace("-", " ").upper()


_declared: dict[str, PaperFigure] = {}


def paper_figure(name: str, *, title: str, caption: str, percentile: bool = False) -> Callable[[Draw], Draw]:
    """Declare a figure. Raises ValueError for a name that another figure has."""

    def declare(draw: Draw) -> Draw:
        if name in _declared:
            raise ValueError(f"two figures are called '{name}'; give one of them another name")
        _declared[name] = PaperFigure(name, title, caption, draw, percentile)
        return draw

    return declare


def all_figures() -> dict[str, PaperFigure]:
    """Every figure of every module in this folder, by name: paper by paper, in the order of their numbers."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules([str(Path(__file__).parent)], f"{package}."):
        importlib.import_module(module.name)
    return dict(sorted(_declared.items(), key=lambda item: (item[0].partition("-")[0], int(item[0].partition("-")[2]))))
