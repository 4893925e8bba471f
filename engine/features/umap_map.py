"""A two-dimensional map of the samples: UMAP on the exact neighbors that are there already."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.features.numba_calls import calling_numba

MIN_DIST = 0.1
EPOCHS_SMALL, EPOCHS_LARGE, LARGE = 300, 200, 10_000

LARGEST_FIT = 200_000
"""Samples that a map is fitted on; more are placed into it afterwards."""


def compute_umap(features: Tensor, neighbor_ids: Tensor, similarities: Tensor, seed: int) -> Tensor:
    """UMAP coordinates (McInnes et al. 2018) from precomputed cosine neighbors, starting from the first two
    principal components; the same seed gives the same map.

    Args:    features (N, D), neighbor_ids (N, K) and similarities (N, K) as `compute_neighbors` gives them
    Returns: (N, 2) float32
    """
    with calling_numba():
        from umap.umap_ import find_ab_params, fuzzy_simplicial_set, simplicial_set_embedding

        keep_compiled()
        n, k = neighbor_ids.shape
        ids = np.concatenate([np.arange(n)[:, None], neighbor_ids.cpu().numpy()], 1).astype(np.int32)
        distances = np.concatenate([np.zeros((n, 1)), 1 - similarities.cpu().numpy()], 1).clip(0).astype(np.float32)
        state = np.random.RandomState(seed)
        graph, _, _ = fuzzy_simplicial_set(
            np.empty((n, 1), np.float32), k + 1, state, "cosine", knn_indices=ids, knn_dists=distances
        )
        a, b = find_ab_params(1.0, MIN_DIST)
        coordinates, _ = simplicial_set_embedding(
            np.empty((n, 1), np.float32),
            graph,
            n_components=2,
            initial_alpha=1.0,
            a=a,
            b=b,
            gamma=1.0,
            negative_sample_rate=5,
            n_epochs=EPOCHS_LARGE if n > LARGE else EPOCHS_SMALL,
            init=_principal_components(features, state),
            random_state=state,
            metric="cosine",
            metric_kwds={},
            densmap=False,
            densmap_kwds={},
            output_dens=False,
            parallel=False,
        )
    return torch.from_numpy(np.ascontiguousarray(coordinates, np.float32))


def keep_compiled() -> None:
    """Keep what umap-learn compiles for the processes after this one: it leaves that to memory, 5 seconds of each.

    Numba keeps it beside umap-learn or in the user's cache, by version and processor.
    """
    from umap import layouts, umap_

    # The layout that runs in parallel is made of the same function as the one that does not, under the same name there.
    for function in (
        umap_.smooth_knn_dist,
        umap_.compute_membership_strengths,
        layouts._nb_optimize_layout_euclidean_single_epoch,
    ):
        with suppress(RuntimeError):  # nowhere to keep it
            function.enable_caching()


def compute_large_umap(features: Tensor, k: int, seed: int) -> tuple[Tensor, str]:
    """UMAP of very many samples: fitted on LARGEST_FIT drawn at random, the others placed among them by umap-learn.

    Args:    features (N, D); k: neighbors of a sample
    Returns: (N, 2) float32, and a note that says so
    """
    n = len(features)
    rows = functional.normalize(features.float().cpu(), dim=1)
    fitted = torch.zeros(n, dtype=torch.bool)
    fitted[torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:LARGEST_FIT]] = True
    part = rows[fitted]
    with calling_numba():
        from umap import UMAP

        start = _principal_components(part, np.random.RandomState(seed))
        # Of rows of unit length the nearest by distance are the nearest by cosine.
        fit = UMAP(n_neighbors=k + 1, min_dist=MIN_DIST, init=start, random_state=seed, transform_seed=seed, n_jobs=1)
        places = np.empty((n, 2), np.float32)
        places[fitted.numpy()] = fit.fit_transform(part.numpy())
        places[~fitted.numpy()] = fit.transform(rows[~fitted].numpy())
    note = f"the map is fitted on {LARGEST_FIT:,} of {n:,} samples drawn at random; the others are placed into it"
    return torch.from_numpy(places), note


def _principal_components(features: Tensor, state: np.random.RandomState) -> np.ndarray[Any, Any]:
    """The first two principal components, scaled to a span of 10 as UMAP starts, with a little noise."""
    centered = (features.float() - features.float().mean(0)).cpu()
    covariance = (centered.T @ centered).double()
    axes = torch.linalg.eigh(covariance).eigenvectors[:, -2:].float()
    start = (centered @ axes).numpy()
    if start.shape[1] < 2:
        start = np.concatenate([start, np.zeros((len(start), 2 - start.shape[1]), np.float32)], 1)
    start = 10 * start / max(1e-12, float(np.abs(start).max()))
    return np.asarray(start + state.normal(scale=1e-4, size=start.shape), np.float32)
