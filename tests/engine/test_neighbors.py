import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional

from engine.errors import ScoreInputError
from engine.features import neighbors, tiles
from engine.features.neighbors import (
    checked_rows,
    compute_neighbors,
    merge_blocks,
    no_neighbors,
    search_among,
    search_rows,
)
from engine.features.umap_map import compute_umap


@pytest.mark.parametrize(("n", "k"), [(50, 5), (700, 7), (3000, 15)])
def test_neighbors_equal_brute_force(n, k):
    features = torch.randn(n, 24, generator=torch.Generator().manual_seed(n))
    ids, similarities = compute_neighbors(features, k)
    search = NearestNeighbors(n_neighbors=k + 1, metric="cosine", algorithm="brute").fit(features)
    distances, expected = search.kneighbors(features)
    np.testing.assert_array_equal(ids, expected[:, 1:])
    np.testing.assert_allclose(similarities, 1 - distances[:, 1:], atol=1e-5)


def brute_force(features, k):
    similarities = functional.normalize(features.double(), dim=1)
    similarities = similarities @ similarities.T
    similarities.fill_diagonal_(-torch.inf)
    best = similarities.topk(k, dim=1)
    return best.indices, best.values


@pytest.mark.parametrize(("n", "k", "tile"), [(500, 5, 96), (500, 90, 64), (333, 7, 32), (333, 7, 50), (70, 69, 32)])
def test_tiles_do_not_change_the_neighbors(monkeypatch, n, k, tile):
    """Tiles that divide the samples and do not, runs that divide a tile and do not, few and many neighbors."""
    monkeypatch.setattr(tiles, "TILE", tile)
    features = torch.randn(n, 8, generator=torch.Generator().manual_seed(1))
    seen = []
    ids, similarities = compute_neighbors(features, k, lambda done, total: seen.append(done / total))
    expected, cosines = brute_force(features, k)
    assert torch.equal(ids, expected)
    torch.testing.assert_close(similarities.double(), cosines, atol=1e-6, rtol=0)
    assert seen == sorted(seen) and seen[-1] == 1


def test_ranges_of_samples_have_the_bits_of_a_search_among_all(monkeypatch):
    """What the machines of a cluster find is what one finds; copies are as near as it gets, many times over."""
    monkeypatch.setattr(tiles, "TILE", 64)
    features = torch.randn(400, 16, generator=torch.Generator().manual_seed(1))
    features[200:300] = features[:100]
    unit = checked_rows(features, 6)
    whole = search_rows(unit, 6, 0, 400)
    parts = [search_rows(unit, 6, first, last) for first, last in ((0, 128), (128, 192), (192, 400))]
    for one, other in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(one, torch.cat(other))
    found = no_neighbors(128, 6, unit)
    for begin, end in ((0, 128), (128, 320), (320, 400)):
        found = search_among(unit[128:256], 128, unit[begin:end], begin, *found)
    for one, other in zip(whole, found, strict=True):
        assert torch.equal(one[128:256], other.clamp(-1, 1) if other.is_floating_point() else other)


@pytest.mark.parametrize("ends", [(400,), (150, 400), (5, 37, 390, 400)])
def test_blocks_of_a_gpu_find_the_same_in_ranges_of_columns(monkeypatch, ends):
    """Here on a processor; the ranges are wider and narrower than the neighbors that are wanted."""
    monkeypatch.setattr(neighbors, "block_rows", lambda columns: 90)
    unit = checked_rows(torch.randn(400, 16, generator=torch.Generator().manual_seed(1)), 12)
    expected = search_rows(unit, 12, 0, 400)
    ids, similarities = no_neighbors(250, 12, unit)
    for begin, end in zip((0, *ends), ends, strict=False):
        merge_blocks(unit[100:350], 100, unit[begin:end], begin, ids, similarities, lambda done, total: None)
    assert torch.equal(ids, expected[0][100:350])
    torch.testing.assert_close(similarities, expected[1][100:350])


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
    from umap import umap_  # after what keeps its warnings to itself

    kept = umap_.smooth_knn_dist.stats  # what was compiled was read from a file, or written to one
    assert sum((kept.cache_hits + kept.cache_misses).values()) == 1
