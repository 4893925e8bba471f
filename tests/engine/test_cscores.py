"""Published C-scores are taken only for the very samples they are of."""

import numpy as np
import pytest

from engine.data.cscores import read_cscores
from engine.errors import SourceError

LABELS = np.array([3, 1, 2])


def test_scores_are_read_in_order(tmp_path):
    np.savez(tmp_path / "c.npz", scores=np.array([0.5, 1.0, 0.25]), labels=LABELS)
    assert read_cscores(tmp_path / "c.npz", LABELS).tolist() == [0.5, 1.0, 0.25]


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"other": np.zeros(3)}, "has no array 'scores'"),
        ({"scores": np.zeros(4)}, "has 4 scores; the dataset has 3 training samples"),
        ({"scores": np.array([0, 1.5, 0])}, "the score of sample 1 is 1.5; allowed: 0 to 1"),
        ({"scores": np.array([0, np.nan, 0])}, "the score of sample 1 is nan"),
        ({"scores": np.zeros(3), "labels": np.array([3, 2, 1])}, "the label of sample 1 differs .* as do 1 others"),
        ({"scores": np.array([{}, 1, 2], dtype=object)}, "is no .npz file of numbers"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(SourceError, match=message):
        read_cscores(tmp_path / "c.npz", LABELS)


def test_no_file_and_no_archive(tmp_path):
    with pytest.raises(SourceError, match="no file"):
        read_cscores(tmp_path / "c.npz", LABELS)
    (tmp_path / "c.npz").write_bytes(b"text")
    with pytest.raises(SourceError, match="is no .npz file of numbers"):
        read_cscores(tmp_path / "c.npz", LABELS)
