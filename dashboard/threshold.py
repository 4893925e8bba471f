"""A score's histogram with a threshold to drag: counted in the browser, a filter when it is released."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import streamlit as st

from dashboard import data, state

_STATIC = Path(__file__).with_name("static")
_THRESHOLD = st.components.v2.component(
    "winnow_threshold",
    html='<div class="threshold"><output></output><svg viewBox="0 0 1000 260" preserveAspectRatio="none" aria-hidden="false">'
    '<rect class="beyond" y="0" height="260"></rect><path class="all"></path><path class="wrong"></path>'
    '<g class="line" tabindex="0" role="slider" aria-valuemin="0"><rect x="-8" width="16" height="260"></rect>'
    '<path d="M0 0V260"></path></g></svg><div class="axis"></div>'
    '<div class="sides"><span>easier</span><span>harder, flagged</span></div>'
    '<div class="known"><span><i style="background:#d9571c"></i>mislabeled</span>'
    '<span><i style="background:#3b82b8"></i>others</span></div></div>',
    css=(_STATIC / "threshold.css").read_text(encoding="utf-8"),
    js="\n".join((_STATIC / name).read_text(encoding="utf-8") for name in ("scales.js", "threshold.js")),
)


def draw_threshold(
    bins: pd.DataFrame,
    score: str,
    higher_means: str,
    chosen: tuple[float, float],
    on_choose: Callable[[str, str], None],
) -> None:
    """Draw it: on_choose(above, below), the values that are flagged as an address holds them, "" = without an end.

    Args: bins as fetch_thresholds gives them; chosen: the values that are flagged now, infinite ends where none are
    """
    key = f"threshold_{zlib.crc32(score.encode()):x}"
    sign = -1.0 if higher_means == "easier" else 1.0
    edges = bins["edge"].tolist()
    edges.append(edges[-1] + (edges[-1] - edges[0]) / max(1, len(edges) - 1))
    now = -chosen[1] if sign < 0 else chosen[0]  # turned so that higher = harder

    def moved() -> None:
        given = st.session_state[key]["bin"]
        if not isinstance(given, int | float) or not 0 <= given <= len(bins):
            return
        value = repr(float(sign * edges[int(given)]))
        flagged = ("", value) if sign < 0 else (value, "")
        on_choose(*(flagged if given > 0 else ("", "")))

    bin_now = min(range(len(edges)), key=lambda i: abs(edges[i] - now)) if abs(now) != float("inf") else 0
    _THRESHOLD(
        key=key,
        data={
            "key": f"{key} {edges[0]} {edges[-1]} {int(bins['n'].sum())}",
            "title": data.shown(score, 80),
            "sides": "at most" if sign < 0 else "at least",
            "edges": [sign * edge for edge in edges],
            **{name: bins[name].tolist() for name in ("n", "wrong", "known")},
            "bin": bin_now,
        },
        on_bin_change=moved,
    )


def choose_measure(score: str, above: str, below: str) -> None:
    """Choose the samples whose score is within two ends."""
    state.put(measure=score if above or below else None, above=above, below=below, page=None)
