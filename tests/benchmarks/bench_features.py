"""Features of photographs against the plain loop of the package, and reading large JPEG files against plain Pillow.

python tests/benchmarks/bench_features.py [--images 256] [--photographs 48] [--repeat 3]

The network: images of 128 x 128 that are in memory, `efficientnet_lite0` in both precisions, against the network of
efficientnet-lite-pytorch with the same weights, in batches of 64 as in a usual loop (float32). Reading: JPEG files of
4,032 x 3,024, checked against the stored inputs and made 128 x 128, against Image.open, convert and resize.
Each in turn, `--repeat` times after one warm-up; the shortest time of each is compared. Processor milliseconds an image
are what other work on the machine changes least.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import print_machine
from PIL import Image
from sklearn.datasets import load_sample_images

from engine.data.decoding import pillow_warnings
from engine.data.ingest import ingest
from engine.data.originals import Originals
from engine.data.request import IngestSpec
from engine.features.backbones import find_backbone
from engine.features.backbones.efficientnet import _weights_file
from engine.features.embedding import Embedding, embed, ready
from engine.store.workspace import Workspace

SIDE, LARGE = 128, (4032, 3024)
PIECE = 32
"""Images that a thread of ours takes at a time."""


def side_by_side(threads: int, count: int, work: Callable[[int, int], object]) -> None:
    """As blocks are computed: some at once, with one thread each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda start: work(start, min(start + PIECE, count)), range(0, count, PIECE)))
    torch.set_num_threads(before)


def compare(what: str, count: int, repeat: int, competitors: dict[str, Callable[[], object]], peer: str) -> None:
    wall: dict[str, list[float]] = {name: [] for name in competitors}
    processor: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(repeat + 1):
        for name, work in competitors.items():
            started, used = time.perf_counter(), time.process_time()
            work()
            wall[name].append(time.perf_counter() - started)
            processor[name].append(time.process_time() - used)
    print(f"{what}, {count} images:")
    base, base_used = min(wall[peer][1:]), min(processor[peer][1:])
    for name in competitors:
        seconds, used = min(wall[name][1:]), min(processor[name][1:])
        print(
            f"  {name:28} {count / seconds:7.1f} images/s, {1000 * used / count:6.2f} ms of processor an image; "
            f"{base / seconds:.1f} and {base_used / used:.1f} times the plain loop"
        )


def bench_network(count: int, repeat: int, threads: int) -> None:
    import efficientnet_lite_pytorch

    images = load_sample_images().images
    corners = np.random.default_rng(0).integers(0, (427 - SIDE, 640 - SIDE), (count, 2))
    cuts = [images[i % 2][y : y + SIDE, x : x + SIDE] for i, (y, x) in enumerate(corners)]
    pixels = torch.from_numpy(np.stack(cuts).transpose(0, 3, 1, 2).copy())
    package = efficientnet_lite_pytorch.EfficientNet.from_name("efficientnet-lite0")
    package.load_state_dict(torch.load(_weights_file(), weights_only=True))
    package.eval()
    whole = ready(find_backbone(f"efficientnet_lite0:{SIDE}"), torch.device("cpu"))
    half = replace(whole, precision="bfloat16")

    @torch.no_grad()
    def plain() -> None:
        for start in range(0, count, 64):
            package.extract_features((pixels[start : start + 64].float() - 127) / 128).mean((2, 3))

    def ours(embedding: Embedding) -> None:
        side_by_side(threads, count, lambda a, b: embed(embedding, pixels[a:b], lambda share: None))

    competitors = {"plain loop of the package": plain, "winnow float32": lambda: ours(whole)}
    compare(
        "network", count, repeat, competitors | {"winnow bfloat16": lambda: ours(half)}, "plain loop of the package"
    )


def bench_reading(count: int, repeat: int, threads: int, folder: Path) -> None:
    rows, rng = [("path", "label")], np.random.default_rng(0)
    for i in range(count):
        image = Image.fromarray(load_sample_images().images[i % 2]).resize(LARGE, Image.Resampling.BICUBIC)
        noise = rng.integers(0, 24, (LARGE[1], LARGE[0], 1), np.uint8)  # as a sensor's, so that files have a real size
        Image.fromarray(np.minimum(np.asarray(image), 231) + noise).save(folder / f"{i}.jpg", quality=90)
        rows.append((f"{i}.jpg", str(i % 2)))
    with open(folder / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    workspace = Workspace.open(folder / "workspace", create=True)
    ingest(workspace, IngestSpec(name="large", source=str(folder / "list.csv"), test_fraction=0))
    originals = Originals(workspace, "large", SIDE)
    print(f"files of {np.mean([p.stat().st_size for p in folder.glob('*.jpg')]) / 1e6:.1f} MB")

    def plain() -> None:
        for i in range(count):
            Image.open(folder / f"{i}.jpg").convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)

    def ours() -> None:
        with pillow_warnings(), ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda i: originals.read(range(i, min(i + 4, count)), lambda: None), range(0, count, 4)))

    compare("reading JPEG files", count, repeat, {"plain Pillow loop": plain, "winnow": ours}, "plain Pillow loop")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--photographs", type=int, default=48)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    threads = torch.get_num_threads()
    print_machine("efficientnet-lite-pytorch", "pillow")
    print(f"1 warm-up, then repeats: {options.repeat}; the shortest time of each")
    bench_network(options.images, options.repeat, threads)
    with tempfile.TemporaryDirectory() as folder:
        bench_reading(options.photographs, options.repeat, threads, Path(folder))


if __name__ == "__main__":
    main()
