"""Groups of samples that are there more than once: exact copies by content, near ones by the cosine of their features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

Array = np.ndarray[Any, Any]

NEAR_DISTANCE = 0.12
"""The largest cosine distance of a near duplicate, measured on 8,468 different photographs of CIFAR-10 by
`efficientnet_lite0`: of the 17 pairs within it 16 show the same picture, of the 30 next ones 24 do. Of 200 that were copied,
it finds all that were doubled in size, 99 % of those saved as JPEG of quality 85, 97 % of those made brighter, 95 % of the
mirrored, 73 % of those cropped to 90 %, 67 % of those reduced to 75 %."""

NEAR_SHARE = 0.3
"""Of the median distance to the last of the nearest: where all pictures are alike, a near duplicate is nearer than that."""


@dataclass(frozen=True)
class Pairs:
    """Samples that are near each other: two ids and their cosine, (P,) each."""

    one: Array
    other: Array
    similarity: Array


@dataclass(frozen=True)
class Duplicates:
    """The samples of all groups, (S,) each, ordered by group and id.

    sample: ids; group: from 0, by the smallest id in it; similarity: the largest cosine to another of the group, 1 of an
    exact copy; exact: whether another one has the same content; leak: whether the group has samples of both splits
    """

    sample: Array
    group: Array
    similarity: Array
    exact: Array
    leak: Array


def near_threshold(similarities: Tensor) -> float:
    """The cosine from which on two samples are near duplicates.

    1 - min(NEAR_DISTANCE, NEAR_SHARE * median over the samples of their distance to the last of the nearest)

    Args:   similarities (N, K) of the K nearest, nearest first
    Source: a share of a typical distance, as cleanlab's Datalab (0.13 of the median to the nearest), but of the distance to
            the last of the nearest, which copies do not shorten
    """
    typical = float((1 - similarities[:, -1]).clamp_min(0.0).median())
    return 1 - min(NEAR_DISTANCE, NEAR_SHARE * typical)


def near_pairs(ids: Tensor, similarities: Tensor, first: int, threshold: float) -> Pairs:
    """The pairs in lists of neighbors from a cosine of `threshold` on.

    Args: ids, similarities (n, K) of the samples first .. first + n - 1
    """
    near = similarities >= threshold
    rows = near.nonzero()[:, 0].cpu().numpy() + first
    return Pairs(rows, ids[near].cpu().numpy(), similarities[near].cpu().numpy())


def group_duplicates(contents: Sequence[str], train: int, pairs: Sequence[Pairs] = ()) -> Duplicates:
    """Connected groups of exact copies and near duplicates.

    Args: contents: of every sample by id, the first `train` of the training split; pairs: near ones
    """
    n = len(contents)
    _, first, own = np.unique(np.asarray(contents), return_index=True, return_inverse=True)
    copies = np.flatnonzero(first[own] != np.arange(n))
    exact, similarity = np.zeros(n, bool), np.full(n, -1.0)
    exact[copies] = exact[first[own][copies]] = True
    for near in pairs:
        for side in (near.one, near.other):
            np.maximum.at(similarity, side, near.similarity)
    similarity[exact] = 1.0
    one = np.concatenate([copies, *(near.one for near in pairs)])
    other = np.concatenate([first[own][copies], *(near.other for near in pairs)])
    root = _roots(n, one.astype(np.int64), other.astype(np.int64))
    sample = np.flatnonzero(np.bincount(root, minlength=n)[root] > 1)
    sample = sample[np.lexsort((sample, root[sample]))]
    is_test = sample >= train
    _, group = np.unique(root[sample], return_inverse=True)
    sizes, tests = np.bincount(group), np.bincount(group, weights=is_test)
    leak = ((tests > 0) & (tests < sizes))[group]
    return Duplicates(sample, group, np.minimum(similarity[sample], 1.0), exact[sample], leak)


def _roots(n: int, one: Array, other: Array) -> Array:
    """For each of n samples the smallest one that it is connected with by edges (one, other)."""
    root = np.arange(n)

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = int(root[i])
        return i

    for a, b in zip(one.tolist(), other.tolist(), strict=True):
        a, b = find(a), find(b)
        root[max(a, b)] = min(a, b)
    return np.array([find(i) for i in range(n)], np.int64)
