"""Reading the engine: without torch, from any thread, and anew when something is published."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dashboard import data
from engine.store.decisions import decide
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


def test_a_snapshot_changes_when_a_run_or_a_decision_comes(
    demo_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(demo_workspace, root)
    monkeypatch.setenv("WINNOW_WORKSPACE", str(root))
    before = data.snapshot("digits-noisy")
    assert data.snapshot("digits-noisy") == before
    workspace = Workspace.open(root)
    decide(workspace, "digits-noisy", [3], "drop")
    decided = data.snapshot("digits-noisy")
    assert decided != before
    assert data.cards(decided, before.runs[0], [3])["action"].tolist() == ["drop"]
    seen = data.published()
    shutil.rmtree(workspace.run_dir(before.runs[-1]))
    assert data.published() != seen
    assert data.snapshot("digits-noisy").runs == before.runs[:-1]


def test_the_default_dataset_is_the_one_scored_last(demo_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_WORKSPACE", str(demo_workspace))
    assert data.latest_dataset() == "digits-noisy"
