import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from engine.errors import ScoreInputError
from engine.features import neighbors
from engine.features.neighbors import compute_neighbors
from engine.features.umap_map import compute_umap


@pytest.mark.parametrize(("n", "k"), [(50, 5), (700, 7), (3000, 15)])
def test_neighbors_equal_brute_force(n, k):
    features = torch.randn(n, 24, generator=torch.Generator().manual_seed(n))
    ids, similarities = compute_neighbors(features, k)
    search = NearestNeighbors(n_neighbors=k + 1, metric="cosine", algorithm="brute").fit(features)
    distances, expected = search.kneighbors(features)
    np.testing.assert_array_equal(ids, expected[:, 1:])
    np.testing.assert_allclose(similarities, 1 - distances[:, 1:], atol=1e-5)


def test_blocks_do_not_change_the_neighbors(monkeypatch):
    features = torch.randn(500, 8, generator=torch.Generator().manual_seed(1))
    whole, _ = compute_neighbors(features, 5)
    monkeypatch.setattr(neighbors, "BLOCK_VALUES", 500 * 7)
    seen = []
    blocked, _ = compute_neighbors(features, 5, lambda done, total: seen.append(done))
    assert torch.equal(whole, blocked) and seen[-1] == 500 and len(seen) == 72


def test_the_same_call_gives_the_same_bits():
    features = torch.randn(2000, 10, generator=torch.Generator().manual_seed(1))
    first, second = compute_neighbors(features, 10), compute_neighbors(features, 10)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_a_sample_is_not_its_own_neighbor_but_its_copy_is():
    features = torch.randn(40, 6, generator=torch.Generator().manual_seed(2))
    features[7] = features[3]
    ids, similarities = compute_neighbors(features, 3)
    assert not (ids == torch.arange(40)[:, None]).any()
    assert ids[3, 0] == 7 and ids[7, 0] == 3 and similarities[3, 0] == pytest.approx(1.0)
    assert similarities.max() <= 1


@pytest.mark.parametrize("k", [0, 10, 11])
def test_too_many_neighbors_are_refused(k):
    with pytest.raises(ScoreInputError, match="allowed: 1 to 9"):
        compute_neighbors(torch.randn(10, 3), k)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_features_without_a_direction_name_the_sample(value):
    features = torch.ones(10, 3)
    features[4] = value
    with pytest.raises(ScoreInputError, match="features of sample 4"):
        compute_neighbors(features, 2)


def test_the_map_is_seeded_and_keeps_clusters_apart():
    generator = torch.Generator().manual_seed(0)
    centers = 10 * torch.eye(3, 16)
    groups = torch.arange(3).repeat_interleave(60)
    features = centers[groups] + torch.randn(180, 16, generator=generator)
    ids, similarities = compute_neighbors(features, 10)
    first, again = (compute_umap(features, ids, similarities, seed=5) for _ in range(2))
    assert first.shape == (180, 2) and torch.equal(first, again) and bool(torch.isfinite(first).all())
    nearest = torch.cdist(first, first).topk(6, largest=False).indices[:, 1:]
    assert float((groups[nearest] == groups[:, None]).float().mean()) > 0.95
