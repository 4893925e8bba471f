"""The figures page offers to compute what a figure lacks: the time first, then the job; nothing where it is read-only."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from streamlit.testing.v1 import AppTest
from test_pages import Open, text

from dashboard import launching
from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec
from engine.store.jobs import Started, fetch_jobs
from engine.store.workspace import Workspace


def until(app: AppTest, met: Callable[[], bool]) -> None:
    """Run the page again, as it does by itself, until something is met."""
    deadline = time.monotonic() + 240
    while not met():
        assert time.monotonic() < deadline, text(app)
        time.sleep(0.3)
        app.run()


def press(app: AppTest, ending: str) -> AppTest:
    (button,) = [button for button in app.button if str(button.key).endswith(ending)]
    return button.click().run()


def end_started(app: AppTest) -> None:
    """End the command, and the estimate, that a page has started."""
    for key in (launching.STARTED, launching.OFFERED):
        started = app.session_state[key] if key in app.session_state else None
        if isinstance(started, Started):
            started.process.terminate()
            started.process.wait()


@pytest.fixture
def figures(open_page: Open, scored_workspace: Workspace) -> Iterator[AppTest]:
    """The page with a figure that needs a curve of another network on `small`; what it starts is ended."""
    app = open_page(scored_workspace.root, "figures", dataset="small", figure="cg-10")
    yield app
    end_started(app)


def test_a_figure_is_computed_after_its_time_was_said(figures: AppTest, scored_workspace: Workspace) -> None:
    assert "There are no curves of another network." in text(figures)
    (offered,) = [button for button in figures.button if str(button.key).startswith("offer_")]
    assert offered.label == "Compute the first"
    before = scored_workspace.run_ids()
    app = offered.click().run()
    until(app, lambda: "It takes **about" in text(app))
    assert not app.exception and not app.error and scored_workspace.run_ids() == before
    app = press(app, "_not")
    assert "It takes" not in text(app) and launching.OFFERED not in app.session_state
    app = press(app, "_forgetting")
    app = press(app, "_start")
    started = app.session_state[launching.STARTED]
    assert started.words[:2] == ("run", "small") and "--estimate" not in started.words
    until(app, lambda: started.run_id(scored_workspace) is not None)
    (job,) = [job for job in fetch_jobs(scored_workspace) if job.run_id not in before]
    assert job.dataset == "small" and job.kind == "run"


def test_what_is_computed_already_leads_to_the_next_command(figures: AppTest) -> None:
    first, second = next(code.value for code in figures.code if "winnow psi" in code.value).splitlines()
    figures.session_state["winnow_computed"] = {tuple(shlex.split(first)[1:])}
    (offered,) = [button for button in figures.run().button if str(button.key).startswith("offer_")]
    assert offered.label == "Compute the next" and second.startswith("winnow psi small --orders")
    assert str(offered.key).startswith("offer_psi_small")


def test_a_command_that_helps_twice_is_offered_once(open_page: Open, scored_workspace: Workspace) -> None:
    noisy = IngestSpec(name="noisy", source="dataset:small", noise="symmetric:0.2", seed=9)
    ingest(scored_workspace, noisy)
    training = TrainingSpec(epochs=2, seeds=1, batch_size=64)
    compute(scored_workspace, plan_run(scored_workspace, "noisy", ["el2n@2"], training), "cpu")
    app = open_page(scored_workspace.root, "figures", dataset="noisy", figure="cg-6")
    assert not app.exception
    first = [code.value.splitlines()[0] for code in app.code]
    assert first == ["winnow run noisy --scores cg,cg_partial"] * 2
    assert len([button for button in app.button if str(button.key).startswith("offer_")]) == 1


def test_nothing_is_offered_where_nothing_may_be_written(
    open_page: Open,
    scored_workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WINNOW_READ_ONLY", "1")
    app = open_page(scored_workspace.root, "figures", dataset="small", figure="cg-10")
    assert app.code and not [button for button in app.button if str(button.key).startswith("offer_")]


def test_a_command_with_a_name_to_fill_in_is_only_shown(open_page: Open, demo_workspace: object) -> None:
    app = open_page(demo_workspace, "figures", dataset="digits-noisy", figure="lstm-5")  # type: ignore[arg-type]
    assert "winnow detector apply digits-noisy-detector DATASET" in text(app)
    labels = [button.label for button in app.button if str(button.key).startswith("offer_")]
    assert labels == ["Compute the first"]  # training the detector; where it is applied is for a person to say


def test_an_estimate_says_seconds_and_computes_nothing(scored_workspace: Workspace) -> None:
    before = scored_workspace.run_ids()
    words = ["run", "small", "--model", "linear", "--scores", "aum", "--estimate", "--json"]
    command = [sys.executable, "-m", "engine.cli", *words, "--workspace", str(scored_workspace.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["seconds"] > 0 and found["device"] in ("cpu", "cuda") and scored_workspace.run_ids() == before
