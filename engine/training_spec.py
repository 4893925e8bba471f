"""How networks are trained: the options that every kind of run with networks shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.fields import check_options, check_range, derived, option

Optimizer = Literal["adam", "sgd"]
Schedule = Literal["constant", "cosine", "step"]
Observe = Literal["train", "eval"]
Augment = Literal["none", "flip", "crop", "crop+flip"]
Precision = Literal["float32", "bfloat16"]

LEARNING_RATE: dict[str, float] = {"adam": 0.002, "sgd": 0.1}
"""Learning rate of each optimizer where none is given."""


@dataclass(frozen=True)
class TrainingSpec:
    """How networks are trained while their dynamics are recorded.

    model_hash: of the source of a model of one's own; trained_on: the stored features that are the networks' inputs, by
    their key (engine.features.stored), "" = the dataset's own inputs
    """

    model: str = option(
        "mlp",
        introduced="mlp",
        help="{models}, torchvision:NAME, or PACKAGE.MODULE:FACTORY.",
    )
    epochs: int = option(20, introduced=20, low=1, high=10_000, help="Passes over the training set.")
    seeds: int = option(5, introduced=5, low=1, high=1_000, help="Networks to train.")
    batch_size: int = option(
        256,
        introduced=256,
        low=2,
        high=1_000_000,
        hint="batch normalization needs at least 2",
        help="Samples per step.",
    )
    lr: float = option(
        LEARNING_RATE["adam"],
        introduced=0.002,
        low=1e-8,
        high=100,
        help="Learning rate of the first step.",
        unset="0.002 adam, 0.1 sgd",
    )
    optimizer: Optimizer = option(
        "adam", introduced="adam", choices=Optimizer, help="adam, or sgd with Nesterov momentum 0.9."
    )
    schedule: Schedule = option(
        "constant",
        introduced="constant",
        choices=Schedule,
        help="constant, cosine, or step (a tenth at 1/2 and at 3/4).",
    )
    weight_decay: float = option(
        0.0, introduced=0.0, low=0, high=10, help="L2 penalty (SGD), or decay as Adam defines it."
    )
    observe: Observe = option(
        "train",
        introduced="train",
        choices=Observe,
        help="Record the logits of the training pass (train), or of an evaluation pass after each epoch (eval).",
    )
    augment: Augment = option("none", introduced="none", choices=Augment, help="none, flip, crop or crop+flip.")
    logit_seeds: int = option(1, introduced=1, help="Seeds that keep their full logits, 0 to the number of seeds.")
    threads: int = option(
        1,
        introduced=1,
        low=1,
        high=256,
        help="Processor threads of one network. Networks are trained side by side, so more than 1 pays only for few "
        "large ones. The last digits of the results depend on it.",
        unset="1; all for a model that must be trained alone",
    )
    precision: Precision = option(
        "float32",
        introduced="float32",
        choices=Precision,
        help="float32, or bfloat16 before the last layer: about 1.5 times faster where the processor or GPU has it.",
    )
    model_hash: str = derived("")
    trained_on: str = derived("")

    def __post_init__(self) -> None:
        check_options(self)
        check_range("--logit-seeds", self.logit_seeds, 0, self.seeds, "at most the number of seeds")
