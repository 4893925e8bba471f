"""Pages on a workspace that somebody tampered with: a message, never a traceback, and other datasets go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import streamlit as st
import tampered
from streamlit.testing.v1 import AppTest
from tampered import CASES, DATASET, ENDS_ALL, ENDS_DATASET, PSI, RUN, SECRET

from dashboard.navigation import all_pages

PAGES = [page.address for page in all_pages() if page.pickers]
Open = Callable[..., AppTest]


def check(app: AppTest, case: str, page: str) -> None:
    """No traceback, no secret; where the dataset or the workspace cannot be read, one line that says so."""
    assert not app.exception, (case, page, [e.value for e in app.exception])
    shown = " ".join(
        str(e.value) for kind in ("markdown", "caption", "code", "error", "warning") for e in app.get(kind)
    )
    assert SECRET not in shown
    if case in ENDS_ALL | ENDS_DATASET:
        assert len(app.error) >= 1, (case, page)
        assert all("\n" not in e.value for e in app.error)


SOME = {
    "15 decisions, view over a file": "gallery", "15 decisions, impossible rows": "gallery",
    "16 scores, view over a file": "scores", "16 classes, view": "export", "17 values that are no numbers": "scores",
    "17 score with HTML for a name": "compare", "17 nothing": "embedding", "17 two rows about the run": "overview",
    "17 labels that no class has": "overview", "18 spec {}": "overview", "18 half a character": "overview",
    "19 journal fraction text": "overview", "19 psi points, odd": "psi", "20 winnow.json deep": "overview",
    "20 results a pipe": "trajectories", "21 run a link": "overview", "21 runs a link": "gallery", "23 velocity": "figures",
}  # fmt: skip
"""A page for each kind of case; the long form below has every page for every case."""


@pytest.mark.parametrize("case", SOME)
def test_a_page_of_a_tampered_workspace_says_what_is_wrong(
    open_page: Open, old_workspace: Path, tmp_path: Path, case: str
) -> None:
    root = shutil.copytree(old_workspace, tmp_path / "sent" / "w")
    CASES[case](root)
    page = SOME[case]
    check(open_page(root, page, dataset=DATASET, run=PSI if page == "psi" else RUN), case, page)
    assert tampered.secret_beside(root).read_text() == SECRET


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("page", PAGES)
def test_every_page_of_every_tampered_workspace(
    open_page: Open, old_workspace: Path, tmp_path: Path, case: str, page: str
) -> None:
    root = shutil.copytree(old_workspace, tmp_path / "sent" / "w")
    CASES[case](root)
    app = open_page(root, page, dataset=DATASET, run=PSI if page == "psi" else RUN)
    check(app, case, page)
    assert tampered.secret_beside(root).read_text() == SECRET


def test_a_run_that_is_set_aside_is_named_on_the_overview(open_page: Open, old_workspace: Path, tmp_path: Path) -> None:
    root = shutil.copytree(old_workspace, tmp_path / "sent" / "w")
    CASES["16 scores, view over a file"](root)
    app = open_page(root, "overview", dataset=DATASET)
    shown = " ".join(str(e.value) for kind in ("markdown", "caption", "error", "warning") for e in app.get(kind))
    assert RUN in shown and "holds a view" in shown
    assert not open_page(root, "overview", dataset="digits").error


@pytest.fixture(autouse=True)
def no_cache() -> None:
    """Each workspace is read anew."""
    st.cache_data.clear()
    st.cache_resource.clear()
