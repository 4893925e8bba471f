"""Small problems for the robust learners: vectors and images with wrong labels."""

import numpy as np
import torch

from engine.data.loader import Samples, normalization
from engine.relabel.problem import Problem
from engine.spec import TrainingSpec
from engine.training.loop import Normalization


def made(inputs, labels, classes=3, true=None, **training) -> Problem:
    """A problem of given inputs and labels, without a test split."""
    samples = Samples(inputs, torch.as_tensor(labels), torch.arange(len(inputs)), classes, true)
    given = {"model": "mlp", "epochs": 3, "batch_size": 8, "lr": 0.01, **training}
    return Problem(samples, None, Normalization(*normalization(samples)), TrainingSpec(**given))


def clouds(n=90, wrong=0.3, seed=0, classes=3, dims=6, **training) -> Problem:
    """Well separated classes of vectors, of whose labels a share is wrong."""
    rng = np.random.default_rng(seed)
    true = np.arange(n) % classes
    inputs = 5 * np.eye(classes, dims)[true] + rng.standard_normal((n, dims))
    labels = true.copy()
    changed = rng.choice(n, round(wrong * n), replace=False)
    labels[changed] = (labels[changed] + rng.integers(1, classes, len(changed))) % classes
    return made(torch.tensor(inputs, dtype=torch.float32), labels, classes, torch.as_tensor(true), **training)


def pictures(n=20, **training) -> Problem:
    inputs = torch.randint(0, 256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    given = {"model": "lenet", "augment": "crop+flip", "epochs": 2, **training}
    return made(inputs, torch.arange(n) % 3, **given)
