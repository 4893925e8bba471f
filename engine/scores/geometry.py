"""Scores of a sample's neighborhood in the feature space of a trained network, or of any other."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from engine.errors import ScoreInputError
from engine.scores.registry import check_classes, score
from engine.scores.rows import median_row, unit_rows

BLOCK_VALUES = 1 << 23
"""Values held at a time (32 MB in float32)."""

STARTS, ITERATIONS = 3, 100
"""Of k-means: the best of so many starts, each until nothing changes or at most so many steps."""


@score(higher_means="harder", evidence="label", value_range=(0.0, math.log(2)), source="ROP, eq. 3 to 8")
def nli(
    features: Tensor,
    neighbor_ids: Tensor,
    labels: Tensor,
    head_weight: Tensor,
    head_bias: Tensor,
    propagate_features: bool = True,
    propagate_labels: bool = True,
    bias: bool = True,
) -> Tensor:
    """Neighboring label inconsistency: how far the neighbors' rectified predictions are from the given label.

    s_i = 1/K sum_k JS(p_k, onehot y_i), p = softmax((I + E) V W' + b), V the features of the K neighbors,
    E = D^-1/2 S D^-1/2, S their cosines with zero diagonal, D = diag(sum of rows of S)

    Args:
        features (N, D); neighbor_ids (N, K) int64; labels (N,) int64; head_weight (C, D); head_bias (C,)
        propagate_features: off = V instead of (I + E) V
        propagate_labels: off = the neighbors' given labels instead of p: with it s = ln 2 * knn_disagreement, whatever
            the features are. Both off is the paper's No-Rec.
        bias: off = the head's bias is left out, as the paper prints it
    Returns: (N,) in [0, ln 2]; higher = harder
    Raises:  ScoreInputError for labels of a single class or a class with a single sample
    Departs from the paper: negative cosines, which features without a final ReLU have, count as 0, and a neighbor
    without a positive cosine to the others keeps its own features; the head's bias is kept.
    """
    check_classes(labels)
    if not propagate_labels:
        return math.log(2) * knn_disagreement(neighbor_ids, labels)
    # (I + E) V W' = (I + E) (V W'): the head is applied once to each sample, not once to each neighborhood.
    logits = features @ head_weight.T
    unit = functional.normalize(features, dim=1)
    n, k = neighbor_ids.shape
    offset = head_bias if bias else torch.zeros_like(head_bias)
    out = torch.empty(n, dtype=features.dtype, device=features.device)
    step = max(1, BLOCK_VALUES // (k * features.shape[1]))
    for start in range(0, n, step):
        ids = neighbor_ids[start : start + step]
        seen = logits[ids]
        if propagate_features:
            near = unit[ids]
            similarity = (near @ near.mT).clamp_min_(0.0)
            similarity.diagonal(dim1=1, dim2=2).zero_()
            degree = similarity.sum(2)
            scale = torch.where(degree > 0, degree.clamp_min(1e-30).rsqrt(), 0.0)
            seen = seen + scale[:, :, None] * (similarity @ (scale[:, :, None] * seen))
        given = labels[start : start + step, None, None].expand(-1, k, 1)
        p = torch.softmax(seen + offset, 2).gather(2, given)[:, :, 0]
        out[start : start + step] = _js_to_onehot(p).mean(1)
    return out


@score(higher_means="harder", evidence="label", value_range=(0.0, 1.0), source="k-nearest-neighbor label agreement")
def knn_disagreement(neighbor_ids: Tensor, labels: Tensor) -> Tensor:
    """Share of the nearest neighbors that have another given label.

    s_i = 1/K sum_k [y_k != y_i]

    Args:    neighbor_ids (N, K) int64; labels (N,) int64
    Returns: (N,) in [0, 1]; higher = harder
    Raises:  ScoreInputError for labels of a single class or a class with a single sample
    """
    check_classes(labels)
    return (labels[neighbor_ids] != labels[:, None]).float().mean(1)


@score(
    higher_means="harder",
    evidence="label",
    value_range=(-1.0, 1.0),
    source="Zhu et al. 2022 (SimiFeat), vote",
    flags_above=0.0,
)
def knn_vote(neighbor_ids: Tensor, labels: Tensor) -> Tensor:
    """Vote of the nearest neighbors against the given label.

    s_i = max_{c != y_i} v_c - v_{y_i}, v_c the share of the neighbors with the given label c

    Args:    neighbor_ids (N, K) int64; labels (N,) int64
    Returns: (N,) in [-1, 1]; higher = harder; > 0 when another class wins (rule `knn_vote`)
    Raises:  ScoreInputError for labels of a single class or a class with a single sample
    Departs from the paper: the margin of the vote, where SimiFeat says who is voted out; the sample has no vote.
    """
    check_classes(labels)
    n, k = neighbor_ids.shape
    votes = torch.zeros(n, int(labels.max()) + 1, device=labels.device)
    votes.scatter_add_(1, labels[neighbor_ids], torch.ones(n, k, device=labels.device))
    given = votes.gather(1, labels[:, None])[:, 0]
    return (votes.scatter(1, labels[:, None], -1.0).max(1).values - given) / k


@score(higher_means="harder", evidence="outlier", value_range=(0.0, 2.0), source="Sorscher et al. 2022 (SSP)")
def prototype_distance(features: Tensor, labels: Tensor, generator: torch.Generator, centers: int = 0) -> Tensor:
    """Cosine distance to the nearest k-means center of the features; no label plays a part.

    s_i = 1 - max_c cos(f_i, m_c)

    Args:    features (N, D); labels (N,) for the number of classes alone; generator: of the starts; centers: 0 = as
             many as classes
    Returns: (N,) in [0, 2]; higher = harder (far from every prototype)
    Raises:  ScoreInputError for features of norm zero, or more centers than samples
    Departs from the paper: the clusters, too, are by cosine (spherical k-means, k-means++ starts, best of 3).
    """
    count = centers or int(labels.max()) + 1
    if not 1 <= count <= len(features):
        raise ScoreInputError(f"centers is {count} for {len(features)} samples; allowed: 1 to {len(features)}")
    unit = unit_rows(features)
    found = [_spherical_k_means(unit, count, generator) for _ in range(STARTS)]
    nearest = max(found, key=lambda similarity: float(similarity.double().sum()))
    return (1 - nearest).clamp(0.0, 2.0)


@score(higher_means="harder", evidence="hardness", value_range=(0.0, math.inf), source="Xia et al. 2023 (Moderate)")
def class_median_distance(features: Tensor, labels: Tensor) -> Tensor:
    """Distance of the features to the median of the given class.

    s_i = ||f_i - median of {f_j : y_j = y_i}||_2, the median taken in each dimension (of an even number the mean
    of the middle two)

    Args:    features (N, D); labels (N,) int64
    Returns: (N,), >= 0; higher = harder
    Raises:  ScoreInputError for labels of a single class or a class with a single sample
    """
    check_classes(labels)
    out = torch.empty_like(features[:, 0])
    for label in torch.unique(labels).tolist():
        members = labels == label
        rows = features[members]
        out[members] = (rows - median_row(rows)).norm(dim=1)
    return out


@score(higher_means="easier", evidence="label", source="Jia et al. 2019, theorem 1", value_range=(-1.0, 1.0))
def knn_shapley(
    features: Tensor, labels: Tensor, validation_features: Tensor, validation_labels: Tensor, k: int = 10
) -> Tensor:
    """Shapley value of a sample for a k-nearest-neighbor classifier of the test split.

    Of one test sample, over the training samples a_1, a_2, .. from the nearest on:
    s_{a_N} = [y_{a_N} = y] min(k, N) / (k N), s_{a_i} = s_{a_i+1} + ([y_{a_i} = y] - [y_{a_i+1} = y]) min(k, i) / (k i);
    the mean over the test samples. Nearest is by cosine. All values add up to the classifier's mean share of votes.

    Args:    features (N, D); labels (N,); validation_features (M, D); validation_labels (M,); k >= 1
    Returns: (N,) in [-1, 1]; higher = easier (it helps the classifier)
    Raises:  ScoreInputError for an empty test split, features of norm zero, labels of a single class or a class with
             a single sample
    """
    check_classes(labels)
    if not len(validation_features):
        raise ScoreInputError("the validation set is empty; knn_shapley needs a test split")
    if k < 1:
        raise ScoreInputError(f"k is {k}; allowed: 1 or more")
    unit, tested = unit_rows(features), unit_rows(validation_features, "validation features")
    n = len(unit)
    place = torch.arange(1, n + 1, device=unit.device, dtype=torch.float64)
    weight = place.clamp_max(k) / (k * place)
    labels, validation_labels = labels.to(unit.device), validation_labels.to(unit.device)
    total = torch.zeros(n, dtype=torch.float64, device=unit.device)
    step = max(1, BLOCK_VALUES // (4 * n))
    for start in range(0, len(tested), step):
        match = labels == validation_labels[start : start + step, None]
        order, match = _nearest_first(tested[start : start + step] @ unit.T, match)
        rise = match.double()
        rise[:, :-1] -= match[:, 1:].double()
        values = (rise * weight).flip(1).cumsum(1).flip(1)
        # row by row and then summed, which gives the same digits each time on a GPU too
        total += torch.empty_like(values).scatter_(1, order, values).sum(0)
    return (total / len(tested)).float()


def _nearest_first(similarities: Tensor, match: Tensor) -> tuple[Tensor, Tensor]:
    """The columns of each row (B, N) float32 by falling similarity, of equal ones the first first, and `match` in that order.

    Similarity, column and match are one whole number: sorting those is twice as fast as a stable sort of floats.
    """
    bits = similarities.float().view(torch.int32).long()
    keys = torch.where(bits < 0, bits & 0x7FFFFFFF, -bits).mul_(1 << 32)
    keys += 2 * torch.arange(similarities.shape[1], device=keys.device)
    keys = (keys + match).sort(dim=1).values
    return (keys & 0xFFFFFFFF) >> 1, (keys & 1).bool()


@score(higher_means="easier", evidence="duplicate", value_range=(-1.0, 1.0), source="nearest-neighbor similarity")
def near_duplicate(similarities: Tensor) -> Tensor:
    """Cosine of the features to those of the nearest other sample; 1 = there is another just like it.

    s_i = max_{j != i} cos(f_i, f_j)

    Args:    similarities (N, K), the nearest first
    Returns: (N,) in [-1, 1]; higher = easier (redundant)
    """
    return similarities[:, 0].clone()


def _js_to_onehot(p: Tensor) -> Tensor:
    """Jensen-Shannon divergence of a distribution to a one-hot, which depends on its probability p of that class alone.

    1/2 (2 ln 2 + p ln p - (1 + p) ln (1 + p)), in [0, ln 2]
    """
    return (0.5 * (2 * math.log(2) + torch.xlogy(p, p) - (1 + p) * torch.log1p(p))).clamp(0.0, math.log(2))


def _spherical_k_means(unit: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The cosine of every unit row (N, D) to its nearest center, (N,)."""
    chosen = int(torch.randint(len(unit), (1,), generator=generator))
    centers = [unit[chosen]]
    distance = 1 - unit @ centers[0]
    while len(centers) < count:
        weights = distance.clamp_min(0.0).cpu().double().cumsum(0)
        # All rows equal to a center already: any of them will do.
        at = float(torch.rand((), generator=generator, dtype=torch.float64)) * float(weights[-1])
        chosen = min(int(torch.searchsorted(weights, torch.tensor(at, dtype=torch.float64), right=True)), len(unit) - 1)
        centers.append(unit[chosen])
        distance = torch.minimum(distance, 1 - unit @ centers[-1])
    means, nearest = torch.stack(centers), torch.full((len(unit),), -1, device=unit.device)
    for _ in range(ITERATIONS):
        similarity, assigned = (unit @ means.T).max(1)
        if torch.equal(assigned, nearest):
            break
        nearest = assigned
        sums = functional.one_hot(assigned, count).to(unit.dtype).T @ unit
        norms = sums.norm(dim=1, keepdim=True)
        means = torch.where(norms > 0, sums / norms.clamp_min(1e-30), means)
    return similarity
