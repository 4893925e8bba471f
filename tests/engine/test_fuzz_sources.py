"""Mutated files and odd texts, many of them, the same ones every time: each is read or refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KINDS = ("images", "parquet", "csv", "idx", "features", "texts")
SHORT = {"images": 150, "parquet": 50, "csv": 40, "idx": 40, "features": 100, "texts": 150}
LONG = {"images": 2500, "parquet": 2000, "csv": 2000, "idx": 2000, "features": 3000, "texts": 6000}


def read_mutated(kind: str, seed: int, count: int, folder: Path) -> dict[str, Any]:
    """What a process with 3 GB makes of `count` mutated ones; it must not print, nor touch what is beside its folder."""
    beside = folder / "beside"
    (beside / "kept.txt").parent.mkdir()
    (beside / "kept.txt").write_text("kept")
    before = {path: path.stat().st_mtime_ns for path in (beside, beside / "kept.txt")}
    (own := folder / "own").mkdir()
    script = Path(__file__).parents[1] / "mutated.py"
    command = [sys.executable, "-W", "error", str(script), kind, str(seed), str(count), str(own)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert (ended.returncode, ended.stderr[-3000:]) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sorted(path.name for path in folder.iterdir()) == ["beside", "own"]
    assert sorted(path.name for path in own.iterdir()) == ["given", "workspace"]
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_some_mutated_ones_are_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    found = read_mutated(kind, 0, SHORT[kind], tmp_path)
    assert found["bad"] == []
    if kind != "images":
        assert sum(found["counted"].values()) == SHORT[kind]
    elif kind == "images":
        assert found["counted"]["image"] > 20 and found["counted"]["bad sample"] > 20  # both ways are taken


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutated_ones_are_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    found = read_mutated(kind, 1, LONG[kind], tmp_path)
    print(kind, found)
    assert found["bad"] == []
    assert sum(found["counted"].values()) >= LONG[kind]
