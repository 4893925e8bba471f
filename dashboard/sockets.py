"""A websocket whose browser went away while it was written to."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


async def through(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Pass a websocket on. That it is gone is no error of the server, which would print a traceback.

    Streamlit goes on to read and to close a socket to which it could not write, and Starlette raises where it does.
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
