"""How `winnow dashboard` serves: closed to the outside, silent towards others, in Winnow's colors.

Streamlit reads .streamlit/config.toml from the working directory only, so an installed Winnow gives every option
itself. OPTIONS is the one place for them; the repository's own .streamlit/config.toml repeats it for people who type
`streamlit run dashboard/app.py` there, and a test holds the two equal.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Mapping
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


def streamlit_arguments(port: int) -> list[str]:
    """What follows the word `streamlit` on a command line that serves the dashboard on localhost."""
    app = Path(__file__).with_name("app.py")
    options = [
        f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in OPTIONS.items()
    ]
    return ["run", str(app), f"--server.port={port}", *options]


def environment(root: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The given environment with the workspace in it, and with no variable that would reopen Streamlit."""
    kept = {name: value for name, value in given.items() if not name.startswith("STREAMLIT_")}
    return {**kept, "WINNOW_WORKSPACE": str(root.resolve())}


def free_port(wanted: int | None) -> int:
    """The wanted port, or the first free one from 8501 on.

    Raises: OSError when the wanted port, or every port tried, is taken
    """
    for port in [wanted] if wanted is not None else range(FIRST_PORT, FIRST_PORT + TRIED_PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("localhost", port))
            except OSError:
                continue
            return port
    tried = f"port {wanted} is" if wanted is not None else f"ports {FIRST_PORT} to {FIRST_PORT + TRIED_PORTS - 1} are"
    raise OSError(f"{tried} taken on localhost; choose another with --port")


def serve(root: Path, port: int | None) -> None:
    """Serve the workspace at root, in this process, until Ctrl-C or SIGTERM; print the address once it answers.

    One process, so that whoever ends it ends the server: there is no child that could stay behind.

    Raises: OSError for a port that is taken
    """
    chosen = free_port(port)
    now = environment(root, os.environ)
    os.environ.clear()
    os.environ.update(now)
    threading.Thread(target=_announce, args=(chosen,), daemon=True).start()
    from streamlit.web.cli import main  # reads the environment that was set above

    main(streamlit_arguments(chosen), prog_name="streamlit", standalone_mode=False)


def _announce(port: int, patience_seconds: float = 60) -> None:
    """Wait until the server accepts connections, and print its address."""
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
            print(f"dashboard at http://localhost:{port} (Ctrl-C stops it)", flush=True)
            return
        time.sleep(0.05)
