"""The README and the guide are true: commands, tables, links and examples are held against the code.

python tests/test_guide.py    writes the generated tables
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import guide_tables
import pytest

from engine.cli.arguments import fill_help
from engine.errors import SpecError
from engine.queries.connection import connected, fetch_sql
from engine.queries.versions import create_version
from engine.queries.writers import export, find_writer
from engine.scores.registry import all_scores, find_score
from engine.store.workspace import Workspace

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "dashboard/guide"
README = ROOT / "README.md"
CHAPTERS = sorted(GUIDE.glob("*.md"))
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (README, *CHAPTERS)}
ALL_COMMANDS = guide_tables.all_commands()


def blocks(text: str, kind: str) -> list[str]:
    """The fenced blocks of one kind."""
    return [block for found, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S) if found == kind]


def prose(text: str) -> str:
    """A text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def shell_lines(text: str) -> list[list[str]]:
    """Every command of the shell blocks, split into words, without what redirects its output."""
    parts = [part for block in blocks(text, "sh") for line in block.splitlines() for part in line.split(" && ")]
    words = [shlex.split(part, comments=True) for part in parts]
    return [line[: line.index(">")] if ">" in line else line for line in words if line]


WINNOW = {
    f"{name}: {' '.join(words)}": words[1:]
    for name, text in TEXTS.items()
    for words in shell_lines(text)
    if words[0] == "winnow"
}


def parsed(words: list[str]) -> Any:
    """The context of one command line; an error for an unknown command, option or value."""
    group = " ".join(words[:2]) in ALL_COMMANDS
    name = " ".join(words[: 1 + group])
    assert name in ALL_COMMANDS, f"winnow has no command '{name}'"
    return ALL_COMMANDS[name].make_context(name, words[1 + group :])


