"""How `winnow dashboard` serves: closed to the outside, silent towards others, in Winnow's colors.

Streamlit would take options from .streamlit/config.toml of the current folder and of the home, so that a folder that
somebody sent could open the server or have it fetch a theme. Here it reads no such file, and every option that decides
who may reach the server, what is served, what code is run or which files are read is given nevertheless; a test walks
Streamlit's own table for one that is missing.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dashboard.after_login import AfterLogin
from dashboard.assets import Assets
from dashboard.guard import Guard
from dashboard.login import LOGIN, Login, read_login

HOST = "127.0.0.1"

OPTIONS: dict[str, Any] = {
    "global.appTest": False,
    "global.developmentMode": False,
    "global.e2eTest": False,
    "global.unitTest": False,
    "server.address": HOST,
    "server.allowRunOnSave": False,
    "server.allowedHosts": ["localhost", "127.0.0.1", "::1"],
    "server.baseUrlPath": "",
    "server.corsAllowedOrigins": [],
    "server.customComponentBaseUrlPath": "",
    "server.enableAgentApi": False,
    "server.enableCORS": True,  # the check of origins, not leave for other ones
    "server.enableStaticServing": False,
    "server.enableXsrfProtection": True,
    "server.fileWatcherType": "none",
    "server.folderWatchList": [],
    "server.headless": True,
    "server.maxUploadSize": 20,  # MB; the gallery takes an image to search by
    "server.runOnSave": False,
    "server.scriptHealthCheckEnabled": False,
    "server.showEmailPrompt": False,
    "server.sslCertFile": "",
    "server.sslKeyFile": "",
    "server.trustedUserHeaders": {},
    "server.unsafeMetricsUserAttributes": [],
    "server.xsrfCookieSameSite": "strict",
    "browser.gatherUsageStats": False,
    "browser.serverAddress": "localhost",
    "runner.magicEnabled": False,
    "logger.hideWelcomeMessage": True,
    "client.allowedOrigins": [],  # pages that may embed this one and send it messages
    "client.showErrorDetails": "type",
    "client.showErrorLinks": False,
    "client.toolbarMode": "viewer",
    "secrets.files": [],
    "theme.baseRadius": "6px",
    "theme.buttonRadius": "6px",
    "theme.showWidgetBorder": True,
    "theme.light.primaryColor": "#1f6f8b",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f3f5f7",
    "theme.light.textColor": "#1c2733",
    "theme.light.borderColor": "#dde2e8",
    "theme.light.grayTextColor": "#5c6873",
    "theme.dark.primaryColor": "#4fb3d1",
    "theme.dark.backgroundColor": "#12171d",
    "theme.dark.secondaryBackgroundColor": "#1b222b",
    "theme.dark.textColor": "#e4e9ee",
    "theme.dark.borderColor": "#2e3844",
    "theme.dark.grayTextColor": "#93a0ac",
}


FIRST_PORT, TRIED_PORTS = 8501, 50


def environment(root: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The given environment with the workspace in it, and with no variable that would reopen Streamlit."""
    kept = {name: value for name, value in given.items() if not name.startswith("STREAMLIT_")}
    return {**kept, "WINNOW_WORKSPACE": str(root.resolve())}


@contextlib.contextmanager
def reserved_port(wanted: int | None) -> Iterator[int]:
    """The wanted port, or the first free one from 8501 on; nobody else gets it on the other localhost meanwhile.

    The server listens on 127.0.0.1. A browser may try ::1 first for the name localhost, so that whoever listened there
    would be given the token; it is held, and answers nothing.

    Raises: OSError when the wanted port, or every port tried, is taken
    """
    for port in [wanted] if wanted is not None else range(FIRST_PORT, FIRST_PORT + TRIED_PORTS):
        with contextlib.ExitStack() as held:
            try:
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((HOST, port))
                if _has_ipv6():
                    held.enter_context(socket.socket(socket.AF_INET6)).bind(("::1", port))
            except OSError:
                continue
            yield port
            return
    tried = f"port {wanted} is" if wanted is not None else f"ports {FIRST_PORT} to {FIRST_PORT + TRIED_PORTS - 1} are"
    raise OSError(f"{tried} taken on localhost; choose another with --port")


