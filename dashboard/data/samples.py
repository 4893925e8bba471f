"""Which samples are meant, and what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from dashboard.data.core import Snapshot, ask, few, frame, many
from engine.queries.samples import Filter, Ids


def score(at: Snapshot, run_id: str, name: str) -> pd.DataFrame:
    return frame(many(at, "fetch_score", run_id, name))


def sample_map(at: Snapshot, run_id: str) -> pd.DataFrame:
    return frame(many(at, "fetch_map", run_id))


def labels(at: Snapshot) -> pd.DataFrame:
    return frame(many(at, "fetch_labels"))


def metadata(at: Snapshot, what: Literal["names", "values", "samples"], *name: str) -> pd.DataFrame:
    return frame(many(at, f"fetch_metadata_{what}", *name))


def ids(at: Snapshot, run_id: str, wanted: Filter, sort: str = "", hardest_first: bool = True) -> Ids:
    found: Ids = many(at, "fetch_ids", run_id, wanted, sort, hardest_first)
    return found


def facets(at: Snapshot, run_id: str, wanted: Filter) -> pd.DataFrame:
    return frame(few(at, "fetch_facets", run_id, wanted))


def cards(at: Snapshot, run_id: str, wanted: Sequence[int] | Ids, sort: str = "") -> pd.DataFrame:
    return frame(many(at, "fetch_cards", run_id, tuple(int(i) for i in wanted), sort))


def proposals(at: Snapshot, run_id: str, wanted: Sequence[int] | Ids) -> pd.DataFrame:
    """What thumbnails show after the arrow, of those of some samples that have it; not cached."""
    return frame(ask(at, "fetch_proposals", run_id, wanted))


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


def neighbors(at: Snapshot, run_id: str, sample_id: int) -> pd.DataFrame:
    return frame(few(at, "fetch_neighbors", run_id, sample_id))
