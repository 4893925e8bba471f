"""What is selected <-> query parameters, so that every view is a link.

The query parameters are the truth; widgets are set from them before they are drawn and write to them when they
change. Streamlit empties them when a person goes to another page, so what was chosen is remembered per session: an
empty address is filled up with what was chosen before, one that names anything opens exactly that, and what it leaves
out is what pages open with.
"""

from __future__ import annotations

import math
import re
import urllib.parse
from collections.abc import Sequence
from typing import cast

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from dashboard.data import SUSPICION, Decision, Filter
from dashboard.data.decisions import DECISIONS, MOST_AUTHOR

_CHOSEN = "winnow_chosen"
_BEHIND, _RUN = "winnow_behind", "winnow_run"
_FILTERS = (
    "label", "other", "suggested", "rule", "truth", "agrees", "low", "high", "region", "outline", "measure", "least", "most",
    "split", "about", "name",
)  # fmt: skip
_DECIDED = ("decision", "by")
_WITH = ("value", "from", "to", "across", "up", "above", "below")  # which restrict, or say of what, the others are

MOST_NAMED = 200
"""Characters of a file's name that are looked for."""

MOST_NUMBERS, MOST_CORNERS = 2_000, 200
"""So many numbers of a list, and corners of an outline, are read: an address that has more was not made by a page."""


def whole_number(text: str) -> int | None:
    """A whole number as an address may hold it, None for anything else: ASCII digits, a sign, at most 9 of them.

    >>> whole_number("-12"), whole_number("²"), whole_number("--5"), whole_number("9" * 5_000)
    (-12, None, None, None)
    """
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,9}", text.strip()) else None


def real_number(text: str) -> float | None:
    """A finite number as an address may hold it, None for anything else.

    >>> real_number("-1.5e3"), real_number("nan"), real_number("inf"), real_number("1e999")
    (-1500.0, None, None, None)
    """
    if not re.fullmatch(r"[+-]?([0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})([eE][+-]?[0-9]{1,3})?", text.strip()):
        return None
    found = float(text)
    return found if math.isfinite(found) else None


def chosen() -> dict[str, str]:
    """Everything that is chosen now, by query parameter."""
    remembered: dict[str, str] = st.session_state.setdefault(_CHOSEN, {})
    _catch_up(remembered)
    if named := st.query_params.to_dict():
        remembered.clear()
        remembered.update(named)
    return remembered


def _catch_up(remembered: dict[str, str]) -> None:
    """Once in a run: where the browser had not received the last address that was written when it sent what this run
    answers, the address is that last one, not the one before it. Otherwise what was chosen meanwhile would be lost, such
    as an outline on the map when a click or a timer follows it closely on a slow server.

    Going back to an earlier address is another matter: Streamlit marks it, and it counts. So does a link to one, once a
    fragment has run with the last address: the browser had it then.
    """
    context = get_script_run_ctx()
    if context is None or context.cursors is st.session_state.get(_RUN):
        return
    st.session_state[_RUN] = context.cursors  # a new one for every run: its identity tells runs apart
    given, behind = st.query_params.to_dict(), st.session_state.setdefault(_BEHIND, [])
    if given and given in behind and given != remembered and not context.is_history_navigation:
        st.query_params.from_dict(remembered)
    elif given and context.fragment_ids_this_run:  # other runs may be answers of the server to itself
        behind.clear()


def get(name: str, default: str = "") -> str:
    """What is chosen for one query parameter."""
    return chosen().get(name, default)


def put(**values: object) -> None:
    """Choose; None or '' takes a choice back."""
    now, before = chosen(), st.query_params.to_dict()
    for name, value in values.items():
        if value is None or value == "":
            now.pop(name, None)
        else:
            now[name] = str(value)
    if before != now:
        st.session_state.setdefault(_BEHIND, []).append(before)
        st.query_params.from_dict(now)


def link(**values: object) -> dict[str, str]:
    """The query parameters of the present view with some replaced (None leaves one out)."""
    merged = {**chosen(), **{k: "" if v is None else str(v) for k, v in values.items()}}
    return {k: v for k, v in merged.items() if v}


def get_int(name: str, default: int | None = None) -> int | None:
    """A chosen whole number; the default when there is none or it is not one."""
    found = whole_number(get(name))
    return default if found is None else found


def get_ints(name: str) -> tuple[int, ...]:
    """Chosen whole numbers from 0 on, separated by commas, each once; what is none is passed over."""
    found = (whole_number(part) for part in get(name).split(",", MOST_NUMBERS)[:MOST_NUMBERS])
    return tuple(dict.fromkeys(number for number in found if number is not None and number >= 0))


