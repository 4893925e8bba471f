"""Classes against one another, and how much of each looks wrong."""

from __future__ import annotations

import pandas as pd

from dashboard.data.core import Snapshot, few, frame
from engine.queries.classes import Against, cell
from engine.queries.samples import Filter

__all__ = ["Against", "cell", "confusions", "quality", "suggests"]


def confusions(at: Snapshot, run_id: str, wanted: Filter, against: Against) -> pd.DataFrame:
    return frame(few(at, "fetch_confusions", run_id, wanted, against))


def quality(at: Snapshot, run_id: str) -> pd.DataFrame:
    return frame(few(at, "fetch_class_quality", run_id))


def suggests(at: Snapshot, run_id: str) -> bool:
    """Whether a run suggests labels."""
    return bool(few(at, "suggests", run_id))
