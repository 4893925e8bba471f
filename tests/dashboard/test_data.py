"""Reading the engine: without torch, from any thread, and anew when something is published."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dashboard import data
from dashboard.data import core
from dashboard.data.exports import Export
from engine.queries.samples import Filter
from engine.store import decision_file
from engine.store.decisions import decide, undo
from engine.store.workspace import Workspace


def test_importing_the_dashboards_data_leaves_torch_out() -> None:
    code = "import sys, dashboard.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_no_other_part_of_the_dashboard_imports_the_engine() -> None:
    root = Path(data.__file__).parents[1]
    importing = {
        p.relative_to(root).parts[0]
        for p in root.rglob("*.py")
        if "from engine" in p.read_text() or "import engine" in p.read_text()
    }
    assert importing == {"data"}


def test_a_snapshot_changes_when_a_run_comes_or_goes(
    demo_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(demo_workspace, root)
    monkeypatch.setenv("WINNOW_WORKSPACE", str(root))
    before = data.snapshot("digits-noisy")
    assert data.snapshot("digits-noisy") == before
    seen = data.published()
    shutil.rmtree(Workspace.open(root).run_dir(before.runs[-1]))
    assert data.published() != seen
    assert data.snapshot("digits-noisy").runs == before.runs[:-1]


def test_decisions_are_seen_by_what_reads_them_and_leave_every_other_answer_as_it_was(
    demo_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(demo_workspace, root)
    monkeypatch.setenv("WINNOW_WORKSPACE", str(root))
    workspace, at = Workspace.open(root), data.snapshot("digits-noisy")
    run, opened = at.runs[0], core.opened(at)
    dropped, undecided = Filter(decision="drop"), Filter(decision="undecided")
    before = len(data.ids(at, run, undecided))

    def seen() -> list[list[int]]:
        """The samples to drop, by every way in which a page finds them."""
        exported = list(data.exports.export(at, Export(run, "action = 'drop'", "train", "ignore"))["ids"])
        n = int(data.facets(at, run, dropped)["n"].sum())
        cards = data.cards(at, run, [3, 4, 5])
        carded = cards.loc[cards["action"].eq("drop").fillna(False), "sample_id"].tolist()
        now = data.decisions.current(at)
        found = data.ids(at, run, dropped).tolist()
        assert n == len(found) and len(data.ids(at, run, undecided)) == before - len(now)
        return [found, exported, carded, now.loc[now["action"] == "drop", "sample_id"].tolist()]

    assert seen() == [[]] * 4
    decide(workspace, "digits-noisy", [3, 4], "drop", author="ann")
    assert seen() == [[3, 4]] * 4
    decide(workspace, "digits-noisy", [4], "keep", author="bob")
    assert seen() == [[3]] * 4 and data.decisions.disagreements(at)["sample_id"].tolist() == [4, 4]
    assert data.ids(at, run, Filter(author="bob")).tolist() == [4]
    assert data.ids(at, run, Filter(decision="disputed")).tolist() == [4]
    undo(workspace, "digits-noisy", "ann")
    assert seen() == [[]] * 4 and data.ids(at, run, Filter(decision="decided")).tolist() == [4]
    # Nothing was opened or read anew for it: the snapshot, and with it every other answer, is the same.
    assert data.snapshot("digits-noisy") == at and core.opened(at) is opened
    (root / "decisions.duckdb").unlink()  # somebody moves it away
    assert seen() == [[]] * 4 and len(data.decisions.current(at)) == 0


def test_every_query_that_reads_decisions_is_asked_anew_after_one() -> None:
    """Its answer would be kept otherwise, as that of every other: such a query is named in DECIDED, or takes a filter."""
    modules = [module.__name__ for module in core.QUERIES]
    found = {
        name: inspect.getsource(function)
        for module in [m for m in sys.modules if any(m == q or m.startswith(f"{q}.") for q in modules)]
        for name, function in inspect.getmembers(sys.modules[module], inspect.isfunction)
        if function.__module__ == module
    }
    reads = {name for name, source in found.items() if re.search(r"(FROM|JOIN) decisions\b", source)}
    while more := {n for n, source in found.items() if any(f"{r}(" in source for r in reads)} - reads:
        reads |= more
    queries = {
        name for name in reads if re.search(rf"def {name}\(\s*connection:", found[name]) and name.startswith("fetch_")
    }
    assert {name for name in queries if "wanted: Filter" not in found[name]} == core.DECIDED


def test_a_session_decides_under_its_name_and_sees_what_others_decide(
    demo_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(demo_workspace, root)
    monkeypatch.setenv("WINNOW_WORKSPACE", str(root))
    monkeypatch.setenv(decision_file.AUTHOR, "ann")
    workspace, at = Workspace.open(root), data.snapshot("digits-noisy")
    data.decisions.drawn()
    data.decisions.decide(at, [7], "drop")
    assert not data.decisions.is_news()
    data.decisions.choose_author("  eve ")
    data.decisions.decide(at, np.array([8, 9]), "relabel", np.array([1, 2]))
    assert data.decisions.current(at)["author"].tolist() == ["ann", "eve", "eve"]
    decide(workspace, "digits-noisy", [9], "keep", author="bob")
    assert data.decisions.is_news()
    assert data.decisions.undo(at) == 2 and data.decisions.current(at)["sample_id"].tolist() == [7, 9]
    with pytest.raises(data.WinnowError, match="decision 1 does not stand of 'eve'"):
        data.decisions.undo(at, 1)
    assert data.decisions.is_news()  # what this session did meanwhile does not hide it
    data.decisions.drawn()
    assert not data.decisions.is_news()


def test_the_default_dataset_is_the_one_scored_last(demo_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_WORKSPACE", str(demo_workspace))
    assert data.latest_dataset() == "digits-noisy"
