"""What can be asked of the engine: frozen, validated, and hashed into the id of what it produces.

A spec holds everything that decides the result and nothing else: the device, the versions and the time are
recorded beside a run, but the same spec asked twice is the same run.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from engine.errors import SpecError, unknown_name

Optimizer = Literal["adam", "sgd"]
Schedule = Literal["constant", "cosine", "step"]
Observe = Literal["train", "eval"]
Augment = Literal["none", "flip", "crop", "crop+flip"]
Embedding = Literal["umap", "none"]
Complexity = Literal["exact", "stochastic"]
PsiSteps = Literal["epochs", "fixed"]

LEARNING_RATE: dict[str, float] = {"adam": 0.002, "sgd": 0.1}
"""Default learning rate of each optimiser, used when none is asked for."""


def check_range(name: str, value: float, low: float, high: float, hint: str = "") -> None:
    """Raise SpecError unless low <= value <= high (a NaN is never inside)."""
    if not low <= value <= high:
        raise SpecError(f"{name} is {value:g}; allowed: {low:g} to {high:g}" + (f" ({hint})" if hint else ""))


def check_choice(name: str, value: str, allowed: object) -> None:
    """Raise SpecError unless value is one of a Literal's values."""
    if value not in get_args(allowed):
        raise SpecError(unknown_name(name, value, get_args(allowed)))


def check_dataset_name(name: str) -> None:
    """Raise SpecError unless the name is safe as a file name on every system."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise SpecError(
            f"dataset name {name!r}; allowed: up to 64 letters, digits, '-', '_' and '.', a letter or digit first"
        )


@dataclass(frozen=True)
class TrainingSpec:
    """How networks are trained while their dynamics are recorded.

    epochs, seeds: counts; batch_size: samples; lr: learning rate of the first step; weight_decay: L2 (SGD) or
    as the optimiser defines it; observe: logits of the training pass or of a clean pass after each epoch;
    logit_seeds: how many seeds keep their full logits (0 .. seeds).
    """

    model: str = "mlp"
    epochs: int = 20
    seeds: int = 5
    batch_size: int = 256
    lr: float = LEARNING_RATE["adam"]
    optimizer: Optimizer = "adam"
    schedule: Schedule = "constant"
    weight_decay: float = 0.0
    observe: Observe = "train"
    augment: Augment = "none"
    logit_seeds: int = 1

    def __post_init__(self) -> None:
        check_range("--epochs", self.epochs, 1, 10_000)
        check_range("--seeds", self.seeds, 1, 1_000)
        check_range("--batch-size", self.batch_size, 2, 1_000_000, "batch normalisation needs at least 2")
        check_range("--lr", self.lr, 1e-8, 100)
        check_range("--weight-decay", self.weight_decay, 0, 10)
        check_range("--logit-seeds", self.logit_seeds, 0, self.seeds, "at most the number of seeds")
        check_choice("optimizer", self.optimizer, Optimizer)
        check_choice("schedule", self.schedule, Schedule)
        check_choice("observe", self.observe, Observe)
        check_choice("augment", self.augment, Augment)


@dataclass(frozen=True)
class RunSpec:
    """One `winnow run`: which scores of which dataset, from which training.

    neighbors: kept per sample, 0 = none; complexity: the complexity gap over the whole set, or averaged over random
    subsets; standardise: its inputs shifted and scaled per channel first; features: torchvision:NAME:FILE, "" = of the
    trained network; detector: a noise detector's name, "" = the shipped one; cscores: a file of published consistency
    scores, "" = estimated; the hashes are of those files.
    """

    dataset: str
    fingerprint: str
    scores: tuple[str, ...]
    training: TrainingSpec | None
    threshold_rounds: int = 2
    neighbors: int = 15
    embedding: Embedding = "umap"
    seed: int = 0
    complexity: Complexity = "exact"
    standardise: bool = False
    features: str = ""
    features_hash: str = ""
    detector: str = ""
    detector_hash: str = ""
    cscores: str = ""
    cscores_hash: str = ""

    def __post_init__(self) -> None:
        check_range("--threshold-rounds", self.threshold_rounds, 0, 2, "2 rounds judge every sample")
        if self.threshold_rounds == 1:
            raise SpecError(
                "--threshold-rounds is 1; allowed: 0 or 2 (one round leaves its own threshold samples unjudged)"
            )
        check_range("--neighbors", self.neighbors, 0, 1_000)
        check_choice("embedding", self.embedding, Embedding)
        check_choice("complexity", self.complexity, Complexity)
        if self.embedding == "umap" and self.neighbors < 2:
            raise SpecError(f"--neighbors is {self.neighbors}; the map needs at least 2 (or ask --embedding none)")


@dataclass(frozen=True)
class PsiSpec:
    """One `winnow psi`: accuracy on the test set after pruning.

    At point i = 0 .. points-1 the share until * i / points is pruned. With window, half of the samples are kept at
    every point i = 0 .. points: those of a score's ranks from the share 0.5 * i / points on (CG, window experiment).
    scores_run: the run whose scores and features the orders read; class_balanced: the same share of each class goes.
    """

    dataset: str
    fingerprint: str
    orders: tuple[str, ...]
    points: int
    training: TrainingSpec
    scores_run: str | None
    steps: PsiSteps = "epochs"
    seed: int = 0
    class_balanced: bool = False
    window: bool = False
    until: float = 1.0

    def __post_init__(self) -> None:
        check_range("--points", self.points, 2, 10_000)
        check_choice("steps", self.steps, PsiSteps)
        check_range("--until", self.until, 0.001, 1, "the largest share pruned")
        if not self.orders:
            raise SpecError("no order was given; allowed: random, oracle, or a score's name, with * for reversed")


@dataclass(frozen=True)
class RecordedSpec:
    """A run published by `engine.recorder.Recorder` from a person's own training loop."""

    dataset: str
    fingerprint: str
    name: str
    seeds: int
    epochs: int
    observe: Observe
    dynamics: str
    """SHA-256 of the recorded dynamics: two recordings are the same run only when they recorded the same."""


