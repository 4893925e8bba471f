"""`python tests/benchmarks` in its smallest form: the command, its table and what it keeps."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a file of the folder, which is on the path as when the command is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module


def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | environment,
    )


def test_those_named_are_measured_in_one_table(tmp_path: Path) -> None:
    done = run("export", "complexity", "psi", "recorder", "--small", "--json", tmp_path / "deep" / "found.json")
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "deep" / "found.json").read_text())
    assert [row["what"] for row in kept["rows"]] == [
        "training, recorded",
        "recording an epoch",
        *2 * ["complexity gap"],
        "psi-curve",
        *2 * ["export as CSV"],
    ]
    assert kept["machine"][0] in done.stdout and "date: 20" in done.stdout
    for row in kept["rows"]:
        assert len(row["ours"]) == len(row["theirs"]) == 1 and row["ratio"] == row["ours"][0] / row["theirs"][0]
        met = "-" if row["goal"] is None else "met" if row["ratio"] <= row["goal"] else "not met"
        assert row["met"] == met
        assert f"{row['ratio']:.3f}" in done.stdout


def test_what_a_run_finds_is_a_row_of_the_table(tmp_path: Path) -> None:
    done = run("detection", "--small", "--json", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert (row["what"], row["data"], row["met"]) == ("wrong labels found", "digits, 375 samples", "-")
    assert len(row["ours"]) == 1 and row["ours"][0] == row["more"]["processor_seconds"] > 0
    assert 0.5 < row["more"]["ap"] <= 1 and f"30 wrong: average precision {row['more']['ap']:.3f}" in row["note"]
    assert row["note"] in done.stdout


def test_the_dashboard_is_measured_only_when_named_and_says_what_it_needs(tmp_path: Path) -> None:
    assert "none = all but dashboard" in " ".join(run("--help").stdout.split())
    done = run("dashboard", "--small", "--json", tmp_path / "found.json", PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert row["what"] == "dashboard" and "not installed: " in row["note"] and row["ours"] == []


def test_a_time_by_itself_is_held_against_the_most_it_may_take(part: Any) -> None:
    row = part("measuring").Row
    assert row("a", "b", "", ours=(1.0, 2.0, 9.0), most=2).met == "met"
    assert row("a", "b", "", ours=(1.0, 2.1, 9.0), most=2).met == "not met"
    assert row("a", "b", "", most=2).met == row("a", "b", "", ours=(1.0,)).met == "-"


def test_what_is_not_a_benchmark_is_refused() -> None:
    done = run("speed")
    assert done.returncode == 2 and "no benchmark 'speed'; allowed: recorder, neighbors" in done.stderr
    assert run("scale", "--samples", "10,x").returncode == 2
    assert "there is no folder /no/such" in run("detection", "--data", "/no/such").stderr


def test_both_sides_are_warmed_up_and_take_turns(part: Any) -> None:
    measuring, order = part("measuring"), []
    row = measuring.Row("a", "b", "c", 0.5)
    row = measuring.race(row, lambda: order.append("ours"), lambda: order.append("theirs"), 3)
    assert order == ["theirs", "ours", "ours", "theirs"] * 2
    assert len(row.ours) == len(row.theirs) == 3
    slow = measuring.Row("a", "b", "c", 0.5, (1.0, 2.0, 9.0), (2.0, 8.0, 9.0))
    assert slow.ratio == 0.5 and slow.met == "met"  # the median of 0.5, 0.25 and 1


def test_a_peer_that_is_not_there_says_how_to_get_it(part: Any) -> None:
    missing = part("measuring").missing
    assert missing("no_such_package", "such-package") == "not installed: pip install such-package"
    assert missing("numpy") == ""


def test_growth_is_the_exponent(part: Any) -> None:
    growth = part("bench_scale").growth
    assert growth([10, 100, 1000], [1.0, 100.0, 10_000.0]) == pytest.approx(2)
    assert growth([10], [1.0]) is None
