"""Exact cosine neighbors against FAISS's IndexFlatIP on the same cores (pip install faiss-cpu).

python tests/benchmarks/bench_neighbors.py [--n 20000] [--width 512] [--k 15] [--repeat 5]

Both are run in turn, `--repeat` times each after one warm-up; the shortest time of each is compared. FAISS gets unit rows
and searches k + 1 neighbors, because it finds the sample itself as well.
"""

from __future__ import annotations

import argparse
import time

import faiss
import numpy as np
import torch
from machine import print_machine

from engine.features.neighbors import compute_neighbors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--k", type=int, default=15)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    features = torch.randn(options.n, options.width, generator=torch.Generator().manual_seed(0))
    unit = (features / features.norm(dim=1, keepdim=True)).numpy()
    threads = torch.get_num_threads()
    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(options.width)
    index.add(unit)
    times: dict[str, list[float]] = {"winnow": [], "faiss": []}
    for _ in range(options.repeat + 1):
        started = time.perf_counter()
        ids, _ = compute_neighbors(features, options.k)
        times["winnow"].append(time.perf_counter() - started)
        started = time.perf_counter()
        _, found = index.search(unit, options.k + 1)
        times["faiss"].append(time.perf_counter() - started)
    mine, peer = (min(seen[1:]) for seen in times.values())
    print_machine("faiss-cpu")
    print(f"1 warm-up, then repeats: {options.repeat}; the shortest time of each")
    print(
        f"{options.n} x {options.width}, k = {options.k}: {mine:.2f} s, IndexFlatIP {peer:.2f} s: ratio {mine / peer:.2f}"
    )
    print(f"the same neighbor in {float(np.mean(ids.numpy() == found[:, 1:])):.4%} of the places")


if __name__ == "__main__":
    main()
