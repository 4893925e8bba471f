"""What is kept of the complexity gap for the figures: the inverse kernel, places between two classes, convergence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import winnow

from engine.errors import NotFoundError, SpecError, StorageError
from engine.queries.paper import fetch_gap_study
from engine.runs.compute import compute
from engine.runs.gap_study import closest_classes, find_run, place_between, study_gap
from engine.runs.planning import plan_run
from engine.scores.gap import solve_inverse
from engine.spec import TrainingSpec
from engine.store.workspace import Workspace


def test_entries_of_the_inverse_are_those_of_the_whole_kernel() -> None:
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    unit = rows / rows.norm(dim=1, keepdim=True)
    cosine = (unit @ unit.T).clamp(-1, 1)
    kernel = cosine * (np.pi - cosine.arccos()) / (2 * np.pi)
    kernel.fill_diagonal_(0.5)
    chosen = torch.tensor([7, 0, 3])
    expected = torch.linalg.inv(kernel)[chosen][:, chosen]
    torch.testing.assert_close(solve_inverse(rows, chosen), expected, rtol=1e-8, atol=1e-10)
    twice = torch.cat([rows, rows[:1]])  # a copy is in the kernel once
    torch.testing.assert_close(solve_inverse(twice, torch.tensor([12, 3])), solve_inverse(rows, torch.tensor([0, 3])))


def test_the_place_of_a_sample_leaves_its_own_share_of_the_mean_out() -> None:
    first, second = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[5.0, 3.0], [5.0, 5.0], [5.0, 1.0]])
    # without itself the mean of the first class is (2, 0), the other (5, 3): the place of (0, 0) on that line by hand:
    # middle (3.5, 1.5), along (3, 3): 2 * (-3.5 * 3 - 1.5 * 3) / 18
    assert place_between(first, first, second, 0)[0].item() == pytest.approx(2 * (-3.5 * 3 - 1.5 * 3) / 18)
    ends = place_between(torch.tensor([[1.0, 0.0]]).repeat(1, 1), torch.tensor([[1.0, 0.0]] * 3), second, 0)
    assert ends.item() == pytest.approx(-1)  # at the mean of the others of its class


def test_the_two_classes_most_alike_are_found_and_a_single_sample_is_no_class() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [-1.0, 0.2], [-1.0, 0.0], [1.0, 0.05]])
    labels = torch.tensor([4, 4, 1, 1, 0, 0, 2])  # the one of class 2 lies at class 4
    assert closest_classes(rows, labels) == (1, 4)
    assert closest_classes(rows[:4], labels[:4]) == (1, 4)
    with pytest.raises(SpecError, match="classes of two samples or more: 1; a place between two classes needs two"):
        closest_classes(rows[1:4], labels[1:4])


def test_the_study_of_a_run_is_kept_beside_it_and_read_back(small_workspace: Workspace) -> None:
    with pytest.raises(NotFoundError, match="winnow run small --scores cg"):
        find_run(small_workspace, "small", None)
    run, _ = compute(small_workspace, plan_run(small_workspace, "small", ["cg"], TrainingSpec()), "cpu")
    assert fetch_gap_study(small_workspace, run) is None
    done = winnow("gap", "small", "--draws", 3, "--json", workspace=small_workspace.root)
    assert done.returncode == 0, done.stderr
    printed, written = done.stdout, small_workspace.gap_path(run).stat().st_mtime_ns
    study = fetch_gap_study(small_workspace, run)
    assert study is not None
    size = len(study.inverse)
    assert study.inverse.shape == (size, size) and np.allclose(study.inverse, study.inverse.T, rtol=1e-3)
    assert set(study.convergence["ratio"]) == {1, 2, 3, 4} and set(study.convergence["runs"]) == {1, 2, 3}
    last = study.convergence[study.convergence["runs"] == 3].set_index("ratio")
    assert last.loc[4, "spearman"] > last.loc[1, "spearman"] and last["pearson"].between(0, 1).all()
    assert study.points["position"].between(-4, 4).all() and study.points["sample_id"].is_unique
    again = study_gap(small_workspace, "small", run, 3)
    assert again == json.loads(small_workspace.gap_path(run).read_text())  # seeded
    words = ("gap", "small", "--json")
    assert winnow(*words, "--draws", 3, workspace=small_workspace.root).stdout == printed
    assert small_workspace.gap_path(run).stat().st_mtime_ns == written  # found, not computed again
    for draws, is_there in ((3, True), (4, False)):
        done = winnow(*words, "--draws", draws, "--estimate", workspace=small_workspace.root)
        assert (json.loads(done.stdout)["seconds"] == 0) is is_there, done.stderr


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", "7", '{"pair": [0, 1], "points": [[1]], "inverse": [[1]], "convergence": []}',
     '{"pair": ["a", 1], "points": [[1, 2]], "inverse": [[1]], "convergence": []}',
     '{"pair": [0, 1], "points": [[1, 2]], "inverse": [[1, 2]], "convergence": []}',
     '{"pair": [0, 1], "points": [[1, 1e999]], "inverse": [[1]], "convergence": []}',
     '{"pair": [0, 1], "points": [[1, 2]], "inverse": [[1]], "convergence": [[1, 2, 3]]}'],
)  # fmt: skip
def test_what_no_version_writes_is_damage_in_one_line(small_workspace: Workspace, text: str) -> None:
    folder: Path = small_workspace.start_run("feedfeedfeed", {})
    (folder / "gap.json").write_text(text)
    with pytest.raises(StorageError, match="is damaged; remove it, and winnow gap computes it again") as error:
        fetch_gap_study(small_workspace, "feedfeedfeed")
    assert "\n" not in str(error.value)
