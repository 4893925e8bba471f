"""Other pages of the same browser: what they send to the dashboard is refused, and they learn nothing from it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route
from test_dashboard import at, visit

from engine.store.workspace import Workspace

pytestmark = pytest.mark.browser

Serve = Callable[..., AbstractContextManager[str]]

TRY = """async ([target, media]) => {
    const learned = [];
    for (const path of ['/', '/gallery', '/_stcore/health', '/_stcore/host-config', '/_stcore/agent/openapi.json', media])
        for (const mode of ['cors', 'no-cors'])
            for (const method of ['GET', 'HEAD', 'POST', 'PUT'])
                try {
                    const answer = await fetch(target + path, {mode, method, credentials: 'include'});
                    if (answer.ok) learned.push(`${method} ${path} ${mode} ${(await answer.text()).length}`);
                } catch { }
    const arrived = (element, place) => new Promise(resolve => {
        element.onload = () => resolve(true);
        element.onerror = () => resolve(false);
        element.src = place;
    });
    if (await arrived(new Image(), target + media)) learned.push('picture');
    for (const words of [[], ['streamlit'], ['streamlit', 'PLACEHOLDER_AUTH_TOKEN']])
        await new Promise(resolve => {
            const socket = new WebSocket(target.replace('http', 'ws') + '/_stcore/stream', words);
            socket.onopen = () => { learned.push('socket'); socket.close(); };
            socket.onclose = resolve;
        });
    return learned;
}"""
"""What of the dashboard at `target` a page can read, show or open."""

FRAME = """target => new Promise(resolve => {
    const frame = document.createElement('iframe');
    frame.onload = () => resolve();
    frame.src = target;
    document.body.append(frame);
})"""
FORM = """([target, method]) => {
    const form = document.createElement('form');
    Object.assign(form, {action: target, method, target: '_blank'});
    document.body.append(form);
    form.submit();
}"""


class Blank(BaseHTTPRequestHandler):
    """A page with nothing on it, at every address."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>another page</title><body>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """The port of another server on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Blank) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context()
    yield opened
    opened.close()


def signed_in(context: BrowserContext, address: str) -> tuple[str, str]:
    """Open the dashboard as its owner does: its origin, and the path of a picture that it serves."""
    page = context.new_page()
    page.goto(at(address, "/guide?chapter=dashboard") if "?" in address else f"{address}/guide?chapter=dashboard")
    picture = page.locator("img[src*='/media/']")
    picture.wait_for()
    origin = re.match(r"http://localhost:\d+", address).group()
    return origin, str(picture.evaluate("image => image.src")).removeprefix(origin)


def files(root: Path) -> set[Path]:
    return set(root.rglob("*"))


@pytest.mark.parametrize("words", [(), ("--no-token",)], ids=["token", "no token"])
def test_no_other_page_reads_or_starts_anything(
    context: BrowserContext, serve: Serve, small_workspace: Workspace, elsewhere: int, words: tuple[str, ...]
) -> None:
    with serve(*words) as address:
        origin, media = signed_in(context, address)
        before = files(small_workspace.root)
        port = origin.rpartition(":")[2]
        own = context.new_page()
        own.goto(f"{origin}/")
        control = own.evaluate(TRY, [origin, media])
        assert {"picture", "socket"} < set(control) and len(control) > 6  # the page itself can: the others could
        own.close()

        # As if the name had pointed at the page's own server when the page was loaded from there.
        rebound = f"http://evil.example:{port}"
        context.route(f"{rebound}/start", lambda route: plain(route))
        for start, target in (
            (f"http://localhost:{elsewhere}/", origin),  # the browser sends the cookie: cookies do not know ports
            (f"http://127.0.0.1:{elsewhere}/", f"http://127.0.0.1:{port}"),
            (f"http://evil.example:{elsewhere}/", origin),
            (f"http://evil.example:{elsewhere}/", rebound),
            (f"{rebound}/start", rebound),
            (f"{rebound}/start", origin),
        ):
            page = context.new_page()
            page.goto(start)
            assert page.evaluate(TRY, [target, media]) == []
            page.evaluate(FRAME, f"{target}/")
            framed = [frame.content() for frame in page.frames if frame != page.main_frame]
            assert len(framed) == 1 and "stApp" not in framed[0] and "Streamlit" not in framed[0]
            with context.expect_page() as opened:
                page.evaluate(FORM, [f"{target}/", "post"])
            opened.value.wait_for_load_state()
            assert opened.value.title() == "Winnow: refused"
            opened.value.close()
            page.close()
        assert files(small_workspace.root) == before


def plain(route: Route) -> None:
    route.fulfill(body="<!doctype html><title>another page</title><body>", content_type="text/html")


def test_a_browser_without_the_token_gets_no_further_than_a_page_that_says_so(
    browser: Browser, context: BrowserContext, serve: Serve
) -> None:
    with serve() as address:
        origin, media = signed_in(context, address)
        stranger = browser.new_context()
        page = stranger.new_page()
        for path in ("/", "/gallery?dataset=small"):
            answer = page.goto(origin + path)
            assert answer is not None and answer.status == 403
            assert page.title() == "Winnow: refused"
            assert "winnow dashboard" in page.inner_text("body")
        assert page.evaluate(TRY, [origin, media]) == []
        assert stranger.cookies() == []
        stranger.close()


def test_the_token_lasts_for_every_tab_and_ends_with_the_server(page: Page, serve: Serve) -> None:
    with serve() as address:
        visit(page, address, "/gallery?dataset=small&n=48")
        assert "token" not in page.url and re.search(r"/gallery\?dataset=small&n=48", page.url)
        other = page.context.new_page()
        other.goto(f"{address.split('/?')[0]}/gallery?dataset=small")  # no token in it
        other.wait_for_selector("[data-testid=stSidebar] [data-testid=stSelectbox]")
        other.reload()
        other.wait_for_selector("[data-testid=stSidebar] [data-testid=stSelectbox]")
        other.close()
        port = address.split(":")[2].split("/")[0]
        page.goto("about:blank")
    with serve("--port", port) as renewed:
        assert renewed.split("/?")[0] == address.split("/?")[0]
        refused = page.context.browser.new_context(storage_state=page.context.storage_state())
        old = refused.new_page()
        assert old.goto(address).status == 403
        assert old.title() == "Winnow: refused"
        visit(old, renewed, "/gallery?dataset=small")  # and the new address works over the old cookie
        refused.close()
