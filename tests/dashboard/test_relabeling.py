"""A relabeling is started from the review: its time first, then its job, then its suggestions among those to choose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from streamlit.testing.v1 import AppTest
from test_offering import end_started, press, until
from test_pages import Open, text

from dashboard import relabeling
from engine.relabel.registry import all_learners, all_methods
from engine.runs.options import plan_relabel_from
from engine.spec import spec_to_json
from engine.store.workspace import Workspace


@pytest.fixture
def review(open_page: Open, scored_workspace: Workspace) -> Iterator[AppTest]:
    """The review of `small`, which has a run and no relabeling; what it starts is ended."""
    app = open_page(scored_workspace.root, "review", dataset="small")
    yield app
    end_started(app)


def test_another_method_is_started_after_its_time_was_said(review: AppTest, scored_workspace: Workspace) -> None:
    assert not review.exception and not any(box.key == "pick_suggests" for box in review.selectbox)
    before = scored_workspace.run_ids()
    app = review.selectbox(key="relabel_method").select("neighbors").run()
    assert any(code.value == "winnow relabel small --method neighbors" for code in app.code)
    assert not any(field.key == "relabel_epochs" for field in app.number_input)  # it trains nothing
    app = press(app, "offer_relabel_small___method_neighbors")
    until(app, lambda: "It takes **about" in text(app))
    assert scored_workspace.run_ids() == before
    app = press(app, "_start")
    until(app, lambda: any(box.key == "pick_suggests" for box in app.selectbox))
    assert not app.exception and not app.error
    (run,) = set(scored_workspace.published_runs()) - set(before)
    picker = app.selectbox(key="pick_suggests")
    assert picker.value == "own"  # a person chooses
    app = picker.select(run).run()
    assert not app.exception and "Another label is suggested for" in text(app)


def test_the_form_has_what_a_method_takes(review: AppTest, scored_workspace: Workspace) -> None:
    app = review.selectbox(key="relabel_method").select("rop").run()
    app.selectbox(key="relabel_learner").select("dividemix").run()
    app.number_input(key="relabel_epochs").set_value(12).run()
    command = "winnow relabel small --method rop --learner dividemix --epochs 12"
    assert any(code.value == command for code in app.code)
    plan = plan_relabel_from(scored_workspace, "small", "rop", {"learner": "dividemix", "epochs": 12})
    assert plan.training is not None and plan.training.epochs == 12


def test_what_the_form_offers_is_what_there_is() -> None:
    methods = all_methods()
    assert set(relabeling.METHODS) <= set(methods) and set(relabeling.LEARNERS) <= set(all_learners())
    assert {name for name in relabeling.METHODS if not methods[name].trains} == set(relabeling.UNTRAINED)


def test_a_relabeling_that_was_interrupted_can_be_resumed_here(open_page: Open, scored_workspace: Workspace) -> None:
    spec = plan_relabel_from(scored_workspace, "small", "neighbors", {})
    scored_workspace.start_run("feedfeedfeed", {"spec": spec_to_json(spec), "title": "relabel: <b>x"})
    app = open_page(scored_workspace.root, "review", dataset="small")
    assert not app.exception and any(button.key == "resume_feedfeedfeed" for button in app.button)
