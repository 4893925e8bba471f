"""The address that somebody wanted who had to log in first: kept in a cookie while they are at the provider, and opened then.

Streamlit sends whoever comes back from the provider to the root. What is kept is only ever a page of this server: one word
and a query, so that no link can lead elsewhere by way of a log-in.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOGIN, CALLBACK = "/auth/login", "/oauth2callback"
"""Where Streamlit sends to the provider, and where the provider sends back to."""

SECONDS = 600
_MOST = 3_000
"""Bytes of an address; a cookie has 4,096 at most."""
_ADDRESS = re.compile(r"/[a-z_-]*(\?[!-~]*)?")


class AfterLogin:
    """ASGI middleware that opens the address from which somebody logged in."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        """Args: port: that the server listens on; cookies do not know ports."""
        self._app = app
        self._cookie = f"winnow-{port}-wanted"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (LOGIN, CALLBACK):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)

        async def followed(message: Message) -> None:
            if message["type"] == "http.response.start" and 300 <= message["status"] < 400:
                answer = MutableHeaders(scope=message)
                wanted = _page_of(headers) if scope["path"] == LOGIN else self._kept(headers)
                if scope["path"] == LOGIN:
                    self._keep(answer, wanted)
                elif answer.get("location") == "/":
                    answer["location"] = wanted or "/"
                    self._keep(answer, "")
            await send(message)

        await self._app(scope, receive, followed)

    def _keep(self, answer: MutableHeaders, wanted: str) -> None:
        """Have the browser keep an address until it comes back; "" = forget it."""
        value, seconds = base64.urlsafe_b64encode(wanted.encode()).decode(), SECONDS if wanted else 0
        made = Response()
        # lax: the way back from the provider is a link from another site
        made.set_cookie(self._cookie, value, max_age=seconds, path=CALLBACK, httponly=True, samesite="lax")
        answer.append("set-cookie", made.headers["set-cookie"])

    def _kept(self, headers: Headers) -> str:
        try:
            text = base64.urlsafe_b64decode(cookie_parser(headers.get("cookie", "")).get(self._cookie, ""))
            return own_page(text.decode("ascii"))
        except ValueError:  # any page of this host can set a cookie
            return ""


def _page_of(headers: Headers) -> str:
    """The page that a request comes from, of this server; "" for any other."""
    try:
        found = urlsplit(headers.get("referer", ""))
    except ValueError:
        return ""
    if found.scheme != "http" or found.netloc != headers.get("host"):
        return ""
    return own_page(found.path + (f"?{found.query}" if found.query else ""))


def own_page(address: str) -> str:
    """An address if it is that of a page of this server, below its root; "" for any other.

    >>> own_page("/gallery?sample=1"), own_page("//evil.example"), own_page("/auth/logout")
    ('/gallery?sample=1', '', '')
    """
    return address if len(address) <= _MOST and _ADDRESS.fullmatch(address) else ""
