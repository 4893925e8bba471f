"""Images of CIFAR-10 as a person's own photographs: a folder per class of PNG files, some of them in the wrong one.

    python tests/benchmarks/photographs.py PARQUET OUT [--n 3000] [--flip 0.08] [--seed 0] [--human FILE:COLUMN]

PARQUET holds images with their labels as Hugging Face has them, such as cifar10/train-00000-of-00001.parquet. Writes
OUT/<class>/<number>.png of N images drawn at random, and OUT.csv with path,label,true_label. --human takes the labels of
a column of a Parquet file in the same order, such as CIFAR-10N's random1, instead of making some wrong.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from textures import write_folder

CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parquet", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--n", type=int, default=3000)
    parser.add_argument("--flip", type=float, default=0.08)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--human", metavar="FILE:COLUMN")
    given = parser.parse_args()
    if given.out.exists():
        parser.error(f"{given.out} is there already; name a new folder")
    count = write_photographs(given.parquet, given.out, given.n, given.flip, given.seed, given.human or "")
    print(f"{given.n} images in {given.out}, {count} in the wrong folder; the truth is in {given.out}.csv")


def write_photographs(parquet: Path, out: Path, n: int, flip: float, seed: int, human: str = "") -> int:
    """Write the images and the truth beside them. Returns how many are in the wrong folder."""
    table = pq.read_table(parquet)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(table), n, replace=False)
    true = table["label"].to_numpy()[chosen]
    label = true.copy()
    if human:
        file, _, column = human.rpartition(":")
        label = pq.read_table(file)[column].to_numpy()[chosen]
    else:
        wrong = rng.choice(n, int(n * flip), replace=False)
        label[wrong] = (true[wrong] + rng.integers(1, len(CLASSES), len(wrong))) % len(CLASSES)

    def read(i: int) -> Image.Image:
        return Image.open(io.BytesIO(table["img"][int(chosen[i])].as_py()["bytes"])).convert("RGB")

    return write_folder(out, CLASSES, label, true, read)


if __name__ == "__main__":
    main()
