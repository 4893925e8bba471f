"""How `winnow dashboard` starts Streamlit: closed to the outside, silent towards others, in Winnow's colours.

Streamlit reads .streamlit/config.toml from the working directory only, so an installed Winnow passes every option
on the command line. OPTIONS is the one place for them; the repository's own .streamlit/config.toml repeats it for
people who type `streamlit run dashboard/app.py` there, and a test holds the two equal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

OPTIONS: dict[str, str | bool] = {
    "server.address": "localhost",
    "server.headless": True,
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": False,
    "runner.magicEnabled": False,
    "logger.hideWelcomeMessage": True,
    "client.toolbarMode": "viewer",
    "client.showErrorDetails": "type",
    "client.showErrorLinks": False,
    "theme.baseRadius": "6px",
    "theme.buttonRadius": "6px",
    "theme.showWidgetBorder": True,
    "theme.light.primaryColor": "#1f6f8b",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f3f5f7",
    "theme.light.textColor": "#1c2733",
    "theme.light.borderColor": "#dde2e8",
    "theme.light.grayTextColor": "#66727e",
    "theme.dark.primaryColor": "#4fb3d1",
    "theme.dark.backgroundColor": "#12171d",
    "theme.dark.secondaryBackgroundColor": "#1b222b",
    "theme.dark.textColor": "#e4e9ee",
    "theme.dark.borderColor": "#2e3844",
    "theme.dark.grayTextColor": "#93a0ac",
}


FIRST_PORT, TRIED_PORTS = 8501, 50


def command(port: int) -> list[str]:
    """The command that serves the dashboard on localhost, from any working directory.

    The workspace is passed in the environment as WINNOW_WORKSPACE.
    """
    app = Path(__file__).with_name("app.py")
    options = [
        f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in OPTIONS.items()
    ]
    return [sys.executable, "-m", "streamlit", "run", str(app), f"--server.port={port}", *options]


def environment(root: Path) -> dict[str, str]:
    """The environment of the dashboard's process: the workspace, and no variable that would reopen Streamlit."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLIT_")}
    return {**kept, "WINNOW_WORKSPACE": str(root.resolve())}


def free_port(asked: int | None) -> int:
    """The port asked for, or the first free one from 8501 on.

    Raises: OSError when the port asked for, or every port tried, is taken
    """
    for port in [asked] if asked is not None else range(FIRST_PORT, FIRST_PORT + TRIED_PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("localhost", port))
            except OSError:
                continue
            return port
    tried = f"port {asked} is" if asked is not None else f"ports {FIRST_PORT} to {FIRST_PORT + TRIED_PORTS - 1} are"
    raise OSError(f"{tried} taken on localhost; choose another with --port")


def serve(root: Path, port: int | None) -> None:
    """Serve the workspace at root until Ctrl-C, and print the address as soon as it answers.

    Raises: OSError, in words for people, for a taken port or a server that ended by itself. Nothing of the engine
    is imported here: the command line, which calls this, opens the workspace and speaks for it.
    """
    chosen = free_port(port)
    with subprocess.Popen(command(chosen), env=environment(root)) as process:
        try:
            if _answers(chosen, process):
                print(f"dashboard at http://localhost:{chosen} (Ctrl-C stops it)", flush=True)
            process.wait()
        except KeyboardInterrupt:
            process.terminate()
    if process.returncode not in (0, -signal.SIGTERM, -signal.SIGINT):
        raise OSError(f"the dashboard ended with code {process.returncode}; its messages stand above")


def _answers(port: int, process: subprocess.Popen[bytes], patience_seconds: float = 60) -> bool:
    """Wait until the server accepts connections; False when it ended or took too long."""
    deadline = time.monotonic() + patience_seconds
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
            return True
        time.sleep(0.05)
    return False
