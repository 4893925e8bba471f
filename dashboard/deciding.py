"""What a grid's client says was decided, worked off once and in order, and what came of it."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import streamlit as st

from dashboard import data, grid
from dashboard.data import View

_DONE = "winnow_grid_acts"
_TURN = threading.Lock()
"""Streamlit begins the next run of a session, with its callbacks, while one of the run before still writes. All sessions write
to one file, in turn."""

_SAID = {
    "keep": "kept",
    "drop": "dropped",
    "unsure": "marked as unsure",
    "relabel": "relabeled",
    "suggested": "relabeled",
}


def acting(view: View, ids: data.Ids, key: str, *scope: object) -> grid.Acting | None:
    """What a grid over some samples needs to be decided in; None where this dashboard is read-only.

    Args: ids: all that match, of which the grid shows a page; key: of the grid; scope: what else decides which they are
    """
    if data.read_only():
        return None
    which = hashlib.sha256(repr((view.at.dataset, view.run_id, *scope)).encode()).hexdigest()[:12]
    done = st.session_state.get(_DONE, {})
    # A person types a class by its name: names that are alike, or only from their 80th character on not, are numbered.
    often = Counter(view.names)
    classes = [f"{name} · {label}" if often[name] > 1 else name for label, name in enumerate(view.names)]
    return grid.Acting(len(ids), which, classes, _worker(view, ids, key, which), **done)


def _worker(view: View, ids: data.Ids, key: str, scope: str) -> Callable[[], None]:
    def work() -> None:
        given = st.session_state[key]["acts"]
        if not isinstance(given, dict):
            return
        # Streamlit may end this callback wherever it touches the session's state, so between a decision and the note
        # that it was made there is nothing but this dictionary.
        with _TURN:
            done = st.session_state.setdefault(_DONE, {})
            if done.get("client") != given["client"]:
                done.update(client=str(given["client"]), done=0)
            # The client repeats what it has not seen confirmed; what is known already is passed over.
            for act in given["acts"]:
                if act["seq"] <= done["done"]:
                    continue
                try:
                    message, wrong = _act(view, ids, act, scope), False
                except data.WinnowError as error:
                    message, wrong = data.shown(error, 300), True
                done.update(done=int(act["seq"]), message=message, wrong=wrong)

    return work


def _act(view: View, ids: data.Ids, act: dict[str, Any], scope: str) -> str:
    """Do what one message says. Returns what came of it, for a person. Raises WinnowError when it cannot be done."""
    action = act["action"]
    if action == "undo":
        return "nothing to undo" if data.decisions.undo(view.at) is None else "taken back"
    if act["ids"] is None:
        if act["scope"] != scope or act["n"] != len(ids):
            raise data.WinnowError("the list has changed meanwhile, nothing was decided; select again")
        meant = ids
    else:
        meant = np.asarray(act["ids"], np.int32)
    if action == "suggested":
        found, labels = data.proposals(view.at, view.run_id, meant)
        if not len(found):
            raise data.WinnowError("no suggestion differs from the given label here; nothing was decided")
        left = len(meant) - len(found)
        data.decisions.decide(view.at, found.tolist(), "relabel", labels.tolist())
        return words_of(len(found), "relabel") + (f", {left:,} without a suggestion left out" if left else "")
    label = int(act["label"]) if action == "relabel" else None
    data.decisions.decide(view.at, meant.tolist(), action, label)
    return words_of(len(meant), action) + (f" to {view.names[label]}" if label is not None else "")


def words_of(n: int, action: str) -> str:
    """What was decided, in words: 12 samples dropped."""
    return f"{n:,} {'sample' if n == 1 else 'samples'} {_SAID[action]}"
