"""Suggestions of a relabeling on the review page: chosen, never mixed with the run's own, and taken in one batch."""

from __future__ import annotations

from pathlib import Path

import pytest
from given_verdicts import JUDGED, give_verdict
from test_pages import Open, text

from dashboard.reliability import reliability_chart
from engine.queries.connection import connected, fetch_sql
from engine.queries.relabelings import fetch_reliability
from engine.runs.compute import compute
from engine.runs.options import plan_relabel_from
from engine.store.decisions import decide, fetch_decisions_log
from engine.store.workspace import Workspace


@pytest.fixture
def relabeled(scored_workspace: Workspace) -> tuple[Path, str, str]:
    """`small` with a shortlist of all, its run, and a relabeling by neighbors: confidences are fifths."""
    (run,) = scored_workspace.published_runs()
    give_verdict(scored_workspace.root, run, range(200), 200, JUDGED)
    spec = plan_relabel_from(scored_workspace, "small", "neighbors", {"neighbors": 5})
    return scored_workspace.root, run, compute(scored_workspace, spec, "cpu")[0]


def suggested(root: Path, run: str, least: float = 0.0) -> dict[int, int]:
    with connected(Workspace.open(root), "small", [run]) as connection:
        found = fetch_sql(connection, "SELECT * FROM suggestions WHERE run_id = ? AND confidence >= ?", [run, least])
    return dict(zip(found["sample_id"].tolist(), found["suggested_label"].tolist(), strict=True))


def relabels(root: Path) -> dict[int, int]:
    log = fetch_decisions_log(Workspace.open(root), "small")
    mine = log[log["action"] == "relabel"]
    return dict(zip(mine["sample_id"].tolist(), mine["new_label"].astype(int).tolist(), strict=True))


def test_all_above_a_confidence_are_taken_in_one_batch_and_taken_back(open_page: Open, relabeled) -> None:
    root, _, run = relabeled
    wanted = suggested(root, run, 0.9)
    first, second, *_ = wanted
    decide(Workspace.open(root), "small", [first], "keep")
    app = open_page(root, "review", dataset="small", suggests=run, sure="0.9")
    assert not app.exception and not app.error
    assert f"**{len(wanted)}** of the 200 samples here; 1 of these are decided" in text(app)
    assert app.button(key="take").label == f"Relabel {len(wanted) - 1} as suggested"
    app.button(key="take").click().run()
    assert not app.exception and not app.error
    assert relabels(root) == {i: label for i, label in wanted.items() if i != first}  # what people decided stays
    assert not any(button.key == "take" for button in app.button)  # none is left
    app.button(key="take_back").click().run()
    assert not app.exception and not app.error and relabels(root) == {}
    assert app.button(key="take").label == f"Relabel {len(wanted) - 1} as suggested"
    assert not any(button.key == "take_back" for button in app.button) and second in wanted


def test_suggestions_are_of_one_run_and_chosen(open_page: Open, relabeled) -> None:
    root, _, run = relabeled
    own = open_page(root, "review", dataset="small")
    assert own.selectbox(key="pick_suggests").value == "own"
    assert not any(button.key == "take" for button in own.button)
    own.selectbox(key="pick_suggests").select(run).run()
    everything = suggested(root, run)
    assert f"**{len(everything)}** of the 200 samples here" in text(own)
    strange = open_page(root, "review", dataset="small", suggests="<b>x</b>", sure="2e9")
    assert not strange.exception and not any(button.key == "take" for button in strange.button)


def test_without_a_relabeling_nothing_is_offered(open_page: Open, scored_workspace: Workspace) -> None:
    app = open_page(scored_workspace.root, "review", dataset="small", suggests="feed")
    assert not app.exception and not any(box.key == "pick_suggests" for box in app.selectbox)


def test_the_chart_has_a_point_for_each_bin_of_known_truth(relabeled) -> None:
    root, _, run = relabeled
    with connected(Workspace.open(root), "small", [run]) as connection:
        bins = fetch_reliability(connection, run)
        by_hand = fetch_sql(
            connection,
            "SELECT confidence, avg(CAST(suggested_label = true_label AS INT)) AS share FROM suggestions "
            "JOIN samples USING (sample_id) GROUP BY confidence ORDER BY confidence",
        )
    assert bins["right"].tolist() == pytest.approx(by_hand["share"].tolist())  # fifths: each has a bin of its own
    _, line = reliability_chart(bins).data
    assert list(line.x) == pytest.approx((100 * by_hand["confidence"]).tolist())
    assert list(line.y) == pytest.approx((100 * by_hand["share"]).tolist())
