"""What a server does before the first browser arrives: what the first pages import and read is there when they open.

It fills the caches that pages read (see dashboard.data.core), whose keys are the published files as they stand: what a run,
a decision or an ingest changes meanwhile is read anew, whether or not it was warmed. A page that opens before the end waits
for the one answer that is being computed, not for all.
"""

from __future__ import annotations

import gc
import importlib
import time

from streamlit import runtime

PATIENCE_SECONDS = 60

MODULES = (
    "widgets", "verdict", "grid", "filters", "detail", "gallery", "searching", "saved", "deciding", "review", "cloud",
    "comparing", "matrix",
)  # fmt: skip
"""What the pages that open first are drawn with; they are scripts, which are not imported themselves."""


def warm_up() -> None:
    """Import what the first pages import, and read what they read of the dataset that opens."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not runtime.exists():  # the caches are the runtime's
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)
    from dashboard import data

    for name in MODULES:
        importlib.import_module(f"dashboard.{name}")
    # Streamlit looks for garbage after every script run, in which half a million objects of libraries would be looked at:
    # a tenth of a second in which nothing is sent to a browser.
    gc.freeze()
    try:
        for _ in data.looking.first_looks():
            pass
    except data.WinnowError:
        pass  # the page that reads the same says what is wrong with it
