"""Solving the kernel of the complexity gap for every class at once.

The kernel H is the infinite-width two-layer ReLU kernel of unit rows. It does not depend on the labels, so one
Cholesky factor serves all classes and any number of labelings as right-hand sides, and of the inverse only the
diagonal is needed: the squared column norms of the triangular inverse, a block of columns at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from engine.errors import ScoreInputError
from engine.scores.registry import check_classes
from engine.scores.rows import unit_rows

BLOCK = 1024
"""Rows of the kernel worked on at a time."""

COLUMNS = 512
"""Columns of the triangular inverse worked on at a time."""

COPY_TOLERANCE = 1e-12
"""Unit rows that differ by no more in any entry are the same row: rounding alone makes such a difference."""

RIDGES = (0.0, 1e-10, 1e-8, 1e-6, 1e-4)
"""Added to the kernel's diagonal, one after another, until the factorization succeeds."""


@dataclass(frozen=True)
class Gap:
    """What the scores read, each (R, N) float64: R labelings of `solve_gap`, or runs of the stochastic form.

    alpha: (H^-1 y)_i; inverse_diagonal: (H^-1)_ii; kernel_labels: (H y)_i, y = +1 for the sample's own class, else
    -1. copies: samples whose row an earlier sample has as well; contradicting: samples whose label is not that of most
    of their copies; ridge: what was added to the diagonal of H.
    """

    alpha: Tensor
    inverse_diagonal: Tensor
    kernel_labels: Tensor
    copies: int
    contradicting: int
    ridge: float


