"""The README is true: its commands, tables, paths and examples are held against the code.

python tests/test_readme.py    writes the generated tables
"""

import inspect
import re
import shlex
from pathlib import Path

import pytest
import torch
import typer

from engine.cli.commands import app
from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import SpecError
from engine.queries.connection import connected, fetch_sql
from engine.queries.writers import export
from engine.scores.dynamics import correctness
from engine.scores.registry import all_scores, find_score
from engine.store.schema import DECISIONS_COLUMNS, VIEWS
from engine.store.workspace import Workspace

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TEXT = README.read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.M | re.S)
COMMANDS = typer.main.get_command(app).commands


def score_table() -> str:
    rows = ["| score | what it is | higher means | range | source |", "| --- | --- | --- | --- | --- |"]
    for found in all_scores().values():
        low, high = (f"{x:.3g}".replace("inf", "∞").replace("-", "−") for x in found.value_range)
        rows.append(f"| `{found.name}` | {found.title} | {found.higher_means} | {low} .. {high} | {found.source} |")
    return "\n".join(rows)


def view_table() -> str:
    comments = {name: view.comment for name, view in VIEWS.items()}
    comments["decisions"] = "The latest decision of a person per sample: keep, drop or relabel."
    rows = [f"| `{name}` | {comment.rstrip('.')} |" for name, comment in comments.items()]
    return "\n".join(["| view | holds |", "| --- | --- |", *rows])


TABLES = {"scores": score_table, "views": view_table}


def generated(text: str) -> str:
    """The text of the README with its generated tables as they should be."""
    for name, table in TABLES.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        assert begin and end, f"the README marks no place for the table of {name}"
        text = before + begin + table() + "\n" + end + after
    return text


def shell_commands() -> list[list[str]]:
    """Every command of the README's shell blocks, split into words."""
    lines = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
    return [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]


WINNOW = [words[1:] for words in shell_commands() if words[0] == "winnow"]


def test_the_generated_tables_are_those_of_the_code():
    assert generated(TEXT) == TEXT, "run: python tests/test_readme.py"


@pytest.mark.parametrize("words", WINNOW, ids=" ".join)
def test_a_command_of_the_readme_is_one_of_the_command_line(words):
    # Parses the whole line, and raises a usage error for an unknown command, option or value.
    with COMMANDS[words[0]].make_context(words[0], words[1:]) as context:
        assert context.info_name == words[0]


def test_a_wrong_option_in_the_readme_would_be_noticed():
    with pytest.raises(Exception, match="No such option"):
        COMMANDS["run"].make_context("run", ["mine", "--epoch-count", "3"])


def test_every_code_span_that_is_a_command_names_one():
    spans = re.findall(r"`winnow ([a-z]+)", TEXT)
    assert spans and set(spans) <= set(COMMANDS)


def test_the_queries_of_the_readme_answer(demo_workspace):
    queries = [words[1] for words in WINNOW if words[0] == "query"]
    assert queries
    with connected(Workspace.open(demo_workspace), "digits-noisy") as connection:
        for sql in queries:
            assert len(fetch_sql(connection, sql)) > 0


def test_the_export_of_the_readme_keeps_some_and_drops_some(demo_workspace, tmp_path):
    (words,) = (words for words in WINNOW if words[0] == "export")
    params = COMMANDS["export"].make_context("export", words[1:]).params
    kept, total = export(Workspace.open(demo_workspace), "digits-noisy", params["where"], tmp_path / params["to"])
    assert 0 < kept < total


def test_the_recorder_of_the_readme_publishes_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workspace = Workspace.open(tmp_path / "winnow-workspace", create=True)
    ingest(workspace, IngestSpec(name="mine", source="digits", limit=200))
    with connected(workspace, "mine") as connection:
        samples = fetch_sql(connection, "SELECT label FROM samples WHERE split = 'train' ORDER BY sample_id")
    labels = torch.tensor(samples["label"].to_numpy(copy=True))
    loader = [(torch.rand(len(part), 64), labels[part], part) for part in torch.arange(len(labels)).split(50)]
    code = next(block for kind, block in BLOCKS if kind == "python" and "Recorder" in block)
    exec(compile(code, "README.md", "exec"), {"loader": loader, "network": torch.nn.Linear(64, 10)})
    (run_id,) = workspace.published_runs()
    with connected(workspace, "mine") as connection:
        found = fetch_sql(connection, "SELECT title FROM runs WHERE run_id = ?", [run_id])
    assert found["title"].tolist() == ["my resnet, 20 epochs, 1 seed"]


def test_the_score_of_the_readme_is_real_code():
    code = next(block for kind, block in BLOCKS if kind == "python" and "@score" in block)
    assert code == inspect.getsource(correctness)


def test_the_error_of_the_readme_is_what_is_said():
    command, said = next(block for kind, block in BLOCKS if block.startswith("$ winnow")).splitlines()
    name = shlex.split(command)[-1]
    with pytest.raises(SpecError) as error:
        find_score(name)
    assert said == f"winnow: {error.value}"


def test_the_pages_are_those_of_the_dashboard():
    table = TEXT.split("## Dashboard")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.M)
    assert sorted(listed) == sorted(p.stem for p in (ROOT / "dashboard/app_pages").glob("*.py") if p.stem != "__init__")


def test_decisions_is_a_view_like_the_others():
    assert set(DECISIONS_COLUMNS) >= {"sample_id", "action"} and "decisions" not in VIEWS


def tree_paths(block: str) -> list[str]:
    """The paths of a drawn tree, four spaces a level."""
    parents: list[str] = []
    paths = []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 4
        parents[depth:] = [line.split()[0]]
        paths.append("".join(parents))
    return paths


def test_every_path_of_the_tree_is_there():
    block = next(block for _, block in BLOCKS if block.startswith("engine/"))
    paths = tree_paths(block)
    assert "engine/cli.py" in paths and "dashboard/app_pages/" in paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_file_the_text_names_is_there():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    spans = re.findall(r"(?<=[` ])((?:engine|dashboard|tests|\.ci)/[\w./]*)", TEXT)
    assert links and spans
    assert [path for path in [*links, *spans] if not (ROOT / path).exists()] == []


def test_the_ci_calls_the_test_command_of_the_readme():
    (command,) = (line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines() if "pytest" in line)
    assert command in (ROOT / ".ci/run").read_text().splitlines()


def test_every_command_and_option_has_help():
    silent = [name for name, command in COMMANDS.items() if not command.help]
    silent += [
        f"{name} {param.opts[-1]}"
        for name, command in COMMANDS.items()
        for param in command.params
        if not getattr(param, "help", None)
    ]
    assert len(COMMANDS) > 10 and silent == []


if __name__ == "__main__":
    README.write_text(generated(TEXT))