def _has_ipv6() -> bool:
    """Whether this machine has the address ::1."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def serve(
    root: Path,
    port: int | None,
    guarded: bool = True,
    attached: bool = False,
    read_only: bool = False,
    login: Path | None = None,
    warm_up: Callable[[], None] | None = None,
) -> None:
    """Serve the workspace at root, in this process, until Ctrl-C or SIGTERM; print the address once it answers.

    One process, so that whoever ends it ends the server: there is no child that could stay behind.

    Args:   guarded: only who has the token of the printed address is served; attached: end when standard input does,
            which the command that started this process holds open, however it ends; read_only: write nothing for anybody;
            login: a file that names a provider of log-ins (see dashboard.login), in place of the token; warm_up: what a
            thread does while the server starts
    Raises: OSError for a port that is taken, or a file that cannot be read; ValueError for what is wrong in it
    """
    provider = None if login is None else read_login(login, secrets.token_urlsafe(48))
    now = environment(root, os.environ) | ({"WINNOW_READ_ONLY": "1"} if read_only else {})
    os.environ.clear()
    os.environ.update(now)
    if provider:
        os.environ[LOGIN] = json.dumps(provider.allowed)
    # A provider sends people back from its own site, and the cookie of the token does not come with them.
    token = secrets.token_urlsafe(32) if guarded and not provider else None
    with reserved_port(port) as chosen:
        if attached:
            threading.Thread(target=_end_with_input, daemon=True).start()
        address = f"http://localhost:{chosen}" + ("" if token is None else f"/?token={token}")
        threading.Thread(target=_announce, args=(chosen, address), daemon=True).start()
        if warm_up:
            threading.Thread(target=warm_up, daemon=True).start()
        with _secrets_file(provider, chosen) as files:
            _run(chosen, token, files)


@contextlib.contextmanager
def _secrets_file(login: Login | None, port: int) -> Iterator[list[str]]:
    """The files that Streamlit reads secrets from: none, or one that only this user may read, and that ends with the server."""
    if login is None:
        yield []
        return
    with tempfile.TemporaryDirectory(prefix="winnow-") as folder:
        path = Path(folder) / "secrets.toml"
        path.touch(mode=0o600)
        path.write_text(login.secrets(port), encoding="utf-8")
        yield [str(path)]


def _run(port: int, token: str | None, secrets_files: list[str]) -> None:
    """Streamlit's server with the guard in front of it."""
    from starlette.middleware import Middleware
    from streamlit import App, config, file_util  # reads the environment that was set above

    config.get_config_files = lambda file_name: []
    send_at_once()
    guard = Middleware(Guard, port=port, token=token, inline=inline_scripts())
    login = [Middleware(AfterLogin, port=port)] if secrets_files else []
    assets = Middleware(Assets, folder=Path(file_util.get_static_dir()))
    app = App(Path(__file__).with_name("app.py"), middleware=[guard, *login, assets])
    app.run(config={**OPTIONS, "server.port": port, "browser.serverPort": port, "secrets.files": secrets_files})


def send_at_once() -> None:
    """Have every answer leave when it is written.

    Streamlit binds its socket without naming a protocol, and for such a one asyncio does not set TCP_NODELAY: the body of
    every answer, and every second message of a page, would wait up to 44 ms for the browser to acknowledge what came
    before it. Connections inherit the option of the socket that listens.
    """
    from streamlit.web.server.starlette import starlette_server

    bind = starlette_server._bind_socket

    def bind_undelayed(address: str, port: int, backlog: int) -> socket.socket:
        bound = bind(address, port, backlog)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return bound

    starlette_server._bind_socket = bind_undelayed


def inline_scripts() -> tuple[str, ...]:
    """The hashes of the scripts in Streamlit's page, as a Content-Security-Policy names them."""
    from streamlit import file_util

    page = (Path(file_util.get_static_dir()) / "index.html").read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    return tuple(f"sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}" for s in scripts)


def _end_with_input(patience_seconds: float = 10) -> None:
    """End this process as SIGTERM does, as soon as the other end of standard input is closed."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(patience_seconds)
    os._exit(1)  # it could not end by itself


def _announce(port: int, address: str, patience_seconds: float = 60) -> None:
    """Wait until the server accepts connections, and print its address."""
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            print(f"dashboard at {address} (Ctrl-C stops it)", flush=True)
            return
        time.sleep(0.05)
