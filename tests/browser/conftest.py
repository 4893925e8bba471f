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
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, ViewportSize, sync_playwright

from engine.store.workspace import Workspace

FLAGS = (
    "--no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader "
    "--disable-gpu-compositing --disable-gpu-rasterization"  # WebGL in software, but not every page: it halves the time
).split() + ["--host-resolver-rules=MAP evil.example 127.0.0.1"]  # as somebody's name server would answer
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first takes 15 % less processor time than the second for the same pages: it has no window to draw."""
WINDOW: ViewportSize = {"width": 1440, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, painting in software. It ends with each file of tests: while it runs, its event loop runs in
    this thread, and no test elsewhere could start one of its own."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        if os.environ.get("WINNOW_REQUIRE_TOOLS") == "1":
            pytest.fail(
                "no Chromium found, and WINNOW_REQUIRE_TOOLS=1 asks for one: apt-get install chromium-headless-shell"
            )
        pytest.skip("no Chromium found (apt-get install chromium-headless-shell)")
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


@pytest.fixture(scope="module")
def kept_page(browser: Browser) -> Iterator[Page]:
    """What `page` is, for the tests of a file. The process behind a page keeps what it compiled of Streamlit's code, which
    is half of what opening the dashboard costs; nothing else of a test is left to the next."""
    context = browser.new_context(viewport=WINDOW, color_scheme="light")
    yield context.new_page()
    context.close()


@pytest.fixture
def page(kept_page: Page) -> Iterator[Page]:
    """A page that fails its test on any error in the console and on any request that leaves this machine."""
    with watched(kept_page):
        yield kept_page
        for other in kept_page.context.pages:
            if other is not kept_page:
                other.close()
        if kept_page.url.startswith("http"):  # else its server is gone, and no other has its address
            kept_page.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")
        kept_page.goto("about:blank")
    kept_page.context.clear_cookies()
    kept_page.emulate_media(color_scheme="light")
    kept_page.set_viewport_size(WINDOW)


@pytest.fixture
def own_page(browser: Browser) -> Iterator[Page]:
    """A page like `page` that no other test has: one whose connections a test routes through itself."""
    context = browser.new_context(viewport=WINDOW, color_scheme="light")
    opened = context.new_page()
    with watched(opened):
        yield opened
        context.close()


@contextlib.contextmanager
def watched(page: Page) -> Iterator[None]:
    wrong: list[str] = []

    def console(message: ConsoleMessage) -> None:
        # Below a page's own path Streamlit first asks for its endpoints there, gets a 404, and asks at the root.
        if message.type == "error" and "/_stcore/" not in message.location.get("url", ""):
            wrong.append(f"{message.text} {message.location.get('url', '')}")

    def failed(error: Error) -> None:
        wrong.append(f"page error: {error}")

    def requested(request: Request) -> None:
        if not re.match(r"(https?|ws)://localhost:|data:|blob:", request.url):
            wrong.append(request.url)

    page.set_default_timeout(90_000)
    page.on("console", console)
    page.on("pageerror", failed)
    page.on("request", requested)
    yield
    page.remove_listener("console", console)
    page.remove_listener("pageerror", failed)
    page.remove_listener("request", requested)
    assert not wrong, "\n".join(wrong)
