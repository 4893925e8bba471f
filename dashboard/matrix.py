"""Classes against classes: one element that shows how often each label goes with which other, and chooses a pair."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

_STATIC = Path(__file__).with_name("static")
_MATRIX = st.components.v2.component(
    "winnow_matrix",
    html='<div class="matrix" role="group" aria-label="classes against classes"></div>',
    css=(_STATIC / "matrix.css").read_text(encoding="utf-8"),
    js=(_STATIC / "matrix.js").read_text(encoding="utf-8"),
)


def draw_matrix(
    pairs: pd.DataFrame,
    names: Sequence[str],
    order: Sequence[int],
    word: str,
    key: str,
    on_choose: Callable[[int, int], None],
    chosen: tuple[int, int] | None = None,
) -> None:
    """Draw the pairs as a table of numbers, or as a picture where there are many classes; a click calls on_choose.

    Args: pairs: label, other, n (samples), as fetch_confusions gives them; order: every label, as they stand from the top
          and from the left; word: what the other label is (suggested, true); chosen: the pair that is marked
    """

    def picked() -> None:
        given = st.session_state[key]["cell"]
        if given is not None and len(given) == 2 and all(0 <= int(label) < len(names) for label in given):
            on_choose(int(given[0]), int(given[1]))

    place = pairs["label"].to_numpy(np.int64) * len(names) + pairs["other"].to_numpy(np.int64)
    cells = np.stack([place, pairs["n"].to_numpy(np.int64)], axis=1).astype("<i4")
    _MATRIX(
        key=key,
        data={
            "names": list(names),
            "order": [int(label) for label in order],
            "cells": base64.b64encode(cells.tobytes()).decode(),
            "word": word,
            "chosen": chosen and list(chosen),
        },
        on_cell_change=picked,
    )
