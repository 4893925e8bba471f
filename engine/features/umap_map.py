"""A two-dimensional map of the samples: UMAP on the exact neighbors that are there already."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

MIN_DIST = 0.1
EPOCHS_SMALL, EPOCHS_LARGE, LARGE = 300, 200, 10_000


def compute_umap(features: Tensor, neighbor_ids: Tensor, similarities: Tensor, seed: int) -> Tensor:
    """UMAP coordinates (McInnes et al. 2018) from precomputed cosine neighbors, starting from the first two
    principal components; the same seed gives the same map.

    Args:    features (N, D), neighbor_ids (N, K) and similarities (N, K) as `compute_neighbors` gives them
    Returns: (N, 2) float32
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba and its dependencies warn about themselves while importing
        from umap.umap_ import find_ab_params, fuzzy_simplicial_set, simplicial_set_embedding

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
