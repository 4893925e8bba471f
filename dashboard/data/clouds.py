"""Clouds of samples on a plane, and pairs of scores: answers of the engine, cached, for planes of two datasets too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.data.core import Snapshot, cursor, few, frame, many, opened
from engine.queries import clouds, connection, pairs
from engine.queries.clouds import ACTIONS, BEFORE, Color, Plane, Window
from engine.queries.samples import Filter, Ids, Outline, fetch_cards

__all__ = ["ACTIONS", "BEFORE", "Cloud", "Color", "Outline", "Plane", "Window"]


@dataclass(frozen=True)
class Cloud:
    """A plane of the samples of a dataset. old: the dataset and the run whose ranks are its x, where it is BEFORE."""

    at: Snapshot
    plane: Plane
    old: tuple[Snapshot, str] | None = None


def window(ends: tuple[float, float, float, float], across: int = 300, up: int = 200) -> Window:
    """A part of a plane: left, right, bottom, top."""
    return Window(*ends, across, up)


def _asked(of: Cloud, name: str, *given: Any) -> Any:
    stamp = None
    if any(isinstance(g, Filter) and (g.decision or g.author) or g == Color("decided") for g in given):
        with opened(of.at).decisions() as standing:
            stamp = standing.stamp
    return _kept(of, stamp, name, *given)


@st.cache_data(max_entries=60, show_spinner=False)
def _kept(of: Cloud, stamp: object, name: str, *given: Any) -> Any:
    """The answer of a query. stamp: what changes with decisions, where it reads them."""
    own = cursor(of.at, with_decisions=stamp is not None)
    with connection.damage_errors(of.at.dataset):
        if of.old:
            before, run_id = of.old
            own.register(BEFORE, many(before, "fetch_score", run_id, of.plane.x))
        function = getattr(clouds, name, None) or getattr(pairs, name)
        return function(own, of.plane, *given)


def extent(of: Cloud) -> dict[str, float]:
    """n, missing, and the ends of a cloud and of a first look at it."""
    (row,) = frame(_asked(of, "fetch_extent")).to_dict("records")
    return {str(name): float(value) for name, value in row.items()}


def density(of: Cloud, wanted: Filter, part: Window, color: Color) -> pd.DataFrame:
    return frame(_asked(of, "fetch_density", wanted, part, color))


def points(of: Cloud, wanted: Filter, part: Window, color: Color, most: int) -> pd.DataFrame:
    return frame(_asked(of, "fetch_points", wanted, part, color, most))


def marked(of: Cloud, wanted: Filter, part: Window, most: int) -> pd.DataFrame:
    return frame(_asked(of, "fetch_marked", wanted, part, most))


def middles(of: Cloud, wanted: Filter, color: Color) -> pd.DataFrame:
    return frame(_asked(of, "fetch_middles", wanted, color))


def color_range(at: Snapshot, run_id: str, color: Color) -> tuple[float, float]:
    low, high = few(at, "fetch_color_range", run_id, color)
    return float(low), float(high)


def nearest(of: Cloud, wanted: Filter, x: float, y: float, reach: tuple[float, float]) -> int | None:
    found = _asked(of, "fetch_nearest", wanted, x, y, reach)
    return None if found is None else int(found)


def place(of: Cloud, sample_id: int) -> tuple[float, float] | None:
    found: tuple[float, float] | None = _asked(of, "fetch_place", sample_id)
    return found


def outlined(of: Cloud, wanted: Filter, outline: Outline) -> Ids:
    found: Ids = _asked(of, "fetch_outlined", wanted, outline)
    return found


def line(of: Cloud) -> tuple[float, float]:
    slope, intercept = _asked(of, "fetch_line")
    return float(slope), float(intercept)


def spearman_of(of: Cloud) -> float:
    """The correlation of the two scores of a plane."""
    return float(_asked(of, "fetch_pair_spearman"))


def jaccard(of: Cloud, top: int) -> tuple[int, int]:
    both, either = _asked(of, "fetch_jaccard", top)
    return int(both), int(either)


def apart(of: Cloud, wanted: Filter, harder: str, most: int) -> Ids:
    found: Ids = _asked(of, "fetch_apart", wanted, harder, most)
    return found


def moved(of: Cloud) -> tuple[float, float]:
    before, after = _asked(of, "fetch_moved")
    return float(before), float(after)


def thresholds(at: Snapshot, run_id: str, score: str) -> pd.DataFrame:
    return frame(few(at, "fetch_thresholds", run_id, score))


def shared_scores(at: Snapshot, one: str, other: str) -> list[str]:
    return list(few(at, "fetch_shared_scores", one, other))


def shared_spearman(at: Snapshot, one: str, other: str) -> pd.DataFrame:
    return frame(few(at, "fetch_shared_spearman", one, other))


def shared_flags(at: Snapshot, one: str, other: str) -> pd.DataFrame:
    return frame(few(at, "fetch_shared_flags", one, other))


@st.cache_data(max_entries=300, show_spinner=False)
def peeked(at: Snapshot, run_id: str, sample_id: int) -> pd.DataFrame:
    """The card of one sample that the pointer is over, in a cache of its own: it would drive larger answers out."""
    with connection.damage_errors(at.dataset):
        return fetch_cards(cursor(at), run_id, [sample_id])
