"""A browser that goes away while it is written to ends its websocket without a traceback; an error of ours does not pass."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from dashboard.sockets import through

SCOPE = {"type": "websocket", "path": "/_stcore/stream", "headers": [], "query_string": b""}


async def as_streamlit(scope: Scope, receive: Receive, send: Send) -> None:
    """Write, whether or not anybody reads; then read, and close the socket where that fails."""
    socket = WebSocket(scope, receive, send)
    await socket.accept()
    try:
        await socket.send_bytes(b"a page")
    except WebSocketDisconnect:
        pass  # of the thread that writes
    try:
        await socket.receive_bytes()
    except WebSocketDisconnect:
        return
    except RuntimeError:
        await socket.close()


async def wrong(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("an error of ours")


def passed(app: object, leaves: str) -> None:
    """leaves: when the browser goes away: "writing", "reading" or "" for never."""

    async def receive() -> Message:
        return {"type": "websocket.disconnect", "code": 1001} if connected else {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        connected.append(message)
        if leaves == "writing" and message["type"] == "websocket.send":
            raise OSError("gone")

    connected: list[Message] = []
    asyncio.run(through(app, SCOPE, receive, send))  # type: ignore[arg-type]


@pytest.mark.parametrize("leaves", ["writing", "reading"])
def test_a_browser_that_goes_away_is_no_error(leaves: str) -> None:
    passed(as_streamlit, leaves)


def test_an_error_is_one() -> None:
    with pytest.raises(RuntimeError, match="an error of ours"):
        passed(wrong, "")
