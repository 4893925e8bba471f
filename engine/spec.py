"""What a run can be: frozen, validated options, each declared once, and hashed into the run's id.

A spec holds everything that decides the result and nothing else. The device, the versions and the time are recorded
with a run, and files are named by the hash of their content, so the same spec is the same run on another machine.

An option is one field. Its help, range and choices make the command line, the pages and the tables of the guide. Its
hash leaves it out at the value it had when it was introduced, which is frozen in its declaration: a new option changes no id,
a changed default does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from engine.errors import SpecError
from engine.fields import check_options, check_range, derived, option
from engine.training_spec import LEARNING_RATE as LEARNING_RATE
from engine.training_spec import Observe as Observe
from engine.training_spec import TrainingSpec as TrainingSpec

SPEC_VERSION = 2
"""Of what `spec_to_json` writes. 1: winnow 0.1, without a version."""

Embedding = Literal["umap", "none"]
Complexity = Literal["exact", "stochastic"]
PsiSteps = Literal["epochs", "fixed"]
Selecting = Literal["descending", "ccs"]


# The specs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunSpec:
    """One `winnow run`: which scores of which dataset, from which training.

    training: None where nothing needs a trained network; versions: `score@version` of the scores whose formula is not
    the first one; the hashes are of the files that features, detector and cscores name.
    """

    dataset: str
    fingerprint: str
    scores: tuple[str, ...]
    training: TrainingSpec | None
    threshold_rounds: int = option(
        2,
        introduced=2,
        low=0,
        high=2,
        hint="2 rounds judge every sample",
        help="Networks for the AUM threshold rule: 0 or 2.",
        unset="2 with aum",
    )
    neighbors: int = option(
        15, introduced=15, low=0, high=1_000, help="Nearest neighbors to keep.", unset="15 with standard, all or a map"
    )
    embedding: Embedding = option(
        "umap", introduced="umap", choices=Embedding, help="umap or none.", unset="umap with standard or all"
    )
    seed: int = option(0, introduced=0, help="Of threshold samples, ties and the map.")
    complexity: Complexity = option(
        "exact",
        introduced="exact",
        choices=Complexity,
        help="Complexity gap over the whole set (exact) or averaged over random subsets (stochastic).",
    )
    standardize: bool = option(
        False, introduced=False, help="Standardize the inputs of the complexity gap per channel first."
    )
    features: str = option(
        "",
        introduced="",
        help="{features}, or none. Neighbors and the map read them, and linear, head and mlp are trained on them.",
        identity=lambda text: ":".join(text.split(":", 2)[:2]) if text.startswith("torchvision:") else "",
        unset="chosen by a short trial",
    )
    features_hash: str = derived("")
    probs: str = option(
        "",
        introduced="",
        metavar="FILE",
        help="Held-out probabilities of a model of your own (.npy, .csv, .parquet; N x C): the scores read them, and nothing "
        "is trained.",
        identity=lambda text: "",
        unset="those of the run's networks",
    )
    probs_hash: str = derived("")
    download: bool = option(
        False,
        introduced=False,
        help="Let torchvision fetch the weights of --features torchvision:NAME where this machine lacks them.",
        identity=lambda given: False,
    )
    detector: str = option(
        "",
        introduced="",
        help="Noise detector of the score lstm_detector.",
        identity=lambda text: "",
        unset="digits+textures, which ships",
    )
    detector_hash: str = derived("")
    cscores: str = option(
        "",
        introduced="",
        metavar="FILE",
        help="Published C-scores (.npz) for the score consistency.",
        identity=lambda text: "",
        unset="estimated",
    )
    cscores_hash: str = derived("")
    versions: tuple[str, ...] = derived(())

    def __post_init__(self) -> None:
        check_options(self)
        if self.threshold_rounds == 1:
            raise SpecError(
                "--threshold-rounds is 1; allowed: 0 or 2 (one round leaves its own threshold samples unjudged)"
            )
        if self.embedding == "umap" and self.neighbors < 2:
            raise SpecError(f"--neighbors is {self.neighbors}; the map needs at least 2 (or use --embedding none)")


@dataclass(frozen=True)
class PsiSpec:
    """One `winnow psi`: accuracy on the test set after pruning.

    At point i = 0 .. points-1 the share until * i / points is pruned. With window, half of the samples are kept at
    every point i = 0 .. points: those of a score's ranks from the share 0.5 * i / points on (CG, window experiment).
    scores_run: the run whose scores and features the orders read.
    """

    dataset: str
    fingerprint: str
    orders: tuple[str, ...]
    points: int = option(
        20,
        introduced=20,
        low=2,
        high=10_000,
        help="Points of a curve: 0, 1/points, 2/points, ... pruned.",
        unset="20, window 10",
    )
    training: TrainingSpec = TrainingSpec()
    scores_run: str | None = None
    steps: PsiSteps = option(
        "epochs",
        introduced="epochs",
        choices=PsiSteps,
        help="epochs: as many passes at every point; fixed: as many steps as the full set.",
    )
    seed: int = option(0, introduced=0, help="Of random orders.")
    class_balanced: bool = option(False, introduced=False, help="Prune the same share of every class.")
    window: bool = option(
        False, introduced=False, help="Keep half at every point: a window that slides over the ranks of a score."
    )
    until: float = derived(1.0)

    def __post_init__(self) -> None:
        check_options(self)
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


@dataclass(frozen=True)
class ProveSpec:
    """One `winnow prove`: accuracy of networks trained on a curated set against that of the same on the full set.

    curated: SHA-256 of the set's sample ids and labels, which the run holds itself; kept, relabeled: its samples, and
    those of them with another label than the given one; source: in words where the set came from, which decides nothing
    """

    dataset: str
    fingerprint: str
    curated: str
    kept: int
    relabeled: int
    training: TrainingSpec = TrainingSpec()
    steps: PsiSteps = option(
        "epochs",
        introduced="epochs",
        choices=PsiSteps,
        help="epochs: as many passes over the curated set as over the full one; fixed: as many steps.",
    )
    source: str = field(default="", metadata={"introduced": "", "identity": lambda text: ""})

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class RelabelSpec:
    """One `winnow relabel`: other labels that one method proposes, and what networks gain by them.

    training: None where the method trains nothing; learner: what corrects the labels, "" where none is trained; keep: shares
    of the training samples that rop selects, ascending; source: the run whose predictions, features or scores are read;
    settings: those of the learner that were given, NAME=VALUE by name
    """

    dataset: str
    fingerprint: str
    method: str
    training: TrainingSpec | None
    learner: str = option("", introduced="", help="With rop: what corrects the subset: {learners}.", unset="sop+")
    preset: str = option(
        "",
        introduced="",
        help="Settings of a learner and its training: {learner_presets}; explicit options take precedence.",
    )
    keep: tuple[float, ...] = derived(())
    select: Selecting = option(
        "descending",
        introduced="descending",
        choices=Selecting,
        help="With rop: descending (the largest NLI is left out first) or ccs (coverage of the range of NLI).",
    )
    beta: float = option(
        0.0, introduced=0.0, low=0, high=1, help="With rop and ccs: share of the largest NLI that is left out first."
    )
    nli_epochs: int = option(
        5, introduced=5, low=1, high=10_000, help="With rop: epochs of the network whose features NLI reads."
    )
    neighbors: int = option(
        15, introduced=15, low=1, high=1_000, help="With neighbors and rop: nearest neighbors that count."
    )
    no_feature_propagation: bool = option(
        False, introduced=False, help="With rop: the neighbors' features as they are (ablation)."
    )
    no_label_propagation: bool = option(
        False, introduced=False, help="With rop: the neighbors' given labels in place of predictions (ablation)."
    )
    no_bias: bool = option(False, introduced=False, help="With rop: leave out the bias of the network's last layer.")
    unbalanced: bool = option(
        False,
        introduced=False,
        help="With rop: select over all classes together, as the paper does; it may lose a class.",
    )
    score: str = option(
        "", introduced="", help="With debug: the score whose hardest samples are the suspects.", unset="aum"
    )
    share: float = option(
        0.1, introduced=0.1, low=0.001, high=0.9, help="With debug: the share of the samples that are suspects."
    )
    seed: int = option(0, introduced=0, help="Of ties and of random subsets.")
    source: str = derived("")
    settings: tuple[str, ...] = derived(())

    def __post_init__(self) -> None:
        check_options(self)
        for share in self.keep:
            if not 0 < share <= 1:
                raise SpecError(f"--keep has {share:g}; allowed: shares above 0 to 1, separated by commas")


Spec = RunSpec | PsiSpec | RecordedSpec | ProveSpec | RelabelSpec
KINDS: dict[str, type[Any]] = {
    "run": RunSpec,
    "psi": PsiSpec,
    "recorded": RecordedSpec,
    "prove": ProveSpec,
    "relabel": RelabelSpec,
}


# Identity ----------------------------------------------------------------------------------------------------------


def spec_kind(spec: Spec) -> str:
    """The name under which a spec's class is stored."""
    return next(kind for kind, cls in KINDS.items() if type(spec) is cls)


