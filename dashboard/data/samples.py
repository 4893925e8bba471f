"""Which samples are meant, and what is known of each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.data import decisions
from dashboard.data.core import Snapshot, decisions_seen, few, frame, many
from engine.errors import NotFoundError
from engine.queries.explanations import Numbers, explain
from engine.queries.groups import Grouped, group_by_class, group_by_duplicate, group_by_pair
from engine.queries.listing import Column, count_classes, in_order
from engine.queries.samples import Filter, Ids
from engine.store.atomic import file_hash
from engine.store.detector_files import detector_file
from engine.store.workspace import Workspace


def score(at: Snapshot, run_id: str, name: str) -> pd.DataFrame:
    return frame(many(at, "fetch_score", run_id, name))


def labels(at: Snapshot) -> pd.DataFrame:
    return frame(many(at, "fetch_labels"))


def metadata(at: Snapshot, what: Literal["names", "values", "samples"], *name: str) -> pd.DataFrame:
    return frame(many(at, f"fetch_metadata_{what}", *name))


def metadata_of(at: Snapshot, name: str, wanted: Ids) -> pd.DataFrame:
    """The metadata of some samples under one name."""
    return frame(many(at, "fetch_metadata_of", name, tuple(int(i) for i in wanted)))


def sample_metadata(at: Snapshot, sample_id: int) -> pd.DataFrame:
    return frame(few(at, "fetch_sample_metadata", sample_id))


def ids(at: Snapshot, run_id: str, wanted: Filter, sort: str = "", hardest_first: bool = True) -> Ids:
    """The samples that pass. What passes and each order are read once, and put together in memory."""
    found = _passing(at, run_id, wanted)
    return in_order(found, order(at, run_id, sort, hardest_first)) if sort else found


def order(at: Snapshot, run_id: str, sort: str, hardest_first: bool = True) -> Ids:
    """All samples in an order."""
    found: Ids = many(at, "fetch_order", run_id, sort, hardest_first)
    return found


def worst(at: Snapshot, run_id: str, score: str, most: int) -> Ids:
    """The first samples of the shortlist (SUSPICION), else the hardest by a score."""
    found: Ids = few(at, "fetch_first", run_id, score, most)
    return found


def _passing(at: Snapshot, run_id: str, wanted: Filter) -> Ids:
    """The samples that pass, by id; a choice of classes costs no query, nor does one of decisions."""
    lasting = replace(_unordered(wanted), labels=(), decision="", author="")
    found: Ids = many(at, "fetch_passing", run_id, lasting)
    if wanted.decision or wanted.author:
        found = found[decisions.meets(at, wanted)[found]]
    return found[np.isin(_labels(at)[found], wanted.labels)] if wanted.labels else found


def _unordered(wanted: Filter) -> Filter:
    """A filter without the score that is sorted by, unless it restricts the ranks."""
    return replace(wanted, score=wanted.score if wanted.low > 0 or wanted.high < 100 else "")


def _labels(at: Snapshot) -> Column:
    found: Column = many(at, "fetch_given_labels")
    return found


def facets(at: Snapshot, run_id: str, wanted: Filter) -> pd.DataFrame:
    """See fetch_facets; counted once for every order of the samples."""
    return _facets(at, decisions_seen(at, "", [wanted]), run_id, _unordered(wanted))


@st.cache_data(max_entries=100, show_spinner=False)
def _facets(at: Snapshot, seen: object, run_id: str, wanted: Filter) -> pd.DataFrame:
    passing, all_of_it = (_passing(at, run_id, given) for given in (wanted, Filter(split=wanted.split)))
    return count_classes(frame(few(at, "fetch_classes")), _labels(at), passing, all_of_it)


def grouped(at: Snapshot, run_id: str, found: Ids, by: str, sort: str, hardest_first: bool) -> Grouped:
    """Some samples, in an order, by class, pair (given and proposed label) or duplicates."""
    return _grouped(at, run_id, found, hashlib.sha256(found.tobytes()).digest(), by, sort, hardest_first)


@st.cache_resource(max_entries=4, show_spinner=False)
def _grouped(at: Snapshot, run_id: str, _found: Ids, which: bytes, by: str, sort: str, hardest_first: bool) -> Grouped:
    if by == "class":
        return group_by_class(_found, _labels(at))
    if by == "pair":
        classes = len(frame(few(at, "fetch_classes")))
        return group_by_pair(_found, _labels(at), many(at, "fetch_proposals", run_id), classes)
    groups = many(at, "fetch_duplicate_groups", run_id)
    return group_by_duplicate(_found, order(at, run_id, sort, hardest_first), groups, duplicate_facts(at, run_id))


def duplicate_facts(at: Snapshot, run_id: str) -> pd.DataFrame:
    return frame(few(at, "fetch_duplicate_facts", run_id))


def spare_copies(at: Snapshot, run_id: str) -> Ids:
    """Training samples that the run found a second time (see fetch_spare_copies), less those that are dropped already."""
    found: Ids = many(at, "fetch_spare_copies", run_id)
    return found[~decisions.meets(at, Filter(decision="drop"))[found]]


def cards(at: Snapshot, run_id: str, wanted: Sequence[int] | Ids, sort: str = "") -> pd.DataFrame:
    """What the thumbnails show (see fetch_cards), and action and new_label of the decisions, NA where there is none."""
    found = frame(many(at, "fetch_cards", run_id, tuple(int(i) for i in wanted), sort))
    decided = decisions.of(at, wanted)[["sample_id", "action", "new_label"]]
    return found.merge(decided, on="sample_id", how="left")


def proposals(at: Snapshot, run_id: str, wanted: Ids) -> tuple[Ids, Column]:
    """Those of some samples whose thumbnails show a label after the arrow, and these labels."""
    others = many(at, "fetch_proposals", run_id)[wanted]
    return wanted[others >= 0], others[others >= 0]


def condition(at: Snapshot, run_id: str, wanted: Filter) -> str:
    return str(few(at, "condition", run_id, wanted))


def sample(at: Snapshot, sample_id: int) -> dict[str, Any] | None:
    found: dict[str, Any] | None = few(at, "fetch_sample", sample_id)
    return found


def sample_scores(at: Snapshot, run_id: str, sample_id: int) -> pd.DataFrame:
    return frame(few(at, "fetch_sample_scores", run_id, sample_id))


def suspect(at: Snapshot, run_id: str, sample_id: int) -> pd.DataFrame:
    return frame(few(at, "fetch_suspect", run_id, sample_id))


def sample_flags(at: Snapshot, run_id: str, sample_id: int) -> pd.DataFrame:
    return frame(few(at, "fetch_sample_flags", run_id, sample_id))


def trajectory(at: Snapshot, run_id: str, sample_id: int) -> pd.DataFrame:
    return frame(few(at, "fetch_trajectory", run_id, sample_id))


def sample_logits(at: Snapshot, run_id: str, sample_id: int) -> pd.DataFrame:
    return frame(few(at, "fetch_sample_logits", run_id, sample_id))


def explanation(at: Snapshot, run_id: str, sample_id: int, seed: int) -> Numbers | None:
    """What each epoch of a seed adds to the sample's probability of a wrong label, by the run's noise detector: (T,).

    None where the run has no dynamics of that seed, or its detector is not in this workspace any more
    """
    workspace = Workspace(Path(at.root))
    spec = workspace.read_record(run_id).spec
    try:
        path = detector_file(workspace, str(spec.get("detector") or ""))
    except NotFoundError:
        return None
    if spec.get("detector") and file_hash(path) != spec.get("detector_hash"):
        return None  # another one has its name now
    dynamics = trajectory(at, run_id, sample_id)
    own = dynamics.loc[dynamics["seed"] == seed, "p_given"].tolist() if len(dynamics) else []
    mean = few(at, "fetch_mean_p_given", run_id, seed)
    if not own or len(own) != len(mean) or not np.isfinite([*own, *mean]).all():
        return None
    return _explained(path, tuple(own), tuple(mean))


@st.cache_data(max_entries=400, show_spinner=False)
def _explained(path: Path, own: tuple[float, ...], mean: tuple[float, ...]) -> Numbers:
    return explain(path, np.array(own, np.float32), np.array(mean, np.float32))


def neighbors(at: Snapshot, run_id: str, sample_id: int) -> pd.DataFrame:
    return frame(few(at, "fetch_neighbors", run_id, sample_id))
