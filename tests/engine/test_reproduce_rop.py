"""`winnow reproduce rop`: what each selection keeps, and that every table and figure has its rows and columns."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import SpecError
from engine.reproduce.bench import Bench
from engine.reproduce.declared import Part, find_paper, parts_of
from engine.reproduce.report import published_for
from engine.reproduce.reproducing import reproduce
from engine.reproduce.rop_selection import METHODS, Subsets, noisy_sets
from engine.reproduce.size import Size
from engine.reproduce.values import Values
from engine.selection.samplers import proportional
from engine.store.journal import read_journal
from engine.store.workspace import Workspace

TINY = Size("tiny", {**find_paper("rop").sizes["small"].options, "model": "mlp", "lr": 0.05}, 1, (0.4,))

ROWS = set(METHODS)
SOME = {"Random", "GraNd", "KCenter", "Pr4ReL", "FDMat", "RoP"}
TWO, FOUR = ["0.2, 40 %", "0.6, 40 %"], ["0.2, 40 %", "0.4, 40 %", "0.6, 40 %", "0.8, 40 %"]
THREE = {"0.2, test accuracy", "0.2, classes lost"} | {f"{share:g}, wrong labels" for share in (0.2, 0.4, 0.6, 0.8)}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    at = Workspace.open(tmp_path_factory.mktemp("rop") / "workspace", create=True)
    ingest(at, IngestSpec(name="tiny", source="digits", limit=120))
    return at


@pytest.fixture(scope="module")
def bench(workspace: Workspace) -> Bench:
    return bench_on(workspace, "tiny")


@pytest.fixture(scope="module")
def subsets(bench: Bench) -> Subsets:
    return Subsets(bench, noisy_sets(bench, [0.4])[0].dataset)


def bench_on(workspace: Workspace, dataset: str, epochs: int = 3) -> Bench:
    folder = workspace.reproduced_dir("by-hand")
    folder.mkdir(parents=True, exist_ok=True)
    size = dataclasses.replace(TINY, dataset=dataset, options={**TINY.options, "epochs": epochs})
    return Bench(workspace, dataset, size, True, folder, "cpu", "", lambda stage, share, left: None)


def part(name: str) -> Part:
    return parts_of("rop", name)[0]


def computed(bench: Bench, name: str) -> Values:
    bench.values = Values(part(name).percent)
    part(name).function(bench)
    return bench.values


@pytest.mark.parametrize(
    ("row", "score", "keeps_smallest"),
    [
        ("Small", "loss_last", True),
        ("Margin", "top2_gap", True),
        ("Forget", "forgetting", False),
        ("GraNd", "grand_last_layer", False),
        ("SSP", "prototype_distance", True),
        ("RoP", "nli", True),
    ],
)
def test_what_a_score_keeps(subsets: Subsets, row: str, score: str, keeps_smallest: bool) -> None:
    values = torch.tensor(subsets.run.scores().sort_values("sample_id")[score].tolist())
    kept = subsets.over_all(subsets.order(row), 0.3, 0)
    left_out = torch.ones(len(values), dtype=torch.bool).index_fill(0, kept, False)
    assert len(kept) == round(0.3 * len(values))
    if keeps_smallest:
        assert values[kept].max() <= values[left_out].min()
    else:
        assert values[kept].min() >= values[left_out].max()


def test_coverage_leaves_out_as_many_as_their_neighbors_outvote(subsets: Subsets) -> None:
    found = subsets.run.scores().sort_values("sample_id")
    nli, outvoted = torch.tensor(found["nli"].tolist()), int((found["knn_vote"] > 0).sum())
    kept = subsets.over_all(subsets.order("RoP_B"), 0.2, 0)
    assert 0 < outvoted < len(nli) and len(kept) == round(0.2 * len(nli))
    assert int((nli > nli[kept].max()).sum()) >= outvoted - 1  # beta has four digits
    assert nli[kept].mean() > nli[subsets.over_all("nli*", 0.2, 0)].mean()


def test_a_selection_that_loses_a_class_is_balanced_and_others_are_over_all_classes(subsets: Subsets) -> None:
    seen = set()
    for row in METHODS:
        for share in (0.1, 0.2, 0.6):
            over_all, kept = (f(subsets.order(row), share, 0) for f in (subsets.over_all, subsets.kept))
            classes = set(subsets.labels[over_all].tolist())
            assert subsets.lost(over_all) == 10 - len(classes)
            counts = torch.bincount(subsets.labels[kept], minlength=10).tolist()
            seen.add(len(classes) < 10)
            if len(classes) < 10:
                assert counts == proportional(torch.bincount(subsets.labels), len(over_all))
            else:
                assert torch.equal(kept, over_all)
    assert seen == {True, False}


def test_every_selection_is_drawn_anew_for_another_seed_and_alike_for_the_same(subsets: Subsets) -> None:
    fresh = Subsets(subsets.bench, subsets.dataset)
    for row in ("Random", "KCenter", "RoP_B"):
        assert torch.equal(fresh.kept(fresh.order(row), 0.2, 1), subsets.kept(subsets.order(row), 0.2, 1))
        assert not torch.equal(subsets.kept(subsets.order(row), 0.2, 1), subsets.kept(subsets.order(row), 0.2, 0))


def test_wrong_labels_are_counted_in_what_is_kept(bench: Bench, subsets: Subsets) -> None:
    values = computed(bench, "table-3")
    assert set(values.rows) == ROWS and set(values.columns) == THREE
    samples = bench.samples(subsets.dataset)
    assert samples.true_labels is not None
    wrong = (samples.labels != samples.true_labels).tolist()
    assert sum(wrong) == 48  # 40 % of 120
    for row in ("RoP", "Random", "Small"):
        kept = subsets.kept(subsets.order(row), 0.4, 0).tolist()
        assert values.mean(row, "0.4, wrong labels") == pytest.approx(sum(wrong[i] for i in kept) / 48)
        lost = subsets.lost(subsets.over_all(subsets.order(row), 0.2, 0))
        assert values.mean(row, "0.2, classes lost") == pytest.approx(lost / 10)


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("table-1", ROWS, TWO),
        ("table-2", SOME, FOUR),
        (
            "table-4",
            {"Random", "Small", "Forget", "Pr4ReL", "RoP"},
            [f"{x}, 20 %" for x in ("0.05", "0.1", "0.2", "0.4")],
        ),
        ("table-5", ROWS | {"Random, SOP+", "RoP, SOP+", "RoP_B, SOP+"}, TWO),
        ("table-6", {"No-Rec", "Rec", "No-Rec, relabeled", "Rec, relabeled"}, FOUR),
        (
            "figure-1",
            {f"{row}, {labels} labels" for row in ("Random", "KCenter", "GraNd") for labels in ("clean", "wrong")}
            | {"Full, wrong labels"},
            ["0.2", "0.4", "0.6", "0.8", "1"],
        ),
        ("figure-4", {"Random", "Small", "KCenter", "GraNd", "Pr4ReL", "RoP", "RoP_B"}, ["0.2", "0.6"]),
        ("figure-5", ROWS, ["selection", "with warm-up"]),
        ("figure-6", {"K = 5", "K = 10", "K = 15", "K = 20"}, ["0.2", "0.6"]),
    ],
)
def test_a_part_has_every_row_and_column(workspace: Workspace, name: str, rows: set[str], columns: list[str]) -> None:
    values = computed(bench_on(workspace, "tiny", 11 if name == "table-5" else 3), name)  # DivideMix warms up for 10
    assert set(values.rows) == rows and values.columns == columns
    low, high = (0, 1) if part(name).percent else (0, math.inf)
    assert all(low <= value <= high for row in rows for column in columns for value in values.of(row, column).values())
    for finding in part(name).findings:
        held = finding.check(values)
        assert held.because and "was not computed" not in held.because


def test_corrected_labels_by_nli(bench: Bench) -> None:
    values = computed(bench, "figure-3")
    assert values.rows == ["as given", "by SOP+"] and set(values.columns) <= {str(i) for i in range(1, 15)}
    assert 2 <= len(values.columns) and all(
        0 <= values.mean(row, c) <= 1 for row in values.rows for c in values.columns
    )


def test_no_network_is_trained_twice(bench: Bench, workspace: Workspace) -> None:
    def trained() -> list[str]:
        return [event["key"] for event in read_journal(bench.folder) if event["event"] == "trained"]

    first = computed(bench, "table-2")
    known, runs = trained(), set(workspace.run_ids())
    again = computed(bench_on(workspace, "tiny"), "table-2")
    assert {(r, c): again.of(r, c) for r in again.rows for c in FOUR} == {
        (r, c): first.of(r, c) for r in first.rows for c in FOUR
    }
    assert trained() == known and len(set(known)) == len(known) and set(workspace.run_ids()) == runs


def test_labels_that_are_wrong_already_stay_as_they_are(workspace: Workspace, bench: Bench) -> None:
    ingest(workspace, IngestSpec(name="crowd", source="dataset:tiny", noise="symmetric:0.18"))
    own = bench_on(workspace, "crowd")
    found = noisy_sets(own, [0.2, 0.4])
    assert [(one.dataset, one.column(0.2)) for one in found] == [("crowd", "0.2, 20 %")]
    with pytest.raises(SpecError, match="labels of 'crowd' are wrong already"):
        computed(own, "figure-1")
    assert [one.column(0.05) for one in noisy_sets(bench, [0.2, 0.4])] == ["0.05, 20 %", "0.05, 40 %"]


def test_another_dataset_is_trained_as_a_trial_finds_best_and_what_it_lacks_is_said(workspace: Workspace) -> None:
    ingest(workspace, IngestSpec(name="untested", source="digits", limit=100, test_fraction=0.0))
    (found,) = reproduce(workspace, "rop", dataset="untested", only="table-6", seeds=1, device="cpu").parts
    assert "test split" in found.problem
    folder = workspace.reproduced_dir("rop-small-untested")
    size = dataclasses.replace(find_paper("rop").sizes["small"], seeds=1)
    other = Bench(workspace, "untested", size, True, folder, "cpu", "", lambda stage, share, left: None)
    runs = set(workspace.run_ids())
    subsets = Subsets(other, noisy_sets(other, [0.4])[0].dataset)
    assert set(workspace.run_ids()) == runs  # the one of table 6
    assert (subsets.training.optimizer, subsets.training.lr, subsets.training.schedule) == ("sgd", 0.02, "cosine")
    assert subsets.training.epochs == 30 and subsets.run.spec["training"]["optimizer"] == "adam"  # by the trial


def test_in_the_papers_size_the_learners_have_its_settings(workspace: Workspace) -> None:
    bench = bench_on(workspace, "tiny")
    bench.small = False
    subsets = Subsets(bench, "tiny")
    kept = subsets.kept("nli*", 0.2, 0)
    presets, train = [], bench.train
    bench.train = lambda dataset, training, jobs: (
        presets.append((training, jobs[0].preset)) or train(dataset, training, jobs)
    )
    for learner in ("cross-entropy", "sop+"):
        assert 0 <= subsets.train(learner, [(kept, 0, "RoP")])[0].accuracy <= 1
    with pytest.raises(SpecError, match="--set warm_up is 10 of 3 epochs"):
        subsets.train("dividemix", [(kept, 0, "RoP")])
    assert [preset for _, preset in presets] == ["", "sop+-cifar10", "dividemix-cifar10"]
    assert [training.schedule for training, _ in presets] == ["cosine", "cosine", "step"]


@pytest.mark.parametrize(
    ("name", "dataset", "cells"),
    [
        ("table-1", "cifar10n", {("RoP", "0.2, 40 %"): "86.4 ± 0.4", ("RoP_B", "0.8, 20 %"): "95.3 ± 0.3"}),
        ("table-1", "cifar100-noisy", {("Margin", "0.2, 40 %"): "20.0 ± 1.2", ("RoP", "0.6, 40 %"): "64.1 ± 0.1"}),
        ("table-2", "digits", {("RoP", "0.4, 40 %"): "83.4 ± 0.4", ("GraNd", "0.2, 20 %"): "29.1 ± 3.2"}),
        ("table-3", "digits", {("RoP", "0.2, wrong labels"): "4.8", ("Random", "0.2, test accuracy"): "87.5"}),
        ("table-4", "imagenet", {("Forget", "0.05, 20 %"): "4.1", ("RoP", "0.4, 20 %"): "63.4"}),
        ("table-5", "digits", {("RoP_B", "0.6, 40 %"): "92.4 ± 0.3", ("GraNd", "0.2, 40 %"): "18.5 ± 1.7"}),
        ("table-6", "digits", {("No-Rec", "0.2, 40 %"): "80.5", ("Rec, relabeled", "0.6, 40 %"): "92.4"}),
    ],
)
def test_what_the_paper_prints(name: str, dataset: str, cells: dict[tuple[str, str], str]) -> None:
    published = published_for(part(name), dataset)[1]
    assert {cell: published[cell] for cell in cells} == cells
    rows = {row for row, _ in published}
    assert rows <= ROWS | {"No-Rec", "Rec", "No-Rec, relabeled", "Rec, relabeled"}


def test_every_selection_of_figure_1_must_be_worse_with_wrong_labels() -> None:
    (finding,) = [one for one in part("figure-1").findings if "every selection" in one.sentence]
    values = Values()
    for seed in range(3):
        for row, lost in (("Random", 0.3), ("KCenter", 0.2), ("GraNd", 0.4)):
            values.put(f"{row}, clean labels", "0.2", 0.9 + 0.001 * seed, seed)
            values.put(f"{row}, wrong labels", "0.2", 0.9 - lost, seed)
    assert finding.check(values).holds is True
    for seed in range(3):
        values.put("GraNd, wrong labels", "0.2", 0.95, seed)
    held = finding.check(values)
    assert held.holds is False and held.because.startswith("GraNd, clean labels - GraNd, wrong labels")


def test_the_findings_of_table_1_hold_of_what_the_paper_prints() -> None:
    published = published_for(part("table-1"), "cifar10")[1]
    values = Values()
    for (row, column), cell in published.items():
        if column.endswith("40 %"):
            for seed in range(3):
                values.put(row, column, float(cell.split()[0]) / 100 + 0.0001 * seed, seed)
    held = {finding.sentence: finding.check(values).holds for finding in part("table-1").findings}
    assert set(held.values()) == {True}, held
