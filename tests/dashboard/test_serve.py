"""`winnow dashboard`: a server of its own on localhost, in Winnow's colors, that ends with the command."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dashboard import serve
from engine.store.workspace import Workspace

ROOT = Path(__file__).parents[2]
Start = Callable[..., subprocess.Popen[str]]


def test_the_server_is_closed_and_themed_in_any_directory() -> None:
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())

    def flat(table: dict[str, object], prefix: str = "") -> dict[str, object]:
        out: dict[str, object] = {}
        for name, value in table.items():
            out.update(flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
        return out

    assert flat(config) == serve.OPTIONS
    assert serve.OPTIONS["server.address"] == "localhost"
    assert serve.OPTIONS["browser.gatherUsageStats"] is False
    run, app, *options = serve.streamlit_arguments(8600)
    assert run == "run" and Path(app).is_absolute() and Path(app).is_file()
    assert {"--server.address=localhost", "--browser.gatherUsageStats=false", "--server.port=8600"} <= set(options)
    assert len(options) == len(serve.OPTIONS) + 1


def test_no_variable_reopens_the_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    environment = serve.environment(Path("workspace"), {"STREAMLIT_SERVER_ADDRESS": "0.0.0.0", "HOME": "/home/me"})
    assert environment == {"HOME": "/home/me", "WINNOW_WORKSPACE": str(tmp_path / "workspace")}


def test_a_taken_port_is_an_error_and_the_next_free_one_is_found() -> None:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} is taken on localhost; choose another with --port"):
            serve.free_port(port)
    assert serve.free_port(port) == port
    assert serve.FIRST_PORT <= serve.free_port(None) < serve.FIRST_PORT + serve.TRIED_PORTS


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(*words): `winnow dashboard WORDS`, in a folder whose streamlit.py and engine.py end whoever imports them."""
    for name in ("streamlit", "engine", "dashboard"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the current folder was imported')\n")
    started = []
    python_path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

    def begin(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "engine.cli", "dashboard", *words],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": python_path}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.terminate()  # not kill: it would leave its server behind
        process.communicate(timeout=30)


def address_of(process: subprocess.Popen[str]) -> str:
    """The address that the command prints, before or after the server's own first line."""
    assert process.stdout is not None
    found = next((line for line in process.stdout if line.startswith("dashboard at ")), "")
    return found.removeprefix("dashboard at ").removesuffix(" (Ctrl-C stops it)\n")


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
        return True
    return False


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_command_ends_its_server(
    start: Start, small_workspace: Workspace, ending: signal.Signals
) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    process = start("--workspace", str(small_workspace.root), "--port", str(port))
    assert address_of(process) == f"http://localhost:{port}"
    assert is_open(port)
    process.send_signal(ending)
    # The pipe ends only when every process that holds it has: nothing is left behind.
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in output
    assert not is_open(port)


def test_a_server_that_ends_by_itself_ends_the_command_with_it(start: Start, small_workspace: Workspace) -> None:
    process = start("--workspace", str(small_workspace.root))
    assert address_of(process).startswith("http://localhost:")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("needs /proc to find the server's process")
    (server,) = children.read_text().split()
    os.kill(int(server), signal.SIGKILL)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 2
    assert output.splitlines()[-1] == "winnow: the dashboard ended with code -9; its messages are above"


def test_what_keeps_the_dashboard_from_starting_is_one_line(start: Start, small_workspace: Workspace) -> None:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start("--workspace", str(small_workspace.root), "--port", str(port))
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output == f"winnow: port {port} is taken on localhost; choose another with --port\n"
    process = start("--workspace", str(small_workspace.root / "nothing"))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output.startswith("winnow: no workspace at ") and output.count("\n") == 1
