"""The names of orders and samplers, as people write them: the one place that reads and writes them.

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
from engine.selection.samplers import Sampler, all_samplers, find_sampler

_ALLOWED = "random, oracle, a score's name, with one * behind it for reversed, or a sampler such as kcenter or ccs(nli)"


@dataclass(frozen=True)
class Order:
    """What an order's name means: a sampler, the score it reads ("" for none), and its options.

    text: the name as it was written, which decides nothing but what is drawn at random
    """

    sampler: str
    score: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    text: str = field(default="", compare=False)

    @property
    def reversed(self) -> bool:
        """Whether the hardest are pruned first, written with a *."""
        return self.sampler == "descending"

    @property
    def name(self) -> str:
        """The canonical name: `parse_order` of it gives this order again."""
        if self.sampler in ("ascending", "descending"):
            return self.score + "*" * self.reversed
        words = [self.score] if self.score else []
        words += [f"{option}={_number(value)}" for option, value in self.options.items()]
        return f"{self.sampler}({','.join(words)})" if words else self.sampler

    @property
    def draws_as(self) -> str:
        """What seeds its draws: the text without the *, so that an order and its reverse break ties alike."""
        return (self.text or self.name).rstrip("*")


def scoreless() -> tuple[str, ...]:
    """What is an order by its own name: random, oracle and the samplers that read no score."""
    return tuple(name for name, sampler in all_samplers().items() if not sampler.reads_score)


def parse_order(name: str) -> Order:
    """What an order's name means.

    Raises: SpecError for a malformed name, an unknown sampler or option, or a sampler without the score it reads;
            whether there is such a score is for the runs to say
    """
    found = re.fullmatch(r"([^()*,=\s]+)(\*?)(?:\(([^()]*)\))?", name)
    if not found:
        raise SpecError(f"order '{name}'; allowed: {_ALLOWED}")
    base, star, inner = found.groups()
    known = all_samplers()
    alone = base in known and not known[base].reads_score
    if inner is None:
        if base in known and not alone:
            raise SpecError(f"order '{name}' names no score; write {base}(SCORE), such as {base}(el2n)")
        if not alone:
            return Order("descending" if star else "ascending", base, text=name)
        if star:
            raise SpecError(f"order '{name}'; {base} has no reverse, leave out the *")
        return Order(base, text=name)
    if star:
        raise SpecError(f"order '{name}'; a sampler has no reverse, leave out the *")
    if base not in known:
        raise SpecError(unknown_name("sampler", base, known, f"of order '{name}'"))
    words = [word.strip() for word in inner.split(",") if word.strip()]
    scores = [word for word in words if "=" not in word]
    if len(scores) != (not alone):
        takes = f"takes no score: {base} or {base}(option=value)" if alone else f"takes one: {base}(el2n)"
        raise SpecError(f"order '{name}' names {len(scores)} scores; {base} {takes}")
    given = dict(_option(name, base, word) for word in words if "=" in word)
    options = {option: given[option] for option in known[base].options if option in given}
    return Order(base, scores[0] if scores else "", options, name)


def split_orders(text: str) -> tuple[str, ...]:
    """The names in a list separated by commas, those inside parentheses apart: each once, without spaces."""
    names = (re.sub(r"\s", "", name) for name in re.split(r",(?![^()]*\))", text))
    return tuple(dict.fromkeys(name for name in names if name))


def sampler_help() -> list[dict[str, Any]]:
    """A row for each sampler, for texts of help.

    Returns: name; form, how an order by it is written, with its options at their defaults; reads, of SAMPLER_INPUTS;
             options with their defaults; title
    """
    return [
        {
            "name": found.name,
            "form": _form(found),
            "reads": list(found.inputs),
            "options": dict(found.options),
            "title": found.title,
        }
        for found in all_samplers().values()
    ]


def _form(found: Sampler) -> str:
    given = Order(found.name, "SCORE" if found.reads_score else "", found.options)
    return given.name


def _number(value: float) -> str:
    """A number as short as it can be written without loss: 50, 0.2, 0."""
    short = str(value) if isinstance(value, int) else f"{value:g}"
    return short if float(short) == value else repr(value)


def _option(name: str, sampler: str, word: str) -> tuple[str, Any]:
    option, _, text = (part.strip() for part in word.partition("="))
    known = find_sampler(sampler).options
    if option not in known:
        raise SpecError(unknown_name(f"option of {sampler}", option, known, f"in order '{name}'"))
    kind = type(known[option])
    try:
        return option, kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise SpecError(f"option {option} of order '{name}' is '{text}'; it must be {wanted}") from None
