"""What would I gain, on a page: which sets can be proved, what a proof shows while it is computed, and its chart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from given_verdicts import JUDGED, give_verdict
from test_pages import Open, text

from dashboard import proof_charts
from dashboard.charts import GRAY, GREEN, VERMILION
from dashboard.markup import plain
from engine.queries.connection import fetch_fingerprint
from engine.spec import ProveSpec, TrainingSpec, spec_to_json
from engine.store.decisions import decide
from engine.store.journal import append_journal
from engine.store.workspace import Workspace

RUN = "feedfeedfeed"


def network(seed: int, name: str, accuracy: float) -> dict[str, object]:
    return {
        "network": f"{seed}{name}", "seed": seed, "set": name, "accuracy": accuracy, "accuracy_true": None, "samples": 90,
        "tested": 40, "held_out": False, "steps": 8, "seconds": 1.0,
    }  # fmt: skip


@pytest.fixture
def proved(scored_workspace: Workspace) -> Path:
    """`small` with a shortlist of four, and a proof of 3 seeds that was interrupted after five of its six networks."""
    root = scored_workspace.root
    give_verdict(root, scored_workspace.published_runs()[0], range(100), 4, JUDGED)
    fingerprint = fetch_fingerprint(scored_workspace, "small")
    spec = ProveSpec("small", fingerprint, "ab", 90, 0, TrainingSpec(seeds=3))
    folder = scored_workspace.start_run(RUN, {"spec": spec_to_json(spec), "title": "prove: where *x* <b>"})
    pairs = [(0, 0.90, 0.92), (1, 0.80, 0.84)]
    rows = [network(s, name, a) for s, full, curated in pairs for name, a in (("full", full), ("curated", curated))]
    append_journal(folder, "proof", networks=[*rows, network(2, "full", 0.85)])
    append_journal(
        folder, "proof", networks=[{"seed": 2, "set": "curated", "accuracy": "high"}]
    )  # no version writes that
    return root


def test_a_proof_shows_its_finished_pairs(open_page: Open, proved: Path) -> None:
    app = open_page(proved, "psi", dataset="small")
    assert not app.exception and not app.error
    # differences of 2 and 4 points: mean 3, deviation sqrt 2, t(0.975, 1) = 12.7062
    assert "**+3.0 points (-9.7 to 15.7): no difference shown**" in text(app)
    assert "So far, of 3 seeds." in text(app) and "on 40 test samples, mean of 2 seeds" in text(app)
    assert plain("where *x* <b>") in text(app)
    assert any(button.key == f"resume_{RUN}" for button in app.button)


def test_the_sets_that_can_be_proved_are_offered(open_page: Open, proved: Path) -> None:
    app = open_page(proved, "psi", dataset="small")
    assert app.selectbox(key="prove_set").options == ["decided, shortlist dropped"]
    decide(Workspace.open(proved), "small", [1, 2, 3], "drop")
    decide(Workspace.open(proved), "small", [4], "relabel", new_label=7)
    app = open_page(proved, "psi", dataset="small")
    assert app.selectbox(key="prove_set").options[0] == "decided: 3 dropped, 1 relabeled"
    assert app.button(key="prove_start").help == "`winnow prove small --seeds 5`"
    app.selectbox(key="prove_set").set_value("decided, shortlist dropped").run()
    app.number_input(key="prove_seeds").set_value(3).run()
    assert app.button(key="prove_start").help == "`winnow prove small --drop-shortlist --seeds 3`"


def test_without_decisions_and_shortlist_the_page_says_what_to_do(open_page: Open, scored_workspace: Workspace) -> None:
    app = open_page(scored_workspace.root, "psi", dataset="small")
    assert "small has no psi-curve yet" in text(app) and "What would I gain?" in text(app)
    assert "Drop or relabel samples first" in text(app)
    assert not any(button.key == "prove_start" for button in app.button)


def test_the_chart_has_a_line_for_each_seed_and_the_interval_beside_their_differences() -> None:
    rows = [network(0, "full", 0.90), network(0, "curated", 0.92), network(1, "full", 0.9), network(1, "curated", 0.88)]
    frame = pd.DataFrame([*rows, network(2, "full", 0.9), network(2, "curated", 0.9), network(3, "full", 0.91)])
    figure = proof_charts.proof_chart(frame, -0.05, 0.05, 4)
    lines = [t for t in figure.data if t.mode == "lines+markers"]
    assert np.allclose([list(t.y) for t in lines[:3]], [[90, 92], [90, 88], [90, 90]])
    assert [t.marker.color for t in lines] == [GREEN, VERMILION, GRAY, GRAY]  # the last has no partner yet
    differences, mean = (t for t in figure.data if t.mode == "markers")
    assert np.allclose(differences.y, [2, -2, 0]) and np.allclose(mean.y, [0]) and mean.x == (4,)
    assert mean.error_y.array[0] == pytest.approx(5)
    assert figure.layout.yaxis2.range == (-5.2, 5.2)
    assert len(proof_charts.proof_chart(frame, None, None, 4).data) == len(figure.data) - 1
