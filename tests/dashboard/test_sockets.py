"""A browser that goes away while it is written to ends its websocket without a traceback; an error of ours does not pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from dashboard.sockets import through

SCOPE = {"type": "websocket", "path": "/_stcore/stream", "headers": [], "query_string": b""}


class Server:
    """A server that does not reach the browser any more, from when a page is written on or from when it is read on."""

    def __init__(self, leaves: str) -> None:
        self.leaves, self.gone, self.sent = leaves, False, list[str]()

    async def receive(self) -> Message:
        if not self.sent:
            return {"type": "websocket.connect"}
        self.gone = True
        return {"type": "websocket.disconnect", "code": 1001}

    async def send(self, message: Message) -> None:
        self.sent.append(message["type"])
        if self.gone:
            raise RuntimeError("Unexpected ASGI message")  # as uvicorn
        if self.leaves == "writing" and message["type"] == "websocket.send":
            self.gone = True
            raise OSError("gone")


class Streamlit:
    """Writes, whether or not anybody reads; then reads, and closes the socket where that fails."""

    closed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        try:
            await socket.send_bytes(b"a page")
        except WebSocketDisconnect:
            pass  # of the thread that writes
        try:
            await socket.receive_bytes()
        except (WebSocketDisconnect, RuntimeError):
            self.closed = True
            await socket.close()


async def bare(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def serve(app: ASGIApp, leaves: str, by: Callable[..., Awaitable[None]] = through) -> Server:
    server = Server(leaves)
    asyncio.run(asyncio.wait_for(by(app, dict(SCOPE), server.receive, server.send), 10))
    return server


@pytest.mark.parametrize(
    ("leaves", "sent"),
    [
        ("writing", ["websocket.accept", "websocket.send"]),  # Starlette does not pass on the close
        ("reading", ["websocket.accept", "websocket.send", "websocket.close"]),
    ],
)
def test_a_browser_that_goes_away_is_no_error(leaves: str, sent: list[str]) -> None:
    app = Streamlit()
    server = serve(app, leaves)
    assert server.sent == sent and server.gone and app.closed
    with pytest.raises(RuntimeError):
        serve(Streamlit(), leaves, bare)


@pytest.mark.parametrize(
    ("error", "reads"), [(RuntimeError("an error of ours"), False), (ValueError("an error of ours"), True)]
)
def test_an_error_of_ours_is_one(error: Exception, reads: bool) -> None:
    async def wrong(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        if reads:
            await receive()  # the browser is gone
        raise error

    with pytest.raises(type(error), match="an error of ours"):
        serve(wrong, "reading")
