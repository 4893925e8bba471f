"""A server that has just started reads ahead exactly what the overview shows, and stays right when a file changes."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

import pytest
from given_verdicts import QUICK
from streamlit.testing.v1 import AppTest

from dashboard import warming
from dashboard.data import core, looking
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.store.workspace import Workspace

APP = Path(warming.__file__).with_name("app.py")


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queries that are answered by the files, and not by a cache, from now on."""
    found: list[str] = []
    answer = core._ask

    def noted(at: core.Snapshot, seen: object, name: str, *given: Any) -> Any:
        found.append(name)
        return answer(at, seen, name, *given)

    monkeypatch.setattr(core, "_ask", noted)
    return found


def overview() -> AppTest:
    app = AppTest.from_file(str(APP), default_timeout=120).run()
    assert not app.exception
    return app


def test_the_overview_asks_nothing_that_was_not_read_ahead(
    judged_workspace: Path, tmp_path: Path, queries: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy"  # no cache of another test knows it
    shutil.copytree(judged_workspace, root)
    monkeypatch.setenv("WINNOW_WORKSPACE", str(root))
    done = list(looking.first_looks())
    assert "the most suspicious" in done and {"fetch_first", "fetch_cards", "fetch_rules"} <= set(queries)
    queries.clear()
    overview()
    assert queries == []
    compute(Workspace.open(root), plan_run(Workspace.open(root), "digits-noisy", ["el2n@2"], QUICK), "cpu")
    html = " ".join(element.proto.body for element in overview().get("html"))
    assert "fetch_runs" in queries and html.count("<td>run</td>") == 2


def test_a_workspace_without_a_dataset_or_a_run_is_read_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old_workspace: Path
) -> None:
    monkeypatch.setenv("WINNOW_WORKSPACE", str(tmp_path / "nothing"))
    assert list(looking.first_looks()) == []
    Workspace.open(tmp_path / "empty", create=True)
    monkeypatch.setenv("WINNOW_WORKSPACE", str(tmp_path / "empty"))
    assert list(looking.first_looks()) == []
    shutil.copytree(old_workspace, tmp_path / "old")  # of version 0.1: no verdict, no shortlist
    monkeypatch.setenv("WINNOW_WORKSPACE", str(tmp_path / "old"))
    assert "rules" in list(looking.first_looks())
    shutil.rmtree(tmp_path / "old" / "runs")
    assert list(looking.first_looks())[-1] == "label noise"


def test_what_a_server_imports_is_no_garbage_to_look_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit looks for garbage after every script run, and nothing is sent to a browser meanwhile."""
    monkeypatch.setattr(warming.runtime, "exists", lambda: True)
    monkeypatch.setattr(looking, "first_looks", lambda: iter(()))
    try:
        warming.warm_up()
        assert gc.get_freeze_count() > 100_000
    finally:
        gc.unfreeze()
