"""The classification datasets of torchvision, from files on this machine."""

from __future__ import annotations

import inspect
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.data.parts import Part, Source
from engine.data.sources.kinds import Named, source
from engine.errors import SourceError, SpecError, unknown_name

ALLOWED = frozenset(
    {
        *("Caltech101", "Caltech256", "CIFAR10", "CIFAR100", "CLEVRClassification", "Country211", "DTD", "EMNIST"),
        *("EuroSAT", "FakeData", "FashionMNIST", "FER2013", "FGVCAircraft", "Flowers102", "Food101", "GTSRB"),
        *("ImageFolder", "ImageNet", "Imagenette", "INaturalist", "KMNIST", "LFWPeople", "MNIST", "Omniglot"),
        *("OxfordIIITPet", "PCAM", "Places365", "QMNIST", "RenderedSST2", "SEMEION", "StanfordCars", "STL10"),
        *("SUN397", "SVHN", "USPS"),
    }
)
"""The datasets with one class per image. Others hold videos, boxes or pairs, and LSUN runs what its cache file says:
pickles of CIFAR are read only when their checksums are torchvision's."""


def _split(text: str) -> tuple[str, Path]:
    """The name and the root of torchvision:NAME[:ROOT]."""
    _, name, root = (text.split(":", 2) + ["data"])[:3]
    return name, Path(root)


def _resolved(text: str) -> str:
    name, root = _split(text)
    return f"torchvision:{name}:{root.resolve()}"


@source(
    "torchvision:NAME[:ROOT]",
    matches=lambda named: named.text.startswith("torchvision:"),
    priority=30,
    resolved=_resolved,
    base=lambda text: _split(text)[1].expanduser(),
)
def torchvision_dataset(named: Named) -> Source:
    """A classification dataset of torchvision from files that are there already: nothing is downloaded."""
    name, root = _split(named.text)
    root = Path(os.path.expanduser(root))
    try:
        import torchvision.datasets as library
    except (ImportError, RuntimeError, OSError) as error:  # it needs gigabytes of addresses
        raise SourceError(
            f"torchvision cannot be loaded: {_first_line(error)}; free memory or raise its limit"
        ) from error

    known = [n for n in library.__all__ if inspect.isclass(getattr(library, n))]
    if name not in known:
        raise SpecError(unknown_name("torchvision dataset", name, ALLOWED.intersection(known)))
    if name not in ALLOWED:
        raise SourceError(f"torchvision's {name} has no single class label per image; choose another")
    cls = getattr(library, name)
    accepted = inspect.signature(cls).parameters
    if "train" in accepted:
        options: list[dict[str, Any]] = [{"train": True}, {"train": False}]
    elif "split" in accepted:
        options = [{"split": "train"}, {"split": "test"}]
    else:
        options = [{}]
    if "download" in accepted:
        options = [{"download": False, **option} for option in options]
    if "root" in accepted:
        options = [{"root": str(root), **option} for option in options]
    try:
        sets = [cls(**option) for option in options]
    except (RuntimeError, OSError, ValueError, TypeError, ImportError, EOFError, NotImplementedError) as error:
        raise SourceError(
            f"torchvision's {name} cannot be read from {root}: {_first_line(error)}; put its files there "
            f"(torchvision:{name}:ROOT names another place)"
        ) from error
    parts = [_torchvision_part(name, data) for data in sets]
    names = getattr(sets[0], "classes", None) or range(1 + max(int(p.labels.max()) for p in parts))
    return Source(
        tuple(str(n[0] if isinstance(n, tuple) else n) for n in names), parts[0], parts[1] if len(parts) > 1 else None
    )


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0] or type(error).__name__


def _torchvision_part(name: str, data: Any) -> Part:
    targets = next((t for a in ("targets", "labels", "_labels") if (t := getattr(data, a, None)) is not None), None)
    try:
        if targets is None:
            targets = [data[i][1] for i in range(len(data))]
        labels = np.array([int(t) for t in targets], np.int64)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise SourceError(f"torchvision's {name} has no single class label per image; choose another") from error
    lock = threading.Lock()  # torchvision does not promise that its datasets may be read from several threads

    def load(i: int) -> Image.Image:
        with lock:
            image = data[i][0]
        if not isinstance(image, Image.Image):
            raise ValueError(f"torchvision's {name} gives {type(image).__name__}, not an image")
        return image

    return Part(labels, [f"{name}:{i}" for i in range(len(labels))], load)