def get_region(name: str = "region") -> tuple[tuple[float, float], ...]:
    """A chosen outline: x,y pairs separated by spaces; empty when there is none or it is malformed."""
    points = []
    for pair in get(name).split(None, MOST_CORNERS):
        x, _, y = pair.partition(",")
        at = real_number(x), real_number(y)
        if at[0] is None or at[1] is None:
            return ()
        points.append((at[0], at[1]))
    return tuple(points) if 3 <= len(points) <= MOST_CORNERS else ()


def region_text(corners: Sequence[tuple[float, float]], most: int = 60) -> str:
    """An outline as an address holds it, thinned to at most 60 points."""
    step = max(1, -(-len(corners) // most))
    return " ".join(f"{x:.6g},{y:.6g}" for x, y in corners[::step])


def toggle(name: str, value: int) -> None:
    """Add a number to a list of chosen ones, or take it out."""
    now = get_ints(name)
    kept = tuple(v for v in now if v != value) if value in now else (*now, value)
    put(**{name: ",".join(map(str, sorted(kept)))}, page=None)


def get_filter(score: str, split: str = "train") -> Filter:
    """The chosen filter; the percentiles are those of the given score, the split is that given where none is chosen."""
    low, high = _percentages("low", "high") if score != SUSPICION else (0, 100)
    least, most = _percentages("least", "most")
    truth, agrees, split = get("truth"), get("agrees"), get("split", split)
    return Filter(
        labels=get_ints("label"),
        others=get_ints("other"),
        suggested=get_ints("suggested"),
        rule=get("rule"),
        truth="wrong" if truth == "wrong" else "right" if truth == "right" else "",
        agreement="agrees" if agrees == "agrees" else "disagrees" if agrees == "disagrees" else "",
        score=score,
        low=low,
        high=high,
        region=get_region(),
        plane=(get("across"), get("up")),
        outline=get_region("outline"),
        measure=get("measure"),
        above=(values := get_numbers("above", "below"))[0],
        below=values[1],
        split="test" if split == "test" else "all" if split == "all" else "train",
        flagged=get("list") == "short",
        least=least / 100,
        most=most / 100,
        about=get("about"),
        value=get("value"),
        named=get("name")[:MOST_NAMED],
        at_least=(between := get_numbers("from", "to"))[0],
        at_most=between[1],
        decision=cast(Decision, found) if (found := get("decision")) in DECISIONS else "",
        author=get("by")[:MOST_AUTHOR],
    )


def get_numbers(first: str, last: str) -> tuple[float, float]:
    """A chosen range of numbers, infinite where none is chosen; a range that is none counts as none."""
    given = real_number(get(first)), real_number(get(last))
    low, high = -math.inf if given[0] is None else given[0], math.inf if given[1] is None else given[1]
    return (low, high) if low <= high else (-math.inf, math.inf)


def _percentages(first: str, last: str) -> tuple[int, int]:
    """A chosen range within 0 to 100."""
    low, high = get_int(first, 0) or 0, get_int(last, 100)
    low, high = max(0, min(low, 100)), min(100, 100 if high is None else high)
    return low, max(low, high)


def open_on_shortlist() -> None:
    """Choose the shortlist where no condition is chosen. "all" is written as well, so that it is not chosen again."""
    if not any(get(name) for name in (*_FILTERS, *_DECIDED, "list")):
        put(list="short")


def clear_filter() -> None:
    """Take back every filter, the shortlist too."""
    put(**dict.fromkeys((*_FILTERS, *_DECIDED, *_WITH)), list="all", page=None)


def filter_query() -> str:
    """The chosen filter as the query of an address, "" where nothing is filtered; the order of samples is not in it."""
    now = {name: get(name) for name in (*_FILTERS, *_DECIDED, *_WITH) if get(name)}
    if get("list") == "short":
        now["list"] = "short"
    return urllib.parse.urlencode(now)


def choose_filter(query: str) -> None:
    """Choose a filter that `filter_query` gave, in place of the present one; what is no part of one is passed over."""
    found = dict(urllib.parse.parse_qsl(query[:20_000], max_num_fields=100))
    whole = dict.fromkeys((*_FILTERS, *_DECIDED, *_WITH)) | {"list": "all"}
    put(**{name: found.get(name, default) for name, default in whole.items()}, page=None, sample=None)
