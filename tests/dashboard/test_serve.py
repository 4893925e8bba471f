"""`winnow dashboard`: a server of its own on localhost, in Winnow's colors, that ends with the command."""

from __future__ import annotations

import ast
import contextlib
import http.client
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit import config

from dashboard import serve
from engine.store.workspace import Workspace

ROOT = Path(__file__).parents[2]
Start = Callable[..., subprocess.Popen[str]]


HARMLESS = {
    "browser.serverPort": "given with the port",
    "server.port": "given with the port",
    "server.cookieSecret": "Streamlit takes it from the environment alone, where no STREAMLIT_ variable is left",
    "client.disableDataExport": "hides buttons",
    "client.showSidebarNavigation": "hides links",
    "global.disableWidgetStateDuplicationWarning": "a warning",
    "global.maxCachedMessageAge": "how long messages to the browser are kept",
    "global.minCachedMessageSize": "which messages to the browser are kept",
    "global.showWarningOnDirectExecution": "a warning",
    "global.suppressDeprecationWarnings": "a warning",
    "runner.cacheBackgroundRefreshMaxWorkers": "speed",
    "runner.cacheBackgroundRefreshTTLMultiplier": "how old cached values become",
    "runner.cacheHashSeed": "keys of cached values",
    "runner.connectionDefaultTTL": "there is no connection",
    "runner.enforceSerializableSessionState": "checks the code of pages",
    "runner.enumCoercion": "types of widgets",
    "runner.fastReruns": "speed",
    "runner.parallelMaxWorkers": "speed",
    "runner.postScriptGC": "speed",
    "server.agentMaxSessions": "the agent API is off",
    "server.agentPreviewRows": "the agent API is off",
    "server.agentSessionTTL": "the agent API is off",
    "server.agentWaitTimeout": "the agent API is off",
    "server.disconnectedSessionTTL": "how long a closed page can come back",
    "server.enableExpensiveMemoryStats": "figures about memory",
    "server.enableWebsocketCompression": "speed",
    "server.folderWatchBlacklist": "nothing is watched",
    "server.maxCacheDataSize": "memory",
    "server.maxMessageSize": "memory",
    "server.maxWidgetStateSize": "memory",
    "server.websocketPingInterval": "how soon a lost page is noticed",
}
"""Options that decide neither who may reach the server, nor what is served, what code runs or which files are read."""


def test_every_option_that_opens_streamlit_is_given() -> None:
    sections = ("global.", "server.", "browser.", "runner.", "client.", "secrets.")
    known = {name for name in config._config_options_template if name.startswith(sections)}
    assert known - set(serve.OPTIONS) == set(HARMLESS)
    assert set(serve.OPTIONS) <= set(config._config_options_template)
    assert None not in serve.OPTIONS.values()  # which Streamlit reads as: not given


HOSTILE = """
[global]
developmentMode = true
[server]
address = "0.0.0.0"
baseUrlPath = "elsewhere"
enableCORS = false
enableXsrfProtection = false
enableAgentApi = true
enableStaticServing = true
cookieSecret = "known"
[browser]
gatherUsageStats = true
[theme]
base = "http://127.0.0.1:9/theme.toml"
"""


@pytest.mark.parametrize("text", [HOSTILE, "[[["], ids=["hostile", "broken"])
def test_no_configuration_of_a_folder_or_a_home_changes_the_server(
    start: Start, small_workspace: Workspace, tmp_path: Path, text: str
) -> None:
    for place in (tmp_path, tmp_path / "home"):
        folder = place / ".streamlit"
        folder.mkdir(parents=True)
        (folder / "config.toml").write_text(text)
        (folder / "secrets.toml").write_text('[auth]\ncookie_secret = "known"\n' if text == HOSTILE else text)
    process = start("--workspace", str(small_workspace.root), HOME=str(tmp_path / "home"))
    address = address_of(process)
    port = int(address.split(":")[2].split("/")[0])
    with socket.socket() as other:  # 0.0.0.0 would have it
        other.bind(("127.0.0.2", port))
    cookie = cookie_of(address)
    for foreign in ("http://evil.example", "http://localhost:1"):
        for host in (f"localhost:{port}", "evil.example"):
            assert status(port, "/_stcore/health", Cookie=cookie, Origin=foreign, Host=host) == 403
    assert status(port, "/_stcore/health", Cookie=cookie) == 200
    assert status(port, "/elsewhere/_stcore/health", Cookie=cookie) == 404
    assert status(port, "/_stcore/agent/interact", "POST", Cookie=cookie) == 403  # "off", by Streamlit


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
            serve.reserved_port(port).__enter__()
    with serve.reserved_port(port) as chosen:
        assert chosen == port
    with serve.reserved_port(None) as chosen:
        assert serve.FIRST_PORT <= chosen < serve.FIRST_PORT + serve.TRIED_PORTS


