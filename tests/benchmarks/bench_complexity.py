"""The complexity gap against the published algorithm, and against the factorization alone. float64 on the processor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from measuring import Row, Size, race
from sklearn.datasets import load_digits
from torch import Tensor

from engine.scores.complexity import cg
from engine.scores.gap import solve_gap


def rows(size: Size) -> Iterator[Row]:
    digits, target = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
    n = 100 if size.small else 1_000
    digits, target = digits[:n], target[:n]
    row = race(
        Row("complexity gap", f"digits, {n:,}", "published algorithm", 1.0),
        lambda: _ours(digits, target),
        lambda: _published(digits, target),
        1,
    )
    far = float((_ours(digits, target) / _published(digits, target) - 1).abs().max())
    yield Row(row.what, row.data, row.peer, row.goal, row.ours, row.theirs, row.wall, f"relative difference {far:.0e}")
    n = 200 if size.small else 4_000
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 784), generator=generator).double()
    labels = torch.arange(n) % 10  # the time does not depend on the labels
    matrix = images @ images.T + n * torch.eye(n, dtype=torch.float64)
    yield race(
        Row("complexity gap", f"{n:,} x 784, Gram matrix too", "cholesky + cholesky_inverse", 1.0),
        lambda: _ours(images, labels),
        lambda: torch.cholesky_inverse(torch.linalg.cholesky(matrix)).diagonal(),
        min(size.repeats, 3),
    )


def _ours(images: Tensor, labels: Tensor) -> Tensor:
    gap = solve_gap(images, labels)
    return cg(gap.alpha, gap.inverse_diagonal)


def _published(images: Tensor, labels: Tensor) -> Tensor:
    """One inverse, then for every sample a copy of it without the sample's row and column (eq. 5 of the paper)."""
    unit = images.double() / images.double().norm(dim=1, keepdim=True)
    cosine = (unit @ unit.T).clamp(-1, 1)
    kernel = cosine * (torch.pi - torch.acos(cosine)) / (2 * torch.pi)
    kernel.fill_diagonal_(0.5)
    inverse = torch.linalg.inv(kernel).numpy()
    out = np.empty(len(images))
    for i in range(len(images)):
        y = np.where(labels.numpy() == int(labels[i]), 1.0, -1.0)
        rest = np.delete(np.arange(len(images)), i)
        column, d = inverse[rest, i], inverse[i, i]
        without = inverse[np.ix_(rest, rest)] - np.outer(column, column) / d
        out[i] = y @ inverse @ y - y[rest] @ without @ y[rest]
    return torch.from_numpy(out)
