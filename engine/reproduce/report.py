"""The report of a reproduced paper: one HTML file that loads nothing, and every value as CSV."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import io
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from engine.report.drawing import lines, text
from engine.reproduce.declared import Part, Published
from engine.reproduce.reproducing import Reproduced, Reproduction
from engine.reproduce.values import Values
from engine.store.atomic import write_text
from engine.store.version import winnow_version

WORDS = {True: "holds", False: "does not hold", None: "undecided"}
"""What is said of a finding."""


def write_reproduction(found: Reproduction) -> Path:
    """Write report.html and values.csv into the folder of a reproduction. Returns the path of the report."""
    path = found.folder / "report.html"
    write_text(path, _page(found))
    write_text(found.folder / "values.csv", _csv(found))
    return path


def published_for(part: Part, dataset: str) -> tuple[str, Published]:
    """What the paper prints for a dataset, by its name, else for the first of its own: (name, cells); "" where nothing."""

    def plain(name: str) -> str:
        return "".join(c for c in name.lower() if c.isalnum())

    named = [name for name in part.published if plain(dataset).startswith(plain(name))]
    name = max(named, key=len, default=next(iter(part.published), ""))  # cifar100 begins with cifar10
    return name, part.published.get(name, {})


def _page(found: Reproduction) -> str:
    style = files("engine.report").joinpath("style.css").read_text(encoding="utf-8")
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{hashed}'; base-uri 'none'; form-action 'none'"
    title = f"{found.paper.name.upper()} on {found.dataset}"
    size = f"{found.size_name} size, {found.size.seeds} {'seed' if found.size.seeds == 1 else 'seeds'}"
    head = (
        f"<header><h1>{text(title)}</h1>\n<p class=faint>{text(found.paper.title, 300)}. Computed by Winnow "
        f"{text(winnow_version())}: {text(size)}. Values are means over the seeds of the networks, with half of their 95 % "
        "interval (Student's t); all seeds learn from the same wrong labels, where a part does not say otherwise.</p></header>\n"
    )
    body = head + _findings(found) + "".join(_part(done, found.dataset) for done in found.parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )


def _findings(found: Reproduction) -> str:
    rows = [
        [
            text(done.part.name),
            text(sentence, 400),
            f"<span class=whole>{WORDS[held.holds]}</span>",
            text(held.because, 300),
        ]
        for done in found.parts
        if not done.problem
        for sentence, held in done.findings()
    ]
    if not rows:
        return ""
    words = (
        "A finding holds where the 95 % interval of the mean difference, paired by seed, is above 0 or the margin that it names, "
        "does not hold where it is below, and is undecided where it is on both sides."
    )
    return _section(
        "Findings", f"<p class=faint>{words}</p>{_table(['Where', 'The paper says', 'Here', 'By'], rows, 4)}"
    )


def _part(done: Reproduced, dataset: str) -> str:
    part = done.part
    title = f"{part.kind.capitalize()} {part.number}: {part.title}"
    if done.problem:
        return _section(title, f"<p>Not computed: {text(done.problem, 600)}</p>")
    name, published = published_for(part, dataset)
    words = f"{part.unit}. Took {_minutes(done.seconds)}."
    words += f" The second line of a row is the paper's, on {name}." if published else ""
    note = f"<p class=faint>{text(part.note, 1000)}</p>" if part.note else ""
    drawing = _drawn(part, done.values) if part.line else ""
    table = _values(done.values, published)
    runs = f"<p class=faint>Runs: {text(', '.join(done.runs), 2000)}</p>" if done.runs else ""
    return _section(title, f"<p class=faint>{text(words, 400)}</p>{note}{drawing}{table}{runs}")


def _values(values: Values, published: Published) -> str:
    """The values beside the paper's: all rows and columns of both, what is not there is empty."""
    rows = list(dict.fromkeys([*values.rows, *(row for row, _ in published)]))
    columns = list(dict.fromkeys([*values.columns, *(column for _, column in published)]))
    cells = []
    for row in rows:
        if row in values.rows:
            cells.append([text(row), *(text(values.shown(row, column)) for column in columns)])
        if any((row, column) in published for column in columns):
            theirs = [text(published.get((row, column), "")) for column in columns]
            name = "the paper" if row in values.rows else f"{text(row)}, the paper"
            cells.append([f"<span class=faint>{c}</span>" for c in (name, *theirs)])
    return _table(["", *map(text, columns)], cells)


def _drawn(part: Part, values: Values) -> str:
    """Lines along the columns that are numbers."""
    across = {}
    for column in values.columns:
        with contextlib.suppress(ValueError):
            across[column] = float(column.split()[0])
    scale = 100 if part.percent else 1
    curves = [
        (row, [(x, scale * values.mean(row, c)) for c, x in across.items() if not math.isnan(values.mean(row, c))])
        for row in values.rows
    ]
    drawn = [(row, sorted(points)) for row, points in curves if len(points) > 1]
    return f"<figure>{lines(drawn, part.line, part.unit)}</figure>" if drawn else ""


def _csv(found: Reproduction) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["part", "row", "column", "seed", "value", "published"])
    for done in found.parts:
        published: Mapping[tuple[str, str], str] = published_for(done.part, found.dataset)[1]
        for row in done.values.rows:
            for column in done.values.columns:
                for seed, value in done.values.of(row, column).items():
                    writer.writerow([done.part.name, row, column, seed, repr(value), published.get((row, column), "")])
    return out.getvalue()


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{text(title, 300)}</h2>\n{body}</section>\n"


def _table(heads: list[str], rows: list[list[str]], words: int = 1) -> str:
    """A table of finished cells; the first columns are words."""

    def cells(tag: str, row: list[str]) -> str:
        return "".join(f"<{tag}{' class=text' if i < words else ''}>{cell}</{tag}>" for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{cells('th', heads)}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class=wide tabindex="0" role="group" aria-label="{heads[0] or "values"}">{table}</div>'
