"""What a review gains: find, review, name a version, export it, ingest it again and train; accuracy before and after.

    python tests/benchmarks/bench_curation.py TRAIN_PARQUET TEST_PARQUET [--n 3000] [--test 2000] [--flip 0.08]
                                             [--model MODEL --features none ...] [--seeds 5] [--to FOLDER]

The Parquet files hold images with their labels as Hugging Face has them, such as CIFAR-10's. N training images get
`flip` of their labels made wrong; the test images keep the right ones. A reviewer who knows the truth looks at the
shortlist alone: keeps what is right, relabels what is wrong. Each set is exported as an image folder, ingested under a
name of its own and trained with the same options; the last line is what `winnow prove` says of the reviewed version.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `winnow` itself does; read when torch is imported

import argparse
import csv
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

import engine

CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()
Row = tuple[str, str, str, str]


def main() -> None:
    from machine import print_machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--n", type=int, default=3_000)
    parser.add_argument("--tested", type=int, default=2_000)
    parser.add_argument("--flip", type=float, default=0.08)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--features")
    parser.add_argument("--model")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--to", type=Path)
    given = parser.parse_args()
    print_machine()
    folder = given.to or Path(tempfile.mkdtemp())
    rng = np.random.default_rng(0)
    train = list(write_images(given.train, folder / "train", given.n, given.flip, rng))
    test = list(write_images(given.test, folder / "test", given.tested, 0.0, rng))
    options = {name: getattr(given, name) for name in ("features", "model", "epochs") if getattr(given, name)}
    for line in curate(folder, train, test, {"seeds": given.seeds, **options}):
        print(line, flush=True)


def write_images(parquet: Path, folder: Path, n: int, flip: float, rng: np.random.Generator) -> Iterator[Row]:
    """Write images drawn at random as PNG files; gives path, label, true label and split of each."""
    table = pq.read_table(parquet)
    chosen = rng.choice(len(table), n, replace=False)
    true = table["label"].to_numpy()[chosen]
    label = true.copy()
    wrong = rng.choice(n, int(n * flip), replace=False)
    label[wrong] = (true[wrong] + rng.integers(1, len(CLASSES), len(wrong))) % len(CLASSES)
    folder.mkdir(parents=True, exist_ok=True)
    for i, at in enumerate(chosen):
        path = folder / f"{i:05d}.png"
        Image.open(io.BytesIO(table["img"][int(at)].as_py()["bytes"])).convert("RGB").save(path)
        yield str(path), CLASSES[label[i]], CLASSES[true[i]], folder.name


def curate(folder: Path, train: list[Row], test: list[Row], options: dict[str, Any]) -> Iterator[str]:
    """The whole way, line by line of a table in Markdown.

    Args: folder: to work in; train, test: path, label, true label, split; options: of every run
    """
    workspace = engine.open(folder / "workspace", create=True)
    given = workspace.ingest("given", from_=_listed(folder / "given.csv", [*train, *test]), progress=False)
    run = given.run(**options, progress=False)
    samples = given.samples().set_index("sample_id")
    listed = run.shortlist()
    suspects = samples.loc[listed.loc[listed["listed"], "sample_id"]]
    suspects = suspects[suspects["split"] == "train"]
    right = suspects["label"] == suspects["true_label"]
    given.decide(suspects.index[right], "keep", author="reviewer")
    given.decide(
        suspects.index[~right], "relabel", suspects.loc[~right, "true_label"].astype(int).tolist(), author="reviewer"
    )
    versions = {
        "as given": given.create_version("as-given", decisions=False),
        "the shortlist dropped, unseen": given.create_version("dropped", drop_shortlist=True, decisions=False),
        "the shortlist reviewed": given.create_version("reviewed"),
    }
    yield f"{len(suspects):,} of {len(train):,} training samples reviewed, {int((~right).sum()):,} of them relabeled"
    yield "| set | training samples | wrong labels | wrong, estimated | test accuracy |"
    yield "| --- | --- | --- | --- | --- |"
    for title, version in versions.items():
        to = folder / version.name
        given.export(to, format="imagefolder", version=version.name)
        rows = [
            (str(path), path.parent.name, path.parent.name, "train")
            for path in sorted(to.rglob("*"))
            if path.suffix in (".png", ".webp", ".jpg", ".jpeg")
        ]
        again = workspace.ingest(
            version.name, from_=_listed(folder / f"{version.name}.csv", [*rows, *test]), progress=False
        )
        accuracies = _last_accuracies(again.run(**options, scores="aum", progress=False))
        assert len(rows) == len(version)
        left, spread = version.facts["noise_left"], accuracies.std(ddof=1)
        yield (
            f"| {title} | {len(version):,} | {version.facts['wrong_left']:,} | "
            f"{'' if left is None else f'{100 * left:.1f} %'} | {100 * accuracies.mean():.2f} % ± {100 * spread:.2f} |"
        )
    of_networks = {name: value for name, value in options.items() if name != "features"}
    yield f"winnow prove: {given.prove(version='reviewed', progress=False, **of_networks).gain().sentence}"


def _last_accuracies(run: Any) -> Any:
    """The test accuracy of each seed after its last epoch."""
    epochs = run.epochs()
    return epochs[epochs["epoch"] == epochs["epoch"].max()]["test_accuracy"].to_numpy(float)


def _listed(path: Path, rows: list[Row]) -> str:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "true_label", "split"), *rows])
    return str(path)


if __name__ == "__main__":
    main()
