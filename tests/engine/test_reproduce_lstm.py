"""The LSTM paper's tables and figures: whose labels a detector learns to find, what each row learns from, the table as printed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import SpecError
from engine.reproduce.bench import Bench
from engine.reproduce.declared import parts_of
from engine.reproduce.lstm import (
    LEARNED,
    debugged_labels,
    dynamics,
    learned_detector,
    right_ones,
    subsets,
    suspicions,
)
from engine.reproduce.report import write_reproduction
from engine.reproduce.reproducing import reproduce
from engine.reproduce.rules import given_labels, kept_by_rule, wrong_labels
from engine.reproduce.size import Size
from engine.runs.detectors import read_sequences
from engine.scores.evaluation import evaluate_detection
from engine.scores.lstm import train_detector
from engine.store.journal import read_journal
from engine.store.workspace import Workspace

ROWS = ["Standard", "DY-Bootstrap", "Data Param", "INCV", "AUM", "Ours", LEARNED]
TINY = Size("", {"model": "mlp", "epochs": 4, "batch_size": 32}, 2, (0.3,))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    at = Workspace.open(tmp_path_factory.mktemp("reproduce-lstm") / "workspace", create=True)
    ingest(at, IngestSpec(name="digits", source="digits", limit=150))
    ingest(at, IngestSpec(name="wrong", source="digits", limit=150, noise="symmetric:0.2", seed=7))
    return at


def bench_on(workspace: Workspace, dataset: str = "digits") -> Bench:
    folder = workspace.reproduced_dir(f"by-hand-{dataset}")
    folder.mkdir(parents=True, exist_ok=True)
    return Bench(workspace, dataset, TINY, True, folder, "cpu", "", lambda stage, share, left: None)


def test_a_detector_learns_to_find_the_injected_labels_and_never_the_truth(workspace: Workspace) -> None:
    bench = bench_on(workspace, "wrong")  # a fifth of its labels is wrong before anything is injected
    learned = learned_detector(bench)
    dataset = bench.noisy("symmetric:0.3", draw=1)
    injected = given_labels(workspace, dataset) != given_labels(workspace, "wrong")
    wrong = wrong_labels(workspace, dataset)
    assert int(injected.sum()) == 45 and not torch.equal(injected, wrong)
    p_given, _ = read_sequences(workspace, dataset, dynamics(bench, dataset, "lstm_detector").id)
    sequences = torch.cat(list(p_given), dim=1)
    by_hand = train_detector(sequences, injected.repeat(2), 0).detector.state_dict()
    bench.listener = lambda stage, share, left: pytest.fail("it is learned again") if stage == "detector" else None
    again = learned_detector(bench).state_dict()
    assert again.keys() == by_hand.keys() and all(torch.equal(value, by_hand[name]) for name, value in again.items())
    by_truth = train_detector(sequences, wrong.repeat(2), 0).detector.state_dict()
    assert all(torch.equal(value, by_hand[name]) for name, value in learned.state_dict().items())
    assert not all(torch.equal(value, by_truth[name]) for name, value in learned.state_dict().items())


def test_every_row_learns_from_what_its_rule_leaves(workspace: Workspace) -> None:
    bench = bench_on(workspace)
    dataset = bench.noisy("symmetric:0.3")
    run, detector = dynamics(bench, dataset), learned_detector(bench)
    kept = subsets(bench, run, detector)
    flags = run.flags().set_index("sample_id").loc[:149]  # those of the training split
    for row, rule in (("INCV", "discarded_by_incv"), ("AUM", "aum_threshold"), ("Ours", "lstm_detector")):
        assert kept[row].tolist() == np.flatnonzero(~flags[f"flagged_{rule}"].to_numpy(bool)).tolist()
    score = run.scores()["lstm_detector"].to_numpy()
    assert kept["Ours"].tolist() == np.flatnonzero(score <= 0.5).tolist()
    assert kept[LEARNED].tolist() == np.flatnonzero(suspicions(bench, run, detector).mean(0).numpy() <= 0.5).tolist()
    samples = bench.samples(dataset)
    assert samples.true_labels is not None
    right = right_ones(bench, dataset)
    assert len(right) == 105 and torch.equal(samples.labels[right], samples.true_labels[right])
    with pytest.raises(SpecError, match=f"unknown rule of run {run.id} 'aum_treshold'; did you mean 'aum_threshold'"):
        kept_by_rule(run, "aum_treshold")


def test_data_debugging_replaces_the_most_suspicious_labels_alone(workspace: Workspace) -> None:
    bench = bench_on(workspace)
    run = dynamics(bench, bench.noisy("symmetric:0.3"))
    given, wrong = given_labels(workspace, run.dataset), wrong_labels(workspace, run.dataset)
    truth = bench.samples(run.dataset).true_labels
    assert truth is not None
    rows = debugged_labels(bench, run, truth)
    nonsense = debugged_labels(bench, run, (truth + 5) % 10)
    suspicion = run.scores()["lstm_detector"].to_numpy()
    for share, name in ((0.05, "DivideMix + 5% D.D."), (0.1, "DivideMix + 10% D.D.")):
        count = round(share * 150)
        top = set(np.argsort(-suspicion, kind="stable")[: count + 3].tolist())  # ties may break either way
        by_truth, by_model = rows[f"{name}[Ours]"], rows[f"{name}, by a model"]
        changed = (by_truth != given).nonzero()[:, 0].tolist()
        assert set(changed) <= top and all(by_truth[i] == truth[i] and wrong[i] for i in changed)
        assert set((by_model != given).nonzero()[:, 0].tolist()) <= top
        assert torch.equal(by_model, nonsense[f"{name}, by a model"])  # whatever the truth is
    assert torch.equal(rows["DivideMix"], given)


def test_a_table_has_every_row_and_is_found_again(workspace: Workspace) -> None:
    options = {"dataset": "digits", "only": "table-1,table-2,table-4", "seeds": 1, "device": "cpu"}
    found = reproduce(workspace, "lstm", **options)
    assert [done.problem for done in found.parts] == [""] * 3
    noisy, clean, settings = found.parts
    assert sorted(noisy.values.rows) == sorted([*ROWS, "Oracle"]) and noisy.values.columns == ["0.2", "0.4"]
    assert sorted(clean.values.rows) == sorted(ROWS) and clean.values.columns == ["digits"]
    assert all(0 <= noisy.values.mean(row, column) <= 1 for row in noisy.values.rows for column in ("0.2", "0.4"))
    assert settings.values.of(settings.values.rows[0], "training") == {0: 150.0}
    runs, trained = set(workspace.run_ids()), _trained(found.folder)
    again = reproduce(workspace, "lstm", **options)
    assert [done.findings() for done in again.parts] == [done.findings() for done in found.parts]
    assert set(workspace.run_ids()) == runs and _trained(found.folder) == trained
    page = write_reproduction(again).read_text(encoding="utf-8")
    assert "on digits it knows their dynamics under other draws of the noise" in page


def test_dividemix_is_trained_on_every_kind_of_debugged_labels(workspace: Workspace) -> None:
    (done,) = reproduce(workspace, "lstm", dataset="digits", only="table-3", seeds=1, device="cpu").parts
    assert done.problem == "" and len(done.values.rows) == 5 and done.values.columns == ["Last", "right labels"]
    right = {row: done.values.mean(row, "right labels") for row in done.values.rows}
    assert right["DivideMix"] == pytest.approx(0.8)
    assert right["DivideMix + 10% D.D.[Ours]"] >= right["DivideMix + 5% D.D.[Ours]"] > right["DivideMix"]


def test_figures_measure_each_network_on_its_own(workspace: Workspace) -> None:
    only = "figure-1,figure-3,figure-7,figure-8"
    both, detection, within, importance = reproduce(
        workspace, "lstm", dataset="digits", only=only, seeds=2, device="cpu"
    ).parts
    dataset = bench_on(workspace).noisy("symmetric:0.4")
    run = next(r for r in detection.runs if workspace.read_spec(r)["spec"]["dataset"] == dataset)
    margins, _ = read_sequences(workspace, dataset, run, "margin")
    wrong = wrong_labels(workspace, dataset).numpy()
    for seed, values in detection.values.of("AUM, ROC AUC", "0.4").items():
        by_hand = evaluate_detection(-margins[seed].double().mean(0).numpy(), wrong)["roc_auc"]
        assert values == pytest.approx(by_hand, abs=1e-6)
    assert len(detection.values.rows) == 9 and both.values.columns == [
        str(epoch) for epoch in range(1, margins.shape[1] + 1)
    ]
    assert within.problem and "super-class" in within.problem and "\n" not in within.problem
    halves = [importance.values.of(f"{half} half", "share") for half in ("first", "second")]
    assert len(halves[0]) == 20 and all(
        a + b == pytest.approx(1) for a, b in zip(*(h.values() for h in halves), strict=True)
    )


def test_the_tables_are_as_printed() -> None:
    published = {part.name: part.published for part in parts_of("lstm")}
    assert published["table-1"]["CIFAR-10"]["Ours", "0.4"] == "88.9±0.0"
    assert published["table-1"]["CIFAR-10"]["DY-Bootstrap", "0.8"] == "Diverged"
    assert published["table-1"]["CIFAR-100"]["INCV", "0.6"] == "43.7±0.3"
    assert published["table-2"]["CIFAR-10"]["Ours", "Clothing 100K"] == "68.2"
    assert published["table-3"]["CUB-200-2011"]["DivideMix + 10% D.D.[Ours]", "Last"] == "74.99"


def _trained(folder: object) -> list[str]:
    return [event["key"] for event in read_journal(folder) if event["event"] == "trained"]  # type: ignore[arg-type]
