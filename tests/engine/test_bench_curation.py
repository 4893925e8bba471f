"""The benchmark of what a review gains, small: digits in place of photographs."""

from __future__ import annotations

import importlib
import io
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
N, TESTED, FLIP = 200, 60, 0.1


@pytest.fixture(scope="module")
def bench() -> Any:
    """The script as a module, with the folder it stands in on the path as when it is run."""
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("bench_curation")
    sys.path.remove(str(BENCHMARKS))


def parquet(path: Path, first: int, count: int) -> Path:
    """Digits as Hugging Face has images and labels."""
    digits = load_digits()
    rows = []
    for pixels in digits.images[first : first + count]:
        Image.fromarray((pixels * 15).astype(np.uint8)).save(file := io.BytesIO(), "PNG")
        rows.append({"bytes": file.getvalue(), "path": None})
    pq.write_table(pa.table({"img": rows, "label": digits.target[first : first + count]}), path)
    return path


def test_the_whole_way_from_wrong_labels_to_a_proof(bench: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    train = list(bench.write_images(parquet(tmp_path / "train.parquet", 0, N), tmp_path / "train", N, FLIP, rng))
    test = list(bench.write_images(parquet(tmp_path / "test.parquet", N, TESTED), tmp_path / "test", TESTED, 0.0, rng))
    assert sum(label != true for _, label, true, _ in train) == N * FLIP
    assert all(label == true for _, label, true, _ in test)
    options = {"seeds": 2, "model": "mlp", "epochs": 5, "features": "none"}
    said = list(bench.curate(tmp_path, train, test, options))
    reviewed, relabeled = map(int, re.findall(r"\d+", said[0])[::2])
    assert 0 < relabeled <= N * FLIP and relabeled <= reviewed < N, said[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said[3:6]]
    assert [row[0] for row in rows] == ["as given", "the shortlist dropped, unseen", "the shortlist reviewed"]
    kept, wrong = [int(row[1]) for row in rows], [int(row[2]) for row in rows]
    assert kept == [N, N - reviewed, N]
    assert wrong == [N * FLIP, N * FLIP - relabeled, N * FLIP - relabeled]
    assert all(re.fullmatch(r"[\d.]+ % ± [\d.]+", row[4]) for row in rows), rows
    assert said[6].startswith("winnow prove: ") and len(said) == 7
