"""Reading the engine: without torch, from any thread, and anew when something is published."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from dashboard import data, serve
from engine.store.decisions import decide
from engine.store.workspace import Workspace


def test_importing_the_dashboards_data_leaves_torch_out() -> None:
    code = "import sys, dashboard.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_no_other_file_of_the_dashboard_imports_the_engine() -> None:
    root = Path(data.__file__).parent
    importing = {
        p.name for p in root.rglob("*.py") if "from engine" in p.read_text() or "import engine" in p.read_text()
    }
    assert importing == {"data.py"}


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


def test_inside_follows_the_even_odd_rule() -> None:
    square = [(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0)]
    x, y = np.array([1.0, 3.0, -1.0, 1.0]), np.array([1.0, 1.0, 1.0, 3.0])
    assert data.inside(x, y, square).tolist() == [True, False, False, False]
    bow_tie = [(0.0, 0.0), (2.0, 2.0), (2.0, 0.0), (0.0, 2.0)]
    assert data.inside(np.array([0.5, 1.5, 1.0]), np.array([1.0, 1.0, 1.8]), bow_tie).tolist() == [True, True, False]


def test_the_server_is_closed_and_themed_in_any_directory() -> None:
    config = tomllib.loads((Path(__file__).parents[2] / ".streamlit" / "config.toml").read_text())

    def flat(table: dict[str, object], prefix: str = "") -> dict[str, object]:
        out: dict[str, object] = {}
        for name, value in table.items():
            out.update(flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
        return out

    assert flat(config) == serve.OPTIONS
    assert serve.OPTIONS["server.address"] == "localhost"
    assert serve.OPTIONS["browser.gatherUsageStats"] is False
    command = serve.command(8600)
    assert command[:4] == [sys.executable, "-m", "streamlit", "run"]
    assert Path(command[4]).is_absolute() and Path(command[4]).is_file()
    assert {"--server.address=localhost", "--browser.gatherUsageStats=false", "--server.port=8600"} <= set(command)


def test_no_variable_reopens_the_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STREAMLIT_SERVER_ADDRESS", "0.0.0.0")
    monkeypatch.chdir(tmp_path)
    environment = serve.environment(Path("workspace"))
    assert "STREAMLIT_SERVER_ADDRESS" not in environment
    assert environment["WINNOW_WORKSPACE"] == str(tmp_path / "workspace")


def test_a_taken_port_is_said_and_the_next_free_one_found() -> None:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} is taken on localhost; choose another with --port"):
            serve.free_port(port)
    assert serve.free_port(port) == port
    assert serve.FIRST_PORT <= serve.free_port(None) < serve.FIRST_PORT + serve.TRIED_PORTS
