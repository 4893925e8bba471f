"""The nearest neighbors: exact ones against FAISS's IndexFlatIP and scikit-learn, and the approximate search.

FAISS and scikit-learn find the sample itself as well, so they search for one more. NN-descent is judged by the share of the
true neighbors that it finds in features of many groups, as those of a network are.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from measuring import Row, Size, missing, race

from engine.features.approximate import search_approximately
from engine.features.neighbors import checked_rows, compute_neighbors, search_rows

K = 15


def rows(size: Size) -> Iterator[Row]:
    n, width = (500, 32) if size.small else (20_000, 512)
    generator = torch.Generator().manual_seed(0)
    groups = torch.randn(100, width, generator=generator)[torch.randint(100, (n,), generator=generator)]
    features = groups + torch.randn(n, width, generator=generator)
    unit = checked_rows(features, K)
    data = f"{n:,} x {width}, {K} neighbors"

    def ours() -> object:
        return compute_neighbors(features, K)

    row = Row("exact neighbors", data, "FAISS IndexFlatIP", 1.0)
    if absent := missing("faiss", "faiss-cpu"):
        yield Row(row.what, row.data, row.peer, row.goal, note=absent)
    else:
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        index = faiss.IndexFlatIP(width)
        index.add(unit.numpy())
        yield race(row, ours, lambda: index.search(unit.numpy(), K + 1), size.repeats)
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=K + 1, metric="cosine", algorithm="brute", n_jobs=torch.get_num_threads())
    search.fit(unit.numpy())
    yield race(
        Row("exact neighbors", data, "scikit-learn, brute", 1.0),
        ours,
        lambda: search.kneighbors(unit.numpy()),
        min(size.repeats, 3),
    )
    recalls: list[float] = []
    row = race(
        Row("approximate neighbors", data, "our exact search"),
        lambda: recalls.append(search_approximately(unit, K)[2]),
        lambda: search_rows(unit, K, 0, n),
        min(size.repeats, 3),
    )
    note = f"{min(recalls):.1%} of the true neighbors, used beyond 200,000 samples (pynndescent)"
    yield Row(row.what, row.data, row.peer, None, row.ours, row.theirs, row.wall, note)
