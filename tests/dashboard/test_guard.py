"""The guard in front of Streamlit: what it refuses never reaches the application, on any of Streamlit's routes."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from dashboard.guard import Guard

PORT, TOKEN = 8765, "the-right-token_0"
OWN = f"localhost:{PORT}"
COOKIE = {"cookie": f"other=1; winnow-{PORT}={TOKEN}"}

ROUTES = """
import json, sys
from streamlit import App
app = App(sys.argv[1])._build_starlette_app()
found = [(type(r).__name__, getattr(r, "path", "/"), sorted(getattr(r, "methods", None) or [])) for r in app.routes]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def requests() -> list[tuple[str, str, str]]:
    """(kind, method, path) of everything that Streamlit answers, from its own table, and of the dashboard's pages."""
    app = Path(__file__).parents[2] / "dashboard" / "app.py"
    done = subprocess.run([sys.executable, "-c", ROUTES, str(app)], capture_output=True, text=True, check=True)
    found = [("http", method, path) for path in ("/", "/gallery", "/psi") for method in ("GET", "HEAD")]
    for kind, path, methods in json.loads(done.stdout):
        path = re.sub(r"{[^}]*}", "x", path) or "/"
        if kind == "WebSocketRoute":
            found.append(("websocket", "GET", path))
        else:  # a mount names no methods
            found += [("http", method, path) for method in methods or ["GET"]]
    return found


class Reached:
    """What the guard stands before: says that it was reached, and by what."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
            await send({"type": "http.response.body", "body": b"served"})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.accept"})


class Answer:
    """What the guard answered one request."""

    def __init__(self, sent: list[Message], reached: bool) -> None:
        self.reached = reached
        first = sent[0] if sent else {}
        self.kind: str = first.get("type", "")
        self.status: int = first.get("status") or first.get("code") or 0
        self.headers = {name.decode(): value.decode() for name, value in first.get("headers", [])}
        self.body = b"".join(message.get("body", b"") for message in sent).decode()


def ask(
    path: str = "/", headers: dict[str, str] | list[tuple[str, str]] | None = None, *, kind: str = "http",
    method: str = "GET", query: str = "", token: str | None = TOKEN, port: int = PORT,
) -> Answer:  # fmt: skip
    """One request to a guarded application. headers: beside the server's own Host, which a Host among them replaces."""
    pairs = list(headers.items() if isinstance(headers, dict) else headers or [])
    if not any(name == "host" for name, _ in pairs):
        pairs.append(("host", OWN))
    scope: dict[str, Any] = {
        "type": kind, "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in pairs],
    }  # fmt: skip
    below, sent = Reached(), []

    async def receive() -> Message:
        raise AssertionError("a refused request is not read")

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(Guard(below, port=port, token=token)(scope, receive, send))
    return Answer(sent, bool(below.scopes))


def served(answer: Answer) -> bool:
    """Whether the application was reached and answered; refused means neither."""
    accepted = answer.status == 200 or answer.kind == "websocket.accept"
    assert accepted == answer.reached
    assert accepted or answer.status in (403, 1008)
    return accepted


WRONG = {
    "no token": {},
    "wrong token": {"cookie": f"winnow-{PORT}=another"},
    "empty token": {"cookie": f"winnow-{PORT}="},
    "token that is no ASCII": {"cookie": f"winnow-{PORT}=\xe9"},
    "token of another port": {"cookie": f"winnow-{PORT + 1}={TOKEN}"},
    "foreign host": {**COOKIE, "host": f"evil.example:{PORT}"},
    "foreign host that ends as its own": {**COOKIE, "host": f"evil.localhost:{PORT}"},
    "host of another port": {**COOKIE, "host": f"localhost:{PORT + 1}"},
    "host without a port": {**COOKIE, "host": "localhost"},
    "foreign origin": {**COOKIE, "origin": "http://evil.example"},
    "foreign host and its origin": {**COOKIE, "host": f"evil.example:{PORT}", "origin": f"http://evil.example:{PORT}"},
    "origin of another port": {**COOKIE, "origin": f"http://localhost:{PORT + 1}"},
    "origin by https": {**COOKIE, "origin": f"https://{OWN}"},
    "origin that begins as its own": {**COOKIE, "origin": f"http://{OWN}.evil.example"},
    "origin of a sandbox": {**COOKIE, "origin": "null"},
    "fetched by another page": {**COOKIE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    "framed by another port": {
        **COOKIE, "sec-fetch-site": "same-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"
    },
}  # fmt: skip


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG.keys())
def test_what_is_not_its_own_reaches_no_route(requests: list[tuple[str, str, str]], headers: dict[str, str]) -> None:
    assert len(requests) > 15
    for kind, method, path in requests:
        if kind == "websocket" and "origin" not in headers:
            headers = {**headers, "origin": f"http://{headers.get('host', OWN)}"}
            if "sec-fetch-site" in headers:  # browsers do not send it with a WebSocket; the origin decides there
                continue
        assert not served(ask(path, headers, kind=kind, method=method)), (kind, method, path)


def test_its_own_pages_reach_every_route_with_the_token(requests: list[tuple[str, str, str]]) -> None:
    assert {path for _, _, path in requests} >= {"/_stcore/stream", "/_stcore/health", "/media/x", "/component/x"}
    for kind, method, path in requests:
        for name in ("localhost", "127.0.0.1", "[::1]"):
            host = f"{name}:{PORT}"
            own = {**COOKIE, "host": host, "origin": f"http://{host}"}
            assert served(ask(path, own, kind=kind, method=method)), (kind, method, path)
            if kind == "http":
                assert served(ask(path, {**COOKIE, "host": host, "sec-fetch-site": "same-origin"}, method=method))