def anchors(text: str) -> set[str]:
    """The anchors of a text's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Form ------------------------------------------------------------------------------------------------------------


def test_the_readme_is_short_and_leads_to_every_chapter():
    assert len(TEXTS["README.md"].splitlines()) <= 130
    linked = set(re.findall(r"\]\((dashboard/guide/[^)#]+\.md)", TEXTS["README.md"]))
    assert linked == {path.relative_to(ROOT).as_posix() for path in CHAPTERS}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_a_number_a_name_and_one_title(path):
    assert re.fullmatch(r"\d\d-[a-z-]+\.md", path.name)
    assert path.read_text().startswith("# ")
    assert len(re.findall(r"^# ", prose(path.read_text()), re.M)) == 1


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_picture_and_file_that_a_text_names_is_there(name):
    here = (ROOT / name).parent
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", TEXTS[name]):
        path, _, anchor = link.partition("#")
        target = (here / path).resolve() if path else ROOT / name
        assert target.is_relative_to(ROOT) and target.is_file(), f"{name} links to {link}"
        assert not anchor or anchor in anchors(target.read_text()), f"{name} links to {link}"
    spans = re.findall(r"(?<=[` ])((?:engine|dashboard|tests|\.ci)/[\w./]*)", TEXTS[name])
    assert [path for path in spans if not (ROOT / path).exists()] == []


def test_every_path_of_the_tree_is_there():
    (block,) = (block for block in blocks(TEXTS["dashboard/guide/80-adding.md"], "") if block.startswith("engine/"))
    paths = list(tree_paths(block))
    assert "engine/cli/" in paths and "dashboard/app_pages/" in paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def tree_paths(block: str) -> Iterator[str]:
    """The paths of a drawn tree, four spaces a level; a line may name several of one folder."""
    parents: list[str] = []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 4
        names = re.split(r"\s{2,}", line.strip())[0].split()
        for name in names:
            yield "".join([*parents[:depth], name])
        parents[depth:] = names[:1]


# Generated tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXTS)
def test_the_generated_tables_are_those_of_the_code(name):
    assert guide_tables.generated(TEXTS[name]) == TEXTS[name], "run: python tests/test_guide.py"


def test_every_table_has_its_place_and_every_place_a_table():
    places = re.findall(r"^<!-- ([\w ]+) -->$", "\n".join(TEXTS.values()), re.M)
    assert sorted(places) == sorted(guide_tables.TABLES)


# Commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", WINNOW)
def test_a_command_of_a_text_is_one_of_the_command_line(line):
    with parsed(WINNOW[line]) as context:
        assert context.info_name


def test_a_wrong_command_or_option_would_be_noticed():
    with pytest.raises(Exception, match="No such option"):
        parsed(["run", "mine", "--epoch-count", "3"])
    with pytest.raises(AssertionError, match="no command 'detector'"):
        parsed(["detector", "trian"])


def test_every_code_span_that_is_a_command_or_an_option_names_one():
    text = "\n".join(prose(text) for text in TEXTS.values())
    commands = re.findall(r"`winnow ([a-z]+)", text)
    assert commands and set(commands) <= {name.split()[0] for name in ALL_COMMANDS}
    every = {option for command in ALL_COMMANDS.values() for param in command.params for option in param.opts}
    others = {"--help", "--standardise"}  # the second is the changelog's: what it was called
    assert {option for option in re.findall(r"`(--[a-z-]+)", text)} <= every | others


def test_every_command_and_option_has_help():
    silent = [
        f"{name} {param.opts[-1]}"
        for name, command in ALL_COMMANDS.items()
        for param in command.params
        if not getattr(param, "help", None)
    ]
    silent += [name for name, command in ALL_COMMANDS.items() if not command.help]
    assert len(ALL_COMMANDS) > 10 and silent == []


def test_the_queries_of_the_texts_answer(judged_workspace, tmp_path):
    workspace = Workspace.open(shutil.copytree(judged_workspace, tmp_path / "workspace"))
    create_version(workspace, "digits-noisy", "v1", drop_shortlist=True)
    queries = [words[1] for words in WINNOW.values() if words[0] == "query"]
    queries += [sql for text in TEXTS.values() for sql in blocks(text, "sql")]
    assert len(queries) > 8
    with connected(workspace, "digits-noisy") as connection:
        for sql in queries:
            assert len(fetch_sql(connection, sql)) > 0 or "similarity" in sql


def test_the_exports_of_the_texts_write_what_they_say(judged_workspace, tmp_path):
    exports = [parsed(words).params for words in WINNOW.values() if words[0] == "export"]
    assert len(exports) >= 4
    for params in exports:
        if params["version"]:  # which the judged workspace has not
            continue
        where = params["where"].replace("'cat'", "'3'")  # a class of the digits
        at, to = Workspace.open(judged_workspace), tmp_path / params["to"]
        kept, total = export(at, "digits-noisy", where, to, params["format"], split=params["split"])
        assert 0 < kept <= total and to.is_dir() == bool(find_writer(params["format"], to).write_folder)


def test_the_error_of_the_guide_is_what_is_printed():
    (block,) = (block for block in blocks(TEXTS["dashboard/guide/90-errors.md"], "") if block.startswith("$ winnow"))
    command, message = block.splitlines()
    with pytest.raises(SpecError) as error:
        find_score(shlex.split(command)[-1])
    assert message == f"winnow: {error.value}"


def test_the_ci_calls_the_test_command_of_the_guide():
    tested = [line for line in blocks(TEXTS["dashboard/guide/85-platforms.md"], "sh") if "pytest" in line]
    assert tested and tested[0].strip() in (ROOT / ".ci/run").read_text().splitlines()


# Installing ------------------------------------------------------------------------------------------------------


def test_nothing_tells_anyone_to_install_somebody_elses_package():
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert package["name"] == "winnow-images"
    sources = [*(ROOT / "engine").rglob("*.py"), *(ROOT / "dashboard").rglob("*.py"), README, *CHAPTERS]
    for path in sources:
        found = re.findall(r"pip install (?:-\w+ )*['\"]?winnow(?!-images)", path.read_text())
        assert not found, f"{path} has {found}"
    extras = {extra for text in TEXTS.values() for extra in re.findall(r"pip install .*\[(\w+)\]", text)}
    assert extras and extras <= set(package["optional-dependencies"])


# Python ----------------------------------------------------------------------------------------------------------

PYTHON = {f"{name} {i}": code for name, text in TEXTS.items() for i, code in enumerate(blocks(text, "python"))}


@pytest.mark.parametrize("where", PYTHON)
def test_a_python_block_compiles_and_what_it_takes_from_the_engine_is_there(where):
    for node in ast.walk(ast.parse(PYTHON[where])):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("engine.integrations."):
            source = (ROOT / f"{str(node.module).replace('.', '/')}.py").read_text()
            assert [name.name for name in node.names if f"\nclass {name.name}(" not in source] == []
        elif isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "engine":
            module = importlib.import_module(str(node.module))
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "engine":
            assert hasattr(importlib.import_module("engine"), node.attr), f"{where}: engine.{node.attr}"


# Words -----------------------------------------------------------------------------------------------------------

STEMS = "behaviour colour neighbour labelled labelling cancelled cancelling centre grey catalogue".split()
VERBS = "initial memor normal optim organ real recogn standard summar".split()
WORDS = "hither lest mend mended mends ought shall thereof twain whereof whilst".split()
BAD = re.compile(
    rf"\b(?:(?:mis|re|un)?(?:{'|'.join(STEMS)})\w*|(?:{'|'.join(VERBS)})is(?:e[drs]?|ing|ations?)|(?:{'|'.join(WORDS)}))\b",
    re.I,
)
"""British spellings, and words that no engineer says aloud."""


def test_the_texts_and_the_help_are_written_in_plain_american_english():
    help_texts = {f"winnow {name} --help": help_of(command) for name, command in ALL_COMMANDS.items()}
    wrong = [
        f"{name}: {found}"
        for name, text in (TEXTS | help_texts).items()
        for found in BAD.findall(re.sub(r"`[^`]*`", "", prose(text)))
    ]
    assert wrong == []


def help_of(command: Any) -> str:
    return "\n".join([str(command.help), *(fill_help(str(getattr(param, "help", ""))) for param in command.params)])


def test_the_number_of_scores_is_the_one_that_the_readme_gives():
    assert f"computes {len(all_scores())} scores" in TEXTS["README.md"]


if __name__ == "__main__":
    for name, text in TEXTS.items():
        (ROOT / name).write_text(guide_tables.generated(text))
