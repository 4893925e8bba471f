"""The gallery beyond its grid: heads over groups, colors by metadata, and the way from group to group."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from dashboard import charts, data, grid, state
from dashboard.data import View
from dashboard.markup import plain
from dashboard.widgets import choose

GROUPS = {"": "none", "class": "given label", "pair": "given → suggested", "duplicates": "duplicates"}
SIZES = {"S": 88, "M": 120, "L": 190}
"""What addresses of earlier versions call a size."""
SMALLEST, LARGEST = 88, 320

_LOW, _HIGH = (68, 1, 84), (253, 231, 37)
_MIDDLE = (33, 145, 140)


def choose_size() -> int:
    """The size of a thumbnail in pixels, by a slider."""
    now = SIZES.get(state.get("size")) or state.get_int("size") or SIZES["M"]
    key = "pick_size"
    st.session_state[key] = max(SMALLEST, min(LARGEST, now // 8 * 8))
    with st.container(width=130):
        st.slider(
            "Thumbnail size",
            SMALLEST,
            LARGEST,
            step=8,
            key=key,
            on_change=lambda: state.put(size=st.session_state[key]),
            label_visibility="collapsed",
            format=" ",
            help="size of the thumbnails",
        )
    return int(st.session_state[key])


def choose_group() -> str:
    """What the samples are grouped by, "" for nothing."""
    return choose("Group by", "group", list(GROUPS), "", lambda g: GROUPS[g], resets=("page",))


def heads(view: View, found: data.Grouped, by: str, first: int, last: int) -> list[grid.Group]:
    """The heads of the groups on a page that shows the samples first .. last - 1 of all groups."""
    facts = data.duplicate_facts(view.at, view.run_id) if by == "duplicates" else None
    begin = int(np.searchsorted(found.starts, first, "right")) - 1
    end = int(np.searchsorted(found.starts, last, "left"))
    heads = []
    for group in range(begin, end):
        key, start, stop = int(found.keys[group]), int(found.starts[group]), int(found.starts[group + 1])
        notes = [("", f"{stop - start:,} {'sample' if stop - start == 1 else 'samples'}")]
        if facts is None:
            title = _title(view.names, by, key)
        else:
            title = f"Duplicates {key + 1:,}"
            notes += _duplicate_notes(facts.iloc[key])
        if start < first:
            notes.append(("", "continued"))
        heads.append(grid.Group(title, max(start, first) - first, min(stop, last) - first, notes))
    return heads


def _title(names: Sequence[str], by: str, key: int) -> str:
    if by == "class":
        return names[key]
    return "no other label" if key < 0 else f"{names[key // len(names)]} → {names[key % len(names)]}"


def _duplicate_notes(row: Any) -> list[tuple[str, str]]:
    notes = []
    if row["leak"]:
        notes.append(("wrong", f"leak: {row['train']:,} in train, {row['test']:,} in test"))
    if row["labels"] > 1:
        notes.append(("wrong", f"{row['labels']:,} different labels"))
    alike = "the same pixels" if row["exact"] else f"cosine {grid.number(row['similarity'])} and above"
    return [*notes, ("", alike)]


def turn(found: data.Grouped, first: int, last: int, per_page: int, way: int) -> None:
    """Go to the page on which the next group begins, or the one before those of this page."""
    if way > 0:
        group = int(np.searchsorted(found.starts, last, "left"))
    else:
        group = int(np.searchsorted(found.starts, first, "left")) - 1
    if 0 <= group < len(found.keys):
        state.put(page=int(found.starts[group]) // per_page + 1)


def drop_copies(view: View) -> None:
    """A button that drops every training sample that is there a second time, in one batch; none in a read-only dashboard."""
    spare = np.empty(0, np.int32) if data.read_only() else data.spare_copies(view.at, view.run_id)
    if not len(spare):
        return
    copies = "spare copy" if len(spare) == 1 else "spare copies"

    def drop() -> None:
        data.decisions.decide(view.at, spare, "drop", note="spare copy")
        st.toast(f"{len(spare):,} {copies} dropped; Z takes it back", icon=":material/content_cut:")

    st.button(
        f"Drop {len(spare):,} {copies}",
        icon=":material/content_cut:",
        help="Of each group of duplicates one training sample stays, the least likely to be labeled wrongly; none where the "
        "test part has a copy. Test samples stay. Z takes it back.",
        on_click=drop,
    )


def choose_tint(view: View) -> str:
    """The name of the metadata that tiles are colored by, "" for none."""
    names = [str(name) for name in data.metadata(view.at, "names")["name"]]
    return choose("Color by", "tint", ["", *names], "", lambda n: n or "nothing") if names else ""


def tints(view: View, name: str, ids: data.Ids) -> dict[int, tuple[str, str]]:
    """A text and a color by sample id: along a scale where the values are numbers, else a color for each value."""
    if not name:
        return {}
    known = data.metadata(view.at, "names")
    about = next(charts.rows(known[known["name"] == name]))
    rows = list(charts.rows(data.metadata_of(view.at, name, ids)))
    if about.is_number and about.different > 12:
        span = max(float(about.high) - float(about.low), 1e-30)
        return {int(r.sample_id): (f"{r.number:.4g}", scale((float(r.number) - float(about.low)) / span)) for r in rows}
    places = {str(value): i for i, value in enumerate(data.metadata(view.at, "values", name)["value"])}
    return {int(r.sample_id): (data.shown(r.value, 60), _color(places.get(str(r.value), 0))) for r in rows}


def tint_legend(view: View, name: str) -> None:
    """The scale that colors numbers; a value that is no number stands on its tile."""
    known = data.metadata(view.at, "names")
    about = next(charts.rows(known[known["name"] == name]))
    if about.is_number and about.different > 12:
        steps = ", ".join(scale(share) for share in (0, 0.25, 0.5, 0.75, 1))
        bar = f'<i style="width:90px;background:linear-gradient(90deg,{steps})"></i>'
        st.html(f'<div class="legend"><span>{about.low:.4g} {bar} {about.high:.4g}</span></div>', width="content")
    st.caption(plain(name), width="content")


def scale(share: float) -> str:
    """A color between dark violet (0) over green to yellow (1)."""
    share = min(1.0, max(0.0, share))
    ends, at = ((_LOW, _MIDDLE), 2 * share) if share < 0.5 else ((_MIDDLE, _HIGH), 2 * share - 1)
    return "#" + "".join(f"{round(a + (b - a) * at):02x}" for a, b in zip(*ends, strict=True))


def _color(place: int) -> str:
    """Far from the colors of the places before: the hue goes on by the golden angle."""
    red, green, blue = colorsys.hls_to_rgb((0.58 + place * 0.381966) % 1, 0.5, 0.6)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
