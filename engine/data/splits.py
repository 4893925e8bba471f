"""Drawing a part of a set so that every class keeps its share."""

from __future__ import annotations

import numpy as np

from engine.data.parts import Labels


def stratified(labels: Labels, count: int, seed: int, *, keep_one: bool = False) -> Labels:
    """Positions of `count` samples, ascending, drawn so that each class has its share, rounded.

    Args:    labels (N,); 0 <= count <= N; keep_one: leave at least one sample of every class undrawn
    Returns: (count,) int64; fewer only when keep_one forbids more
    """
    if count == 0:
        return np.empty(0, np.int64)
    rng = np.random.default_rng([seed, len(labels)])
    values, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    most = sizes - 1 if keep_one else sizes
    exact = sizes * (count / max(1, len(labels)))
    take = np.minimum(np.floor(exact).astype(np.int64), most)
    # what rounding down left over goes to the classes that lost most by it
    while take.sum() < count and (take < most).any():
        lost = np.where(take < most, exact - take, -np.inf)
        take[np.argmax(lost)] += 1
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(inverse[order], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    drawn = [by_class[start : start + n] for start, n in zip(starts, take, strict=True)]
    return np.sort(np.concatenate(drawn))
