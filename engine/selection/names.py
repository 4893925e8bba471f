"""The names of orders and samplers, as people write them: the one place that reads them.

el2n                ascending: the easiest pruned first
el2n*               descending: the hardest pruned first
random, oracle
kcenter             a sampler that reads no score
ccs(nli)            a sampler of a score
ccs(nli,beta=0.2)   with options
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.errors import SpecError, unknown_name
from engine.selection.samplers import SAMPLERS

SCORELESS = tuple(
    name for name, sampler in SAMPLERS.items() if not {"ranks", "hardness"} & set(sampler.inputs) and name != "window"
)
"""What is an order by its own name: random, oracle and the samplers that read no score."""

_ALLOWED = "random, oracle, a score's name, with one * behind it for reversed, or a sampler such as kcenter or ccs(nli)"


@dataclass(frozen=True)
class Order:
    """What an order's name says: a sampler, the score it reads ("" for none), and its options."""

    sampler: str
    score: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def parse_order(name: str) -> Order:
    """What an order's name says.

    Raises: SpecError for a malformed name, an unknown sampler or option, or a sampler without the score it reads;
            whether there is such a score is for the runs to say
    """
    found = re.fullmatch(r"([^()*,=\s]+)(\*?)(?:\(([^()]*)\))?", name)
    if not found:
        raise SpecError(f"order '{name}'; allowed: {_ALLOWED}")
    base, star, inner = found.groups()
    if inner is None:
        if base in SAMPLERS and base not in SCORELESS:
            raise SpecError(f"order '{name}' names no score; write {base}(SCORE), such as {base}(el2n)")
        if base not in SCORELESS:
            return Order("descending" if star else "ascending", base)
        if star:
            raise SpecError(f"order '{name}'; {base} has no reverse, leave out the *")
        return Order(base)
    if star:
        raise SpecError(f"order '{name}'; a sampler has no reverse, leave out the *")
    if base not in SAMPLERS:
        raise SpecError(unknown_name("sampler", base, SAMPLERS, f"of order '{name}'"))
    words = [word.strip() for word in inner.split(",") if word.strip()]
    scores = [word for word in words if "=" not in word]
    if len(scores) != (base not in SCORELESS):
        takes = f"takes no score: {base} or {base}(option=value)" if base in SCORELESS else f"takes one: {base}(el2n)"
        raise SpecError(f"order '{name}' names {len(scores)} scores; {base} {takes}")
    options = dict(_option(name, base, word) for word in words if "=" in word)
    return Order(base, scores[0] if scores else "", options)


def split_orders(text: str) -> tuple[str, ...]:
    """The names in a list separated by commas, those inside parentheses apart: each once, without spaces."""
    names = (re.sub(r"\s", "", name) for name in re.split(r",(?![^()]*\))", text))
    return tuple(dict.fromkeys(name for name in names if name))


def _option(name: str, sampler: str, word: str) -> tuple[str, Any]:
    option, _, text = (part.strip() for part in word.partition("="))
    known = SAMPLERS[sampler].options
    if option not in known:
        raise SpecError(unknown_name(f"option of {sampler}", option, known, f"in order '{name}'"))
    kind = type(known[option])
    try:
        return option, kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise SpecError(f"option {option} of order '{name}' is '{text}'; it must be {wanted}") from None
