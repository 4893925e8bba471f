import pytest
import torch

from engine.errors import ScoreInputError
from engine.neighbors import CHUNK, compute_neighbors, unit_rows


@pytest.mark.parametrize("n, d, k", [(5, 3, 4), (300, 8, 15), (CHUNK * 70 + 3, 16, 15), (1500, 4, 1)])
def test_they_are_those_of_brute_force(n, d, k):
    features = torch.randn(n, d, generator=torch.Generator().manual_seed(n))
    unit = features / features.norm(dim=1, keepdim=True)
    cosine = unit @ unit.T
    cosine.fill_diagonal_(-2)
    expected = cosine.topk(k, dim=1)
    ids, similarities = compute_neighbors(features, k)
    assert torch.equal(ids, expected.indices)
    assert torch.allclose(similarities, expected.values, atol=1e-6)


def test_the_same_call_gives_the_same_bits():
    features = torch.randn(2000, 10, generator=torch.Generator().manual_seed(1))
    first, second = compute_neighbors(features, 10), compute_neighbors(features, 10)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_equal_samples_are_neighbours_but_nobody_is_their_own():
    ids, similarities = compute_neighbors(torch.tensor([[1.0, 0], [2, 0], [0, 1], [0, 3]]), 1)
    assert ids[:, 0].tolist() == [1, 0, 3, 2] and similarities[:, 0].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("k", [0, 4, 9])
def test_more_neighbours_than_others_are_refused(k):
    with pytest.raises(ScoreInputError, match=f"{k} neighbours were asked of 4 samples; allowed: 1 to 3"):
        compute_neighbors(torch.eye(4), k)


def test_a_zero_row_is_named():
    with pytest.raises(ScoreInputError, match="the features of sample 1 have norm 0"):
        unit_rows(torch.tensor([[1.0, 2], [0, 0]]))
