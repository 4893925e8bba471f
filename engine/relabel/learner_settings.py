"""The settings of the robust learners beside their training, and presets of both. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.errors import SpecError, unknown_name
from engine.fields import check_options, check_range, option, options_of
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


SOP_ON_FEATURES = SopSettings(start=1e-3, view_noise=0.5)
DIVIDEMIX_ON_FEATURES = DivideMixSettings(warm_up=3, view_noise=0.5)
"""What the learners take where nothing is given and the inputs are vectors. On features a network repeats wrong labels within
a few epochs: u has to grow, or the samples to be divided, before, and views have to lie further apart. Further than this helps
SOP+ in a thousand dimensions, and hides the classes in ten."""

Settings = SopSettings | DivideMixSettings

DEFAULTS: dict[str, tuple[Settings, Settings]] = {
    "sop+": (SopSettings(), SOP_ON_FEATURES),
    "dividemix": (DivideMixSettings(), DIVIDEMIX_ON_FEATURES),
}
"""Of the learners that have settings: what they take on images, and on vectors."""


def read_settings(learner: str, given: Sequence[str]) -> tuple[str, ...]:
    """Settings of a learner as a spec holds them: NAME=VALUE, by name.

    Raises: SpecError for a learner without settings, an unknown name, one that is given twice, or a value outside its range
    """
    return tuple(f"{name}={value!r}" for name, value in sorted(_values(learner, given).items()))


def _values(learner: str, given: Sequence[str]) -> dict[str, Any]:
    if given and learner not in DEFAULTS:
        raise SpecError(f"the learner {learner} has no settings; --set goes with {', '.join(DEFAULTS)}")
    found: dict[str, Any] = {}
    known = options_of(type(DEFAULTS[learner][0])) if given else {}
    for text in given:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise SpecError(f"--set is '{text[:80]}'; allowed: NAME=VALUE, such as {next(iter(known))}=1")
        if name not in known:
            raise SpecError(unknown_name("setting", name, known, f"for the learner {learner}"))
        if name in found:
            raise SpecError(f"--set gives {name} twice; leave one of them out")
        one, declared = known[name]
        whole = isinstance(one.default, int)
        try:
            found[name] = int(value) if whole else float(value)
        except ValueError:
            kind = "a whole number" if whole else "a number"
            raise SpecError(f"--set {name} is '{value[:40]}'; allowed: {kind}") from None
        assert declared.low is not None and declared.high is not None
        check_range(f"--set {name}", found[name], declared.low, declared.high, declared.hint)
    return found


def settings_of_learner(learner: str, preset: str, given: Sequence[str], on_features: bool) -> Settings:
    """The settings of a learner: those given, before those of a preset or else of the kind of inputs."""
    values = _values(learner, given)
    base = find_learner_preset(preset, learner).settings if preset else DEFAULTS[learner][on_features]
    return replace(base, **values)


def settings_help() -> str:
    """The names that --set takes, by learner."""
    return "; ".join(f"{name}: {', '.join(options_of(type(one)))}" for name, (one, _) in DEFAULTS.items())


@dataclass(frozen=True)
class LearnerPreset:
    """A learner's training and settings, of a paper or of a size. changes: what departs from where they come from."""

    name: str
    source: str
    training: TrainingSpec
    settings: Settings
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
_IMAGES = replace(_CIFAR, model="lenet", epochs=100, batch_size=64, augment="crop")
_FEATURES = replace(_CIFAR, model="head", epochs=15, augment="none")

_SOP_CHANGES = "the second view is another crop and flip, where the paper's is AutoAugment's"
_DIVIDE_CHANGES = "the rate falls to a tenth at 3/4 once more"

LEARNER_PRESETS: dict[str, LearnerPreset] = {
    preset.name: preset
    for preset in (
        LearnerPreset("sop+-cifar10", "ROP, table 7", _CIFAR, SopSettings(), _SOP_CHANGES),
        LearnerPreset("sop+-cifar100", "ROP, table 7", _CIFAR, SopSettings(lr_u=1.0), _SOP_CHANGES),
        LearnerPreset("sop+-images", "small images, such as digits", _IMAGES, SopSettings()),
        LearnerPreset(
            "sop+-features",
            "features of a pretrained network, of a thousand dimensions or so",
            _FEATURES,
            replace(SOP_ON_FEATURES, view_noise=1.0),
        ),
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
        LearnerPreset("dividemix-features", "features of a pretrained network", _FEATURES, DIVIDEMIX_ON_FEATURES),
    )
}
"""Every preset by name, `<learner>-<what of>`."""


def find_learner_preset(name: str, learner: str) -> LearnerPreset:
    """The preset of that name; SpecError when there is none, or it is of another learner."""
    of_learner = [known for known in LEARNER_PRESETS if known.startswith(f"{learner}-")]
    if name not in of_learner:
        raise SpecError(unknown_name("preset", name, of_learner, f"for the learner {learner}"))
    return LEARNER_PRESETS[name]
