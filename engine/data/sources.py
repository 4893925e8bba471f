"""What can follow `--from`: one function per kind of source, and the line where each is listed."""

from __future__ import annotations

import glob
import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.data.files import class_folders, csv_of_paths, idx_files, idx_folder
from engine.data.parquet import parquet_files
from engine.data.parts import Part, Source, rename_labels
from engine.errors import SourceError, SpecError, unknown_name

KINDS = (
    "digits",
    "synthetic",
    "torchvision:NAME[:ROOT]",
    "dataset:NAME",
    "a folder with one sub-folder per class",
    "Parquet (a file, a glob or a folder)",
    "a CSV with path,label",
    "a folder of MNIST IDX files",
)


def open_source(text: str, seed: int, test: str | None = None) -> Source:
    """The source that `--from` names, with the test split of `--test` in place of its own.

    Raises: SourceError when it is missing or malformed; SpecError when the text names no kind of source.
    """
    source = _open(text, seed)
    if test is not None:
        other = _open(test, seed)
        part = other.test or other.train
        source = Source(source.classes, source.train, rename_labels(part, other.classes, source.classes, test))
    used = len(np.unique(source.train.labels))
    if used < 2:
        raise SourceError(f"{text} has training samples of {used} class{'es' * (used != 1)}; at least 2 are needed")
    return source


def resolve(text: str) -> str:
    """A source as it is compared: paths made absolute, so that the same words elsewhere are another source."""
    if text in _BUILT_IN or text.startswith("dataset:"):
        return text
    if text.startswith("torchvision:"):
        kind, name, root = (text.split(":", 2) + ["data"])[:3]
        return f"{kind}:{name}:{Path(root).resolve()}"
    return str(Path(text).expanduser().resolve())


def _open(text: str, seed: int) -> Source:
    if text in _BUILT_IN:
        return _BUILT_IN[text](seed)
    if text.startswith("torchvision:"):
        _, name, root = (text.split(":", 2) + ["data"])[:3]
        return torchvision_dataset(name, Path(root).expanduser())
    if text.startswith("dataset:"):
        raise SpecError(f"--test is {text}; allowed: a source of images, not another dataset")
    return _open_path(text)


def _open_path(text: str) -> Source:
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            files = [*path.glob("*.parquet"), *path.glob("*/*.parquet")]
            found = sorted(p for p in files if not p.name.startswith("."))
            if found:
                return parquet_files(found)
            return idx_folder(path) if idx_files(path) else class_folders(path)
        if path.is_file() and path.suffix.lower() in (".parquet", ".csv"):
            return parquet_files([path]) if path.suffix.lower() == ".parquet" else csv_of_paths(path)
    except PermissionError as error:
        raise SourceError(f"not allowed to read {error.filename}; change its permissions or choose another") from error
    if path.is_file():
        raise SourceError(f"{path} is not understood; allowed: .parquet, .csv, or {', '.join(KINDS)}")
    if glob.has_magic(text):
        matches = [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
        if not matches or any(p.suffix.lower() != ".parquet" for p in matches):
            raise SourceError(
                f"{text} matches {len(matches)} files; allowed: a pattern that matches Parquet files only"
            )
        return parquet_files(matches)
    if "/" not in text and "." not in text:
        raise SpecError(
            unknown_name("source", text, _BUILT_IN, f"and there is no such path; allowed: {', '.join(KINDS)}")
        )
    raise SourceError(f"there is no {path}; give an existing path, or one of: {', '.join(KINDS[:3])}")


def digits(seed: int) -> Source:
    """scikit-learn's 1,797 embedded 8 x 8 images of handwritten digits, 0..16 stretched to 0..255."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images.astype(np.int64) * 255 // 16).astype(np.uint8)
    places = [f"digits:{i}" for i in range(len(images))]
    classes = tuple(str(c) for c in range(10))
    return Source(classes, Part(data.target.astype(np.int64), places, lambda i: Image.fromarray(images[i])))


def synthetic(seed: int) -> Source:
    """PRUNE's Gaussians: 15,000 vectors (100,) float32 of 10 equally frequent classes, a third of them for testing.

    Class c has the mean (7 / sqrt 2) e_c, so that all means are 7 apart, and the deviation sigma_c ~ U(1, 5) in
    every dimension.
    """
    rng = np.random.default_rng([seed, 100])
    classes, dims, count = 10, 100, 15_000
    sigma = rng.uniform(1, 5, classes)
    labels = rng.permutation(np.arange(count) % classes)
    means = np.eye(classes, dims) * (7 / np.sqrt(2))
    noise = rng.standard_normal((count, dims), np.float32)
    vectors = (means[labels] + sigma[labels, None] * noise).astype(np.float32)
    places = [f"synthetic:{i}" for i in range(count)]
    names = tuple(str(c) for c in range(classes))
    return Source(names, Part(labels, places, lambda i: np.asarray(vectors[i])), test_fraction=1 / 3)


_BUILT_IN: dict[str, Callable[[int], Source]] = {"digits": digits, "synthetic": synthetic}


def torchvision_dataset(name: str, root: Path) -> Source:
    """A classification dataset of torchvision from files that are there already: nothing is downloaded."""
    import torchvision.datasets as library

    known = [n for n in library.__all__ if inspect.isclass(getattr(library, n))]
    if name not in known:
        raise SpecError(unknown_name("torchvision dataset", name, known))
    cls = getattr(library, name)
    accepted = inspect.signature(cls).parameters
    if "train" in accepted:
        options: list[dict[str, Any]] = [{"train": True}, {"train": False}]
    elif "split" in accepted:
        options = [{"split": "train"}, {"split": "test"}]
    else:
        options = [{}]
    if "root" in accepted:
        options = [{"root": str(root), **option} for option in options]
    try:
        sets = [cls(**option) for option in options]
    except (RuntimeError, OSError, ValueError, TypeError, ImportError, EOFError) as error:
        raise SourceError(
            f"torchvision's {name} cannot be read from {root}: {str(error).splitlines()[0]}; put its files there "
            f"(torchvision:{name}:ROOT names another place)"
        ) from error
    parts = [_torchvision_part(name, data) for data in sets]
    names = getattr(sets[0], "classes", None) or range(1 + max(int(p.labels.max()) for p in parts))
    return Source(
        tuple(str(n[0] if isinstance(n, tuple) else n) for n in names), parts[0], parts[1] if len(parts) > 1 else None
    )


def _torchvision_part(name: str, data: Any) -> Part:
    targets = next((t for a in ("targets", "labels", "_labels") if (t := getattr(data, a, None)) is not None), None)
    if targets is None:
        targets = [data[i][1] for i in range(len(data))]
    try:
        labels = np.array([int(t) for t in targets], np.int64)
    except (TypeError, ValueError) as error:
        raise SourceError(f"torchvision's {name} has no single class label per image; choose another") from error
    lock = threading.Lock()  # torchvision does not promise that its datasets may be read from several threads

    def load(i: int) -> Image.Image:
        with lock:
            image = data[i][0]
        if not isinstance(image, Image.Image):
            raise ValueError(f"torchvision's {name} gives {type(image).__name__}, not an image")
        return image

    return Part(labels, [f"{name}:{i}" for i in range(len(labels))], load)
