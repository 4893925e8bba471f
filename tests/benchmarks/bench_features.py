"""Features of photographs against the plain loop of the package, and reading large JPEG files against plain Pillow.

The network: images of 128 x 128 that are in memory, `efficientnet_lite0` in both precisions, against the network of
efficientnet-lite-pytorch with the same weights, in batches of 64 as in a usual loop (float32). Reading: JPEG files of
4,032 x 3,024, checked against the stored inputs and made 128 x 128, against Image.open, convert and resize.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measuring import Row, Size, race
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


def rows(size: Size) -> Iterator[Row]:
    threads = torch.get_num_threads()
    yield from _network(4 if size.small else 256, size.repeats, threads)
    with tempfile.TemporaryDirectory() as folder:
        yield _reading(2 if size.small else 48, size.repeats, threads, Path(folder))


def _network(count: int, repeats: int, threads: int) -> Iterator[Row]:
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

    for embedding, name in ((whole, "float32"), (half, "bfloat16")):
        row = Row("efficientnet_lite0", f"{count} x {SIDE} x {SIDE}, {name}", "loop of its package, float32", 1.0)
        yield race(row, partial(ours, embedding), plain, repeats)


def _reading(count: int, repeats: int, threads: int, folder: Path) -> Row:
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

    def plain() -> None:
        for i in range(count):
            Image.open(folder / f"{i}.jpg").convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)

    def ours() -> None:
        with pillow_warnings(), ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda i: originals.read(range(i, min(i + 4, count)), lambda: None), range(0, count, 4)))

    megabytes = np.mean([path.stat().st_size for path in folder.glob("*.jpg")]) / 1e6
    row = Row("reading JPEG files", f"{count} of {megabytes:.1f} MB, made {SIDE} x {SIDE}", "loop of Pillow", 1.0)
    return race(row, ours, plain, repeats)
