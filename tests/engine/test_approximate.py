"""Neighbors and maps of very many samples: what is found of the true ones, and that a run says so."""

import numpy as np
import pytest
import torch

from engine.errors import SpecError
from engine.features import approximate, umap_map
from engine.features.approximate import exact_rows, nearest_of, search_all
from engine.features.neighbors import checked_rows, search_rows
from engine.runs.inputs import nearest


def clustered(n=1500, width=24):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(30, width, generator=generator)[torch.arange(n) % 30] * 2 + torch.randn(
        n, width, generator=generator
    )


def test_most_of_the_true_neighbors_are_found_and_counted(monkeypatch):
    features = clustered()
    features[700:760] = features[:60]  # copies, which are as near as it gets
    unit = checked_rows(features, 10)
    true, cosines = search_rows(unit, 10, 0, len(unit))
    assert search_all(unit, 10)[2] == ""  # few samples are searched exactly
    monkeypatch.setattr(approximate, "LARGEST_EXACT", 1000)
    threads = torch.get_num_threads()
    ids, similarities, note = search_all(unit, 10)
    assert torch.get_num_threads() == threads
    assert "1,500 samples are approximate" in note and "fewer than" not in note
    found = np.mean([len(set(a.tolist()) & set(b.tolist())) / 10 for a, b in zip(ids, true, strict=True)])
    assert found >= 0.95
    assert not (ids == torch.arange(1500)[:, None]).any() and all(len(set(row.tolist())) == 10 for row in ids)
    assert bool((similarities.diff(dim=1) <= 0).all()) and bool((similarities <= cosines + 1e-6).all())
    said = float(note.partition("found ")[2].partition(" %")[0])
    assert said == pytest.approx(100 * found, abs=1.5)


def test_a_recall_below_the_goal_is_said(monkeypatch):
    monkeypatch.setattr(approximate, "LARGEST_EXACT", 100)
    monkeypatch.setattr(approximate, "RECALL", 1.01)  # no search reaches it
    assert "fewer than the 101 % that are aimed at" in search_all(checked_rows(clustered(300), 5), 5)[2]


def test_samples_with_too_few_candidates_are_searched_for_exactly():
    unit = checked_rows(clustered(200), 4)
    true, cosines = search_rows(unit, 4, 0, 200)
    candidates = torch.cat([torch.arange(200)[:, None], true], 1).int()  # each itself in front, as NN-descent gives it
    candidates[17, 2:] = -1
    ids, similarities = nearest_of(unit, candidates, 4)
    assert torch.equal(ids, true)
    torch.testing.assert_close(similarities, cosines)
    assert torch.equal(exact_rows(unit, torch.tensor([3, 150]), 4)[0], true[[3, 150]])


def test_what_does_not_fit_in_memory_says_what_would(monkeypatch):
    monkeypatch.setattr(nearest, "available_bytes", lambda device: 8 * 2**30)
    nearest.check_memory(1_000_000, 512, 15)  # 3.5 GB
    with pytest.raises(SpecError, match=r"need 35\.5 GB; 8\.6 GB are free, enough for 2,4\d\d,\d{3} samples"):
        nearest.check_memory(10_000_000, 512, 15)


def test_a_large_map_places_the_rest_among_what_it_was_fitted_on(monkeypatch):
    monkeypatch.setattr(umap_map, "LARGEST_FIT", 120)
    groups = torch.arange(3).repeat_interleave(80)
    features = 10 * torch.eye(3, 16)[groups] + torch.randn(240, 16, generator=torch.Generator().manual_seed(0))
    places, note = umap_map.compute_large_umap(features, 10, seed=5)
    assert "fitted on 120 of 240" in note
    assert places.shape == (240, 2) and bool(torch.isfinite(places).all())
    nearest = torch.cdist(places, places).topk(6, largest=False).indices[:, 1:]
    assert float((groups[nearest] == groups[:, None]).float().mean()) > 0.95
