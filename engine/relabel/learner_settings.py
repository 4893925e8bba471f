"""The settings of the robust learners beside their training, and presets of both. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from engine.fields import check_options, option


@dataclass(frozen=True)
class SopSettings:
    """SOP+ (Liu et al. 2022). The defaults are those of CIFAR-10."""

    lr_u: float = option(10.0, introduced=10.0, low=0, high=1e6, help="Learning rate of u.")
    lr_v: float = option(100.0, introduced=100.0, low=0, high=1e6, help="Learning rate of v.")
    start: float = option(
        1e-8, introduced=1e-8, low=1e-12, high=0.1, help="Deviation of the normal distribution that u and v start from."
    )
    balance: float = option(
        0.1, introduced=0.1, low=0, high=100, help="Weight of the term that wants all classes equally often."
    )
    consistency: float = option(
        0.9, introduced=0.9, low=0, high=100, help="Weight of the term that wants two views predicted alike."
    )
    view_noise: float = option(
        0.3,
        introduced=0.3,
        low=0,
        high=10,
        help="Deviation of the noise of a view without augmentation, in deviations of a feature.",
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class DivideMixSettings:
    """DivideMix (Li et al. 2020). The defaults are those of CIFAR-10 at 40 or 50 % noise."""

    warm_up: int = option(10, introduced=10, low=1, high=9_999, help="Epochs of plain cross-entropy before dividing.")
    threshold: float = option(
        0.5, introduced=0.5, low=0, high=1, help="A sample is taken as labeled above this probability of being clean."
    )
    temperature: float = option(0.5, introduced=0.5, low=0.01, high=1, help="Of the sharpening; 1 leaves it out.")
    alpha: float = option(4.0, introduced=4.0, low=0.01, high=1000, help="Of the beta distribution of MixUp.")
    lambda_u: float = option(
        25.0, introduced=25.0, low=0, high=1000, help="Weight of the loss of the unlabeled samples, after the ramp."
    )
    ramp: int = option(16, introduced=16, low=1, high=10_000, help="Epochs in which that weight rises from 0.")
    views: int = option(
        2, introduced=2, low=1, high=16, help="Augmentations of a sample whose predictions are averaged."
    )
    confidence_penalty: float = option(
        0.0,
        introduced=0.0,
        low=0,
        high=100,
        help="Weight of the negative entropy in the warm-up: 1 for noise that depends on the class.",
    )
    view_noise: float = option(
        0.3,
        introduced=0.3,
        low=0,
        high=10,
        help="Deviation of the noise of a view without augmentation, in deviations of a feature.",
    )

    def __post_init__(self) -> None:
        check_options(self)
