"""What is to be computed for a run, and how fast this machine is at it: what estimates of time are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.spec import RunSpec
from engine.training.speed import Speed

GRADIENT_STEPS = 1.5
"""A sample's own gradient takes so many times what the sample adds to a training step ..."""

GRADIENT_SECONDS = 1.2e-8
"""... and so many seconds for every parameter, whose gradients are written once for each sample (one core)."""


@dataclass(frozen=True)
class Work:
    """A run of N training and M test samples.

    speed: of its networks, None where none is trained or passed; features: seconds of computing the features that it
    reads, 0 where they are stored
    """

    spec: RunSpec
    samples: int
    test: int
    speed: Speed | None
    features: float = 0.0

    def networks(self, count: int, share: float = 1.0) -> float:
        """Seconds of training so many networks, each on a share of the samples, side by side where they are."""
        if not self.speed or not self.spec.training:
            return 0.0
        return self.side_by_side(count) * self.speed.training(share * self.samples, self.spec.training.epochs)

    def side_by_side(self, count: int) -> int:
        """How many times as long as one network so many take."""
        return math.ceil(count / self.speed.workers) if self.speed else 0

    def passing(self, samples: int | None = None) -> float:
        """Seconds of passing samples through one network, all of the training set unless others are given."""
        return self.speed.passing * (self.samples if samples is None else samples) if self.speed else 0.0

    def gradients(self) -> float:
        """Seconds of the gradients of every sample's own loss in one network."""
        if not self.speed:
            return 0.0
        each = GRADIENT_STEPS * (self.speed.sample + self.speed.start / self.speed.batch_size)
        return self.samples * (each + GRADIENT_SECONDS * self.speed.parameters)