def test_nobody_else_listens_on_the_other_localhost() -> None:
    """A browser may try ::1 first: whoever listened there would be given the token."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as squatter:
        squatter.bind(("::1", 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        with pytest.raises(OSError, match="is taken on localhost"):
            serve.reserved_port(port).__enter__()
        squatter.close()
        with serve.reserved_port(port), socket.socket(socket.AF_INET6) as late:
            late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                late.bind(("::", port))
        return
    pytest.skip("this machine has no ::1")


def test_every_child_process_leaves_the_current_folder_out() -> None:
    """Python puts the current folder first where it is started with -m or -c, unless -P stands before."""
    found = []
    for path in [*(ROOT / "engine").rglob("*.py"), *(ROOT / "dashboard").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.List) and node.elts and ast.unparse(node.elts[0]) == "sys.executable":
                found.append((path.relative_to(ROOT).as_posix(), ast.unparse(node.elts[1])))
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.split(".")[0] in ("multiprocessing", "runpy")], path
    assert {flag for _, flag in found} == {"'-P'"}, found
    assert {path for path, _ in found} >= {"engine/cli/start.py", "engine/store/jobs.py", "engine/runs/cluster.py"}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(*words, **variables): `winnow dashboard WORDS`, in a folder whose modules end whoever imports them."""
    for name in ("streamlit", "engine", "dashboard", "sitecustomize", "starlette", "signal"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the current folder was imported')\n")
    started = []
    python_path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

    def begin(*words: str, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "engine.cli", "dashboard", *words],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": python_path} | variables, text=True,
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


def cookie_of(address: str) -> str:
    """The cookie that a browser has after it opened the printed address."""
    port, token = re.fullmatch(r"http://localhost:(\d+)/\?token=([\w-]{43})", address).groups()
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
    connection.request("GET", f"/?token={token}", headers={"Host": f"localhost:{port}"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Location"]) == (303, f"http://localhost:{port}/")
    connection.close()
    return str(answer.headers["Set-Cookie"]).split(";")[0]


def status(port: int, path: str, method: str = "GET", **headers: str) -> int:
    """How the server answers one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, headers={"Host": f"localhost:{port}"} | headers)
    found = connection.getresponse().status
    connection.close()
    return found


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
    assert address_of(process).startswith(f"http://localhost:{port}/?token=")
    assert is_open(port)
    process.send_signal(ending)
    # The pipe ends only when every process that holds it has: nothing is left behind.
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in output
    assert not is_open(port)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find the server's process")
def test_a_command_that_is_killed_takes_its_server_with_it(start: Start, small_workspace: Workspace) -> None:
    process = start("--workspace", str(small_workspace.root))
    address = address_of(process)
    (server,) = children(process.pid)
    arguments = Path(f"/proc/{server}/cmdline").read_text()
    assert address.partition("=")[2] not in arguments  # anybody can list processes
    process.kill()
    process.communicate(timeout=20)  # the pipe ends when the server has ended too
    assert not is_open(int(address.split(":")[2].split("/")[0]))


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_in_a_terminal_ends_it_without_a_word(small_workspace: Workspace, times: int) -> None:
    terminal, inside = pty.openpty()
    command = [sys.executable, "-P", "-m", "engine.cli", "dashboard", "--workspace", str(small_workspace.root)]
    process = subprocess.Popen(
        command, stdin=inside, stdout=inside, stderr=inside, preexec_fn=lambda: take_terminal(inside),
        start_new_session=True,
    )  # fmt: skip
    os.close(inside)
    shown = b""
    while b"(Ctrl-C stops it)" not in shown:
        shown += os.read(terminal, 4096)
    for _ in range(times):
        os.write(terminal, b"\x03")
        time.sleep(0.05)
    assert process.wait(timeout=20) == 0
    with contextlib.suppress(OSError):  # which reading a terminal ends with, once nobody has it open
        while more := os.read(terminal, 4096):
            shown += more
    os.close(terminal)
    assert b"Traceback" not in shown and b"Error" not in shown, shown.decode()


def take_terminal(inside: int) -> None:
    """Make a terminal the one whose Ctrl-C ends this process."""
    import fcntl
    import termios

    fcntl.ioctl(inside, termios.TIOCSCTTY, 0)


def test_no_token_serves_whoever_can_connect(start: Start, small_workspace: Workspace) -> None:
    process = start("--workspace", str(small_workspace.root), "--no-token")
    address = address_of(process)
    port = int(re.fullmatch(r"http://localhost:(\d+)", address).group(1))
    assert status(port, "/_stcore/health") == 200
    assert status(port, "/_stcore/health", Host=f"evil.example:{port}") == 403
    assert status(port, "/_stcore/health", Origin="http://evil.example") == 403


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_server_that_ends_by_itself_ends_the_command_with_it(start: Start, small_workspace: Workspace) -> None:
    process = start("--workspace", str(small_workspace.root))
    assert address_of(process).startswith("http://localhost:")
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc to find the server's process")
    (server,) = children(process.pid)
    os.kill(server, signal.SIGKILL)
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
