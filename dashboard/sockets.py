"""A websocket whose browser went away while it was written to."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


async def through(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a websocket, and end without an error where its browser has gone away.

    Streamlit reads from and closes a socket even after it could not write to it. Starlette then raises a RuntimeError, of which
    the server would print a traceback.
    """
    gone = False

    async def watched_receive() -> Message:
        nonlocal gone
        message = await receive()
        gone = gone or message["type"] == "websocket.disconnect"
        return message

    async def watched_send(message: Message) -> None:
        nonlocal gone
        gone = gone or message["type"] == "websocket.close"
        try:
            await send(message)
        except OSError:
            gone = True
            raise

    try:
        await app(scope, watched_receive, watched_send)
    except RuntimeError:
        if not gone:
            raise
