"""The settings of the robust learners beside their training, and presets of both. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.errors import SpecError, unknown_name
from engine.fields import check_options, option
from engine.spec import TrainingSpec


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


@dataclass(frozen=True)
class LearnerPreset:
    """A learner's training and settings, of a paper or of a size. changes: what departs from where they come from."""

    name: str
    source: str
    training: TrainingSpec
    settings: SopSettings | DivideMixSettings
    changes: str = ""


_CIFAR = TrainingSpec(
    model="preact_resnet18",
    epochs=300,
    seeds=3,
    batch_size=128,
    lr=0.02,
    optimizer="sgd",
    schedule="cosine",
    weight_decay=5e-4,
    augment="crop+flip",
)
_STEPPED = replace(_CIFAR, batch_size=64, schedule="step")
_IMAGES = replace(_CIFAR, model="lenet", epochs=60, batch_size=64, augment="crop")
_FEATURES = replace(_CIFAR, model="mlp", epochs=30, batch_size=64, augment="none")

_SOP_CHANGES = "the second view is another crop and flip, where the paper's is AutoAugment's"
_DIVIDE_CHANGES = "the rate falls to a tenth at 3/4 once more"

LEARNER_PRESETS: dict[str, LearnerPreset] = {
    preset.name: preset
    for preset in (
        LearnerPreset("sop+-cifar10", "ROP, table 7", _CIFAR, SopSettings(), _SOP_CHANGES),
        LearnerPreset("sop+-cifar100", "ROP, table 7", _CIFAR, SopSettings(lr_u=1.0), _SOP_CHANGES),
        LearnerPreset("sop+-images", "small images, such as digits", _IMAGES, SopSettings()),
        LearnerPreset("sop+-features", "features of a pretrained network", _FEATURES, SopSettings()),
        LearnerPreset(
            "dividemix-cifar10",
            "DivideMix, section 4, and its authors' code",
            _STEPPED,
            DivideMixSettings(),
            _DIVIDE_CHANGES,
        ),
        LearnerPreset(
            "dividemix-cifar100",
            "DivideMix, section 4, and its authors' code, for 50 % noise and more; lambda_u is 25 below",
            _STEPPED,
            DivideMixSettings(warm_up=30, lambda_u=150.0),
            _DIVIDE_CHANGES,
        ),
        LearnerPreset("dividemix-images", "small images, such as digits", _IMAGES, DivideMixSettings()),
        LearnerPreset(
            "dividemix-features", "features of a pretrained network", _FEATURES, DivideMixSettings(warm_up=5)
        ),
    )
}
"""Every preset by name, `<learner>-<what of>`."""


def find_learner_preset(name: str, learner: str) -> LearnerPreset:
    """The preset of that name; SpecError when there is none, or it is of another learner."""
    of_learner = [known for known in LEARNER_PRESETS if known.startswith(f"{learner}-")]
    if name not in of_learner:
        raise SpecError(unknown_name("preset", name, of_learner, f"for the learner {learner}"))
    return LEARNER_PRESETS[name]
