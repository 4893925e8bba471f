"""What people decide: written for the person of this session, and read from memory that follows the log."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from dashboard.data.core import Snapshot
from engine.store import decisions as log
from engine.store import saved_filters as saved
from engine.store.decisions import Action
from engine.store.standing import Standing
from engine.store.workspace import Workspace

AUTHOR = "WINNOW_AUTHOR"
"""The variable of the server's environment that holds the name of `winnow dashboard --as`."""

_CHOSEN = "winnow_author"


def author() -> str:
    """Who decides in this session: the name that was chosen in it, else that of `winnow dashboard --as`, else ""."""
    return str(st.session_state.get(_CHOSEN, os.environ.get(AUTHOR, "")))


def choose_author(name: str) -> None:
    """Decide under another name from now on, in this session alone."""
    st.session_state[_CHOSEN] = name.strip()


def decide(
    at: Snapshot,
    sample_ids: Sequence[int],
    action: Action,
    new_label: int | Sequence[int] | None = None,
    note: str = "",
) -> int:
    """Append a decision about samples; new_label: of a relabel, one for all or one for each. Returns: the batch

    Raises: WinnowError as engine.store.decisions.decide does
    """
    return log.decide(
        Workspace(Path(at.root)), at.dataset, sample_ids, action, new_label=new_label, note=note, author=author()
    )


def undo(at: Snapshot, batch: int | None = None) -> int | None:
    """Take back the latest batch of this session's author that stands, or the given one of theirs.

    Returns: the batch; None when there is nothing to take back
    Raises:  WinnowError for a batch that does not stand or is another's
    """
    return log.undo(Workspace(Path(at.root)), at.dataset, author(), batch)


def current(at: Snapshot) -> pd.DataFrame:
    """The latest decision of each decided sample, by id: sample_id, action, new_label, note, author, decided_at."""
    with following(at) as standing:
        return standing.current()


@contextlib.contextmanager
def following(at: Snapshot) -> Iterator[Standing]:
    """What is decided about a dataset, up to date, for the time of a block."""
    with _reading:
        standing = _standing(at.root, at.dataset, at.stamp[0])
        standing.refresh()
        yield standing


_reading = threading.Lock()


@st.cache_resource(max_entries=6, show_spinner=False)
def _standing(root: str, dataset: str, changed: int) -> Standing:
    return Standing(Workspace(Path(root)), dataset)


def saved_filters(at: Snapshot) -> pd.DataFrame:
    """The filters that were saved for a dataset, by name: name, query (of an address), author, saved_at (UTC)."""
    return saved.fetch_filters(Workspace(Path(at.root)), at.dataset)


def save_filter(at: Snapshot, name: str, query: str) -> None:
    """Save a filter under a name. Raises WinnowError for one that is empty or too long."""
    saved.save_filter(Workspace(Path(at.root)), at.dataset, name, query, author())


def remove_filter(at: Snapshot, name: str) -> None:
    """Forget a saved filter. Raises WinnowError when there is none of that name."""
    saved.remove_filter(Workspace(Path(at.root)), at.dataset, name, author())
