"""Sources that need no file: scikit-learn's digits, the Gaussians of PRUNE, another dataset of the workspace."""

from __future__ import annotations

import numpy as np
from PIL import Image

from engine.data.parts import Part, Source
from engine.data.sources.kinds import Named, source
from engine.errors import SpecError


@source(
    "digits",
    matches=lambda named: named.text == "digits",
    priority=30,
    resolved=str,
    rows=lambda text: _digits().train.load if text == "digits" else None,
)
def digits(named: Named) -> Source:
    """scikit-learn's 1,797 embedded 8 x 8 images of handwritten digits, 0..16 stretched to 0..255."""
    return _digits()


def _digits() -> Source:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images.astype(np.int64) * 255 // 16).astype(np.uint8)
    places = [f"digits:{i}" for i in range(len(images))]
    classes = tuple(str(c) for c in range(10))
    return Source(classes, Part(data.target.astype(np.int64), places, lambda i: Image.fromarray(images[i])))


@source("synthetic", matches=lambda named: named.text == "synthetic", priority=30, resolved=str)
def synthetic(named: Named) -> Source:
    """PRUNE's Gaussians: 15,000 vectors (100,) float32 of 10 equally frequent classes, a third of them for testing.

    Class c has the mean (7 / sqrt 2) e_c, so that all means are 7 apart, and the deviation sigma_c ~ U(1, 5) in
    every dimension.
    """
    rng = np.random.default_rng([named.seed, 100])
    classes, dims, count = 10, 100, 15_000
    sigma = rng.uniform(1, 5, classes)
    labels = rng.permutation(np.arange(count) % classes)
    means = np.eye(classes, dims) * (7 / np.sqrt(2))
    noise = rng.standard_normal((count, dims), np.float32)
    vectors = (means[labels] + sigma[labels, None] * noise).astype(np.float32)
    places = [f"synthetic:{i}" for i in range(count)]
    names = tuple(str(c) for c in range(classes))
    return Source(names, Part(labels, places, lambda i: np.asarray(vectors[i])), test_fraction=1 / 3)


@source("dataset:NAME", matches=lambda named: named.text.startswith("dataset:"), priority=30, resolved=str)
def dataset(named: Named) -> Source:
    """Another dataset of the workspace: the same samples with other labels.

    `engine.data.ingest` copies its samples, so it is never opened as a source of images.
    """
    raise SpecError(f"--test is {named.text[:200]}; allowed: a source of images, not another dataset")
