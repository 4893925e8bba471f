"""How much of a paper is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Size:
    """How much is computed.

    dataset: that is taken where none is given, "" = one must be; options: of `winnow run` for every training; {} = what a
    short trial finds best for the dataset; seeds: networks behind every value; rates: of the label noise that is injected
    """

    dataset: str
    options: Mapping[str, Any]
    seeds: int
    rates: tuple[float, ...]
