"""A picture that opens over the whole window: fitted, pixel by pixel, and at any size in between."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import streamlit as st

_STATIC = Path(__file__).with_name("static")

_ZOOM = st.components.v2.component(
    "winnow_zoom",
    html=(_STATIC / "zoom.html").read_text(encoding="utf-8"),
    css=(_STATIC / "zoom.css").read_text(encoding="utf-8"),
    js=(_STATIC / "zoom.js").read_text(encoding="utf-8"),
)


def draw_zoom(
    name: str, small: bytes, full: bytes, note: str, on_opened: Callable[[], None], *, known_size: tuple[int, int]
) -> None:
    """Draw a picture that a click or Enter enlarges.

    Args: name: of the picture, for those who do not see it; small: what is drawn; full: what is enlarged, b"" while it is
          not read; note: what a person should know of it; on_opened: called when it is opened, for reading `full`;
          known_size: of the original, zeros where it is unknown
    """
    _ZOOM(
        key="zoom",
        data={
            "name": name,
            "small": _url(small),
            "full": _url(full),
            "note": note,
            "width": known_size[0],
            "height": known_size[1],
        },
        on_opened_change=on_opened,
    )


def _url(content: bytes) -> str:
    if not content:
        return ""
    kind = "jpeg" if content[:2] == b"\xff\xd8" else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
