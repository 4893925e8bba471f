"""A real server on a free port of localhost, and a real Chromium that looks at it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from engine.store.workspace import Workspace

FLAGS = (
    "--no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader "
    "--disable-gpu-compositing --disable-gpu-rasterization"  # WebGL in software, but not every page: it halves the time
).split() + ["--host-resolver-rules=MAP evil.example 127.0.0.1"]  # as somebody's name server would answer


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, painting in software. It ends with each file of tests: while it runs, its event loop runs in
    this thread, and no test elsewhere could start one of its own."""
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        if os.environ.get("WINNOW_REQUIRE_TOOLS") == "1":
            pytest.fail("no Chromium found, and WINNOW_REQUIRE_TOOLS=1 asks for one: apt-get install chromium")
        pytest.skip("no Chromium found (apt-get install chromium)")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield opened
        opened.close()


def find_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:  # not serve.reserved_port: two suites at once would both be given the first free one
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def free_port() -> int:
    return find_port()


@contextlib.contextmanager
def serving(root: Path, elsewhere: Path, *words: str) -> Iterator[str]:
    """The address that a dashboard over a workspace prints, started in a directory without any configuration."""
    port = find_port()
    python_path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "dashboard", "--workspace", str(root), "--port", str(port), *words],
        env=os.environ | {"PYTHONPATH": python_path},
        cwd=elsewhere,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        printed = next((line for line in process.stdout if line.startswith(b"dashboard at ")), b"").decode()
        assert printed.endswith(" (Ctrl-C stops it)\n"), "the dashboard did not start"
        yield printed.split()[2]
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    assert b"Traceback" not in output, output.decode()[-3000:]


@pytest.fixture(scope="session")
def address(demo_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a dashboard over the demo's workspace."""
    with serving(demo_workspace, tmp_path_factory.mktemp("elsewhere")) as url:
        yield url


@pytest.fixture
def small_address(small_workspace: Workspace, tmp_path: Path) -> Iterator[str]:
    """The address of a dashboard over a workspace of the test's own."""
    with serving(small_workspace.root, tmp_path) as url:
        yield url


@pytest.fixture
def serve(small_workspace: Workspace, tmp_path: Path) -> Callable[..., contextlib.AbstractContextManager[str]]:
    """Serves the workspace of the test's own, as often as it wants."""
    return lambda *words: serving(small_workspace.root, tmp_path, *words)


@pytest.fixture(scope="session")
def serve_workspace(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Path], contextlib.AbstractContextManager[str]]:
    """Serves any workspace."""
    return lambda root: serving(root, tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails its test on any error in the console and on any request that leaves this machine."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
    opened = context.new_page()
    opened.set_default_timeout(90_000)
    wrong: list[str] = []

    def console(message: object) -> None:
        text, where = message.text, message.location.get("url", "")  # type: ignore[attr-defined]
        # Below a page's own path Streamlit first asks for its endpoints there, gets a 404, and asks at the root.
        if message.type == "error" and "/_stcore/" not in where:  # type: ignore[attr-defined]
            wrong.append(f"{text} {where}")

    opened.on("console", console)
    opened.on("pageerror", lambda error: wrong.append(f"page error: {error}"))
    opened.on(
        "request", lambda r: None if re.match(r"(https?|ws)://localhost:|data:|blob:", r.url) else wrong.append(r.url)
    )
    yield opened
    context.close()
    assert not wrong, "\n".join(wrong)
