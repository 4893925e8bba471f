"""`winnow reproduce aum`: which samples every row learns from, what is measured of the rules, and the checks of findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import SpecError
from engine.queries.connection import connected, fetch_sql
from engine.reproduce import aum, aum_figures
from engine.reproduce.bench import Bench, Job, Outcome, _measured
from engine.reproduce.checks import all_of, at_least, at_most, highest, larger_at, lowest
from engine.reproduce.declared import parts_of
from engine.reproduce.report import published_for
from engine.reproduce.size import Size
from engine.reproduce.values import Values, less, more
from engine.runs.relabel_units import PLAIN, Unit
from engine.spec import TrainingSpec
from engine.store.journal import read_journal
from engine.store.workspace import Workspace

TINY = Size("tiny", {"model": "mlp", "epochs": 2, "batch_size": 32}, 2, (0.4,))
ALL_ROWS = [*aum.LEARNERS, *aum.RULES, "Oracle"]


class Watched(Bench):
    """A bench that remembers what it trained."""

    asked: list[tuple[str, TrainingSpec, list[Job]]]

    def train(self, dataset: str, training: TrainingSpec, jobs: Sequence[Job]) -> list[Outcome]:
        self.asked.append((dataset, training, list(jobs)))
        return super().train(dataset, training, jobs)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    at = Workspace.open(tmp_path_factory.mktemp("aum") / "workspace", create=True)
    ingest(at, IngestSpec(name="tiny", source="digits", limit=120))
    return at


@pytest.fixture
def bench(workspace: Workspace) -> Iterator[Watched]:
    folder = workspace.reproduced_dir("by-hand")
    folder.mkdir(parents=True, exist_ok=True)
    made = Watched(workspace, "tiny", TINY, True, folder, "cpu", "", lambda stage, share, left: None)
    made.asked = []
    yield made


def table_of(bench: Bench, sql: str) -> dict[str, np.ndarray]:
    with connected(bench.workspace, "tiny-symmetric-0.4") as connection:
        return {str(name): values.to_numpy() for name, values in fetch_sql(connection, sql).items()}


def wrong_labels(bench: Bench) -> np.ndarray:
    samples = bench.samples("tiny-symmetric-0.4")
    assert samples.true_labels is not None
    return (samples.labels != samples.true_labels).numpy()


def flagged_by_hand(bench: Bench, seed: int) -> dict[str, np.ndarray]:
    """What each rule flags, from what the run recorded of its threshold samples, losses and halves."""
    run = aum.scored(bench, "tiny-symmetric-0.4", seed)
    rounds = table_of(bench, f"SELECT * FROM threshold_rounds WHERE run_id = '{run.id}' ORDER BY round, sample_id")
    area, own = rounds["aum"].reshape(2, -1), rounds["threshold_sample"].reshape(2, -1).astype(bool)
    assert own.sum(1).tolist() == [120 // 11] * 2 and not own.all(0).any()
    judged = [area[r] <= np.percentile(area[r][own[r]], 99) for r in range(2)]
    found = {"AUM": np.all([judged[r] | own[r] for r in range(2)], axis=0)}
    for row, score in (("BMM", "bmm"), ("GMM", "gmm")):
        sql = f"FROM seed_scores WHERE run_id = '{run.id}' AND score = '{score}' AND seed = {seed} ORDER BY sample_id"
        found[row] = table_of(bench, sql)["value"] > 0.5
    flags = run.flags()
    found["INCV"] = flags[flags["sample_id"] < 120]["flagged_discarded_by_incv"].to_numpy(bool)
    return found


def test_every_row_learns_from_what_it_says(bench: Watched) -> None:
    aum.uniform_noise(bench)
    assert bench.values.rows == ALL_ROWS and bench.values.columns == ["0.4"]
    ((dataset, training, jobs),) = bench.asked
    assert dataset == "tiny-symmetric-0.4" and (training.epochs, training.schedule) == (12, "step")
    assert [job.seed for job in jobs] == [0] * 15 + [1] * 15
    right = np.flatnonzero(~wrong_labels(bench)).tolist()
    assert len(right) == 72
    for seed in (0, 1):
        by_row = dict(zip(ALL_ROWS, jobs[15 * seed : 15 * seed + 15], strict=True))
        flagged = flagged_by_hand(bench, seed)
        for row, job in by_row.items():
            assert job.labels is None  # no row is given another label than the given one
            if row in aum.LEARNERS:
                assert (job.kept, job.learner) == (None, aum.LEARNERS[row])
            else:
                expected = right if row == "Oracle" else np.flatnonzero(~flagged[row]).tolist()
                assert job.kept is not None and job.kept.tolist() == expected and job.learner == PLAIN
    # The threshold samples of the seeds differ, and the mixtures read each seed's own network.
    assert (flagged_by_hand(bench, 0)["AUM"] != flagged_by_hand(bench, 1)["AUM"]).any()
    for row in ALL_ROWS:
        assert set(bench.values.of(row, "0.4")) == {0, 1} and 0 <= bench.values.mean(row, "0.4") <= 1
    trained = len([event for event in read_journal(bench.folder) if event["event"] == "trained"])
    runs = set(bench.workspace.run_ids())
    aum.uniform_noise(bench)  # again: everything is found
    assert len([event for event in read_journal(bench.folder) if event["event"] == "trained"]) == trained
    assert set(bench.workspace.run_ids()) == runs


def test_the_other_tables_have_their_rows(bench: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aum, "SECOND_SAMPLES", 120)
    bench.size = replace(TINY, seeds=1)
    aum.second_dataset(bench)
    assert bench.values.rows == list(aum.IDENTIFYING) and bench.values.columns == ["0.4"]
    assert bench.asked[-1][0] == "synthetic-symmetric-0.4"
    bench.values = Values()
    aum.asymmetric_noise(bench)
    assert bench.values.rows == [row for row in ALL_ROWS if row not in ("Co-Teaching", "MentorNet")]
    assert [asked[0] for asked in bench.asked[1:]] == ["tiny-asymmetric-0.2", "tiny-asymmetric-0.4"]


def test_what_is_removed_of_a_dataset_as_it_is(bench: Watched) -> None:
    aum.as_it_is(bench)
    assert bench.values.rows == ["Standard", "Data Param", "DY-Bootstrap", *aum.RULES]
    assert bench.values.columns == ["error", "removed"]
    for row in aum.RULES:
        kept = [job.kept for job in bench.asked[0][2] if row in job.what]
        removed = {seed: 1 - len(kept[seed]) / 120 for seed in (0, 1) if kept[seed] is not None}
        assert bench.values.of(row, "removed") == pytest.approx(removed)
    assert not bench.values.of("Standard", "removed") and len(bench.values.of("DY-Bootstrap", "removed")) == 2


def test_what_rules_find_is_measured_by_the_truth(bench: Watched) -> None:
    aum_figures.found_by_rules(bench)
    wrong = wrong_labels(bench)
    for seed in (0, 1):
        for row, flagged in flagged_by_hand(bench, seed).items():
            assert bench.values.of(f"{row} recall", "0.4")[seed] == pytest.approx(recall_score(wrong, flagged))
            if flagged.any():
                assert bench.values.of(f"{row} precision", "0.4")[seed] == pytest.approx(
                    precision_score(wrong, flagged)
                )
    assert not bench.asked


def test_the_figures_of_areas_and_margins(bench: Watched) -> None:
    aum_figures.threshold_samples(bench)
    values, wrong = bench.values, wrong_labels(bench)
    run = aum.scored(bench, "tiny-symmetric-0.4", 1)
    rounds = table_of(bench, f"SELECT * FROM threshold_rounds WHERE run_id = '{run.id}' ORDER BY round, sample_id")
    own = rounds["threshold_sample"].astype(bool)
    median = np.median(rounds["aum"][own])
    assert values.of("threshold samples", "50")[1] == pytest.approx(median)
    outside = rounds["aum"][~own & wrong[rounds["sample_id"]]]
    assert values.of("mislabeled", "25")[1] == pytest.approx(np.percentile(outside, 25))
    recall = (flagged_by_hand(bench, 1)["AUM"] & wrong).sum() / wrong.sum()
    assert values.of("mislabeled", "at the threshold")[1] == pytest.approx(recall)

    bench.values = Values(percent=False)
    aum_figures.margin_and_running_mean(bench)
    assert bench.values.columns == ["1", "2"]
    sql = "SELECT margin FROM dynamics WHERE run_id = '{}' AND seed = 1 AND epoch = {} ORDER BY sample_id"
    first = aum.scored(bench, "tiny-symmetric-0.4", 0)
    one, two = (table_of(bench, sql.format(first.id, epoch))["margin"] for epoch in (1, 2))
    assert bench.values.of("margin", "2")[1] == pytest.approx(roc_auc_score(wrong, -two))
    assert bench.values.of("running mean", "2")[1] == pytest.approx(roc_auc_score(wrong, -(one + two) / 2))


def test_removing_takes_the_lowest_areas_first(bench: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aum_figures, "REMOVED", (0.0, 0.5))
    aum_figures.removing_by_rank(bench)
    assert bench.values.columns == ["0", "0.5", "at the threshold"]
    ranked = ["lowest AUM first", "at random"]
    assert bench.values.rows == [*ranked, *(f"{row}, 20 % wrong" for row in ranked)]
    assert bench.values.of(ranked[0], "0") == bench.values.of(ranked[1], "0")  # nothing is removed
    jobs = bench.asked[0][2]
    run = aum.scored(bench, "tiny", 0)
    with connected(bench.workspace, "tiny") as connection:
        sql = f"FROM seed_scores WHERE run_id = '{run.id}' AND score = 'aum' AND seed = 0 ORDER BY value, sample_id"
        ids = fetch_sql(connection, sql)["sample_id"].tolist()
    assert jobs[1].kept is not None and jobs[1].kept.tolist() == sorted(ids[60:])
    assert jobs[4].kept is not None and len(jobs[4].kept) == 60 and jobs[4].kept.tolist() != sorted(ids[60:])
    flagged = int(aum.flags(bench, run, 0)["AUM"].sum())
    assert [len(jobs[i].kept) for i in (2, 5) if jobs[i].kept is not None] == [120 - flagged] * 2


def test_a_dataset_without_a_truth_or_a_test_split_is_one_line(workspace: Workspace, bench: Watched) -> None:
    ingest(workspace, IngestSpec(name="untested", source="digits", limit=60, test_fraction=0.0))
    bench.dataset, bench.size = "untested", Size("untested", TINY.options, 1, (0.4,))
    with pytest.raises(SpecError, match="'untested' has no test split to measure on"):
        aum.as_it_is(bench)
    with pytest.raises(SpecError, match="'untested' has samples without a true label"):
        aum._put_errors(bench, "untested", ["Oracle"], "error")


def test_the_published_tables_are_the_papers() -> None:
    tables = {part.name: part for part in parts_of("aum")}
    assert list(tables) == [
        "table-1", "table-2", "table-3", "table-4", "figure-3", "figure-4", "figure-5", "figure-6", "figure-7",
    ]  # fmt: skip
    first = tables["table-1"].published
    assert len(first["CIFAR-10"]) == len(first["CIFAR-100"]) == 12 * 4 - 1
    assert first["CIFAR-100"]["AUM", "0.4"] == "38.7 ± 0.1" and first["CIFAR-10"]["D2L", "0.8"] == "Diverged"
    assert tables["table-2"].published["Tiny ImageNet"]["INCV", "0.8"] == "82.6 ± 0.7"
    assert tables["table-3"].published["WebVision50"]["AUM", "removed"] == "17.8"
    assert ("Standard", "removed") not in tables["table-3"].published["CIFAR-10"]
    assert tables["table-4"].published["CIFAR-10"]["L_DMI", "0.4"] == "16.0 ± 2.1"
    assert published_for(tables["table-1"], "cifar100-coarse")[0] == "CIFAR-100"
    assert published_for(tables["table-1"], "cifar10")[0] == published_for(tables["table-1"], "mine")[0] == "CIFAR-10"


def test_a_network_doubts_the_labels_of_the_high_losses(bench: Watched) -> None:
    given = torch.arange(100) % 10
    sure = torch.where(torch.arange(100) < 30, 0.02, 0.9) + 0.001 * torch.arange(100) % 0.01
    probabilities = ((1 - sure) / 9)[:, None].repeat(1, 10)
    probabilities[torch.arange(100), given] = sure
    training = TrainingSpec(model="mlp", epochs=1, batch_size=32)
    study, _ = bench._open("tiny", training)
    assert study.test is not None
    test = torch.nn.functional.one_hot(study.test.labels, 10).float()
    empty = torch.empty(0, dtype=torch.int64)
    unit = Unit(0, "all", 1.0, PLAIN, torch.arange(100), empty, 32)
    found = {"probabilities": probabilities, "test": test, "seconds": 0.5}
    assert _measured(study, None, (unit, given), found) == Outcome(1.0, None, 0.3, 0.5)


def made(**rows: Sequence[float]) -> Values:
    """A column "a" with one value for each seed; a second, "b", 0.1 larger."""
    values = Values()
    for row, found in rows.items():
        for seed, value in enumerate(found):
            values.put(row, "a", value, seed)
            values.put(row, "b", value + 0.1 * (1 + seed / 100), seed)
    return values


def test_a_row_is_held_against_all_others() -> None:
    values = made(low=(0.1, 0.11, 0.12), mid=(0.2, 0.21, 0.22), wide=(0.1, 0.3, 0.2))
    assert lowest("low", but=("wide",))(values).holds is True
    assert lowest("low")(values).holds is None and "wide" in lowest("low")(values).because
    lost = lowest("mid")(values)
    assert lost.holds is False and lost.because.startswith("low - mid: -10.0")
    assert highest("mid", among="i", columns=("a",))(made(mid=(0.2, 0.21), wide=(0.1, 0.11), up=(0.9, 0.9))).holds
    assert lowest("low", but=("mid", "wide"))(values).holds is None and lowest("none")(values).holds is None


def test_what_is_said_of_a_row_is_of_the_one_that_decides() -> None:
    values = made(mid=(0.2, 0.21, 0.22), sure=(0.3, 0.31, 0.32), wild=(0.1, 0.9, 0.5))
    lost = highest("mid", columns=("a",))(values)
    assert lost.holds is False and lost.because.startswith("mid - sure: -10.0 points")  # wild is further, and unsure
    lost = lowest("sure", columns=("a",))(values)
    assert lost.holds is False and lost.because.startswith("mid - sure: -10.0 points")
    unsure = highest("sure", columns=("a",))(values)
    assert unsure.holds is None and unsure.because.startswith("sure - wild: -19.0 points (")
    assert all_of(more("sure", "mid"), less("mid", "sure"))(values).holds is True
    both = all_of(more("sure", "mid"), more("wild", "mid"), more("mid", "sure"))(values)
    assert both.holds is False and both.because.startswith("mid - sure")
    assert all_of(more("sure", "mid"), more("wild", "mid"))(values).because.startswith("wild - mid")


def test_a_row_is_held_against_a_number_and_against_itself() -> None:
    values = made(found=(0.91, 0.92, 0.93), few=(0.5, 0.9, 0.95))
    assert at_least("found", 0.85, ("a", "b", "not there"))(values).holds is True
    assert at_least("found", 0.95, ("a", "b"))(values).holds is False
    assert at_least("few", 0.85, ("a",))(values).holds is None and at_least("none", 0.5, ("a",))(values).holds is None
    assert (
        at_most("found", 0.95, ("a",))(values).holds is True
        and at_most("found", 0.9, ("a", "b"))(values).holds is False
    )
    assert at_most("found", 0.9, ("a",))(values).because == "found, a: 92.0 ± 2.5 %; needed: 90 % or less"
    assert larger_at("found", "b", "a")(values).holds is True and larger_at("found", "a", "b")(values).holds is False
    assert larger_at("found", "a", "none")(values).holds is None


def test_findings_of_the_tables_are_read_from_their_rows() -> None:
    values = Values()
    errors = {"Standard": 0.4, "Oracle": 0.1, "AUM": 0.2, "D2L": 0.15, "Random": 0.3, "BMM": 0.12}
    for row, error in errors.items():
        for seed in range(3):
            values.put(row, "0.4", error + 0.001 * seed * (1 + len(row)), seed)
    assert aum._most_gain(values).holds is True
    beaten = aum._beaten(values, "0.4")
    assert beaten.holds is True and beaten.because.startswith("AUM - D2L")
    assert aum._beaten(Values(), "0.4").holds is None and aum._most_gain(Values()).holds is None
    for seed in range(3):
        for column, error in (("0", 0.3), ("0.1", 0.2), ("at the threshold", 0.195)):
            values.put("lowest AUM first", column, error + 0.001 * seed, seed)
    assert aum_figures._best(values, "lowest AUM first").holds is True
    assert aum_figures._best(Values(), "lowest AUM first").holds is None
