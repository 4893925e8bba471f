"""Files of features that a person brings: matched to the samples, and refused in one line where they do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from engine.errors import SourceError
from engine.features.own_file import is_own_file, own_file, read_rows

PLACES = ["/photos/a.jpg", "/photos/b.jpg", "/photos/sub/c.jpg", "/photos/d.jpg"]
TRAIN = 3
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3) / 7


def read(path: Path) -> np.ndarray:
    return read_rows(path, PLACES, TRAIN)


def test_rows_without_a_column_are_in_the_order_of_the_samples(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS.astype(np.float64))
    np.savez(tmp_path / "rows.npz", X=ROWS, y=np.arange(4))
    save_file({"features": torch.from_numpy(ROWS).bfloat16()}, tmp_path / "rows.safetensors")
    pd.DataFrame(ROWS, columns=["f0", "f1", "f2"]).assign(label=1).to_parquet(tmp_path / "rows.parquet")
    for name in ("rows.npy", "rows.npz", "rows.parquet"):
        found = read(tmp_path / name)
        assert found.dtype == np.float32 and np.array_equal(found, ROWS)
    assert np.allclose(read(tmp_path / "rows.safetensors"), ROWS, rtol=1e-2)
    np.save(tmp_path / "train.npy", ROWS[:TRAIN])
    assert np.array_equal(read(tmp_path / "train.npy"), ROWS[:TRAIN])


@pytest.mark.parametrize("order", [[3, 1, 0, 2], [2, 0, 1]])
def test_rows_are_matched_by_path_or_by_id(tmp_path, order):
    rows, wanted = ROWS[order], ROWS[: len(order)]
    paths = [PLACES[i] for i in order]
    np.savez(tmp_path / "paths.npz", features=rows, path=np.array(paths))
    np.savez(tmp_path / "ids.npz", features=rows, sample_id=np.array(order))
    save_file({"features": torch.from_numpy(rows), "id": torch.tensor(order)}, tmp_path / "ids.safetensors")
    lists = pa.array(rows.tolist(), pa.list_(pa.float32()))
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 3)
    pq.write_table(pa.table({"path": paths, "embedding": lists}), tmp_path / "lists.parquet")
    pq.write_table(pa.table({"sample_id": order, "vector": fixed}), tmp_path / "fixed.parquet")
    for name in ("paths.npz", "ids.npz", "ids.safetensors", "lists.parquet", "fixed.parquet"):
        assert np.array_equal(read(tmp_path / name), wanted), name


def test_paths_may_be_relative_to_the_file_and_rows_may_be_left_over(tmp_path):
    places = [str(tmp_path / "photos" / name) for name in ("a.jpg", "b.jpg")]
    frame = pd.DataFrame({"path": ["photos/b.jpg", "photos/other.jpg", "photos/a.jpg"], "f": [2.0, 3.0, 1.0]})
    frame.to_parquet(tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.parquet", places, 2).tolist() == [[1], [2]]


def test_what_does_not_fit_is_named_in_one_line(tmp_path):
    def problem(write, suffix: str) -> str:
        path = tmp_path / f"rows{suffix}"
        write(path)
        with pytest.raises(SourceError) as caught:
            read(path)
        text = str(caught.value)
        assert "\n" not in text and text.startswith(str(path))
        return text

    def array(rows):
        return lambda path: np.save(path, rows, allow_pickle=True)

    assert "has 5 rows; allowed: 4, the training samples and then the test" in problem(array(np.ones((5, 2))), ".npy")
    assert "shape (4, 0); allowed: one row of numbers" in problem(array(np.ones((4, 0))), ".npy")
    assert "shape (4,); allowed" in problem(array(np.ones(4)), ".npy")
    assert "complex128 numbers" in problem(array(np.ones((4, 2), complex)), ".npy")
    assert "holds pickled objects" in problem(array(np.array([[{}], [{}]], object)), ".npy")
    bad = ROWS.copy()
    bad[2, 1] = np.nan
    assert "row 2: a number that is not finite, in 1 of 4 rows" in problem(array(bad), ".npy")
    assert "row 0: a number that is not finite" in problem(array(np.full((4, 2), 1e300)), ".npy")
    assert "cannot be read as features" in problem(lambda path: path.write_bytes(b"\x93NUMPY" + b"x" * 50), ".npy")
    assert "cannot be read as features" in problem(lambda path: path.write_bytes(b""), ".npz")
    assert "cannot be read as features" in problem(lambda path: path.write_bytes(b"\xff" * 100), ".safetensors")
    assert "cannot be read as features" in problem(lambda path: path.write_bytes(b"PAR1"), ".parquet")

    def arrays(**named):
        return lambda path: np.savez(path, **named)

    assert "holds a (4, 3), b (4, 3); allowed: one table" in problem(arrays(a=ROWS, b=ROWS), ".npz")
    assert "4 rows, but (3,) paths or ids" in problem(arrays(X=ROWS, id=np.arange(3)), ".npz")
    assert "a sample id is there a second time" in problem(arrays(X=ROWS, id=np.zeros(4, int)), ".npz")
    assert "the sample ids are float64" in problem(arrays(X=ROWS, id=np.arange(4.0)), ".npz")
    assert "no row for 1 of 4 samples, such as sample 1" in problem(arrays(X=ROWS[:3], id=np.array([0, 2, 3])), ".npz")
    text = problem(arrays(X=ROWS, path=np.array(["/x/a.jpg", "b", "c", "d"])), ".npz")
    assert "no row for 3 of 4 samples, such as /photos/a.jpg; its paths are like /x/a.jpg" in text
    twice = np.array([PLACES[0], PLACES[0], *PLACES[1:3]])
    assert "row 1: /photos/a.jpg is there a second time" in problem(arrays(X=ROWS, path=twice), ".npz")

    def table(**columns):
        return lambda path: pq.write_table(pa.table(columns), path)

    assert "has rows of 1 and of 2 numbers" in problem(table(features=[[1.0], [1.0, 2.0], [1.0], [1.0]]), ".parquet")
    assert "is empty in 1 rows" in problem(table(features=[[1.0], None, [1.0], [1.0]]), ".parquet")
    assert "has the columns label; allowed: one column of lists" in problem(table(label=[1, 2, 3, 4]), ".parquet")
    assert "a path is empty" in problem(table(path=["a", None, "c", "d"], f=[1.0] * 4), ".parquet")


def test_a_file_is_not_taken_for_a_backbone(tmp_path):
    assert is_own_file("features.NPY") and is_own_file("a/b.parquet")
    assert not is_own_file("torchvision:resnet18:weights.safetensors") and not is_own_file("efficientnet_lite0")
    with pytest.raises(SourceError, match="there is no .*absent.npy"):
        own_file(str(tmp_path / "absent.npy"))
