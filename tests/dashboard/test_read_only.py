"""`winnow dashboard --read-only`: refused where things are written, whatever a page shows or a browser sends."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from given_verdicts import scored_run
from test_pages import Open, text

from dashboard import data
from dashboard.data import core, decisions, reviews, versions
from engine.store.workspace import Workspace

FOLDER = Path(core.__file__).parent
WRITING = re.compile(
    "(decide|undo|write|save|remove|start_job|cancel|discard|store_version|add_|create|set_|delete|append|carry|trust|publish|"
    "replac|ingest|forget|mark|clear|import)"
)
"""How functions of the engine begin that change a workspace."""


def state(root: Path) -> dict[str, str]:
    """What is in every file."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def writers() -> dict[str, ast.FunctionDef]:
    """The functions of dashboard.data that call something of the engine that changes a workspace, by module and name."""
    found = {}
    for file in FOLDER.glob("*.py"):
        tree = ast.parse(file.read_text())
        imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
        names = {a.asname or a.name for node in imported if str(node.module).startswith("engine") for a in node.names}
        for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            for call in (node.func for node in ast.walk(function) if isinstance(node, ast.Call)):
                of_module = (
                    isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name) and call.value.id in names
                )
                called = call.attr if of_module else call.id if isinstance(call, ast.Name) and call.id in names else ""  # type: ignore[union-attr]
                if WRITING.match(called):
                    found[f"{file.stem}.{function.name}"] = function
    return found


def test_every_function_that_writes_asks_first() -> None:
    found = writers()
    assert {"jobs.start", "jobs.pause", "jobs.remove", "decisions.decide", "decisions.undo", "decisions.save_filter",
            "decisions.remove_filter", "reviews.write", "versions.save", "versions.remove"} <= found.keys()  # fmt: skip
    for name, function in found.items():
        asked = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)} & {
            "require_writable",
            "by_this_session",
        }
        assert asked, f"dashboard.data.{name} writes, and does not call require_writable"


def test_nothing_is_written(judged_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_WORKSPACE", str(judged_workspace))
    monkeypatch.setenv(core.READ_ONLY, "1")
    at, before = data.snapshot("digits-noisy"), state(judged_workspace)
    run = scored_run(judged_workspace, "digits-noisy")
    planned = versions.plan(at, run, (), True, None, 0, "")
    attempts: list[Callable[[], object]] = [
        lambda: data.start(["run", "digits-noisy"]),
        lambda: data.pause(run),
        lambda: data.remove(run),
        lambda: decisions.decide(at, [1], "drop"),
        lambda: decisions.undo(at),
        lambda: decisions.save_filter(at, "mine", "label=3"),
        lambda: decisions.remove_filter(at, "mine"),
        lambda: versions.save(at, planned.recipe, "first", ""),
        lambda: versions.remove(at, "first"),
    ]
    for attempt in attempts:
        with pytest.raises(data.WinnowError, match="read-only"):
            attempt()
    request = reviews.parse({"key": f"{'a' * 16}-1", "do": "drop", "id": 3})
    assert request
    done, refused, problem = reviews.write(at, [request])
    assert (done, refused) == ([], {}) and "read-only" in problem
    assert state(judged_workspace) == before
    assert Workspace.open(judged_workspace).is_published(run)


def test_pages_say_that_they_are_read_only(
    judged_workspace: Path, monkeypatch: pytest.MonkeyPatch, open_page: Open
) -> None:
    monkeypatch.setenv(core.READ_ONLY, "1")
    app = open_page(judged_workspace, "overview", dataset="digits-noisy")
    for page in ("gallery", "review", "psi", "versions", "export"):
        app.switch_page(f"app_pages/{page}_page.py").run()
        assert not app.exception and not app.error, page
        assert "read-only" in text(app)
        able = [
            b.label
            for b in app.button
            if not b.disabled and not b.key.startswith(("chip_", "before", "after", "close"))
        ]
        assert not {"Start", "Save as version", "Pause", "Resume"} & set(able), (page, able)