def solve_gap(
    rows: Tensor,
    labels: Tensor,
    *,
    dtype: torch.dtype = torch.float64,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Gap:
    """Factor the kernel of all samples once and solve it for every class of every labeling.

    H_ij = g_ij (pi - arccos g_ij) / (2 pi), g_ij = cosine of rows i and j; diagonal 1/2

    Equal rows would make H singular: each is put in once, with the label that most of its copies have (the smallest
    of several). Each copy is scored against its own label: where that is another one, by the label vector of its class
    with +1 at the row. When the factorization fails all the same, a ridge is added.

    Args:
        rows: (N, D) real numbers, scaled to unit length here
        labels: (N,) int64, or (R, N) for R labelings of the same rows, say realizations of label noise
        dtype: of the factor. float32 takes half the memory; the solution is then refined once in float64
        report: called with (done, total)
    Returns: a Gap on the CPU; inverse_diagonal is expanded over R
    Raises:  ScoreInputError for a zero or non-finite row, for labels of a single class, for a class with a single
             sample, or when no ridge up to 1e-4 helps
    """
    labelings = labels if labels.ndim == 2 else labels[None]
    for labeling in labelings:
        check_classes(labeling)
    unit = unit_rows(rows.double(), "rows")
    first, unit, own = _merge_copies(unit, labelings)
    labelings = labelings.to(unit.device)
    signs = _one_versus_rest(own, classes := int(labelings.max()) + 1)
    n, total = len(unit), 3 * len(unit)
    for ridge in RIDGES:
        factor, kernel_labels = _factor(unit, signs, ridge, dtype, lambda done: report(done, total))
        if factor is not None:
            break
    else:
        raise ScoreInputError(
            f"the kernel of the {n} different rows is singular even with a ridge of {RIDGES[-1]:g}; "
            "look for samples that are almost equal (score near_duplicate)"
        )
    report(2 * n, total)
    solution = _solve(factor, signs)
    if dtype != torch.float64:
        residual = signs - ridge * solution
        for start, block in _kernel_blocks(unit):
            _subtract_product(residual, block, start, solution)
        solution += _solve(factor, residual)
    diagonal = _inverse_diagonal(factor, lambda done: report(2 * n + done, total))

    column = labelings + classes * torch.arange(len(labelings), device=unit.device)[:, None]
    turned = (own[:, first] != labelings).double()  # a sign turned from -1 to +1 adds twice its column of H or H^-1
    diagonal = diagonal[first].expand_as(turned)
    alpha = solution[first, column] + 2 * turned * diagonal
    kernel_labels = kernel_labels[first, column] + turned
    contradicting = int(turned.any(0).sum())
    return Gap(alpha.cpu(), diagonal.cpu(), kernel_labels.cpu(), int(len(first) - n), contradicting, ridge)


def solve_inverse(rows: Tensor, chosen: Tensor) -> Tensor:
    """(B, B) float64: the entries of H^-1 at some of the rows (CG, figure 1); of equal rows one is in H.

    Args:   rows (N, D) as `solve_gap`; chosen (B,) positions
    Raises: as `solve_gap`
    """
    unit = unit_rows(rows.double(), "rows")
    first, unit, _ = _merge_copies(unit, torch.zeros(1, len(unit), dtype=torch.int64))
    at = first[chosen.to(unit.device)]
    columns = functional.one_hot(at, len(unit)).T.double()
    for ridge in RIDGES:
        factor, _ = _factor(unit, columns, ridge, torch.float64, lambda done: None)
        if factor is not None:
            return _solve(factor, columns)[at].cpu()
    raise ScoreInputError(f"the kernel of {len(unit)} rows is singular even with a ridge of {RIDGES[-1]:g}")


class Subset(NamedTuple):
    """Some rows of a set: all of one class, (P,) int64; those of other classes of which a copy is labeled as this one,
    (A,); and some more of the others. label: the class; run: which draw of the others it is."""

    run: int
    label: int
    positive: Tensor
    contested: Tensor
    others: Tensor


def solve_subset(unit: Tensor, subset: Subset, report: Callable[[float], None]) -> tuple[Tensor, float]:
    """`solve_gap` of the class of a subset against the rest of it.

    Args:    unit (U, D) float64 rows of unit length; report: called with the share that is done
    Returns: alpha, inverse_diagonal and kernel_labels of the class, (3, P + A) float64, those of a contested row for a
             copy with this label; and the ridge
    """
    report(0.0)
    count, own = len(subset.positive), len(subset.positive) + len(subset.contested)
    signs = torch.full((own + len(subset.others), 1), -1.0, dtype=torch.float64, device=unit.device)
    signs[:count] = 1
    rows = unit[torch.cat([subset.positive, subset.contested, subset.others])]
    for ridge in RIDGES:
        factor, kernel_labels = _factor(rows, signs, ridge, torch.float64, lambda done: None)
        if factor is not None:
            break
    else:
        raise ScoreInputError(f"the kernel of {len(rows)} rows is singular even with a ridge of {RIDGES[-1]:g}")
    diagonal = _inverse_diagonal(factor, lambda done: None)[:own]
    alpha, kernel_labels = _solve(factor, signs)[:own, 0], kernel_labels[:own, 0]
    alpha[count:] += 2 * diagonal[count:]
    kernel_labels[count:] += 1
    return torch.stack([alpha, diagonal, kernel_labels]).cpu(), ridge


Solved = tuple[Tensor, float]
Mapped = Callable[
    [Callable[[Tensor, Subset, Callable[[float], None]], Solved], Tensor, Sequence[Subset]], Iterable[Solved]
]
"""(function, rows, subsets) -> what the function finds for each subset, in order."""


def map_in_turn(
    function: Callable[[Tensor, Subset, Callable[[float], None]], Solved], unit: Tensor, subsets: Sequence[Subset]
) -> Iterator[Solved]:
    """One subset after another."""
    return (function(unit, subset, lambda share: None) for subset in subsets)


def solve_stochastic_gap(
    rows: Tensor,
    labels: Tensor,
    negatives: int,
    runs: int,
    generator: torch.Generator,
    *,
    mapped: Mapped = map_in_turn,
) -> Gap:
    """The same from random subsets: all samples of a class and `negatives` times as many of the others, `runs` times.

    Args:    as `solve_gap` for one labeling (N,); negatives >= 1 (the paper: 3 for MNIST, 4 for CIFAR); runs >= 1
             (the paper: 10); mapped: what solves the subsets, which do not depend on each other
    Returns: a Gap with one row per run; the scores average over them (appendix A.2 of the paper)
    Raises:  as `solve_gap`
    """
    check_classes(labels)
    unit = unit_rows(rows.double(), "rows")
    first, unit, own = _merge_copies(unit, labels[None])
    labels = labels.to(unit.device)
    turned = own[0][first] != labels
    subsets = []
    for run in range(runs):
        for label in torch.unique(labels).tolist():
            positive, contested = (own[0] == label).nonzero()[:, 0], torch.unique(first[turned & (labels == label)])
            left = own[0] != label
            left[contested] = False
            others = left.nonzero()[:, 0]
            count = max(0, negatives * (len(positive) + len(contested)) - len(contested))
            drawn = torch.randperm(len(others), generator=generator)[:count].to(others.device)
            subsets.append(Subset(run, label, positive, contested, others[drawn]))
    out = torch.empty(3, runs, len(labels), dtype=torch.float64)
    ridge, values = 0.0, torch.empty(3, len(unit), dtype=torch.float64)
    for subset, (found, added) in zip(subsets, mapped(solve_subset, unit, subsets), strict=True):
        values[:, torch.cat([subset.positive, subset.contested]).cpu()] = found
        members = (labels == subset.label).cpu()
        out[:, subset.run, members] = values[:, first.cpu()[members]]
        ridge = max(ridge, added)
    return Gap(out[0], out[1], out[2], len(first) - len(unit), int(turned.sum()), ridge)


def gap_bytes(n: int, width: int, columns: int, dtype: torch.dtype = torch.float64) -> int:
    """Memory in bytes that `solve_gap` takes for n samples of a width and so many one-versus-rest columns."""
    return n * n * dtype.itemsize + 8 * n * (3 * width + 3 * BLOCK + 4 * columns)


def stochastic_gap_bytes(labels: Tensor, width: int, negatives: int) -> int:
    """Memory in bytes that `solve_stochastic_gap` takes: that of its largest class."""
    largest = int(torch.unique(labels, return_counts=True)[1].max())
    return gap_bytes(min(len(labels), (1 + negatives) * largest), width, 2) + 24 * len(labels) * width


def find_copies(unit: Tensor) -> Tensor:
    """For every unit row (N, D) float64 the smallest index of an equal one, (N,) int64.

    Equal rows have equal projections on a random direction, so only runs of equal projections are compared. They come
    from the device once.
    """
    n, width = unit.shape
    direction = torch.randn(width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    projected, order = (unit @ direction.to(unit.device)).cpu().sort()
    first = torch.arange(n)
    tolerance = COPY_TOLERANCE * float(direction.abs().sum())
    starts = torch.cat([torch.tensor([True]), projected.diff() > tolerance])
    run = starts.cumsum(0) - 1
    lengths = torch.bincount(run)
    alike = order[(lengths > 1)[run]]
    rows, at = unit[alike.to(unit.device)].cpu(), 0
    for length in lengths[lengths > 1].tolist():
        members, by_index = alike[at : at + length].sort()
        candidates, at = rows[at : at + length][by_index], at + length
        while len(members):
            same = (candidates - candidates[0]).abs().amax(1) <= COPY_TOLERANCE
            first[members[same]] = members[0]
            members, candidates = members[~same], candidates[~same]
    return first


def _merge_copies(unit: Tensor, labelings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Different rows only: (N,) which of them each sample has, the rows (U, D), and their labels (R, U)."""
    original = find_copies(unit)
    kept, first = torch.unique(original, return_inverse=True)
    first = first.to(unit.device)
    if len(kept) == len(unit):
        return first, unit, labelings.to(unit.device)
    classes = int(labelings.max()) + 1
    own = torch.empty(len(labelings), len(kept), dtype=torch.int64, device=unit.device)
    for row, labeling in zip(own, labelings.to(unit.device), strict=True):
        votes = torch.zeros(len(kept), classes, dtype=torch.int64, device=unit.device)
        votes.index_put_((first, labeling), torch.ones_like(labeling), accumulate=True)
        # The smaller class wins a tie.
        row.copy_((votes * classes - torch.arange(classes, device=unit.device)).argmax(1))
    return first, unit[kept.to(unit.device)], own


def _one_versus_rest(labelings: Tensor, classes: int) -> Tensor:
    """(U, R * C): of every labeling and class a column of +1 at the class and -1 elsewhere."""
    onehot = functional.one_hot(labelings, classes).double()  # (R, U, C)
    return (2 * onehot - 1).permute(1, 0, 2).flatten(1)


def _kernel_blocks(unit: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The upper triangle of H, BLOCK rows at a time: (start, H[start : start + BLOCK, start:]), overwritten by the next."""
    n = len(unit)
    buffers = torch.empty(2, min(BLOCK, n) * n, dtype=unit.dtype, device=unit.device)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        shape = (stop - start, n - start)
        cosine, block = (buffer[: shape[0] * shape[1]].view(shape) for buffer in buffers)
        torch.mm(unit[start:stop], unit[start:].T, out=cosine)
        cosine.clamp_(-1.0, 1.0)
        torch.acos(cosine, out=block)
        block.neg_().add_(math.pi).mul_(cosine).mul_(0.5 / math.pi)
        block.diagonal().fill_(0.5)
        yield start, block


def _subtract_product(into: Tensor, block: Tensor, start: int, values: Tensor) -> None:
    """into -= H @ values, the share of one block of the upper triangle and of its mirror image."""
    stop = start + len(block)
    into[start:stop] -= block @ values[start:]
    into[stop:] -= block[:, len(block) :].T @ values[start:stop]


def _factor(
    unit: Tensor, signs: Tensor, ridge: float, dtype: torch.dtype, report: Callable[[int], None]
) -> tuple[Tensor | None, Tensor]:
    """The lower Cholesky factor of H + ridge, in the memory of H itself (None where it fails), and H @ signs."""
    n = len(unit)
    storage = torch.empty(n, n, dtype=dtype, device=unit.device)
    negative = torch.zeros_like(signs)
    for start, block in _kernel_blocks(unit):
        _subtract_product(negative, block, start, signs)
        storage[start : start + len(block), start:] = block
        report(start)
    storage.diagonal().add_(ridge)
    factor = storage.mT  # LAPACK's order: the upper triangle by rows is the lower one by columns
    info = torch.empty((), dtype=torch.int32, device=unit.device)
    torch.linalg.cholesky_ex(factor, out=(factor, info))
    # A last pivot that is rounding error alone is a failure that went unnoticed.
    pivots = factor.diagonal().square()
    failed = int(info) != 0 or float(pivots.min()) < 10 * torch.finfo(dtype).eps
    return None if failed else factor, -negative


def _solve(factor: Tensor, columns: Tensor) -> Tensor:
    """(L L')^-1 columns, float64."""
    half = torch.linalg.solve_triangular(factor, columns.to(factor.dtype), upper=False)
    solution: Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=True).double()
    return solution


def _inverse_diagonal(factor: Tensor, report: Callable[[int], None]) -> Tensor:
    """diag((L L')^-1) = squared column norms of L^-1: (U,) float64.

    Forward substitution of a block of unit columns: what lies above the block stays zero and is never touched, and
    all but the diagonal blocks is matrix products on views of the factor, so that no second copy of it is made.
    """
    n = len(factor)
    starts = range(0, n, COLUMNS)
    corners = [factor[i : i + COLUMNS, i : i + COLUMNS] for i in starts]
    inverses = [torch.linalg.solve_triangular(c, torch.eye(len(c)).to(c), upper=False) for c in corners]
    buffer = torch.empty(n, COLUMNS, dtype=factor.dtype, device=factor.device)
    out = torch.empty(n, dtype=torch.float64, device=factor.device)
    for first, start in enumerate(starts):
        columns = buffer[: n - start, : len(corners[first])]
        columns[: columns.shape[1]] = inverses[first]
        for inverse, i in zip(inverses[first + 1 :], starts[first + 1 :], strict=True):
            above = factor[i : i + COLUMNS, start:i] @ columns[: i - start]
            torch.mm(inverse, above.neg_(), out=columns[i - start : i - start + len(inverse)])
        out[start : start + COLUMNS] = columns.square().sum(0, dtype=torch.float64)
        report(min(start + COLUMNS, n))
    return out