def spec_hash(content: Any) -> str:
    """12 hexadecimal digits of the SHA-256 of any JSON value in canonical form."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_id(spec: Spec) -> str:
    """The id of the run that answers a spec: the hash of what decides its result."""
    return spec_hash({"kind": spec_kind(spec), **deciding(spec)})


def network_key(fingerprint: str, training: TrainingSpec) -> str:
    """What two runs must share for a seed's network in one to be the network of that seed in the other."""
    content = {name: value for name, value in deciding(training).items() if name not in ("seeds", "logit_seeds")}
    return spec_hash({"fingerprint": fingerprint, **content})


def deciding(spec: Any) -> dict[str, Any]:
    """What decides the result, by field: nothing that has the value it had when the field was introduced."""
    out: dict[str, Any] = {}
    for f in fields(spec):
        value = getattr(spec, f.name)
        if is_dataclass(value):
            value = deciding(value)
        elif f.metadata.get("identity"):
            value = f.metadata["identity"](value)
        if "introduced" not in f.metadata or value != f.metadata["introduced"]:
            out[f.name] = value
    return out


# On disk -----------------------------------------------------------------------------------------------------------


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """A spec as stored in spec.json."""
    return {"version": SPEC_VERSION, "kind": spec_kind(spec), **asdict(spec)}


