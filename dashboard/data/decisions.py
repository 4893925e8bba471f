"""What people decide: written for the person of this session, and read from memory that follows the log."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import login
from dashboard.data.core import Snapshot, opened, require_writable, workspace_root
from engine.queries.samples import Decision, Filter, Ids
from engine.store import decision_file
from engine.store import decisions as log
from engine.store import saved_filters as saved
from engine.store.decisions import Action
from engine.store.standing import Standing
from engine.store.workspace import Workspace

DECISIONS: tuple[str, ...] = get_args(Decision)
"""What a filter on decisions may want; "" = anything."""

MOST_AUTHOR = decision_file.MOST_AUTHOR
"""Characters of the name of a person at most."""

_CHOSEN, _SEEN = "winnow_author", "winnow_decisions_seen"


def author() -> str:
    """Who decides in this session: who is logged in, else the name chosen in it, else that of `winnow dashboard --as`."""
    if login.is_required():
        return login.person()
    return str(st.session_state.get(_CHOSEN, os.environ.get(decision_file.AUTHOR, "")))


def choose_author(name: str) -> None:
    """Decide under another name from now on, in this session alone; a log-in is not overruled."""
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
        return log.decide(
            workspace,
            at.dataset,
            sample_ids,
            action,
            new_label=new_label,
            note=note,
            author=author(),
            keys=opened(at).find_keys,
        )


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


def counts(at: Snapshot) -> dict[str, int]:
    """How many samples are decided, by action, and how many are disputed."""
    with opened(at).decisions() as standing:
        return standing.counts()


def authors(at: Snapshot) -> dict[str, int]:
    """Whose decisions are the latest of how many samples, by name, the most first."""
    with opened(at).decisions() as standing:
        return standing.authors()


def batches(at: Snapshot, most: int = 200) -> pd.DataFrame:
    """The latest decisions and undos, the last first (see fetch_batches)."""
    return log.fetch_batches(Workspace(Path(at.root)), at.dataset, most)


def days(at: Snapshot) -> pd.DataFrame:
    """How much was decided: author, day (UTC), n, by day and author."""
    return log.fetch_days(Workspace(Path(at.root)), at.dataset)


def drawn() -> None:
    """Note that this session draws its page now: what is decided from now on is news to it."""
    st.session_state.setdefault(_SEEN, {})["stamp"] = _stamp()


def is_news() -> bool:
    """Whether others decided since this session drew its page; what it decides itself is no news."""
    return bool(st.session_state.get(_SEEN, {}).get("stamp") != _stamp())


def _stamp() -> object:
    return decision_file.log_stamp(Workspace(workspace_root()))


@contextlib.contextmanager
def by_this_session(at: Snapshot) -> Iterator[Workspace]:
    """Write to the log within this block: what it writes is no news to this session."""
    require_writable()
    # Streamlit may end a callback where it touches the session's state: after the block only this dictionary is.
    seen, before = st.session_state.setdefault(_SEEN, {}), _stamp()
    yield Workspace(Path(at.root))
    if seen.get("stamp") == before:
        seen["stamp"] = _stamp()


def saved_filters(at: Snapshot) -> pd.DataFrame:
    """The filters that were saved for a dataset, by name: name, query (of an address), author, saved_at (UTC)."""
    return saved.fetch_filters(Workspace(Path(at.root)), at.dataset)


def save_filter(at: Snapshot, name: str, query: str) -> None:
    """Save a filter under a name. Raises WinnowError for one that is empty or too long."""
    require_writable()
    saved.save_filter(Workspace(Path(at.root)), at.dataset, name, query, author())


def remove_filter(at: Snapshot, name: str) -> None:
    """Forget a saved filter. Raises WinnowError when there is none of that name."""
    require_writable()
    saved.remove_filter(Workspace(Path(at.root)), at.dataset, name, author())
