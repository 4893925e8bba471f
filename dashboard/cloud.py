"""A cloud of samples that one can move in: what is sent of it to the browser, and what comes back.

The browser says which part it shows; the answer is how many samples lie in each of its bins, or the samples themselves
where they are few. All arrays go as bytes, so that a million samples are less than a megabyte.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from dashboard import charts, data, grid, state
from dashboard.coloring import Coloring
from dashboard.data import View
from dashboard.widgets import guarded

MOST_POINTS, MOST_MARKED = 20_000, 5_000
_STATIC = Path(__file__).with_name("static")
_FINEST = 400

Ends = tuple[float, float, float, float]


def _text(*names: str) -> str:
    return "\n".join((_STATIC / name).read_text(encoding="utf-8") for name in names)


_CLOUD = st.components.v2.component(
    "winnow_cloud",
    html='<div class="cloud"><div class="head"><div class="legend"></div><div class="tools" role="group" aria-label="tools">'
    '</div></div><div class="stage"><canvas class="base" aria-hidden="true"></canvas>'
    '<canvas class="over" tabindex="0" role="application"></canvas></div><p class="words"></p></div>',
    css=_text("cloud.css"),
    js=_text("scales.js", "cloud.js", "cloud_hands.js"),
)
_PEEK = st.components.v2.component(
    "winnow_peek",
    html='<div class="peek" hidden></div>',
    css=_text("peek.css"),
    js=_text("scales.js", "peek.js"),
)


@dataclass(frozen=True)
class Shown:
    """A cloud as a page shows it. axes: their titles, None where they mean nothing; equal: both in the same unit."""

    of: data.clouds.Cloud
    wanted: data.Filter
    coloring: Coloring
    title: str
    axes: tuple[str, str] | None = None
    equal: bool = False
    outline: data.clouds.Outline = ()
    selected: int | None = None
    lines: tuple[tuple[str, Ends], ...] = ()


def draw_cloud(
    view: View, shown: Shown, name: str, on_outline: Callable[[str], None], on_open: Callable[[int | None], None]
) -> None:
    """Draw a cloud: on_outline(corners as an address holds them, "" = none), on_open(sample_id, None = close).

    Zooming and hovering run this alone; an outline or a click draws the page anew.
    """
    ends = data.clouds.extent(shown.of)
    if not ends["n"]:
        st.info("No sample has two finite numbers to draw it by.", icon=":material/scatter_plot:")
        return
    key = f"{name}_{_short(shown.of.plane)}"

    def outlined() -> None:
        given = st.session_state[key]["outline"]
        if isinstance(given, dict):
            on_outline(state.region_text(_corners(given.get("corners"))))
            st.session_state[f"{key}_acknowledged"] = given.get("count")
            st.session_state[f"{key}_anew"] = True

    def opened() -> None:
        given = st.session_state[key]["open"]
        if isinstance(given, list) and (at := _numbers(given, 4)):
            found = data.clouds.nearest(shown.of, shown.wanted, at[0], at[1], (at[2], at[3]))
            if found is None:
                return
            on_open(found)
        elif isinstance(given, int | float):
            on_open(int(given) if given >= 0 else None)
        st.session_state[f"{key}_anew"] = True

    @st.fragment
    @guarded
    def cloud() -> None:
        if st.session_state.pop(f"{key}_anew", False):
            st.rerun()
        before = st.session_state.get(key)
        requested = _numbers(before.get("view") if before else None, 6)
        message = _message(shown, ends, requested)
        message |= {"name": name, "acknowledged": st.session_state.get(f"{key}_acknowledged")}
        _CLOUD(
            key=key,
            data=message,
            default={"view": None},
            on_view_change=lambda: None,
            on_outline_change=outlined,
            on_open_change=opened,
        )

    @st.fragment
    @guarded
    def peek() -> None:
        def asks() -> None:
            given = st.session_state[f"{key}_peek"]["ask"]
            if isinstance(given, dict):
                st.session_state[f"{key}_asked"] = given

        answer = _answer(view, shown, st.session_state.get(f"{key}_asked"))
        _PEEK(key=f"{key}_peek", data={"name": name, "answer": answer}, on_ask_change=asks)

    st.session_state.pop(f"{key}_anew", None)  # the page is being drawn anew already
    cloud()
    peek()
    if ends["missing"]:
        st.caption(f"{ends['missing']:,.0f} samples without two finite numbers are not drawn.")


def _corners(given: Any) -> list[tuple[float, float]]:
    """The corners that the browser sent; none where they are not such."""
    if not isinstance(given, list) or len(given) > state.MOST_CORNERS:
        return []
    found = [at for corner in given if (at := _numbers(corner, 2))]
    return [(x, y) for x, y in found] if len(found) == len(given) >= 3 else []


def _numbers(given: Any, count: int) -> list[float]:
    """So many finite numbers that the browser sent; none where they are not such."""
    if not isinstance(given, list | tuple) or len(given) != count:
        return []
    found = [float(v) for v in given if isinstance(v, int | float) and math.isfinite(v)]
    return found if len(found) == count else []


def _answer(view: View, shown: Shown, requested: dict[str, Any] | None) -> dict[str, Any] | None:
    """The picture and the labels of the sample under the pointer, with the key under which the browser wants it."""
    if not requested or not isinstance(requested.get("key"), str):
        return None
    sample_id = requested.get("id")
    if at := _numbers(requested.get("at"), 4):
        sample_id = data.clouds.nearest(shown.of, shown.wanted, at[0], at[1], (at[2], at[3]))
    found = data.clouds.peeked(view.at, view.run_id, sample_id) if isinstance(sample_id, int) else None
    if found is None or found.empty:
        return {"key": requested["key"], "image": "", "lines": []}
    row = next(charts.rows(found))
    image = base64.b64encode(bytes(row.thumbnail)).decode() if isinstance(row.thumbnail, bytes | bytearray) else ""
    lines = [f"one of them: {sample_id}"] if at else []
    lines += [f"{kind} {text}" for kind, text in grid.chips(row, view.names)]
    return {"key": requested["key"], "image": image, "lines": lines}


def _message(shown: Shown, ends: dict[str, float], requested: Sequence[float]) -> dict[str, Any]:
    """Everything that the browser draws of a part of a cloud."""
    of, wanted, color = shown.of, shown.wanted, shown.coloring.color
    full = _padded(ends["left"], ends["right"], ends["bottom"], ends["top"])
    home = _padded(ends["home_left"], ends["home_right"], ends["home_bottom"], ends["home_top"], 0)
    whole = data.clouds.window(full)
    counted = data.clouds.density(of, wanted, whole, color)
    total = int(counted["n"].sum())
    part = whole
    if requested and total > MOST_POINTS and requested[0] < requested[1] and requested[2] < requested[3]:
        part = data.clouds.window(
            (requested[0], requested[1], requested[2], requested[3]),
            *(max(1, min(_FINEST, int(size))) for size in requested[4:]),
        )
        counted = data.clouds.density(of, wanted, part, color)
    few = int(counted["n"].sum()) <= MOST_POINTS
    marked = None if few else data.clouds.marked(of, wanted, part, MOST_MARKED)
    low, high = _color_range(shown)
    listed = ""
    if few or (marked is not None and len(marked)):
        listed = "flagged" if few or len(marked) < MOST_MARKED else f"the {MOST_MARKED:,} most suspicious here"  # type: ignore[arg-type]
    rings = shown.coloring.color.kind != "flagged" or not few
    verdict = data.verdict(of.at, of.plane.run_id)
    return {
        "plane": _short(of.plane),
        "full": full,
        "home": home,
        "equal": shown.equal,
        "axes": {"x": data.shown(shown.axes[0], 80), "y": data.shown(shown.axes[1], 80)} if shown.axes else None,
        "window": [part.left, part.right, part.bottom, part.top],
        "bins": [part.across, part.up],
        "complete": total <= MOST_POINTS,
        "density": None if few else _packed_density(counted, part, shown.coloring.kind, low, high),
        "points": _packed_points(of, wanted, part, shown) if few else None,
        "marked": _packed(marked) if marked is not None and len(marked) else None,
        "color": {
            "key": _short(color),
            "kind": shown.coloring.kind,
            "title": data.shown(shown.coloring.title, 80),
            "names": list(shown.coloring.names[:300]),
            "many": len(shown.coloring.names),
            "yes": shown.coloring.yes,
            "no": shown.coloring.no,
            "rest": shown.coloring.rest,
            "low": low,
            "high": high,
            "rings": rings,
        },
        "palette": list(charts.CLASSES),
        "labels": _labels(shown),
        "listed": listed if rings and verdict and verdict.listed else "",
        "lines": [
            {"text": data.shown(text, 80), "x0": x0, "y0": y0, "x1": x1, "y1": y1}
            for text, (x0, y0, x1, y1) in shown.lines
        ],
        "outline": [list(corner) for corner in shown.outline],
        "selected": list(data.clouds.place(of, shown.selected) or ()) or None if shown.selected is not None else None,
        "text": _in_words(shown, total),
    }


def _in_words(shown: Shown, total: int) -> str:
    names, largest = shown.coloring.names, ""
    if shown.coloring.kind == "category":
        found = data.clouds.middles(shown.of, shown.wanted, shown.coloring.color).head(5)
        largest = ", ".join(f"{names[row.code]} {row.n:,}" for row in charts.rows(found) if row.code < len(names))
    return (
        f"{data.shown(shown.title, 200)}: {total:,} samples, colored by {data.shown(shown.coloring.title, 80)}. "
        + (f"The largest groups: {largest}. " if largest else "")
        + "Arrow keys move, plus and minus zoom, 0 shows everything, Escape clears the outline. "
        "The samples themselves are listed beside it."
    )


def _labels(shown: Shown) -> list[dict[str, Any]]:
    """Where the names of classes stand: at the median of their samples."""
    if shown.axes or shown.coloring.kind != "category":
        return []
    found = data.clouds.middles(shown.of, shown.wanted, shown.coloring.color)
    names = shown.coloring.names
    return [
        {"x": row.x, "y": row.y, "text": names[row.code], "code": int(row.code)}
        for row in charts.rows(found)
        if row.code < len(names)
    ]


def _color_range(shown: Shown) -> tuple[float, float]:
    """The ends of the color scale."""
    if shown.coloring.kind != "number":
        return 0.0, 1.0
    low, high = data.clouds.color_range(shown.of.at, shown.of.plane.run_id, shown.coloring.color)
    return (0.0, 1.0) if math.isnan(low) else (low, high if high > low else low + 1)


def _padded(left: float, right: float, bottom: float, top: float, share: float = 0.02) -> Ends:
    """Ends with a margin; where all samples have the same number, as much of the axis around it as it is large."""

    def sides(low: float, high: float) -> tuple[float, float]:
        margin = share * (high - low) or (0 if high > low else abs(low) / 10 or 1.0)
        return low - margin, high + margin

    return *sides(left, right), *sides(bottom, top)


def _packed_density(counted: Any, part: Any, kind: str, low: float, high: float) -> dict[str, Any]:
    """A bin's number as two bytes, or four where that is too few, and what it is colored by as two."""
    bins, n = counted["bin"].to_numpy(), counted["n"].to_numpy()
    wide = bool(n.max() > 65_535)
    counts = np.zeros(part.across * part.up, "<u4" if wide else "<u2")
    counts[bins] = n
    values = None
    if kind != "none":
        c = counted["c"].to_numpy(np.float64)
        codes = c + 1 if kind == "category" else 1 + np.round(65_534 * np.clip((c - low) / (high - low), 0, 1))
        values = np.zeros(len(counts), "<u2")
        values[bins] = np.where(np.isnan(codes), 0, codes).astype("<u2")
    return {
        "across": part.across,
        "up": part.up,
        "most": int(n.max()),
        "wide": wide,
        "counts": _bytes(counts),
        "values": None if values is None else _bytes(values),
    }


def _packed_points(of: data.clouds.Cloud, wanted: data.Filter, part: Any, shown: Shown) -> dict[str, Any]:
    found = data.clouds.points(of, wanted, part, shown.coloring.color, MOST_POINTS)
    colored = {"c": _bytes(found["c"].to_numpy("<f4", na_value=np.nan))} if shown.coloring.kind != "none" else {}
    return _packed(found) | colored | {"flagged": _bytes(found["flagged"].to_numpy(np.uint8))}


def _packed(found: Any) -> dict[str, Any]:
    numbers = {"ids": found["sample_id"].to_numpy("<i4")} | {axis: found[axis].to_numpy("<f4") for axis in "xy"}
    return {name: _bytes(values) for name, values in numbers.items()}


def _short(given: object) -> str:
    """A short name for a plane or a color: their own may be anything."""
    return f"{zlib.crc32(repr(given).encode()):x}"


def _bytes(values: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()
