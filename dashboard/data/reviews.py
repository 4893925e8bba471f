"""What the review page shows of each sample, and how it writes what a person decides there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.data.core import Snapshot, ask, few, frame, many, opened
from dashboard.data.decisions import author, by_this_session, following
from engine.data.viewing import Viewed, Viewer
from engine.errors import WinnowError
from engine.queries.samples import Ids
from engine.store.requests import Request, write_requests
from engine.store.standing import ACTIONS
from engine.store.workspace import Workspace


def doubts(at: Snapshot, run_id: str, ids: Sequence[int], suggesting: str = "") -> pd.DataFrame:
    return frame(many(at, "fetch_doubts", run_id, tuple(ids), suggesting))


def neighbor_labels(at: Snapshot, run_id: str, ids: Sequence[int]) -> pd.DataFrame:
    return frame(many(at, "fetch_neighbor_labels", run_id, tuple(ids)))


def typical(at: Snapshot, run_id: str) -> dict[int, list[int]]:
    """By label, training samples of the class whose label is beyond doubt."""
    found = frame(few(at, "fetch_typical", run_id))
    return {int(label): [int(i) for i in ids] for label, ids in zip(found["label"], found["ids"], strict=True)}


def thumbnails(at: Snapshot, ids: Sequence[int]) -> dict[int, bytes]:
    found = frame(many(at, "fetch_thumbnails", tuple(ids)))
    return {int(i): bytes(content) for i, content in zip(found["sample_id"], found["thumbnail"], strict=True)}


# Originals ----------------------------------------------------------------------------------------------------


KEPT_SIDE = 1_600
"""Pixels a side of an original up to which it is kept."""


@st.cache_resource(ttl=60, max_entries=6, show_spinner=False)  # what this user trusts may change
def _viewer(root: str, dataset: str, changed: int) -> Viewer:
    return Viewer(Workspace(Path(root)), dataset)


@st.cache_data(ttl=600, max_entries=96, show_spinner=False)
def _small(root: str, dataset: str, changed: int, sample_id: int, place: str, _thumbnail: bytes, most: int) -> Viewed:
    return _viewer(root, dataset, changed).view(place, _thumbnail, most)


def original(at: Snapshot, sample_id: int, place: str, thumbnail: bytes, most: int) -> Viewed:
    """The original of a sample, at most so many pixels a side. Args: place, thumbnail: of the sample"""
    if most > KEPT_SIDE:
        return _viewer(at.root, at.dataset, at.stamp).view(place, thumbnail, most)
    return _small(at.root, at.dataset, at.stamp, sample_id, place, thumbnail, most)


@st.cache_data(ttl=600, max_entries=24, show_spinner=False)
def moved(at: Snapshot, ids: tuple[int, ...]) -> int:
    """How many of some samples have files that are not where they were, nor where they are looked for."""
    sources = frame(ask(at, "fetch_sources", ids))["source"]
    viewer = _viewer(at.root, at.dataset, at.stamp)
    return sum(1 for place in sources if isinstance(place, str) and viewer.is_gone(place))


# Decisions ----------------------------------------------------------------------------------------------------


def parse(given: object) -> Request | None:
    """A decision, or one taken back, as a browser sent it; None for what is none."""
    if not isinstance(given, Mapping):
        return None
    key, do, sample_id, label, of = (given.get(name) for name in ("key", "do", "id", "label", "of"))
    if not isinstance(key, str) or not re.fullmatch(_NAME, key) or not isinstance(do, str) or not _whole(sample_id):
        return None
    if (label is not None and not _whole(label)) or (of is not None and not isinstance(of, str)):
        return None
    return Request(key, do[:20], int(str(sample_id)), None if label is None else int(str(label)), str(of or "")[:40])


_NAME = r"[0-9a-f]{16}-[0-9]{1,9}"


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


def write(at: Snapshot, requests: Sequence[Request]) -> tuple[list[str], dict[str, str], str]:
    """Write what was decided, in order, for the person of this session; what is written already is not written again.

    Returns: the names of what is written now; of what can never be, with the reason; why nothing was, "" if it was
    """
    if not requests:
        return [], {}, ""
    try:
        with by_this_session(at) as workspace:
            refused = write_requests(workspace, at.dataset, requests, author(), opened(at).find_keys)
    except WinnowError as error:
        return [], {}, str(error)
    return [one.name for one in requests if one.name not in refused], refused, ""


@dataclass(frozen=True)
class Progress:
    """What is decided of a list, by everybody. recent: the last actions, the latest first."""

    n: int
    kept: int
    dropped: int
    relabeled: int
    unsure: int
    recent: tuple[str, ...]

    @property
    def decided(self) -> int:
        return self.kept + self.dropped + self.relabeled + self.unsure


def progress(at: Snapshot, ids: Ids, most: int = 1_000) -> Progress:
    with following(at) as standing:
        counts = np.bincount(standing.actions()[ids] + 1, minlength=len(ACTIONS) + 1)
        recent = tuple(ACTIONS[i] for i in standing.recent(ids, most))
    by_action = dict(zip(ACTIONS, map(int, counts[1:]), strict=True))
    return Progress(len(ids), by_action["keep"], by_action["drop"], by_action["relabel"], by_action["unsure"], recent)


def first_undecided(at: Snapshot, ids: Ids) -> int:
    """The place in a list of the first that nobody has decided; 0 where all are."""
    with following(at) as standing:
        open_ones = standing.actions()[ids] < 0
    return int(open_ones.argmax()) if len(ids) else 0


def decided(at: Snapshot, ids: Sequence[int]) -> dict[int, tuple[str, int | None]]:
    """The decision about each of some samples that has one: action, new label."""
    with following(at) as standing:
        found = standing.of(np.asarray(ids, np.int64))
    rows = zip(found["sample_id"], found["action"], found["new_label"], strict=True)
    return {int(i): (str(action), None if pd.isna(label) else int(label)) for i, action, label in rows}
