"""What stands in front of every request to the dashboard: nothing that is refused here reaches Streamlit.

Three questions, in this order. Is it for this server by one of its own names (a foreign name that points at this
machine is another page's way in)? Does it come from a page of this server (any other page in the same browser can send
requests here, and the browser adds the cookie)? Does it carry the token, which only the terminal that started the
server has printed?
"""

from __future__ import annotations

import hmac
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.sockets import through

NAMES = ("localhost", "127.0.0.1", "[::1]")
PARAMETER = b"token"

_REFUSED = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Winnow: refused</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 38rem; margin: 15vh auto; padding: 0 1rem; }}
code {{ background: #8882; padding: .1em .3em; border-radius: 4px; }}
:root {{ color-scheme: light dark; }}
</style>
<h1>Open the dashboard by its own address</h1>
<p><code>winnow dashboard</code> printed it when it started: <code>http://localhost:{port}/{rest}</p>
<p>Followed a link from another page? <a href="">Open it from here.</a></p>
"""


def content_policy(host: str, inline: tuple[str, ...]) -> str:
    """The Content-Security-Policy of every answer: a page loads from this server and from nowhere else.

    Args: host: as the request named it; inline: hashes of the scripts that Streamlit's page holds in itself
    """
    return "; ".join(
        [
            "default-src 'self'",
            # blob: for the modules of components, which Streamlit gives the browser as text
            " ".join(["script-src 'self' blob:", *(f"'{name}'" for name in inline)]),
            "style-src 'self' 'unsafe-inline'",  # the style sheets that Streamlit and Plotly write as they run
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            f"connect-src 'self' ws://{host}",
            "worker-src 'self' blob:",
            "frame-src 'none'",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


class Guard:
    """ASGI middleware that refuses what does not come from this server's own pages with this server's token."""

    def __init__(self, app: ASGIApp, port: int, token: str | None, inline: tuple[str, ...] = ()) -> None:
        """Args: port: that the server listens on; token: None for none; inline: as `content_policy` takes it."""
        self._app = app
        self._port = port
        self._token = None if token is None else token.encode()
        self._cookie = f"winnow-{port}"  # cookies do not know ports: two dashboards would overwrite one
        self._inline = inline
        # A browser leaves out the port that the scheme implies.
        self._hosts = {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        host = self._own_host(headers)
        own = host is not None and _from_own_page(scope, headers, f"http://{host}")
        if scope["type"] == "websocket":
            if own and self._opened_by_cookie(headers):
                return await through(self._app, scope, receive, send)
            # Before the handshake is accepted, a server answers this with 403.
            return await send({"type": "websocket.close", "code": 1008, "reason": ""})

        async def closed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._close(MutableHeaders(scope=message), host or f"localhost:{self._port}")
            await send(message)

        if not own:
            return await self._refusal(headers)(scope, receive, closed)
        given, rest = _without_token(scope["query_string"])
        by_cookie = self._opened_by_cookie(headers)
        if self._token is not None and scope["method"] == "GET" and given is not None:
            if by_cookie or hmac.compare_digest(given, self._token):
                # Out of the address bar, the history and what a person copies.
                return await self._login(f"http://{host}", scope["path"], rest)(scope, receive, closed)
        if not by_cookie:
            return await self._refusal(headers)(scope, receive, closed)
        await self._app(scope, receive, closed)

    def _own_host(self, headers: Headers) -> str | None:
        """The Host of a request, None for any but this server's own names with its own port."""
        hosts = headers.getlist("host")
        return hosts[0] if len(hosts) == 1 and hosts[0] in self._hosts else None

    def _opened_by_cookie(self, headers: Headers) -> bool:
        if self._token is None:
            return True
        # Any of that name: a page of another port can add one, and must not lock its owner out by that.
        pairs = (pair.partition("=") for line in headers.getlist("cookie") for pair in line.split(";"))
        values = [value.strip() for name, _, value in pairs if name.strip() == self._cookie]
        return any(hmac.compare_digest(value.encode("latin-1"), self._token) for value in values)

    def _login(self, origin: str, path: str, query: str) -> Response:
        """Keep the token in a cookie, and go to the same address without it."""
        assert self._token is not None
        response = RedirectResponse(origin + quote(path) + (f"?{query}" if query else ""), 303)
        response.set_cookie(self._cookie, self._token.decode(), path="/", httponly=True, samesite="strict")
        response.headers["Cache-Control"] = "no-store"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    def _refusal(self, headers: Headers) -> Response:
        """403, and for a page what to do; nothing of the request is in it."""
        rest = "</code>." if self._token is None else "?token=</code> and the token, a new one at every start."
        answer = (
            HTMLResponse(_REFUSED.format(port=self._port, rest=rest), 403)
            if "text/html" in headers.get("accept", "")
            else PlainTextResponse("refused\n", 403)
        )
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def _close(self, headers: MutableHeaders, host: str) -> None:
        """What the browser must know of every answer: no other page may show, read or sniff it."""
        headers["Content-Security-Policy"] = content_policy(host, self._inline)
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        headers["X-Content-Type-Options"] = "nosniff"
        headers["X-Frame-Options"] = "DENY"
        headers.setdefault("Referrer-Policy", "same-origin")


def _from_own_page(scope: Scope, headers: Headers, origin: str) -> bool:
    """Whether a request comes from a page of this origin, from the address bar, or from no browser."""
    origins = headers.getlist("origin")
    if scope["type"] == "websocket":
        return origins == [origin]  # browsers always name it here
    if origins not in ([], [origin]):
        return False
    # A picture or a frame on another page names no origin; the browser says from where it is requested. A link from another
    # page is no harm: its page learns nothing, and the cookie does not come with it.
    sites = headers.getlist("sec-fetch-site")
    if sites in ([], ["none"], ["same-origin"]):
        return True
    link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return link and scope["method"] in ("GET", "HEAD")


def _without_token(query: bytes) -> tuple[bytes | None, str]:
    """The token in a query, None where there is none, and the query without it."""
    parts = [part.partition(b"=") for part in query.split(b"&") if part]
    tokens = [value for name, _, value in parts if name == PARAMETER]
    rest = b"&".join(b"".join(part) for part in parts if part[0] != PARAMETER)
    return (tokens[0] if tokens else None), rest.decode("latin-1")