Spec = RunSpec | PsiSpec | RecordedSpec
KINDS: dict[str, type[RunSpec] | type[PsiSpec] | type[RecordedSpec]] = {
    "run": RunSpec,
    "psi": PsiSpec,
    "recorded": RecordedSpec,
}


def spec_kind(spec: Spec) -> str:
    """The name under which a spec's class is stored."""
    return next(kind for kind, cls in KINDS.items() if type(spec) is cls)


def spec_hash(content: Any) -> str:
    """12 hexadecimal digits of the SHA-256 of a spec (or of any JSON value) in canonical form."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_id(spec: Spec) -> str:
    """The id of the run that answers a spec: the hash of its content."""
    return spec_hash({"kind": spec_kind(spec), **asdict(spec)})


def training_key(fingerprint: str, training: TrainingSpec) -> str:
    """What two runs must share for one to read the other's dynamics instead of training again."""
    return spec_hash({"fingerprint": fingerprint, **asdict(training)})


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """A spec as stored in spec.json."""
    return {"kind": spec_kind(spec), **asdict(spec)}


def spec_from_json(content: dict[str, Any]) -> Spec:
    """The spec stored by `spec_to_json`; SpecError when it names fields this version does not know."""
    content = dict(content)
    cls = KINDS.get(str(content.pop("kind", "")))
    known = {f.name for f in fields(cls)} if cls else set()
    if cls is None or not set(content) <= known:
        extra = ", ".join(sorted(set(content) - known)) or "its kind"
        raise SpecError(f"this run was asked by another version of winnow (unknown: {extra}); run it again")
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    if isinstance(given.get("training"), dict):
        given["training"] = TrainingSpec(**given["training"])
    return cls(**given)
