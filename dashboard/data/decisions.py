"""What people decide: written for the person of this session, and read from memory that follows the log."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.data.core import Snapshot, opened, workspace_root
from engine.queries.samples import Filter, Ids
from engine.store import decisions as log
from engine.store import saved_filters as saved
from engine.store.decision_file import log_stamp
from engine.store.decisions import Action
from engine.store.standing import Standing
from engine.store.workspace import Workspace

AUTHOR = "WINNOW_AUTHOR"
"""The variable of the server's environment that holds the name of `winnow dashboard --as`."""

_CHOSEN, _DRAWN = "winnow_author", "winnow_decided"


def author() -> str:
    """Who decides in this session: the name that was chosen in it, else that of `winnow dashboard --as`, else ""."""
    return str(st.session_state.get(_CHOSEN, os.environ.get(AUTHOR, "")))


def choose_author(name: str) -> None:
    """Decide under another name from now on, in this session alone."""
    st.session_state[_CHOSEN] = name.strip()


def decide(
    at: Snapshot,
    sample_ids: Sequence[int] | Ids,
    action: Action,
    new_label: int | Sequence[int] | Ids | None = None,
    note: str = "",
) -> int:
    """Append a decision about samples; new_label: of a relabel, one for all or one for each. Returns: the batch

    Raises: WinnowError as engine.store.decisions.decide does
    """
    with by_this_session(at) as workspace:
        return log.decide(workspace, at.dataset, sample_ids, action, new_label=new_label, note=note, author=author())


def undo(at: Snapshot, batch: int | None = None) -> int | None:
    """Take back the latest batch of this session's author that stands, or the given one of theirs.

    Returns: the batch; None when there is nothing to take back
    Raises:  WinnowError for a batch that does not stand or is another's
    """
    with by_this_session(at) as workspace:
        return log.undo(workspace, at.dataset, author(), batch)


def current(at: Snapshot) -> pd.DataFrame:
    """The latest decision of each decided sample, by id: sample_id, action, new_label, note, author, decided_at, disputed.

    disputed: the latest decisions of its authors differ in action or new label.
    """
    with following(at) as standing:
        return standing.current()


@contextlib.contextmanager
def following(at: Snapshot) -> Iterator[Standing]:
    """What is decided about a dataset, up to date, for the time of a block."""
    with opened(at).decisions() as standing:
        yield standing


def of(at: Snapshot, sample_ids: Sequence[int] | Ids) -> pd.DataFrame:
    """`current` of some samples, as far as they are decided; ids that no sample has are passed over."""
    with opened(at).decisions() as standing:
        return standing.of(np.asarray(sample_ids, np.int64))


def meets(at: Snapshot, wanted: Filter) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Of every sample, by id, whether it meets the conditions of a filter on decisions."""
    with opened(at).decisions() as standing:
        return standing.meets(wanted.decision, wanted.author)


def disagreements(at: Snapshot) -> pd.DataFrame:
    """The latest decision per sample and author of the samples about which people differ, by sample and author."""
    with opened(at).decisions() as standing:
        return standing.disagreements()


def batches(at: Snapshot, most: int = 200) -> pd.DataFrame:
    """The latest decisions and undos, the last first (see fetch_batches)."""
    return log.fetch_batches(Workspace(Path(at.root)), at.dataset, most)


def drawn() -> None:
    """Note that this session draws its page now: what is decided from now on is news to it."""
    st.session_state[_DRAWN] = _stamp()


def is_news() -> bool:
    """Whether others decided since this session drew its page; what it decides itself is no news."""
    return bool(st.session_state.get(_DRAWN) != _stamp())


def _stamp() -> object:
    return log_stamp(Workspace(workspace_root()))


@contextlib.contextmanager
def by_this_session(at: Snapshot) -> Iterator[Workspace]:
    """Write to the log within this block: what it writes is no news to this session."""
    before = _stamp()
    yield Workspace(Path(at.root))
    if st.session_state.get(_DRAWN) == before:
        drawn()


def saved_filters(at: Snapshot) -> pd.DataFrame:
    """The filters that were saved for a dataset, by name: name, query (of an address), author, saved_at (UTC)."""
    return saved.fetch_filters(Workspace(Path(at.root)), at.dataset)


def save_filter(at: Snapshot, name: str, query: str) -> None:
    """Save a filter under a name. Raises WinnowError for one that is empty or too long."""
    saved.save_filter(Workspace(Path(at.root)), at.dataset, name, query, author())


def remove_filter(at: Snapshot, name: str) -> None:
    """Forget a saved filter. Raises WinnowError when there is none of that name."""
    saved.remove_filter(Workspace(Path(at.root)), at.dataset, name, author())
