"""The CG paper's tables and figures, against values worked out apart from them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.queries.frames import Run
from engine.reproduce.bench import Bench
from engine.reproduce.cg import correlation, partial_terms, signs, times
from engine.reproduce.cg_figures import (
    detection,
    features_over_epochs,
    learning_speed,
    stochastic,
    two_gaussians,
    windows,
)
from engine.reproduce.declared import parts_of
from engine.reproduce.reproducing import reproduce
from engine.reproduce.rules import given_labels
from engine.reproduce.size import Size
from engine.reproduce.values import Values
from engine.store.workspace import Workspace

TINY = Size("", {"model": "mlp", "epochs": 3, "batch_size": 32, "observe": "eval"}, 2, (0.2,))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    at = Workspace.open(tmp_path_factory.mktemp("reproduce-cg") / "workspace", create=True)
    ingest(at, IngestSpec(name="digits", source="digits", limit=150))
    return at


def bench_on(workspace: Workspace, dataset: str = "digits") -> Bench:
    folder = workspace.reproduced_dir(f"by-hand-{dataset}")
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(workspace, dataset, TINY, True, folder, "cpu", "", lambda stage, share, left: None)
    bench.values = Values(percent=False)
    return bench


def exact(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """alpha = H^-1 y and diag(H^-1) by plain inversion, each sample's own class against the rest."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = np.clip(unit @ unit.T, -1, 1)
    kernel = cosine * (math.pi - np.arccos(cosine)) / (2 * math.pi)
    np.fill_diagonal(kernel, 0.5)
    inverse = np.linalg.inv(kernel)
    signs = np.where(labels[None, :] == labels[:, None], 1.0, -1.0)
    return (inverse * signs).sum(1), np.diag(inverse)


def test_samples_are_counted_by_the_sign_of_the_partial_score(workspace: Workspace) -> None:
    bench = bench_on(workspace)
    signs(bench)
    assert bench.values.rows == ["mislabeled", "clean"]
    for draw in range(2):
        dataset = bench.noisy("symmetric:0.2", draw=draw)
        samples = bench.samples(dataset)
        assert samples.true_labels is not None
        labels = samples.labels.numpy()
        wrong = labels != samples.true_labels.numpy()
        alpha, diagonal = exact(samples.inputs.flatten(1).double().numpy(), labels)
        partial = 2 * (alpha - diagonal)
        high = np.argsort(-partial)[:30]
        assert bench.values.of("mislabeled", "positive")[draw] == (wrong & (partial > 0)).sum()
        assert bench.values.of("clean", "positive")[draw] == (~wrong & (partial > 0)).sum()
        assert bench.values.of("mislabeled", "high 20%")[draw] == wrong[high].sum()
        assert bench.values.of("mislabeled", "negative")[draw] == 30 - bench.values.of("mislabeled", "positive")[draw]
    first, second = (given_labels(workspace, bench.noisy("symmetric:0.2", draw=d)) for d in (0, 1))
    assert not torch.equal(first, second)


