"""Streamlit's own files, answered from memory and compressed once, and named to the browser before it asks for them.

Streamlit reads each of the hundred files of a page from the disk in another thread, uncompressed: most of what a server
did for a first page was that. Their names change with their content, so that what was read once stays right.
"""

from __future__ import annotations

import gzip
import re
from functools import lru_cache
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".woff2": "font/woff2",
}
"""What is answered here; any other file is left to Streamlit."""

_PACKED = (".js", ".css")
_SMALL_BYTES = 1_000

ELEMENTS = ("BidiComponent", "Html", "Metric", "PageLink", "Selectbox")
"""Elements that most pages have. Streamlit loads the code of each when the first of its kind arrives."""

_IMPORTS = re.compile(rb"""(?:from|import)\s*["']\./([\w.-]+\.js)["']""")


class Assets:
    """ASGI middleware in front of Streamlit's folder of files with hashed names."""

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        """Args: folder: Streamlit's, with index.html and static/ in it"""
        self._app, self._folder = app, folder
        self._files = {
            f"/{path.relative_to(folder).as_posix()}": path
            for path in (folder / "static").rglob("*")
            if path.suffix in TYPES and path.is_file()
        }
        self._links = ", ".join(
            f"<{path}>; rel=modulepreload; crossorigin" for path in imported(folder / "static" / "js", ELEMENTS)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            return await self._app(scope, receive, send)
        headers, path = Headers(scope=scope), self._files.get(scope["path"])
        if path is None or "range" in headers:

            async def linked(message: Message) -> None:
                if message["type"] == "http.response.start":
                    found = MutableHeaders(scope=message)
                    if found.get("content-type", "").startswith("text/html") and self._links:
                        found["Link"] = self._links
                await send(message)

            return await self._app(scope, receive, linked)
        packed = path.suffix in _PACKED and "gzip" in headers.get("accept-encoding", "")
        body = _read(path, packed)
        answer = {
            "content-type": TYPES[path.suffix],
            "content-length": str(len(body)),
            "cache-control": "public, immutable, max-age=31536000",
            "vary": "accept-encoding",
        }
        if packed and body[:2] == b"\x1f\x8b":
            answer["content-encoding"] = "gzip"
        listed = [(name.encode(), value.encode()) for name, value in answer.items()]
        await send({"type": "http.response.start", "status": 200, "headers": listed})
        await send({"type": "http.response.body", "body": body})


@lru_cache(maxsize=1_000)  # all there are take 30 MB
def _read(path: Path, packed: bool) -> bytes:
    """A file's bytes, compressed where that is wanted and it is not small."""
    found = path.read_bytes()
    return gzip.compress(found, 6, mtime=0) if packed and len(found) >= _SMALL_BYTES else found


def imported(folder: Path, names: tuple[str, ...]) -> list[str]:
    """The addresses of the modules of some elements, and of all that they import, as far as they are in a folder."""
    waiting = [path.name for name in names for path in sorted(folder.glob(f"{name}.*.js"))]
    found: dict[str, None] = {}
    while waiting:
        name = waiting.pop(0)
        path = folder / name
        if name in found or not path.is_file():
            continue
        found[name] = None
        waiting += [module.decode() for module in _IMPORTS.findall(path.read_bytes())]
    return [f"/static/js/{name}" for name in found]