def spec_from_json(content: Mapping[str, Any]) -> Spec:
    """The spec stored by `spec_to_json`, of this version or an older one.

    Raises: SpecError for a spec of a newer version, or one that is damaged
    """
    version = content.get("version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise SpecError(f"its spec has version {str(version)[:20]!r}; allowed: 1 to {SPEC_VERSION}")
    if version > SPEC_VERSION:
        raise SpecError(
            f"it was made by a newer winnow (spec version {version}, this one reads up to {SPEC_VERSION}); upgrade winnow"
        )
    given = {name: value for name, value in content.items() if name != "version"}
    for step in UPGRADES[version - 1 :]:
        given = step(given)
    cls = KINDS.get(str(given.pop("kind", "")))
    if cls is None:
        raise SpecError(f"its spec is of no known kind; allowed: {', '.join(KINDS)}")
    spec: Spec = _read(cls, given)
    return spec


def _read(cls: type[Any], given: Mapping[str, Any]) -> Any:
    known = {f.name: f for f in fields(cls)}
    extra = sorted(set(given) - set(known))
    if extra:
        raise SpecError(f"its spec has the unknown field '{extra[0]}'; it was made by a newer winnow: upgrade winnow")
    values: dict[str, Any] = {}
    for name, f in known.items():
        if name in given:
            value = given[name]
            values[name] = tuple(value) if isinstance(value, list) else value
        elif "introduced" in f.metadata:
            values[name] = f.metadata["introduced"]  # of a version that did not have it yet
        elif f.default is MISSING:
            raise SpecError(f"its spec lacks the field '{name}'; remove the run")
    if isinstance(values.get("training"), Mapping):
        values["training"] = _read(TrainingSpec, values["training"])
    for name, hint in get_type_hints(cls).items():
        value, kinds = values.get(name), (int, float) if hint is float else get_args(hint) or (hint,)
        if get_origin(hint) is tuple:  # of any number of one kind
            fits = isinstance(value, tuple) and all(isinstance(one, kinds[0]) for one in value)
        else:
            fits = not all(isinstance(kind, type) for kind in kinds) or isinstance(value, kinds)
        if name in values and not fits:
            raise SpecError(f"its spec is damaged ({name} is {str(value)[:40]!r}); remove the run")
    try:
        return cls(**values)
    except (TypeError, ValueError, OverflowError) as error:
        raise SpecError(f"its spec is damaged ({error}); remove the run") from error


def _spelling(given: dict[str, Any]) -> dict[str, Any]:
    """1 -> 2: `standardise` is spelled `standardize`."""
    return {("standardize" if name == "standardise" else name): value for name, value in given.items()}


UPGRADES: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = (_spelling,)
"""Step i turns a spec of version i + 1 into one of version i + 2. They are pure, and are never removed."""
