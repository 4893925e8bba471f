"""The map: UMAP on neighbors that are there already, against umap-learn by itself with the same settings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from measuring import Row, Size, race

from engine.features.neighbors import compute_neighbors
from engine.features.umap_map import MIN_DIST, compute_umap

K = 15


def rows(size: Size) -> Iterator[Row]:
    n, width = (200, 16) if size.small else (5_000, 128)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(20, width, generator=generator)[torch.arange(n) % 20] * 2
    features += torch.randn(n, width, generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba and its dependencies warn about themselves
        from umap import UMAP

        def theirs() -> object:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit = UMAP(n_neighbors=K + 1, min_dist=MIN_DIST, metric="cosine", random_state=0, n_jobs=1)
                return fit.fit_transform(features.numpy())

        row = Row("map, neighbors too", f"{n:,} x {width}", "umap-learn by itself", 1.0)
        yield race(
            row, lambda: compute_umap(features, *compute_neighbors(features, K), 0), theirs, min(size.repeats, 3)
        )
