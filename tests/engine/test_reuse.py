"""What was trained once is not trained again: by other seeds, other scores, mended formulas and later versions."""

from __future__ import annotations

import dataclasses
import re

import pandas as pd
import pytest
import torch

from engine.queries.connection import connected, fetch_sql
from engine.runs.compute import compute
from engine.runs.options import plan_run_from
from engine.runs.planning import plan_run
from engine.scores import registry
from engine.store.journal import read_journal
from engine.store.workspace import Workspace


def run(workspace: Workspace, training, scores=("el2n", "confidence"), **options) -> str:
    return compute(workspace, plan_run(workspace, "small", list(scores), training, **options), "cpu")[0]


def stages(workspace: Workspace, run_id: str) -> list[str]:
    return [e["stage"] for e in read_journal(workspace.run_dir(run_id)) if e["event"] == "stage"]


def table(workspace: Workspace, view: str, run_id: str, seeds: int) -> pd.DataFrame:
    with connected(workspace, "small") as connection:
        return fetch_sql(
            connection,
            f"SELECT * EXCLUDE (run_id) FROM {view} WHERE run_id = '{run_id}' AND seed < {seeds} ORDER BY ALL",
        )


def trained_seeds(workspace: Workspace, run_id: str) -> set[str]:
    """The networks that a run has trained itself, by what it reported while it was computed."""
    said = " ".join(str(e.get("stage")) for e in read_journal(workspace.run_dir(run_id)) if e["event"] == "progress")
    return set(re.findall(r"training (seed\d|round\d)", said))


@pytest.fixture
def fresh(small_workspace, tmp_path):
    """Another workspace with the same dataset and no run."""
    other = Workspace.open(tmp_path / "other", create=True)
    (other.root / "datasets" / "small.duckdb").write_bytes(small_workspace.dataset_path("small").read_bytes())
    return other


def test_more_seeds_train_only_the_new_ones(small_workspace, small_training, fresh):
    first = run(small_workspace, small_training(seeds=2))
    more = run(small_workspace, small_training(seeds=3))
    assert "training" in stages(small_workspace, more) and first != more
    with connected(small_workspace, "small") as connection:
        notes = fetch_sql(connection, f"SELECT notes FROM runs WHERE run_id = '{more}'")["notes"][0]
    assert "trained before, by runs with the same training: seed0, seed1" in notes
    once = run(fresh, small_training(seeds=3))
    assert once == more
    for view in ("dynamics", "logits", "epochs", "seed_scores"):
        ours, theirs = table(small_workspace, view, more, 3), table(fresh, view, once, 3)
        pd.testing.assert_frame_equal(
            ours.drop(columns="seconds", errors="ignore"), theirs.drop(columns="seconds", errors="ignore")
        )
    assert len(table(small_workspace, "dynamics", more, 3)) == 3 * 3 * 200


def test_fewer_seeds_train_nothing(small_workspace, small_training):
    three = run(small_workspace, small_training(seeds=3))
    one = run(small_workspace, small_training(seeds=1))
    pd.testing.assert_frame_equal(
        table(small_workspace, "dynamics", three, 1), table(small_workspace, "dynamics", one, 9)
    )
    assert trained_seeds(small_workspace, one) == set()


def test_numbers_do_not_depend_on_what_is_trained_side_by_side(small_workspace, small_training, fresh):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = run(small_workspace, small_training(seeds=2))
        torch.set_num_threads(1)
        one = run(fresh, small_training(seeds=1))
    finally:
        torch.set_num_threads(threads)
    for view in ("dynamics", "logits"):
        pd.testing.assert_frame_equal(table(small_workspace, view, two, 1), table(fresh, view, one, 1))


def test_the_finished_seeds_of_an_interrupted_run_serve_another_spec(small_workspace, small_training):
    class Stop(Exception):
        pass

    def listen(stage: str, fraction: float, left: float | None) -> None:
        if "seed1" in stage:
            raise Stop

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one network after the other
    plan = plan_run(small_workspace, "small", ["el2n"], small_training(seeds=2, epochs=12))
    try:
        with pytest.raises(Stop):
            compute(small_workspace, plan, "cpu", listen)
    finally:
        torch.set_num_threads(threads)
    assert not small_workspace.published_runs()
    other = run(small_workspace, small_training(seeds=1, epochs=12), ["forgetting"])
    with connected(small_workspace, "small") as connection:
        notes = fetch_sql(connection, f"SELECT notes FROM runs WHERE run_id = '{other}'")["notes"][0]
    assert "trained before, by runs with the same training: seed0" in notes
    resumed, existed = compute(small_workspace, plan, "cpu")  # the interrupted one still has all that it had
    assert not existed
    pd.testing.assert_frame_equal(
        table(small_workspace, "dynamics", other, 1), table(small_workspace, "dynamics", resumed, 1)
    )


def test_the_threshold_rule_is_not_trained_again(small_workspace, small_training):
    first = run(small_workspace, small_training(seeds=1), ["aum"])
    second = run(small_workspace, small_training(seeds=2), ["aum"])
    with connected(small_workspace, "small") as connection:
        flags = [
            fetch_sql(connection, f"SELECT * EXCLUDE (run_id) FROM flags WHERE run_id = '{r}' ORDER BY sample_id")
            for r in (first, second)
        ]
    pd.testing.assert_frame_equal(*flags)
    assert len(flags[0]) == 200 and set(flags[0]["score"]) == {"aum"}
    assert not any(name.startswith("round") for name in trained_seeds(small_workspace, second))


def test_a_changed_formula_is_computed_anew_without_training(small_workspace, small_training, monkeypatch):
    first = run(small_workspace, small_training(), ["confidence"])
    old = registry.all_scores()["confidence"]
    changed = dataclasses.replace(old, function=lambda p_given: p_given.median(0).values, version=2)
    monkeypatch.setitem(registry._REGISTRY, "confidence", changed)
    second = run(small_workspace, small_training(), ["confidence"])
    assert second != first and "training" not in stages(small_workspace, second)
    with connected(small_workspace, "small") as connection:
        values = fetch_sql(
            connection,
            f"SELECT a.value AS old, b.value AS new FROM scores a JOIN scores b USING (sample_id) WHERE a.run_id = '{first}' "
            f"AND b.run_id = '{second}'",
        )
        versions = fetch_sql(connection, "SELECT run_id, version FROM score_costs").set_index("run_id")["version"]
    assert (values["old"] != values["new"]).any()
    assert versions[first] == 1 and versions[second] == 2


def test_a_model_of_ones_own_counts_by_its_source(small_workspace, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    source = "from torch import nn\n\ndef make(shape, classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    (tmp_path / "own_model_a.py").write_text(source)
    words = {"model": "own_model_a:make", "scores": "el2n", "epochs": 1, "seeds": 1}
    first = plan_run_from(small_workspace, "small", words)
    (tmp_path / "own_model_a.py").write_text(source + "\n# edited\n")
    second = plan_run_from(small_workspace, "small", words)
    assert first.training.model_hash != second.training.model_hash
    assert first.training.threads == torch.get_num_threads()  # trained alone
    with pytest.raises(Exception, match="source of --model own_model_a:make has changed"):
        compute(small_workspace, first, "cpu")
    assert small_workspace.run_ids() == []
