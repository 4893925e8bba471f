"""What a cloud of samples is colored by: the choice, and what its colors mean in words."""

from __future__ import annotations

from dataclasses import dataclass

from dashboard import charts, data, filters, widgets
from dashboard.data import View
from dashboard.markup import short_names

NO_COLOR = "none"


@dataclass(frozen=True)
class Coloring:
    """A color with the words of its legend. names: of categories; yes, no: of a share; rest: what is gray."""

    color: data.clouds.Color
    kind: str
    title: str
    names: tuple[str, ...] = ()
    yes: str = ""
    no: str = ""
    rest: str = ""


def choose_color(view: View, default: str) -> Coloring:
    """The picker "Color by", and what was chosen."""
    facts = data.dataset_facts(view.at)
    titles = {NO_COLOR: "how many samples", "given": "given class"}
    if facts["known"]:
        titles |= {"true": "true class", "wrong": "mislabeled"}
    if data.verdict(view.at, view.run_id) is not None:
        titles["flagged"] = "flagged"
    titles["decided"] = "decided"
    titles |= {f"about:{name}": str(name) for name in data.metadata(view.at, "names")["name"]}
    titles |= {f"score:{score}": str(score) for score in data.catalog(view.at, view.run_id)["score"]}
    chosen = widgets.choose("Color by", "color", list(titles), default, lambda c: titles[c])
    return _coloring(view, chosen, titles[chosen])


def _coloring(view: View, chosen: str, title: str) -> Coloring:
    of = data.clouds.Color
    kind, _, name = chosen.partition(":")
    if kind == "given":
        return Coloring(of("given"), "category", title, view.names)
    if kind == "true":
        return Coloring(of("true"), "category", title, view.names, rest="unknown")
    if kind == "wrong":
        return Coloring(of("wrong"), "share", title, yes="mislabeled", no="clean")
    if kind == "flagged":
        return Coloring(of("flagged"), "share", title, yes="flagged", no="not flagged")
    if kind == "decided":
        return Coloring(of("decided"), "category", title, data.clouds.ACTIONS, rest="undecided")
    if kind == "score":
        return Coloring(of("score", name), "number", title)
    if kind == "about" and filters.number_range(view, name):
        return Coloring(of("about", name), "number", title)
    if kind == "about":
        values = tuple(data.metadata(view.at, "values", name)["value"].astype(str))[: len(charts.CLASSES)]
        return Coloring(of("value", name, values), "category", title, short_names(values), rest="other")
    return Coloring(of(), "none", title)
