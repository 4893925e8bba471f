"""Samplers over the geometry of the samples: greedy covers and transport to class prototypes."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.errors import ScoreInputError
from engine.scores.rows import unit_rows
from engine.selection.samplers import Parts, sampler, sorted_positions

BLOCK_VALUES = 1 << 24
"""Distances or similarities held at a time (64 MB)."""

AHEAD = (8, 512)
"""Picks that kcenter looks for at a time: at least, and at most."""

ROWS = 1 << 13
"""Samples whose distances to new picks kcenter computes at a time. A product has the same bits in any part that begins at a
multiple of them."""

Array = np.ndarray[Any, Any]


@sampler()
def kcenter(budget: int, features: Tensor, generator: torch.Generator, parts: Parts) -> Tensor:
    """Greedy k-center: from a random sample on, add the one farthest from all kept.

    A running minimum of squared Euclidean distances, O(budget N D); at most twice the optimal radius. The features are
    centered first: the distances are differences of products, whose digits a common offset would use up. Many picks
    are found ahead, so that their distances are one product of matrices.

    Args:    features (N, D); parts: where the distances of ranges of samples to new picks are computed
    Source:  Sener & Savarese 2018, algorithm 1. The paper starts from the labeled pool; here there is none.
    """
    points = _finite("features", features)
    points = points - points.mean(0)
    squares = points.square().sum(1)
    ranges = parts.ranges(len(points), ROWS)
    held = [parts.hold((points[first:last], squares[first:last])) for first, last in ranges]
    nearest = torch.full((len(points),), torch.inf, device=points.device)
    picks = [int(torch.randint(len(points), (1,), generator=generator))]
    kept, ahead = list(picks), min(AHEAD)
    while len(kept) < budget:
        chosen = torch.tensor(picks, device=points.device)
        centers = (points[chosen], squares[chosen])
        nearest = torch.cat(parts.each(_cover, held, [(nearest[first:last], *centers) for first, last in ranges]))
        nearest[chosen] = -torch.inf  # once kept, never again, even when every other is a copy
        count = min(ahead, budget - len(kept))
        picks = _next_centers(points, squares, nearest, count)
        kept += picks
        if len(picks) == count:
            ahead = min(2 * ahead, max(AHEAD))
        elif 4 * len(picks) < ahead:
            ahead = max(ahead // 2, min(AHEAD))
    return torch.tensor(sorted(kept), dtype=torch.int64)


def _cover(
    held: tuple[Tensor, Tensor], given: tuple[Tensor, Tensor, Tensor], report: Callable[[float], None]
) -> Tensor:
    """The squared distances (R,) of some samples to the nearest center.

    Args: held: the samples (R, D) and their squares (R,); given: the distances (R,) to the nearest of the centers so far, new
          centers (P, D) and their squares (P,)
    """
    (points, squares), (nearest, centers, offset) = held, given
    found = torch.empty_like(nearest)
    for start in range(0, len(points), ROWS):
        report(start / len(points))
        rows = slice(start, start + ROWS)
        least = torch.addmm(offset, points[rows], centers.T, alpha=-2).amin(1)
        torch.minimum(nearest[rows], least.add_(squares[rows]).clamp_min_(0.0), out=found[rows])
    return found


def _next_centers(points: Tensor, squares: Tensor, nearest: Tensor, count: int) -> list[int]:
    """The next one to `count` picks of the farthest sample, one after the other.

    A pick only lowers distances: so the farthest of the samples that were farthest before is the farthest of all while
    it is farther than each sample that is not among them was. Their distances to each other are all that it takes.
    """
    # Stable, so that of equal distances the smaller position comes first, as argmax finds it.
    ordered = nearest.sort(descending=True, stable=True)
    values, ids = (found[: count + 1].cpu().numpy() for found in ordered)
    limit = (values[count], -ids[count]) if len(ids) > count else (-np.inf, -np.inf)
    by_position = np.argsort(ids[:count])
    ids, values = ids[:count][by_position], values[:count][by_position].copy()
    chosen = torch.from_numpy(ids).to(points.device)
    between = torch.addmm(squares[chosen], points[chosen], points[chosen].T, alpha=-2).add_(squares[chosen, None])
    distances = between.clamp_min_(0.0).cpu().numpy()
    picks: list[int] = []
    while len(picks) < count:
        i = int(values.argmax())
        if picks and (values[i], -ids[i]) < limit:
            break
        picks.append(int(ids[i]))
        np.minimum(values, distances[i], out=values)
        values[i] = -np.inf
    return picks


def craig_weights(probs: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
    """How many samples each kept one stands for: those whose gradient is nearest to its own.

    Args:    probs (N, C); labels (N,); kept (B,) positions
    Returns: (B,) float32, sums to N: the weights of their losses in training
    Source:  Mirzasoleiman et al. 2020, algorithm 1, line 8
    """
    gradients = _gradients(probs, labels)
    step = max(1, BLOCK_VALUES // len(kept))
    nearest = [torch.cdist(block, gradients[kept]).argmin(1) for block in torch.split(gradients, step)]
    return torch.bincount(torch.cat(nearest), minlength=len(kept)).float().cpu()


@sampler(weights=craig_weights)
def craig(budget: int, probs: Tensor, labels: Tensor, generator: torch.Generator, neighbors: int = 128) -> Tensor:
    """Facility location over last-layer gradients: every sample has a kept one with nearly its gradient.

    g_i = p_i - onehot(y_i); greedy maximum of sum_i max_{j kept} (r - ||g_i - g_j||), lazily evaluated, over each
    sample's nearest neighbors; r is the largest distance in their lists. `craig_weights` gives the weights.

    Args:    probs (N, C); labels (N,); neighbors: exact from N on
    Source:  Mirzasoleiman et al. 2020, algorithm 1. Departs: sparse neighbors; per class only when class-balanced.
    """
    gradients = _gradients(probs, labels)
    ids, distances = _nearest(gradients, min(neighbors, len(gradients)))
    rows, values = _reversed_lists(ids, distances.max() - distances)
    covered = np.zeros(len(ids))

    def gain(j: int) -> float:
        return float(np.maximum(values[j] - covered[rows[j]], 0).sum())

    def keep(j: int) -> None:
        covered[rows[j]] = np.maximum(covered[rows[j]], values[j])

    return _greedy(budget, len(ids), gain, keep, generator)


@sampler()
def pr4rel(
    budget: int,
    features: Tensor,
    probs: Tensor,
    generator: torch.Generator,
    threshold: float = 0.975,
    neighbors: int = 512,
) -> Tensor:
    """Keep what makes the neighbors of as many samples as possible confident, so that relabeling works.

    Greedy maximum of sum_i tanh(c_i), c_i = sum over kept j with cos(i, j) >= threshold of cos(i, j) max_c p_jc,
    the sample itself included.

    Args:    features (N, D), non-zero; probs (N, C); threshold: 0.975 for ten classes
    Source:  Park et al. 2023 (Prune4ReL), eq. 6 and algorithm 1. Departs: of each sample's neighbors only the
             nearest `neighbors` count, exact where no sample has more above the threshold.
    The authors' code differs from their paper: its gain is the candidate's own tanh((r_j + c_j) / 100) - tanh(r_j / 100)
    alone, r_j what j has from those kept so far and c_j its confidence, with a threshold of 0.95. This is the paper.
    """
    unit = unit_rows(_finite("features", features))
    confidence = probs.amax(1).double().cpu().numpy()
    ids, distances = _nearest(unit, min(neighbors, len(unit)))
    similarities = 1 - distances**2 / 2
    rows, values = _reversed_lists(ids, np.where(similarities >= threshold, similarities, 0.0))
    reached = np.zeros(len(ids))

    def gain(j: int) -> float:
        before = reached[rows[j]]
        return float((np.tanh(before + values[j] * confidence[j]) - np.tanh(before)).sum())

    def keep(j: int) -> None:
        reached[rows[j]] += values[j] * confidence[j]

    return _greedy(budget, len(ids), gain, keep, generator)


@sampler()
def fdmat(
    budget: int,
    features: Tensor,
    labels: Tensor,
    shares: list[int] | None,
    power: float = 0.5,
    sharpness: float = 10.0,
    iterations: int = 1000,
) -> Tensor:
    """Keep the samples that optimal transport brings to the class prototypes at the smallest cost.

    t = (|h| + 1e-6)^power with the sign of h; x = (t - mean of t) / ||t||; prototypes m_k = class means of x;
    M_ik = ||x_i - m_k||^2; P the Sinkhorn transport of N samples of mass 1 to classes of their sizes, with kernel
    exp(-sharpness M). Those with the smallest sum_k (P_ik M_ik)^2 stay; the given label plays no other part. In a
    class-balanced choice the transport is of all samples, and each class keeps its share of them.

    Args:    features (N, D); labels (N,); shares: how many of each class stay, None for the budget over all;
             iterations: at most so many, fewer where the rows of P already sum to 1 within 1e-6
    Source:  Xiao et al. 2024 (FDMat) and their code. Departs: for features without a final ReLU the sign is kept; their
             sharpness is not published, 10 is that of Hu et al. 2021, whose transport it is.
    """
    points = _finite("features", features).double()
    points = torch.where(points < 0, -1.0, 1.0) * (points.abs() + 1e-6) ** power
    points = (points - points.mean(0)) / points.norm(dim=1, keepdim=True)
    labels = labels.to(points.device)
    present, own = torch.unique(labels, return_inverse=True)
    onehot = functional.one_hot(own, len(present)).double()
    sizes = onehot.sum(0)
    cost = torch.cdist(points, onehot.T @ points / sizes[:, None]).square()
    log_kernel = -sharpness * cost
    column = torch.zeros(len(present), dtype=torch.float64, device=points.device)
    for _ in range(iterations):
        row = -(log_kernel + column).logsumexp(1)
        column = sizes.log() - (log_kernel + row[:, None]).logsumexp(0)
        plan = (log_kernel + row[:, None] + column).exp()
        if float((plan.sum(1) - 1).abs().max()) <= 1e-6:
            break
    order = torch.argsort((plan * cost).square().sum(1), stable=True)
    if shares is None:
        return sorted_positions(order[:budget]).cpu()
    kept = [order[labels[order] == label][:share] for label, share in enumerate(shares)]
    return sorted_positions(torch.cat(kept)).cpu()


def _greedy(
    budget: int, n: int, gain: Callable[[int], float], keep: Callable[[int], None], generator: torch.Generator
) -> Tensor:
    """Lazy greedy maximum of a monotone submodular function; ties in a seeded order.

    A gain only shrinks as more is kept, so the top of the heap, evaluated again and still on top, is the best.
    """
    tie = torch.randperm(n, generator=generator).tolist()
    heap = [(-gain(j), tie[j], j) for j in range(n)]
    heapq.heapify(heap)
    kept: list[int] = []
    while len(kept) < budget:
        _, _, j = heapq.heappop(heap)
        entry = (-gain(j), tie[j], j)
        if heap and heap[0] < entry:
            heapq.heappush(heap, entry)
            continue
        keep(j)
        kept.append(j)
    return torch.tensor(sorted(kept), dtype=torch.int64)


def _nearest(points: Tensor, k: int) -> tuple[Array, Array]:
    """The k nearest of every row by Euclidean distance, the row itself first: ids (N, k) and distances (N, k)."""
    n = len(points)
    squares = points.square().sum(1)
    ids, distances = [], []
    for start in range(0, n, step := max(1, BLOCK_VALUES // n)):
        block = points[start : start + step]
        squared = squares[start : start + step, None] + squares - 2 * (block @ points.T)
        here = torch.arange(len(block), device=points.device)
        squared[here, start + here] = -1.0  # its own first, before exact copies
        found = squared.topk(k, dim=1, largest=False)
        ids.append(found.indices.cpu())
        distances.append(found.values.clamp_min(0.0).sqrt().cpu())
    return torch.cat(ids).numpy(), torch.cat(distances).double().numpy()


def _reversed_lists(ids: Array, values: Array) -> tuple[list[Array], list[Array]]:
    """For every sample the samples that have it in their list with a value > 0, and those values."""
    n, k = ids.shape
    listed = values.reshape(-1) > 0
    holders, held, values = np.repeat(np.arange(n), k)[listed], ids.reshape(-1)[listed], values.reshape(-1)[listed]
    order = np.argsort(held, kind="stable")
    ends = np.cumsum(np.bincount(held, minlength=n))[:-1]
    return np.split(holders[order], ends), np.split(values[order], ends)


def _gradients(probs: Tensor, labels: Tensor) -> Tensor:
    return _finite("probs", probs) - functional.one_hot(labels.to(probs.device), probs.shape[1])


def _finite(name: str, values: Tensor) -> Tensor:
    bad = ~torch.isfinite(values).all(1)
    if bool(bad.any()):
        raise ScoreInputError(f"the {name} of sample {int(bad.nonzero()[0])} are not finite; they cannot be sampled by")
    return values.float()