def test_a_websocket_without_an_origin_is_refused() -> None:
    assert served(ask("/_stcore/stream", {**COOKIE, "origin": f"http://{OWN}"}, kind="websocket"))
    assert not served(ask("/_stcore/stream", COOKIE, kind="websocket"))


def test_doubled_headers_are_refused() -> None:
    own = list(COOKIE.items())
    assert served(ask(headers=[*own, ("host", OWN)]))
    assert not served(ask(headers=[*own, ("host", OWN), ("host", "evil.example")]))
    assert not served(ask(headers=[*own, ("origin", f"http://{OWN}"), ("origin", "http://evil.example")]))


def test_without_a_token_hosts_and_origins_are_still_checked() -> None:
    assert served(ask(token=None))
    assert served(ask("/_stcore/stream", {"origin": f"http://{OWN}"}, kind="websocket", token=None))
    for name in ("foreign host", "foreign origin", "origin of another port", "fetched by another page"):
        assert not served(ask("/_stcore/health", WRONG[name], token=None)), name


def test_the_token_in_an_address_becomes_a_cookie_and_leaves_the_address() -> None:
    first = ask("/gallery", query=f"dataset=a%26b&token={TOKEN}&page=2")
    assert (first.status, first.reached) == (303, False)
    assert first.headers["location"] == f"http://{OWN}/gallery?dataset=a%26b&page=2"
    kept, *words = first.headers["set-cookie"].split("; ")
    assert kept == f"winnow-{PORT}={TOKEN}"
    assert set(words) == {"HttpOnly", "Path=/", "SameSite=strict"}
    assert (first.headers["cache-control"], first.headers["referrer-policy"]) == ("no-store", "no-referrer")
    assert served(ask("/gallery", {"cookie": kept}))
    assert ask(query=f"token={TOKEN}").headers["location"] == f"http://{OWN}/"


def test_only_the_right_token_in_an_address_helps() -> None:
    for query in (
        "token=",
        "token=wrong",
        f"token={TOKEN}x",
        f"Token={TOKEN}",
        f"x=token={TOKEN}",
        "token=%FF",
        "token",
    ):
        answer = ask(query=query)
        assert not served(answer) and "set-cookie" not in answer.headers, query
    for name in ("foreign host", "foreign origin", "origin of another port"):  # a rebound name with a stolen token
        headers = {key: value for key, value in WRONG[name].items() if key != "cookie"}
        assert not served(ask(headers=headers, query=f"token={TOKEN}"))
    assert not served(ask(query=f"token={TOKEN}", method="POST"))
    # An old bookmark, opened again while the cookie is right.
    assert ask("/psi", COOKIE, query="token=old&page=2").headers["location"] == f"http://{OWN}/psi?page=2"


def test_a_redirect_leads_nowhere_else() -> None:
    for path in ("//evil.example/", "/\\evil.example", "/@evil.example", "/\r\nx: y"):
        place = ask(path, query=f"token={TOKEN}").headers["location"]
        assert place.startswith(f"http://{OWN}/") and not set(place) & set("\r\n\\ ")


def test_a_link_on_another_page_opens_the_dashboard_if_it_carries_the_token() -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert ask(headers=link, query=f"token={TOKEN}").status == 303
    assert not served(ask(headers=link))
    assert not served(ask(headers={**COOKIE, **link}, method="POST"))


def test_a_refused_page_says_what_to_do_and_repeats_nothing() -> None:
    marker = "<i>marker</i>"
    page = ask(f"/{marker}", {"accept": "text/html,*/*", "host": marker, "origin": marker}, query=f"token={marker}")
    assert page.status == 403 and page.headers["content-type"].startswith("text/html")
    assert "winnow dashboard" in page.body and f"http://localhost:{PORT}/?token=" in page.body
    assert "marker" not in page.body + str(page.headers) and TOKEN not in page.body
    free = ask("/", {"accept": "text/html", "host": "evil.example"}, token=None)
    assert free.status == 403 and f"http://localhost:{PORT}/</code>" in free.body and "token" not in free.body
    plain = ask("/media/x.png", {"accept": "image/avif,*/*"})
    assert (plain.status, plain.body) == (403, "refused\n")
    assert plain.headers["cache-control"] == page.headers["cache-control"] == "no-store"


def test_every_answer_closes_the_page_to_others() -> None:
    for answer in (ask(headers=COOKIE), ask(), ask(query=f"token={TOKEN}"), ask(headers={"host": "evil.example"})):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy and f"connect-src 'self' ws://{OWN};" in policy
        assert "frame-ancestors 'none'" in policy and "unsafe-eval" not in policy
        assert "'unsafe-inline'" not in re.findall(r"script-src ([^;]*)", policy)[0]
        assert "evil" not in policy and "http" not in policy and "*" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["referrer-policy"] in ("same-origin", "no-referrer")


def test_at_port_80_a_browser_leaves_the_port_out() -> None:
    cookie = {"cookie": f"winnow-80={TOKEN}"}
    assert served(ask(headers={**cookie, "host": "localhost", "origin": "http://localhost"}, port=80))
    assert served(ask(headers={**cookie, "host": "localhost:80"}, port=80))
    assert not served(ask(headers={**cookie, "host": "evil.example"}, port=80))


def test_starting_and_ending_pass_through() -> None:
    below = Reached()

    async def nothing(*_: object) -> Any:
        return None

    asyncio.run(Guard(below, port=PORT, token=TOKEN)({"type": "lifespan"}, nothing, nothing))
    assert [scope["type"] for scope in below.scopes] == ["lifespan"]