def test_two_classes_of_one_size_leave_nothing_to_draw(workspace: Workspace, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    lines = ["path,label,split"]
    for split, count in (("train", 40), ("test", 10)):
        for i in range(count):
            Image.fromarray(generator.integers(1, 255, (8, 8), dtype=np.uint8)).save(tmp_path / f"{split}{i}.png")
            lines.append(f"{split}{i}.png,{i % 2},{split}")
    (tmp_path / "two.csv").write_text("\n".join(lines) + "\n")
    ingest(workspace, IngestSpec(name="two", source=str(tmp_path / "two.csv")))
    bench = bench_on(workspace, "two")
    stochastic(bench)
    for ratio in (1, 2, 3, 4):
        assert bench.values.mean(f"Spearman, 1:{ratio}", "1 draws") == pytest.approx(1)
    bench.values = Values(percent=False)
    partial_terms(bench)
    samples = bench.samples("two")
    alpha, diagonal = exact(samples.inputs.flatten(1).double().numpy(), samples.labels.numpy())
    whole, terms = alpha**2 / diagonal, [(alpha - diagonal) ** 2 / diagonal, 2 * (alpha - diagonal), diagonal]
    for name, term in zip(("first term", "second term", "third term"), terms, strict=True):
        assert bench.values.of(name, "1:1")[0] == pytest.approx(spearmanr(whole, term).statistic, abs=1e-6)


def test_scores_are_correlated_as_they_stand_for_hard_samples(workspace: Workspace) -> None:
    found = reproduce(workspace, "cg", dataset="digits", only="table-1,table-3", seeds=1, device="cpu")
    table, settings = found.parts
    assert table.problem == "" and table.values.columns == ["Forgetting", "EL2N", "C-score"]
    assert settings.values.columns == ["batch size", "epochs", "learning rate", "weight decay"]
    frames = [Run(workspace, run).scores() for run in table.runs]
    columns = {name: frame[name].to_numpy() for frame in frames for name in frame.columns}
    by_hand = {
        ("CG-score", "EL2N"): spearmanr(columns["cg"], columns["el2n@2"]).statistic,
        ("CG'-score", "EL2N"): spearmanr(-columns["cg_forward"], columns["el2n@2"]).statistic,
        ("CG-score", "C-score"): spearmanr(columns["cg"], -columns["consistency"]).statistic,
    }
    for (row, column), value in by_hand.items():
        assert table.values.of(row, column) == pytest.approx({0: value}, abs=1e-6)
    assert correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == 0  # nothing to rank


def test_every_time_is_measured(workspace: Workspace) -> None:
    bench = bench_on(workspace)
    times(bench)
    assert bench.values.rows == [
        *(f"CG-score 1:{ratio}" for ratio in (1, 2, 3, 4)),
        *("Forgetting", "EL2N", "TracIn", "CRAIG"),
    ]
    for seed in range(2):
        value = {row: bench.values.of(row, "digits")[seed] for row in bench.values.rows}
        assert 0 < value["EL2N"] < value["Forgetting"] < min(value["TracIn"], value["CRAIG"])


def test_detection_curves_lie_between_chance_and_the_oracle(workspace: Workspace) -> None:
    bench = bench_on(workspace)
    detection(bench)
    assert set(bench.values.rows) == {"cg", "cg_partial", "forgetting", "el2n", "random", "oracle"}
    for share in (0.1, 0.2, 0.5, 0.9):
        column = f"{share:g} examined"
        assert bench.values.mean("random", column) == pytest.approx(share)
        assert bench.values.mean("oracle", column) == pytest.approx(min(1.0, share / 0.2))
        assert all(bench.values.mean(row, column) <= min(1.0, share / 0.2) + 1e-9 for row in bench.values.rows)


def test_groups_and_windows_are_those_of_the_score(workspace: Workspace) -> None:
    bench = bench_on(workspace)
    learning_speed(bench)
    assert len(bench.values.rows) == 20 and bench.values.columns == ["1", "2", "3"]
    epochs = Run(workspace, bench.runs[-1]).epochs()
    for epoch, seed, accuracy in epochs[["epoch", "seed", "train_accuracy"]].values.tolist():
        groups = [bench.values.of(f"accuracy, group {i}", str(int(epoch)))[seed] for i in range(1, 11)]
        assert np.mean(groups) == pytest.approx(accuracy, abs=1e-6)  # ten groups of 15
    bench.values = Values(percent=False)
    features_over_epochs(bench)
    assert bench.values.rows == ["CG-score", "EL2N", "Forgetting", "C-score"] and bench.values.columns == ["1", "3"]
    frame = Run(workspace, bench.runs[-1]).scores()
    by_hand = spearmanr(frame["cg_feature@3"], frame["cg"]).statistic
    assert bench.values.of("CG-score", "3") == pytest.approx({0: by_hand}, abs=1e-6)
    bench.values = Values()
    windows(bench)
    assert bench.values.rows == ["cg"] and set(bench.values.columns) == {f"{i / 20:g} offset" for i in range(11)}


def test_bad_data_says_why(workspace: Workspace) -> None:
    ingest(workspace, IngestSpec(name="untested", source="digits", limit=60, test_fraction=0.0))
    (done,) = reproduce(workspace, "cg", dataset="untested", only="figure-6", seeds=1, device="cpu").parts
    assert "no test split" in done.problem


def test_two_gaussians_are_the_papers_own_set(workspace: Workspace) -> None:
    bench = bench_on(workspace)
    two_gaussians(bench)
    checks = [finding.check(bench.values) for part in parts_of("cg", "figure-1") for finding in part.findings]
    assert [check.holds for check in checks] == [True, True]


def test_the_tables_are_as_printed() -> None:
    published = {part.name: part.published for part in parts_of("cg")}
    assert published["table-1"]["CIFAR-10"]["CG-score", "C-score"] == "0.557"
    assert published["table-2"]["FMNIST"]["mislabeled", "positive"] == "11796"
    assert published["table-4"]["CIFAR-10"]["CRAIG", "CIFAR-100"] == "10472"
    assert ("CG-score 1:4", "FMNIST") not in published["table-4"]["CIFAR-10"]
    assert published["table-5"]["CIFAR-100"]["first term", "1:3"] == "0.035"
