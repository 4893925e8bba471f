"""How a backbone is declared: beside the function that loads it, with how it is written and what images it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from engine.fields import check_range
from engine.spec import spec_hash


@dataclass(frozen=True)
class Backbone:
    """A pretrained network, and the images that it takes: 3 x side x side, (values 0..255 - mean) / std per channel.

    name: for a folder's name; weights: which they are, in words that differ where they do; load: the network in
    evaluation mode, (B, 3, side, side) float32 -> (B, D) float32; formula: counted up when the features of the same
    weights change by more than the last digits
    """

    name: str
    weights: str
    side: int
    mean: Sequence[float]
    std: Sequence[float]
    load: Callable[[], nn.Module]
    formula: int = 1

    @property
    def key(self) -> str:
        """`<name>@<12 hexadecimal digits of all that decides its numbers>`."""
        decides = [self.weights, self.side, list(self.mean), list(self.std), self.formula]
        return f"{self.name}@{spec_hash(decides)}"


@dataclass(frozen=True)
class Request:
    """What --features names. rest: what follows the name of the kind and a colon, "" for nothing; download: whether
    weights may be fetched."""

    text: str
    rest: str
    download: bool = False

    def side(self, default: int) -> int:
        """The rest as pixels a side; SpecError for what is none."""
        if not self.rest:
            return default
        check_range(f"--features {self.text}: the side", float(self.rest) if self.rest.isdecimal() else 0, 32, 1024)
        return int(self.rest)


@dataclass(frozen=True)
class Kind:
    """One kind of backbone. form: how it is written, for help; open: the backbone that a text names."""

    name: str
    form: str
    what: str
    open: Callable[[Request], Backbone]


F = TypeVar("F", bound=Callable[[Request], Backbone])

_REGISTRY: dict[str, Kind] = {}


def backbone(form: str) -> Callable[[F], F]:
    """Put a function that opens a kind of backbone into the table, under its own name, which the form begins with."""

    def add(function: F) -> F:
        name, doc = function.__name__, inspect.getdoc(function)
        if not doc or name in _REGISTRY or not form.startswith(name):
            raise TypeError(f"backbone '{name}' has no docstring, another form's name, or is declared twice")
        _REGISTRY[name] = Kind(name, form, doc.split("\n")[0], function)
        return function

    return add


def declared_backbones() -> dict[str, Kind]:
    """Every kind of backbone by its name."""
    return _REGISTRY
