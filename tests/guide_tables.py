"""The tables and the code that the guide's texts have between markers, made from what the code declares."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import typer

import engine.runs.inputs  # noqa: F401  # declares what scores read
from dashboard.navigation import all_pages
from engine import errors
from engine.cli.arguments import fill_help
from engine.cli.commands import app
from engine.data.noise import KINDS as NOISE_KINDS
from engine.data.sources import declared_sources
from engine.features.backbones.declared import declared_backbones
from engine.features.own_file import SUFFIXES
from engine.fields import options_of
from engine.presets import PRESETS
from engine.queries.writers import WRITERS, Writer
from engine.relabel.learner_settings import DEFAULTS
from engine.relabel.registry import all_learners, all_methods
from engine.reproduce.declared import all_papers, parts_of
from engine.scores.inputs import INPUTS
from engine.scores.registry import EVIDENCE, all_scores
from engine.selection.samplers import all_samplers
from engine.store.schema import TABLE_VIEWS, VIEWS

ROOT = Path(__file__).parents[1]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; | in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def first_line(item: Any) -> str:
    """The first sentence of a docstring, without the full stop."""
    return " ".join((item.__doc__ or "").strip().split("\n\n")[0].split()).rstrip(".")


def scores() -> str:
    def cells(found: Any) -> list[str]:
        low, high = (f"{x:.3g}".replace("inf", "∞").replace("-", "−") for x in found.value_range)
        return [f"`{found.name}`", found.title, found.higher_means, found.evidence, f"{low} .. {high}", found.source]

    head = ["score", "what it is", "higher means", "evidence of", "range", "source"]
    return table(head, map(cells, all_scores().values()))


def evidence() -> str:
    return table(["evidence of", "means"], [[f"`{name}`", meaning] for name, meaning in EVIDENCE.items()])


def rules() -> str:
    def cells(found: Any) -> list[str]:
        value = first_line(found.flags_by).partition(", (N,)")[0] if found.flags_by else f"`{found.name}`"
        return [f"`{found.rule}`", f"`{found.name}`", value, f"above {found.flags_above:g}"]

    rows = [cells(found) for found in all_scores().values() if found.flags_above is not None]
    rows.insert(
        0, ["`aum_threshold`", "`aum`", "`aum` of two more networks", "up to that of threshold samples, see below"]
    )
    return table(["rule", "score", "value", "flags where the value is"], rows)


def views() -> str:
    comments = {name: view.comment for name, view in VIEWS.items()}
    comments |= {name: comment for name, (comment, _) in TABLE_VIEWS.items()}
    return table(["view", "holds"], [[f"`{name}`", comment.rstrip(".")] for name, comment in comments.items()])


def samplers() -> str:
    def cells(found: Any) -> list[str]:
        options = ", ".join(f"`{name}={value:g}`" for name, value in found.options.items())
        return [
            f"`{found.name}`",
            found.title,
            ", ".join(f"`{i}`" for i in found.inputs if i not in ("n", "generator", "shares", "parts")),
            options,
        ]

    return table(["sampler", "what stays", "reads", "options"], map(cells, all_samplers().values()))


def methods() -> str:
    def cells(found: Any) -> list[str]:
        return [f"`{found.name}`", found.title, ", ".join(f"`{i}`" for i in found.inputs), found.source]

    return table(["method", "what it proposes", "reads", "source"], map(cells, all_methods().values()))


def learners() -> str:
    def cells(found: Any) -> list[str]:
        return [f"`{found.name}`", found.title, f"{found.cost:g} ×", str(found.epochs), found.source]

    return table(
        ["learner", "what it is", "time", "epochs, where none are given", "source"], map(cells, all_learners().values())
    )


def learner_settings() -> str:
    rows = [
        [f"`{learner}`", f"`{name}`", declared.help, f"{getattr(images, name):g}", f"{getattr(features, name):g}",
         f"{declared.low:g} to {declared.high:g}"]
        for learner, (images, features) in DEFAULTS.items()
        for name, (_, declared) in options_of(type(images)).items()
    ]  # fmt: skip
    return table(["learner", "setting", "what it sets", "on images", "on features", "allowed"], rows)


def reproduced() -> str:
    def cells(name: str, kind: str) -> str:
        return ", ".join(f"{part.number}: {part.title}" for part in parts_of(name) if part.kind == kind)

    rows = [
        [f"`{name}`", paper.title, cells(name, "table"), cells(name, "figure")] for name, paper in all_papers().items()
    ]
    return table(["paper", "", "tables", "figures"], rows)


def noise() -> str:
    return table(["kind", "gives"], [[f"`{name}:{k.example}`", k.title] for name, k in NOISE_KINDS.items()])


def sources() -> str:
    def cells(kind: Any) -> list[str]:
        return [f"`{kind.form}`" if kind.resolved else kind.form, first_line(kind.open)]

    return table(["`--from`", "what it reads"], map(cells, declared_sources()))


def backbones() -> str:
    rows = [[f"`{kind.form}`", kind.what.rstrip(".")] for kind in declared_backbones().values()]
    rows.append([", ".join(f"`FILE{suffix}`" for suffix in SUFFIXES), "Your own features, a row for each sample"])
    return table(["`--features`", "what it is"], rows)


def formats() -> str:
    def cells(name: str, found: Writer) -> list[str]:
        kind = f"a file `{found.ending}`" if found.ending else "a folder"
        back = ", ".join(f"`winnow {command}`" for command in found.back) or "not"
        return [f"`{name}`", kind, found.holds, found.read_by, back]

    return table(["`--format`", "is", "holds", "read by", "comes back by"], [cells(*one) for one in WRITERS.items()])


def presets() -> str:
    def cells(found: Any) -> list[str]:
        one = found.training
        training = f"{one.model}, {one.epochs} epochs, {one.seeds} seed{'s' if one.seeds > 1 else ''}"
        differs = [found.changes or "nothing known", found.unknown or "nothing"]
        return [f"`{found.name}`", found.source, training, found.noise or "none", *differs]

    head = ["preset", "paper", "training", "label noise", "differs from the paper", "left open by the paper"]
    return table(head, map(cells, PRESETS.values()))


def inputs() -> str:
    return table(["input", "what it is", "needs"], [[f"`{n}`", found.what, found.cost] for n, found in INPUTS.items()])


def pages() -> str:
    return table(["page", "shows"], [[f"`{page.address}`", page.shows.rstrip(".")] for page in all_pages()])


def exceptions() -> str:
    found = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, errors.WinnowError)]
    return table(["exception", "raised when"], [[f"`{item.__name__}`", first_line(item)] for item in found])


def all_commands() -> dict[str, Any]:
    """Every command by what is typed behind `winnow`, those of groups too."""
    found: dict[str, Any] = {}

    def walk(group: Any, before: str) -> None:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                walk(command, f"{before}{name} ")
            else:
                found[before + name] = command

    walk(typer.main.get_command(app), "")
    return found


def commands() -> str:
    return table(
        ["command", "what it does"],
        [[f"`winnow {name}`", str(command.help).split("\n\n")[0]] for name, command in all_commands().items()],
    )


def options(name: str) -> str:
    def cells(param: Any) -> list[str]:
        text = fill_help(str(getattr(param, "help", "")))
        found = re.search(r"\s*\(default: (.+)\)$", text)
        default = found[1] if found else "" if param.default in (None, "", False) else str(param.default)
        return [f"`{max(param.opts, key=len)}`", text.replace(found[0], "") if found else text, default]

    given = [param for param in all_commands()[name].params if param.param_type_name == "option"]
    return table(["option", "what it sets", "default"], [cells(param) for param in given if param.opts != ["--help"]])


TABLES: dict[str, Callable[[], str]] = {
    "scores": scores,
    "evidence": evidence,
    "rules": rules,
    "views": views,
    "samplers": samplers,
    "methods": methods,
    "learners": learners,
    "learner settings": learner_settings,
    "reproduced": reproduced,
    "noise": noise,
    "sources": sources,
    "backbones": backbones,
    "formats": formats,
    "presets": presets,
    "inputs": inputs,
    "pages": pages,
    "errors": exceptions,
    "commands": commands,
    **{
        f"options {name}": lambda name=name: options(name)
        for name in ("ingest", "run", "psi", "prove", "relabel", "version create")
    },  # type: ignore[misc]
}
"""By the name of the markers: <!-- scores --> and <!-- /scores -->."""


def code(path: str, name: str) -> str:
    """A block with what a file defines under a name: a function, a constant, or CLASS.FIELD."""
    source = (ROOT / path).read_text()
    body: list[ast.stmt] = ast.parse(source).body
    for part in name.split("."):
        (found,) = (node for node in body if part in _defined(node))
        body = getattr(found, "body", [])
    first = min([found.lineno, *(node.lineno for node in getattr(found, "decorator_list", []))])
    lines = source.splitlines()[first - 1 : found.end_lineno]
    return "\n".join(["```python", textwrap.dedent("\n".join(lines)), "```"])


def _defined(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [getattr(node, "name", ""), *(target.id for target in targets if isinstance(target, ast.Name))]


def generated(text: str) -> str:
    """A text with its generated tables and the code that it quotes as they should be."""
    text = re.sub(
        r"^<!-- code (\S+) (\S+) -->\n.*?^<!-- /code -->$",
        lambda found: f"<!-- code {found[1]} {found[2]} -->\n{code(found[1], found[2])}\n<!-- /code -->",
        text,
        flags=re.M | re.S,
    )
    for name, make in TABLES.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if begin:
            assert end, f"the marker <!-- {name} --> is not closed"
            text = before + begin + make() + "\n" + end + after
    return text
