"""`winnow reproduce`: values and their intervals, findings, parts that are found again, and the report."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch
from scipy import stats
from typer.testing import CliRunner

from engine.cli.commands import app
from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import BusyError, SpecError, WinnowError
from engine.reproduce.bench import Bench, Job
from engine.reproduce.declared import all_papers, parse_published, parts_of
from engine.reproduce.report import published_for, write_reproduction
from engine.reproduce.reproducing import reproduce
from engine.reproduce.size import Size
from engine.reproduce.values import Values, less, more
from engine.store.journal import append_journal, read_journal
from engine.store.workspace import Workspace, exclusive

TINY = Size("", {"model": "mlp", "epochs": 2, "batch_size": 32}, 2, (0.3,))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    at = Workspace.open(tmp_path_factory.mktemp("reproduce") / "workspace", create=True)
    ingest(at, IngestSpec(name="digits", source="digits", limit=150))
    return at


def bench_on(workspace: Workspace, dataset: str = "digits") -> Bench:
    folder = workspace.reproduced_dir("by-hand")
    folder.mkdir(parents=True, exist_ok=True)
    return Bench(workspace, dataset, TINY, True, folder, "cpu", "", lambda stage, share, left: None)


def test_a_cell_is_the_mean_with_half_of_students_interval() -> None:
    values = Values()
    for seed, value in enumerate((0.50, 0.60, 0.55)):
        values.put("AUM", "20 %", value, seed)
    values.put("AUM", "40 %", 0.7)
    half = stats.sem([0.50, 0.60, 0.55]) * stats.t.ppf(0.975, 2)
    assert values.mean("AUM", "20 %") == pytest.approx(0.55)
    assert values.half("AUM", "20 %") == pytest.approx(half)
    assert values.shown("AUM", "20 %") == f"55.0 ± {100 * half:.1f}"
    assert values.shown("AUM", "40 %") == "70.0"  # one seed has no interval
    assert values.shown("AUM", "60 %") == "" and math.isnan(values.mean("AUM", "60 %"))


def test_a_difference_is_paired_by_seed_and_averaged_over_the_columns_that_both_rows_have() -> None:
    values = Values()
    for seed in range(3):
        values.put("first", "a", 0.9 + 0.01 * seed, seed)
        values.put("second", "a", 0.8 + 0.01 * seed, seed)
        values.put("first", "b", 0.5, seed)
        values.put("second", "b", 0.3, seed)
        values.put("first", "only here", 0.0, seed)
    assert values.differences("first", "second") == pytest.approx([0.15] * 3)
    assert values.differences("first", "second", ["a"]) == pytest.approx([0.1] * 3)
    assert values.differences("first", "third") == []


@pytest.mark.parametrize(
    ("differences", "held"), [((0.1, 0.11, 0.12), True), ((-0.1, -0.11, -0.12), False), ((-0.1, 0.1, 0.2), None)]
)
def test_a_finding_holds_where_the_interval_is_on_its_side(differences: tuple[float, ...], held: bool | None) -> None:
    values = Values()
    for seed, difference in enumerate(differences):
        values.put("first", "a", 0.5 + difference, seed)
        values.put("second", "a", 0.5, seed)
    assert more("first", "second")(values).holds is held
    assert less("first", "second")(values).holds is (None if held is None else not held)
    assert more("first", "second", by=-0.5)(values).holds  # allowed to be as much as half smaller
    assert more("first", "third")(values).because == "first or third was not computed"


def test_one_seed_decides_nothing() -> None:
    values = Values()
    values.put("first", "a", 0.9)
    values.put("second", "a", 0.1)
    held = more("first", "second")(values)
    assert held.holds is None and held.because.endswith("one seed")


def test_a_published_table_needs_a_value_for_every_column() -> None:
    assert parse_published("  a b    c\nx y   1 ± 2    -\n") == {("x y", "a b"): "1 ± 2"}
    with pytest.raises(TypeError, match="row x of a published table has 1 values for 2 columns"):
        parse_published("a    b\nx    1\n")


def test_every_paper_has_tables_whose_published_rows_and_findings_can_be_read() -> None:
    assert set(all_papers()) >= {"prune"}
    for name, paper in all_papers().items():
        parts = parts_of(name)
        assert parts and set(paper.sizes) == {"small", "paper"}
        for part in parts:
            assert not part.title.endswith(".") and part.unit
            for _, check in ((finding.sentence, finding.check) for finding in part.findings):
                assert check(Values()).holds is not True  # of nothing, nothing holds
            if part.published:
                first = next(iter(part.published))
                assert published_for(part, "a set of my own")[0] == first
                assert published_for(part, first.lower().replace("-", "") + "-noisy")[0] == first


def test_networks_are_trained_once_and_tested_by_their_true_labels(workspace: Workspace) -> None:
    bench = bench_on(workspace)
    noisy = bench.noisy("symmetric:0.3")
    assert noisy == "digits-symmetric-0.3" and bench.noisy("symmetric:0.3") == noisy and bench.noisy("") == "digits"
    samples = bench.samples(noisy)
    assert samples.true_labels is not None
    training = bench.training_of(bench.run(noisy, "el2n", embedding="none", neighbors=0))
    right = (samples.labels == samples.true_labels).nonzero()[:, 0]
    jobs = [Job(0), Job(1), Job(0, kept=right, what="the right ones"), Job(0, labels=samples.true_labels)]
    first = bench.train(noisy, training, jobs)
    trained = [event["key"] for event in read_journal(bench.folder) if event["event"] == "trained"]
    assert len(set(trained)) == 4 and all(0 <= outcome.accuracy <= 1 for outcome in first)
    assert bench.train(noisy, training, jobs[::-1]) == first[::-1]
    assert [event["key"] for event in read_journal(bench.folder) if event["event"] == "trained"] == trained
    with pytest.raises(SpecError, match="the empty one leaves 0 of 150 samples"):
        bench.train(noisy, training, [Job(0, kept=torch.empty(0, dtype=torch.int64), what="the empty one")])


def test_a_paper_is_reproduced_and_found_again(workspace: Workspace) -> None:
    seen: list[int] = []
    options = {"dataset": "digits", "seeds": 1, "device": "cpu"}
    first = reproduce(workspace, "prune", **options, after=lambda found: seen.append(len(found.parts)))
    assert seen == [1, 2, 3, 4] and [done.problem for done in first.parts] == [""] * 4
    sizes, clean, noisy, ranks = first.parts
    assert sizes.values.of("digits (mlp)", "training") == {0: 150.0} and sizes.values.of("digits (mlp)", "r") == {
        0: 15.0
    }
    assert clean.values.rows == ["el2n", "el2n*", "forgetting", "forgetting*", "random"]
    assert noisy.values.columns == [f"{i / 10:g} pruned" for i in range(10)]
    assert len({noisy.values.mean(row, "0 pruned") for row in noisy.values.rows}) == 1  # one network for all orders
    assert -1 <= ranks.values.mean("el2n", "correlation of clean samples") <= 1
    runs = set(workspace.run_ids())
    again = reproduce(workspace, "prune", **options)
    assert set(workspace.run_ids()) == runs
    for one, other in zip(first.parts, again.parts, strict=True):
        assert one.findings() == other.findings() and one.runs == other.runs
    page = write_reproduction(again).read_text(encoding="utf-8")
    assert "Figure 2" in page and noisy.values.shown("el2n*", "0.5 pruned") in page and "<script" not in page
    with open(again.folder / "values.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(
        1 for p in again.parts for r in p.values.rows for c in p.values.columns for _ in p.values.of(r, c)
    )
    assert {row["published"] for row in rows if row["part"] == "figure-2"} == {""}


@pytest.mark.parametrize("cells", [[[1]], [7], [["a", "b", "0", 1.0]], [[["a"], "b", 0, 1.0]], [["a", "b", 0, None]]])
def test_what_no_version_wrote_is_computed_again(workspace: Workspace, cells: object) -> None:
    options = {"dataset": "digits", "only": "table-1", "seeds": 1, "device": "cpu"}
    first = reproduce(workspace, "prune", **options)
    written = next(e for e in reversed(read_journal(first.folder)) if e["event"] == "part")
    append_journal(first.folder, "part", part="table-1", key=written["key"], cells=cells, runs=[], seconds=1.0)
    assert reproduce(workspace, "prune", **options).parts[0].values.rows == first.parts[0].values.rows


def test_what_a_part_cannot_be_computed_for_is_said_and_the_others_are_computed(workspace: Workspace) -> None:
    ingest(workspace, IngestSpec(name="untested", source="digits", limit=60, test_fraction=0.0))
    found = reproduce(workspace, "prune", dataset="untested", only="table-1,figure-1", seeds=1, device="cpu")
    assert found.parts[0].problem == "" and "test" in found.parts[1].problem
    page = write_reproduction(found).read_text(encoding="utf-8")
    assert "Not computed: " in page
    again = reproduce(workspace, "prune", dataset="untested", only="figure-1", seeds=1, device="cpu")
    assert again.parts[0].problem == found.parts[1].problem  # tried again: it may have been the disk
    words = ["reproduce", "prune", "--dataset", "untested", "--only", "figure-1", "--seeds", "1"]
    done = CliRunner().invoke(app, [*words, "--workspace", str(workspace.root)])
    assert done.exit_code == 2 and "where" not in done.stdout  # nothing was computed: no table of findings


def test_two_at_once_do_not_compute_the_same(workspace: Workspace) -> None:
    folder = workspace.reproduced_dir("prune-small-digits")
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / ".lock", "busy"), pytest.raises(BusyError, match="prune on 'digits' is being reproduced"):
        reproduce(workspace, "prune", dataset="digits", only="table-1", seeds=1, device="cpu")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["prone"], "unknown paper 'prone'; did you mean 'prune'"),
        (["prune", "--only", "table-7"], "unknown part of prune 'table-7'"),
        (["prune", "--size", "huge"], "--size is 'huge'; allowed: small, paper"),
        (["prune", "--size", "paper"], "no data that ships with Winnow; ingest its dataset"),
        (["prune", "--seeds", "0"], "--seeds is 0; allowed: 1 to 1000"),
        (["all", "--only", "table-3"], "unknown part of prune 'table-3'"),  # though others have one
        (["prune", "--only", ","], "--only is ','; allowed: table-1, figure-1"),
        (["prune", "--device", "tpu"], "--device is 'tpu'; allowed: auto, cpu, cuda"),
        (["prune", "--cluster", "rye"], "--cluster is 'rye'; allowed: ray"),
        (["prune", "--dataset", "digit"], "unknown dataset 'digit'; did you mean 'digits'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(workspace: Workspace, words: list[str], line: str) -> None:
    before = sorted(Path(workspace.root, "reproduced").glob("*"))
    result = CliRunner().invoke(app, ["reproduce", *words, "--workspace", str(workspace.root)])
    assert isinstance(result.exception, WinnowError) and line in str(result.exception)
    assert sorted(Path(workspace.root, "reproduced").glob("*")) == before


def test_the_command_prints_findings_and_where_the_report_is(workspace: Workspace) -> None:
    words = ["reproduce", "prune", "--dataset", "digits", "--only", "table-1,figure-3", "--seeds", "1", "--json"]
    result = CliRunner().invoke(app, [*words, "--workspace", str(workspace.root)], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert found["problems"] == {} and {row["where"] for row in found["findings"]} == {"figure-3"}
    assert {row["here"] for row in found["findings"]} <= {"holds", "does not hold", "undecided"}
    assert Path(found["reports"][0]).is_file()
