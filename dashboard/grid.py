"""The thumbnail grid and the class filter: one element for a whole page of samples, with selection and keyboard."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import charts, data

_STATIC = Path(__file__).with_name("static")


def _text(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


_GRID = st.components.v2.component(
    "winnow_grid",
    html='<div class="gallery"><div class="grid" role="listbox" aria-label="samples"></div>'
    '<div class="bulk" role="group" aria-label="decide about samples" hidden></div></div>',
    css=_text("grid.css"),
    js="\n".join(map(_text, ("tiles.js", "choosing.js", "bulk.js", "grid.js"))),
)
_FACETS = st.components.v2.component(
    "winnow_facets",
    html='<div class="facets" role="group" aria-label="classes"></div>',
    css=_text("facets.css"),
    js=_text("facets.js"),
)


@dataclass(frozen=True)
class Acting:
    """What lets a person select and decide in a grid.

    total: samples that match, on all pages; scope: stands for which they are, so that a choice of all of them does not
    outlive it; classes: by label; done: the last of the client's messages that was worked off, and its client; message:
    what came of it, and whether it went wrong
    """

    total: int
    scope: str
    classes: Sequence[str]
    on_acts: Callable[[], None]
    client: str = ""
    done: int = 0
    message: str = ""
    wrong: bool = False


@dataclass(frozen=True)
class Group:
    """A head over some of the cards: those from first to last, exclusive. notes: (kind, text), kind wrong or plain."""

    title: str
    first: int
    last: int
    notes: Sequence[tuple[str, str]] = ()


def draw_cards(
    cards: pd.DataFrame,
    names: Sequence[str],
    key: str,
    on_open: Callable[[int | None], None],
    *,
    size: int = 112,
    selected: int | None = None,
    follow: bool = False,
    clipped: bool = False,
    page: int = 1,
    acting: Acting | None = None,
    groups: Sequence[Group] = (),
    on_turn: Callable[[int], None] = lambda way: None,
    tints: dict[int, tuple[str, str]] | None = None,
) -> None:
    """Draw samples as cards; a click or Enter calls on_open(sample_id), Escape on_open(None).

    Args: cards as fetch_cards gives them; size of a thumbnail in pixels; follow: while a sample is open, the arrow
          keys open the one they move to; clipped: show one row only, as many as fit; page: another
          one scrolls back to its top; acting: with selection and decisions; groups: heads, in order, over all cards;
          on_turn: called with 1 or -1 for the next group beyond the page; tints: a text and a color for samples
    """

    def opened() -> None:
        given = st.session_state[key]["open"]
        if given is not None:
            on_open(None if given < 0 else int(given))

    def turned() -> None:
        if way := st.session_state[key]["turn"]:
            on_turn(1 if way > 0 else -1)

    _GRID(
        key=key,
        data={
            "name": key,
            "cards": [_card(row, names, tints or {}) for row in charts.rows(cards)],
            "size": size,
            "selected": selected,
            "follow": follow,
            "clipped": clipped,
            "page": page,
            "groups": [
                {"title": g.title, "first": g.first, "last": g.last, "notes": [list(n) for n in g.notes]}
                for g in groups
            ],
            "acting": acting
            and {
                "total": acting.total,
                "scope": acting.scope,
                "classes": list(acting.classes),
                "client": acting.client,
                "done": acting.done,
                "message": acting.message,
                "wrong": acting.wrong,
            },
        },
        on_open_change=opened,
        on_turn_change=turned,
        on_acts_change=acting.on_acts if acting else lambda: None,
    )


def chips(row: Any, names: Sequence[str]) -> list[tuple[str, str]]:
    """The label chips of a sample: the given label, then the true one if it differs, else a suggested one."""
    given = int(row.label)
    found = [("given", names[given])]
    if not pd.isna(row.true_label):
        if int(row.true_label) != given:
            found.append(("true", names[int(row.true_label)]))
    elif not pd.isna(row.suggested_label) and int(row.suggested_label) != given:
        found.append(("suggested", names[int(row.suggested_label)]))
    return found


def _card(row: Any, names: Sequence[str], tints: dict[int, tuple[str, str]]) -> dict[str, Any]:
    labels = chips(row, names)
    words = [f"sample {row.sample_id}", *(f"{kind} {text}" for kind, text in labels)]
    if row.split == "test":
        words.append("of the test part")
    doubt = "" if pd.isna(row.p_wrong) else data.likely(float(row.p_wrong))
    if doubt:
        words.append(f"{'flagged: ' if row.flagged else ''}label wrong with {doubt}")
    tint = tints.get(int(row.sample_id))
    if tint:
        words.append(tint[0])
    decision = None
    if isinstance(row.action, str):
        decision = {"action": row.action, "name": "" if pd.isna(row.new_label) else names[int(row.new_label)]}
    return {
        "id": int(row.sample_id),
        "image": base64.b64encode(bytes(row.thumbnail)).decode()
        if isinstance(row.thumbnail, bytes | bytearray)
        else "",
        "chips": labels,
        "suggestion": labels[1][1] if len(labels) > 1 else "",
        "value": "" if pd.isna(row.value) else number(row.value),
        "doubt": doubt,
        "flagged": bool(row.flagged),
        "test": row.split == "test",
        "tint": tint and list(tint),
        "decision": decision,
        "title": " · ".join(words),
    }


def number(value: float) -> str:
    """A score's value in at most three digits or so, with a true minus: −3.20, 0.05, 1.2e+04."""
    text = f"{value:.2f}" if value == 0 or 0.1 <= abs(value) < 1000 else f"{value:.2g}"
    return text.replace("-", "\N{MINUS SIGN}", 1) if value < 0 else text


def draw_facets(classes: pd.DataFrame, chosen: Sequence[int], key: str, on_toggle: Callable[[int], None]) -> None:
    """Draw a row per class with "n of N"; a click calls on_toggle(label).

    Args: classes as fetch_facets gives them
    """

    def toggled() -> None:
        given = st.session_state[key]["toggle"]
        if given is not None:
            on_toggle(int(given))

    rows = [
        {"label": int(r.label), "name": data.shown(r.class_name, 80), "n": int(r.n), "total": int(r.total)}
        for r in charts.rows(classes)
    ]
    _FACETS(key=key, data={"rows": rows, "chosen": list(chosen)}, on_toggle_change=toggled)
