"""The verdict of a run: which run is to be trusted, the words it is told in, and the shortlist behind it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from given_verdicts import JUDGED, TOO_WEAK, give_verdict, scored_run
from typer.testing import CliRunner

import engine
from engine.cli.commands import app
from engine.cli.verdict import verdict_text
from engine.errors import NotFoundError
from engine.queries.connection import best_run, connected, fetch_sql, latest_run
from engine.queries.listing import fetch_facets, fetch_ids
from engine.queries.samples import SUSPICION, Filter, fetch_cards
from engine.queries.verdicts import (
    Verdict,
    fetch_shortlist,
    fetch_suspect,
    fetch_suspicion,
    fetch_verdict,
    fetch_worst,
    likely,
    percent,
)
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.store.workspace import Workspace

VERDICT = Verdict(run_id="abc", judged=3000, listed=243, **{**JUDGED, "noise": 0.081, "noise_low": 0.069})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def judged(judged_workspace: Path):
    with connected(Workspace.open(judged_workspace), "digits-noisy") as connection:
        yield connection, scored_run(judged_workspace, "digits-noisy")


# The words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0812, "8.1 %"), (0.8, "80 %"), (0.0004, "0.04 %"), (1, "100 %"), (0, "0 %"), (0.0996, "10 %")],
)
def test_shares_are_short(share: float, text: str) -> None:
    assert percent(share) == text and percent(share, sign=False) == text.removesuffix(" %")


@pytest.mark.parametrize(("p_wrong", "text"), [(0.874, "87 %"), (0.9996, "> 99 %"), (1.0, "> 99 %"), (0.001, "< 1 %")])
def test_a_probability_is_never_told_as_a_certainty(p_wrong: float, text: str) -> None:
    assert likely(p_wrong) == text


def test_the_verdict_in_words() -> None:
    assert VERDICT.sentences() == [
        "Held-out predictions agree with 87.5 % of the given labels; guessing the largest class: 12.5 %.",
        "About 8.1 % of the labels look wrong (95 % interval: 6.9 to 22 %): 243 of 3,000.",
        "The 243 most suspicious samples are on the shortlist, ranked by aum.",
        JUDGED["reason"],
        JUDGED["advice"],
    ]


def test_networks_that_cannot_tell_say_so_and_name_no_number() -> None:
    told = Verdict(run_id="abc", judged=3000, listed=0, **TOO_WEAK).sentences()  # type: ignore[arg-type]
    assert told[1] == "The networks cannot tell which labels are wrong, so no sample is flagged."
    assert told[-1] == TOO_WEAK["advice"] and not any("look wrong" in sentence for sentence in told)


@pytest.mark.parametrize(
    ("joint", "mixture", "interval", "disagrees"),
    [
        (0.08, 0.10, (0.07, 0.09), False),  # 2 points apart
        (0.08, 0.12, (0.07, 0.09), True),  # 4 points apart, an interval of 2
        (0.08, 0.12, (0.05, 0.15), False),  # an interval of 10
        (None, 0.12, (0.07, 0.09), False),  # there is only one
    ],
)
def test_two_estimates_disagree_when_they_are_further_apart_than_the_interval(
    joint: float | None, mixture: float, interval: tuple[float, float], disagrees: bool
) -> None:
    low, high = interval
    found = replace(VERDICT, noise_joint=joint, noise_mixture=mixture, noise_low=low, noise_high=high)
    assert found.disagrees == disagrees
    assert any("disagree" in sentence for sentence in found.sentences()) == disagrees


def test_the_text_of_a_terminal_has_a_line_a_sample_and_nothing_that_a_terminal_obeys() -> None:
    worst = [
        {"p_wrong": 0.998, "class_name": "cat", "suggested": "dog", "source": "photos/cat/1.png"},
        {"p_wrong": 0.93, "class_name": "x" * 40, "suggested": None, "source": "a\nb\x1b[31m.png"},
    ]
    lines = verdict_text("my set", VERDICT, worst).splitlines()
    assert lines[0] == "Verdict on my set, run abc" and lines[1:6] == [f"  {s}" for s in VERDICT.sentences()]
    assert lines[7].split() == ["wrong", "given", "suggested", "file"]
    assert lines[8].split() == [">", "99", "%", "cat", "dog", "photos/cat/1.png"]
    assert lines[9].split() == ["93", "%", "x" * 27 + "…", r"a\nb\x1b[31m.png"]
    assert "winnow export 'my set' --where flagged --split all --to shortlist.csv" in lines[-1]
    assert "export" not in verdict_text("my set", VERDICT, [])


# The queries -----------------------------------------------------------------------------------------------------


def test_the_verdict_and_the_shortlist_are_what_was_written(judged) -> None:
    connection, run = judged
    found = fetch_verdict(connection, run)
    assert found is not None and found.tells and not found.disagrees
    assert (found.noise, found.noise_low, found.judged, found.listed) == (0.2, 0.18, 1797, 350)
    shortlist = fetch_shortlist(connection, run)
    assert shortlist["rank"].tolist() == list(range(1797)) and shortlist["listed"].sum() == 350
    assert shortlist["p_wrong"].is_monotonic_decreasing
    assert fetch_suspect(connection, run, 1500).to_dict("records")[0]["listed"]
    assert fetch_suspect(connection, run, 9999).empty


def test_the_worst_come_with_their_files_and_the_class_that_is_suggested(judged) -> None:
    connection, run = judged
    worst = fetch_worst(connection, run)
    assert worst["sample_id"].tolist() == fetch_shortlist(connection, run)["sample_id"].tolist()[:10]
    expected = fetch_sql(
        connection,
        f"""SELECT classes.class_name FROM suggestions JOIN classes ON suggested_label = label
        WHERE sample_id = {worst["sample_id"][0]} AND run_id = '{run}' ORDER BY confidence DESC LIMIT 1""",
    )
    assert worst["suggested"][0] == expected["class_name"][0] != worst["class_name"][0]
    assert worst["source"].str.startswith("digits:").all() and worst["p_wrong"][0] == 1


def test_the_histogram_counts_every_sample_once(judged) -> None:
    connection, run = judged
    bins = fetch_suspicion(connection, run, bins=4)
    # p_wrong = 1 - rank / 1796; listed: rank < 350, that is p_wrong > .805
    assert bins["rest"].tolist() == [449, 449, 449, 100] and bins["listed"].tolist() == [0, 0, 0, 350]
    assert bins["left"].tolist() == [0, 0.25, 0.5, 0.75] and bins["right"].tolist()[-1] == 1
    assert fetch_suspicion(connection, "none").empty


def test_samples_of_the_test_part_are_found_by_suspicion_and_come_last_by_a_score(judged) -> None:
    connection, run = judged
    shortlist = fetch_shortlist(connection, run)
    order = shortlist["sample_id"].tolist()
    everything = Filter(split="all")
    assert fetch_ids(connection, run, everything, SUSPICION).tolist() == order
    assert fetch_ids(connection, run, everything, SUSPICION, hardest_first=False).tolist() == order[::-1]
    assert fetch_ids(connection, run, Filter(split="all", flagged=True), SUSPICION).tolist() == order[:350]
    assert fetch_ids(connection, run, Filter(flagged=True), SUSPICION).tolist() == order[:250]
    assert fetch_ids(connection, run, Filter(split="test"), SUSPICION).tolist() == [*range(1438, 1797)]
    between = shortlist.loc[shortlist["p_wrong"].between(0.25, 0.5), "sample_id"].tolist()
    assert fetch_ids(connection, run, Filter(split="all", least=0.25, most=0.5), SUSPICION).tolist() == between
    by_aum = fetch_ids(connection, run, everything, "aum").tolist()
    assert by_aum[:1438] == fetch_ids(connection, run, Filter(), "aum").tolist() and by_aum[1438:] == [
        *range(1438, 1797)
    ]
    facets = fetch_facets(connection, run, Filter(split="all", flagged=True))
    assert (facets["n"].sum(), facets["total"].sum()) == (350, 1797)
    cards = fetch_cards(connection, run, [order[0], 1500, order[-1]])
    assert cards["flagged"].tolist() == [True, True, False] and cards["split"].tolist() == ["train", "test", "train"]
    assert cards["p_wrong"].tolist() == pytest.approx([1, 1 - order.index(1500) / 1796, 0], abs=1e-6)


# The run to trust ------------------------------------------------------------------------------------------------


@pytest.fixture
def two_runs(scored_workspace, small_training) -> tuple[Workspace, str, str]:
    """A workspace with two runs of `small`, the older one and the newer one, both without a verdict of their own."""
    older = scored_run(scored_workspace.root, "small")
    plan = plan_run(scored_workspace, "small", ["confidence"], small_training(lr=3e-3))
    newer, _ = compute(scored_workspace, plan, "cpu")
    for run_id in (older, newer):
        give_verdict(scored_workspace.root, run_id, range(200), 20, JUDGED)
    return scored_workspace, older, newer


def best(workspace: Workspace, **given) -> str | None:
    with connected(workspace, "small") as connection:
        return best_run(connection, **given)


def test_the_run_with_the_highest_accuracy_is_trusted_most_and_the_newest_of_equals(two_runs) -> None:
    workspace, older, newer = two_runs
    assert best(workspace) == newer  # the same accuracy
    give_verdict(workspace.root, older, range(200), 20, {**JUDGED, "accuracy": 0.9})
    assert best(workspace) == older
    assert best(workspace, scores=["confidence"]) == newer and best(workspace, scores=["confidence", "el2n@2"]) is None
    with connected(workspace, "small") as connection:
        assert latest_run(connection, "scores") == newer
    give_verdict(workspace.root, older, range(200), 20, {**JUDGED, "accuracy": None})
    assert best(workspace) == newer
    # An export reads the run whose scores it names.
    dataset = engine.open(workspace.root)["small"]
    give_verdict(workspace.root, older, range(200), 200, {**JUDGED, "accuracy": 0.95})
    to = workspace.root / "kept.csv"
    assert dataset.export(to, "flagged") == (200, 200)
    assert dataset.export(to, "flagged AND confidence >= 0") == (20, 200)


def test_without_a_verdict_the_newest_run_with_scores_is_read(old_workspace: Path) -> None:
    with connected(Workspace.open(old_workspace), "noisy") as connection:
        assert best_run(connection) == latest_run(connection, "scores")
        assert best_run(connection, "verdict") is None


# The command and the API -----------------------------------------------------------------------------------------


def test_the_command_prints_it_again(judged_workspace: Path) -> None:
    words = ["verdict", "digits-noisy", "--workspace", str(judged_workspace)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and "350 most suspicious" in done.stdout and "winnow export digits-noisy" in done.stdout
    assert len([line for line in done.stdout.splitlines() if "digits:" in line]) == 10
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert (told["noise"], told["listed"], len(told["worst"])) == (0.2, 350, 10)


def test_a_run_without_a_verdict_is_one_clear_line(old_workspace: Path, tmp_path: Path) -> None:
    root = tmp_path / "old"
    shutil.copytree(old_workspace, root)
    done = CliRunner().invoke(app, ["verdict", "noisy", "--workspace", str(root)])
    assert isinstance(done.exception, NotFoundError)
    assert "has no verdict" in str(done.exception) and "winnow run noisy" in str(done.exception)
    run = engine.open(root).find_run(flagging_run(root))
    with pytest.raises(engine.NotFoundError, match="has no verdict"):
        run.verdict()
    with pytest.raises(engine.NotFoundError, match="has no verdict"):
        run.shortlist()
    flags = run.flags()
    assert flags["flagged"].isna().all() and flags["flagged"].dtype == "boolean" and flags[flags["flagged"]].empty
    assert flags["flagged_aum_threshold"].sum() > 0


def flagging_run(root: Path) -> str:
    with connected(Workspace.open(root), "noisy") as connection:
        return str(
            connection.execute("SELECT run_id FROM flags WHERE rule = 'aum_threshold' AND flagged").fetchall()[0][0]
        )


def test_a_run_gives_its_verdict_and_its_shortlist(judged_workspace: Path) -> None:
    run = engine.open(judged_workspace).find_run(scored_run(judged_workspace, "digits-noisy"))
    assert run.verdict().noise == 0.2 and run.verdict().listed == 350
    shortlist, flags = run.shortlist(), run.flags()
    assert list(shortlist) == ["sample_id", "rank", "p_wrong", "listed"] and len(shortlist) == len(flags) == 1797
    assert flags["flagged"].dtype == bool
    assert set(flags.loc[flags["flagged"], "sample_id"]) == set(shortlist.loc[shortlist["listed"], "sample_id"])
    assert not flags.loc[flags["sample_id"] >= 1438, "flagged_aum_threshold"].any()
