"""What a robust learner is given, and what it gives back.

A learner is a function `(problem, seed, report) -> Learned`. It draws everything that is random from the seed, so that the
same seed on the same machine learns the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from engine.data.loader import Samples
from engine.spec import TrainingSpec
from engine.training.loop import Normalization


@dataclass(frozen=True)
class Problem:
    """Samples with labels of which some are wrong.

    samples: what is learned from, images (N, C, H, W) uint8 or frozen features (N, D), with the given labels, which lie in
    [0, classes); test: what the network is evaluated on, None where there is no test split; normalization: of the inputs of
    both; training: the network, its epochs, batch size, optimizer and augmentation
    """

    samples: Samples
    test: Samples | None
    normalization: Normalization
    training: TrainingSpec


@dataclass(frozen=True)
class Learned:
    """What a learner found out.

    probabilities: (N, C) float32 on the CPU, of every class for every sample learned from, not augmented; rows sum to 1;
    test: (M, C) float32 on the CPU, of the test split, or None; trace: numbers of every epoch, by name, for a figure
    """

    probabilities: Tensor
    test: Tensor | None
    trace: Mapping[str, Sequence[float]] = field(default_factory=dict)


Report = Callable[[float], None]
"""Called at every batch with the share done, 0 to 1; raises Cancelled to stop."""

Learner = Callable[[Problem, int, Report], Learned]
