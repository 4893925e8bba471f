"""What the review page shows of each sample, and how it writes what a person decides there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.data.core import Snapshot, few, frame, many
from dashboard.data.decisions import author, following
from engine.data.viewing import Viewed, Viewer
from engine.data.whereabouts import Whereabouts
from engine.errors import NotFoundError, SpecError, WinnowError
from engine.queries.samples import Ids
from engine.store import decisions as log
from engine.store.standing import ACTIONS
from engine.store.workspace import Workspace


def doubts(at: Snapshot, run_id: str, ids: Sequence[int]) -> pd.DataFrame:
    return frame(many(at, "fetch_doubts", run_id, tuple(ids)))


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


@st.cache_resource(ttl=60, max_entries=6, show_spinner=False)  # what this user trusts may change
def _viewer(root: str, dataset: str, changed: int) -> Viewer:
    return Viewer(Workspace(Path(root)), dataset)


@st.cache_data(ttl=600, max_entries=96, show_spinner=False)
def original(root: str, dataset: str, changed: int, sample_id: int, place: str, _thumbnail: bytes, most: int) -> Viewed:
    """The original of a sample, at most so many pixels a side; changed: when the dataset was written."""
    return _viewer(root, dataset, changed).view(place, _thumbnail, most)


# Decisions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """What a browser wants written. key: its own name for it, never used twice; do: an action, or "undo" of the key `of`."""

    key: str
    do: str
    sample_id: int
    label: int | None = None
    of: str = ""


def parse(given: object) -> Operation | None:
    """An operation as a browser sent it; None for what is none."""
    if not isinstance(given, Mapping):
        return None
    key, do, sample_id, label, of = (given.get(name) for name in ("key", "do", "id", "label", "of"))
    named = [isinstance(name, str) and re.fullmatch(r"[0-9a-f]{16}-[0-9]{1,9}", name) is not None for name in (key, of)]
    whole = [isinstance(n, int) and not isinstance(n, bool) and abs(n) < 2**31 for n in (sample_id, label)]
    if not named[0] or not whole[0] or do not in (*ACTIONS, "undo"):
        return None
    if (do == "undo") != named[1] or (do == "relabel") != whole[1]:
        return None
    return Operation(str(key), str(do), int(sample_id), label if whole[1] else None, str(of or ""))  # type: ignore[arg-type]


def write(at: Snapshot, operations: Sequence[Operation]) -> tuple[list[str], dict[str, str], str]:
    """Write what was decided, in order, for the person of this session; what is written already is not written again.

    Returns: the keys of what is written now; of what can never be, with the reason; why it ends early, "" if it does not
    """
    workspace = Workspace(Path(at.root))
    done: list[str] = []
    refused: dict[str, str] = {}
    for one in operations:
        try:
            if one.do == "undo":
                _take_back(workspace, at.dataset, one.of)
            else:
                action = cast(log.Action, one.do)
                given = workspace, at.dataset, [one.sample_id], action
                log.decide(*given, new_label=one.label, author=author(), request=one.key)
        except SpecError as error:
            refused[one.key] = str(error)
            continue
        except WinnowError as error:
            return done, refused, str(error)
        done.append(one.key)
    return done, refused, ""


def _take_back(workspace: Workspace, dataset: str, request: str) -> None:
    batch = log.find_request(workspace, dataset, request)
    if batch is None:
        return  # it was refused
    try:
        log.undo(workspace, dataset, None, batch)
    except NotFoundError:
        return  # it was taken back already


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


def moved(at: Snapshot, sources: Sequence[str]) -> int:
    """How many of some samples' files are not where they were."""
    where = Whereabouts(Workspace(Path(at.root)), at.dataset)
    files = (where.file_of(place) for place in sources)
    return sum(1 for file in files if file is not None and not file.exists())
