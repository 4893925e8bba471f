"""Names are text on the command line and in every export: whatever a workspace or an argument is called."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from hostile_names import HOSTILE, WORDS, tampered
from typer.testing import CliRunner

from engine.cli.commands import app
from engine.cli.console import print_table, progress_bar, say
from engine.data.sources.files import read_csv
from engine.errors import WinnowError
from engine.queries.connection import connected
from engine.queries.writers import WRITERS, Choice, export_bytes, fetch_selected
from engine.store.workspace import Workspace
from engine.text import shown

UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


@pytest.fixture(scope="module")
def hostile(old_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tampered(old_workspace, "noisy", tmp_path_factory.mktemp("hostile") / "workspace")


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))
READING = {
    ("scores",): ["--dataset", "noisy"], ("evaluate",): ["noisy"], ("runs",): [], ("status",): ["feed0"],
    ("query",): ["SELECT * FROM samples LIMIT 100"], ("detector", "list"): [],
    ("verdict",): ["noisy"], ("presets",): [], ("version", "list"): ["noisy"], ("version", "show"): ["noisy", "v1"],
}  # fmt: skip
"""Commands that print names, with what they take."""


def run(words: list[str]) -> tuple[int, str]:
    """What a command says on both streams; an expected error is a line, as in `main`."""
    done = CliRunner().invoke(app, words)
    printed = done.output
    if isinstance(done.exception, WinnowError):
        return 2, printed + shown(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), (words, done.exc_info)
    return done.exit_code, printed


@pytest.fixture(autouse=True)
def in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No notebook, whatever other tests have imported: there the progress bar is a line that is written over."""
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


@pytest.mark.parametrize("path", READING, ids=" ".join)
@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
def test_what_a_command_prints_is_text(hostile: Path, path: tuple[str, ...], more: list[str]) -> None:
    place = [] if path == ("presets",) else ["--workspace", str(hostile)]
    code, printed = run([*path, *READING[path], *more, *place])
    assert code in (0, 2) and not UNSEEN.search(printed), UNSEEN.search(printed)
    if path in (("runs",), ("status",), ("query",), ("version", "list"), ("version", "show")):
        assert "Zq" in printed


def named(path: tuple[str, ...]) -> tuple[list[Any], list[Any]]:
    """The arguments of a command, and the options that it requires."""
    parameters = COMMANDS[path].params
    options = [p for p in parameters if p.param_type_name == "option" and p.required]
    return [p for p in parameters if p.param_type_name == "argument"], options


@pytest.mark.parametrize("path", [path for path in COMMANDS if any(named(path))], ids=" ".join)
def test_what_a_command_is_given_is_text(old_workspace: Path, tmp_path: Path, path: tuple[str, ...]) -> None:
    arguments, options = named(path)
    for name in (HOSTILE[6], HOSTILE[12], HOSTILE[0], HOSTILE[14]):
        words = [*path, *(f"--{o.name.replace('_', '-')}={name}" for o in options), f"--workspace={old_workspace}"]
        code, printed = run([*words, "--", *[name for _ in arguments]])
        assert code == 2 and not UNSEEN.search(printed), printed


def test_what_is_said_and_shown_is_text(capfd: pytest.CaptureFixture[str]) -> None:
    for name in HOSTILE:
        say(name)
        print_table([{name: name}], [name])
        with progress_bar(name) as listen:
            listen(name, 0.5, 1.0)
    out, err = capfd.readouterr()
    assert not UNSEEN.search(out) and not UNSEEN.search(err.replace("\x1b", ""))
    for name in HOSTILE:
        assert shown(name) in err.replace("\n", " ") or shown(name) in err


def test_every_export_holds_names_as_text(hostile: Path, tmp_path: Path) -> None:
    with connected(Workspace.open(hostile), "noisy") as connection:
        frame = fetch_selected(connection, "")
    texts = frame.select_dtypes(["object", "str"])
    assert sum(word in str(texts.to_numpy().tolist()) for word in WORDS) > 5
    with connected(Workspace.open(hostile), "noisy") as connection:
        judged = {"cleanlab"}  # is about a verdict, which the run here has not; it writes its CSV as the others do
        written = {
            name: export_bytes(connection, Choice(), name)
            for name, found in WRITERS.items()
            if found.write_file and name not in judged
        }
    for name, content in written.items():
        if WRITERS[name].ending == ".csv":
            (tmp_path / "a.csv").write_bytes(content)
            found = read_csv(tmp_path / "a.csv")
            assert list(found) == list(frame.columns)
            assert found["class_name"] == frame["class_name"].tolist()
            for row in pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False).to_numpy().ravel():
                assert not re.match(r"""['"\s\ufeff\u200b]*[=@+]""", row) or row.startswith("'"), row
        elif name == "parquet":
            assert pd.read_parquet(io.BytesIO(content))["class_name"].tolist() == frame["class_name"].tolist()
        elif name == "coco":
            names = {c["id"]: c["name"] for c in json.loads(content)["categories"]}
            assert [names[label] for label in frame["label"]] == frame["class_name"].tolist()
        else:
            assert not re.search(rb"Zq", content), f"{name} holds names: say here how they are escaped"
