"""Complexity gap against the published algorithm and against the factorisation alone.

python tests/benchmarks/bench_complexity.py [--digits 1797]  digits: against the published algorithm, which makes a
                                                             submatrix for every sample (minutes)
python tests/benchmarks/bench_complexity.py IMAGES.gz 10000  rows of an IDX file of images: against
                                                             torch.linalg.cholesky + torch.cholesky_inverse

Both are run in turn, `--repeat` times each (default 3), after one warm-up of both on 500 samples; the shortest time of
each is compared. float64 on the CPU.
"""

from __future__ import annotations

import argparse
import gzip
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import print_machine
from sklearn.datasets import load_digits
from torch import Tensor

from engine.scores.complexity import cg
from engine.scores.gap import gap_bytes, solve_gap


def ours(rows: Tensor, labels: Tensor) -> Tensor:
    gap = solve_gap(rows, labels)
    return cg(gap.alpha, gap.inverse_diagonal)


def published(rows: Tensor, labels: Tensor) -> Tensor:
    """One inverse, then for every sample a copy of it without the sample's row and column (eq. 5 of the paper)."""
    unit = rows.double() / rows.double().norm(dim=1, keepdim=True)
    cosine = (unit @ unit.T).clamp(-1, 1)
    kernel = cosine * (torch.pi - torch.acos(cosine)) / (2 * torch.pi)
    kernel.fill_diagonal_(0.5)
    inverse = torch.linalg.inv(kernel).numpy()
    out = np.empty(len(rows))
    for i in range(len(rows)):
        y = np.where(labels.numpy() == int(labels[i]), 1.0, -1.0)
        rest = np.delete(np.arange(len(rows)), i)
        column, d = inverse[rest, i], inverse[i, i]
        without = inverse[np.ix_(rest, rest)] - np.outer(column, column) / d
        out[i] = y @ inverse @ y - y[rest] @ without @ y[rest]
    return torch.from_numpy(out)


def factorisation(n: int) -> Callable[[], Tensor]:
    matrix = torch.randn(n, 64, dtype=torch.float64)
    matrix = matrix @ matrix.T
    matrix.diagonal().add_(n)
    return lambda: torch.cholesky_inverse(torch.linalg.cholesky(matrix)).diagonal()


def measure(functions: list[Callable[[], Tensor]], repeat: int) -> tuple[list[float], list[Tensor]]:
    """The shortest time of each function, and its values."""
    times: list[list[float]] = [[] for _ in functions]
    values = [torch.empty(0)] * len(functions)
    for _ in range(repeat):
        for i, function in enumerate(functions):
            started = time.perf_counter()
            values[i] = function()
            times[i].append(time.perf_counter() - started)
    return [min(seen) for seen in times], values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="?", type=Path)
    parser.add_argument("n", nargs="?", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--digits", type=int, default=1797, help="how many digits, where no IMAGES.gz is given")
    parser.add_argument("--alone", action="store_true", help="no peer: time and memory only")
    options = parser.parse_args()
    functions: list[Callable[[], Tensor]]
    print_machine("scikit-learn")
    print(f"warm-up on 500 samples, then repeats: {options.repeat}; the shortest time of each")
    digits, target = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
    for function in (ours, published):
        function(digits[:500], target[:500])
    if options.images is None:
        digits, target = digits[: options.digits], target[: options.digits]
        functions = [lambda: ours(digits, target), lambda: published(digits, target)]
        (mine, peer), (a, b) = measure(functions, options.repeat)
        print(
            f"digits, n = {len(digits)}: {mine:.3f} s, published algorithm {peer:.2f} s: {peer / mine:.0f} times as fast"
        )
        print(f"largest relative difference: {float((a / b - 1).abs().max()):.1e}")
        return
    pixels = np.frombuffer(gzip.decompress(options.images.read_bytes()), np.uint8, offset=16).reshape(-1, 784)
    rows = torch.from_numpy(pixels[: options.n].copy())
    labels = torch.arange(options.n) % 10  # the time does not depend on the labels
    functions = [lambda: ours(rows, labels)]
    if not options.alone:
        functions.append(factorisation(options.n))
    (mine, *peers), _ = measure(functions, options.repeat)
    ratio = "".join(f", cholesky + cholesky_inverse {p:.2f} s: ratio {mine / p:.2f}" for p in peers)
    print(f"{options.images.name}, n = {options.n}: {mine:.2f} s{ratio}")
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"memory estimated {gap_bytes(options.n, 784, 10) / 1e9:.2f} GB, peak of the whole process {peak / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    main()
