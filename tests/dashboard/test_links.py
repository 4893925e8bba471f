"""A link opens exactly what it names, in a session of its own: also one that leaves the dataset out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from given_verdicts import scored_run
from streamlit.testing.v1 import AppTest
from test_pages import text

from engine.store.jobs import fetch_jobs
from engine.store.workspace import Workspace

LINKS = {
    "gallery": ["sample=147", "label=3", "rule=aum_threshold", "list=all&sort=el2n&page=2"],
    "matrix": ["label=3&suggested=8", "against=true&label=2&other=2&truth=right"],
    "trajectories": ["samples=3,4"],
    "compare": ["compare=noise", "compare=all"],
    "scores": ["sort=el2n"],
    "embedding": ["color=true"],
    "figures": ["figure=prune-3"],
    "export": ["mode=keep"],
}  # fmt: skip


@pytest.fixture
def open_link(open_page: Callable[..., AppTest], demo_workspace: Path) -> Callable[[str, str], AppTest]:
    """open_link(page, query): the page as it opens where nothing was chosen before."""

    def opened(page: str, query: str) -> AppTest:
        app = open_page(demo_workspace, page, **dict(parse_qsl(query)))
        assert not app.exception and not app.error
        return app

    return opened


def address(app: AppTest, query: str) -> None:
    """What stands in the address now, and nothing else."""
    for name in list(app.query_params):
        del app.query_params[name]
    for name, value in (pair.split("=") for pair in filter(None, query.split("&"))):
        app.query_params[name] = value


Open = Callable[[str, str], AppTest]


def seen(app: AppTest) -> str:
    """What a page says and what is picked on it."""
    picked = [f"{w.key}={w.value}" for w in (*app.selectbox, *app.button_group, *app.multiselect, *app.text_input)]
    return "\n".join([text(app), *picked])


@pytest.mark.parametrize("page", LINKS)
def test_what_a_link_names_is_open_whether_or_not_it_names_the_dataset(
    open_link: Open, demo_workspace: Path, page: str
) -> None:
    run = scored_run(demo_workspace, "digits-noisy")
    opened = seen(open_link(page, ""))
    for query in LINKS[page]:
        whole = seen(open_link(page, f"dataset=digits-noisy&run={run}&{query}"))
        short = open_link(page, query)
        assert seen(short) == whole, query
        assert whole != opened, f"{query} changes nothing"
        assert all(short.query_params[name] == value for name, value in (p.split("=") for p in query.split("&")))


def test_a_link_that_leaves_something_out_opens_without_what_was_chosen_before(open_link: Open) -> None:
    app = open_link("gallery", "label=3&sort=el2n&dataset=digits")
    address(app, "sample=147")  # as the browser's way back leaves it
    app.run()
    assert "Sample 147" in text(app)
    assert app.query_params["dataset"] == "digits-noisy"
    assert "label" not in app.query_params and "sort" not in app.query_params


def test_a_page_of_the_navigation_goes_on_with_what_was_chosen(open_link: Open) -> None:
    app = open_link("gallery", "label=3&dataset=digits")
    address(app, "")  # as Streamlit empties it
    app.switch_page("app_pages/export_page.py").run()
    assert app.query_params["dataset"] == "digits" and app.query_params["label"] == "3"


def test_a_link_to_a_run_opens_the_dataset_of_that_run(open_link: Open, demo_workspace: Path) -> None:
    run = scored_run(demo_workspace, "digits")
    app = open_link("scores", f"run={run[:6]}")
    assert app.query_params["dataset"] == "digits" and app.query_params["run"] == run
    (psi,) = (job for job in fetch_jobs(Workspace.open(demo_workspace)) if job.kind == "psi")
    app = open_link("psi", f"psi={psi.run_id}&dataset=digits")
    assert app.multiselect(key="pick_psi").value == [psi.run_id]


def test_a_link_to_what_is_not_there_says_so_in_one_line(open_link: Open) -> None:
    for page, query, line in (
        ("gallery", "sample=5000", "There is no sample 5000 in digits-noisy."),
        ("gallery", "label=3,77", "There is no class 77."),
        ("gallery", "run=feedfeed", "The address names feedfeed, which is not there."),
        ("gallery", "sort=nonsense", "The address names nonsense, which is not there."),
        ("figures", "figure=cg-99", "The address names cg-99, which is not there."),
        ("trajectories", "samples=3,5000", "Not shown: 5000. Up to 12 training samples at a time."),
    ):
        lines = text(open_link(page, query)).replace("\\", "").split("\n")
        assert sum(line in part for part in lines) == 1, (query, lines)
