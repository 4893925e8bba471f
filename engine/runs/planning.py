"""From what was given on the command line, on a page or in a notebook to the spec of a run."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.data.cscores import cscores_file
from engine.data.loader import load_split
from engine.errors import SpecError
from engine.features.own_probs import probs_file
from engine.features.stored import absolute, key_of
from engine.queries.connection import class_sizes, fetch_fingerprint, has_properties, has_test
from engine.runs.inputs import needs_training, reads_networks
from engine.runs.inputs.gaps import has_direction
from engine.scores.registry import all_scores, resolve_scores
from engine.spec import RunSpec, TrainingSpec, spec_hash
from engine.store.atomic import file_hash
from engine.store.detector_files import detector_file
from engine.store.workspace import Workspace
from engine.training.models import HEADS, find_factory, is_built_in

KERNEL_SAMPLES = 5_000
"""Up to so many samples `standard` has the complexity gap: its time grows with their cube, 20 s at 10,000 and 3 s at 5,000."""


def run_needs_training(spec: RunSpec) -> bool:
    """Whether a run needs a trained network at all."""
    return trains_seeds(spec) or any(needs_training(found, spec) for found in resolve_scores(spec.scores))


def trains_seeds(spec: RunSpec) -> bool:
    """Whether a run trains the networks of its seeds, or reads those of another: not where its scores have their own."""
    scored = any(reads_networks(found, spec) for found in resolve_scores(spec.scores))
    return scored or bool(spec.neighbors and not spec.features) or spec.threshold_rounds > 0


def plan_run(
    workspace: Workspace, dataset: str, scores: Sequence[str], training: TrainingSpec, **options: Any
) -> RunSpec:
    """The spec of a run, with what was left open filled in so that it holds only what it needs.

    `standard` and `all` bring the neighbors, the map and the threshold rule; named scores bring the rule with `aum`.
    `standard` has the complexity gap up to KERNEL_SAMPLES samples. Both pass over scores that cannot be had: those
    that need a test split where there is none, those that read the trained network's last layer where the features
    are another's, those of neighbors and kernels where a class has a single sample, and those of pictures where nothing
    was measured.

    Args: options: those of RunSpec by name, None = left open
    """
    given = {name: value for name, value in options.items() if value is not None}
    everything = bool({"all", "standard"} & set(scores))
    sizes, by_name = class_sizes(workspace, dataset), set(scores)
    features, detector, cscores = (str(given.get(name, "")) for name in ("features", "detector", "cscores"))
    probs = str(given.get("probs", ""))
    features = "" if features == "none" else absolute(features)
    key = key_of(workspace, dataset, features, bool(given.get("download", False))) if features else ""
    on = key if training.model in HEADS else ""
    if "standard" in scores and _kernel_is_cheap(workspace, dataset, sum(sizes), given.get("standardize", False)):
        scores = [*scores, *(s.name for s in all_scores().values() if s.family == "complexity")]
    resolved = resolve_scores(scores)
    if everything:
        pictured = {s.name for s in resolved if s.evidence == "picture"}
        single = min(sizes) < 2 or len(sizes) < 2
        passed = {s.name for s in resolved if s.needs_test} if not has_test(workspace, dataset) else set()
        passed |= {s.name for s in resolved if key and not on and s.reads_features and not s.features_suffice}
        passed |= {s.name for s in resolved if single and s.compares_classes}
        if probs:  # they stand in for networks: nothing is trained
            files = {"probs"} | ({"features"} if features else set())
            passed |= {s.name for s in resolved if s.trains(files)}
        passed |= pictured if not has_properties(workspace, dataset) else set()
        resolved = tuple(s for s in resolved if s.name not in passed or s.name in by_name)
    names = tuple(sorted(s.name for s in resolved))
    mapped = everything and bool(features or not probs)
    embedding = given.get("embedding", "umap" if mapped else "none")
    filled = {
        "embedding": embedding,
        "neighbors": 15 if embedding == "umap" else 0,
        "threshold_rounds": 2 if (everything or "aum" in names) and not probs else 0,
        **given,
        "features": features,
        "features_hash": key,
        "probs": str(Path(probs).expanduser().resolve()) if probs else "",
        "probs_hash": file_hash(probs_file(probs)) if probs else "",
        "detector_hash": file_hash(detector_file(workspace, detector)) if detector else "",
        "cscores": str(Path(cscores).resolve()) if cscores else "",
        "cscores_hash": file_hash(cscores_file(cscores)) if cscores else "",
        "versions": tuple(f"{s.name}@{s.version}" for s in sorted(resolved, key=lambda s: s.name) if s.version != 1),
    }
    training = replace(training, model_hash=model_hash(training.model), trained_on=on)
    spec = RunSpec(dataset, fetch_fingerprint(workspace, dataset), names, training, **filled)
    if probs and run_needs_training(spec):
        trained = [s.name for s in resolved if needs_training(s, spec)] or ["--neighbors and the map"]
        raise SpecError(
            f"{', '.join(trained)} needs a network, for which --probs stands in; leave it out, "
            "give --features beside it where it reads neighbors, or leave out --probs"
        )
    return spec if run_needs_training(spec) else replace(spec, training=None)


def model_hash(model: str) -> str:
    """Of a model of one's own, the hash of the file that holds its factory; "" for the built-in ones.

    Raises: SpecError when there is no such model
    """
    factory = find_factory(model)
    if is_built_in(model):
        return ""
    try:
        source = inspect.getsourcefile(inspect.unwrap(factory))
    except TypeError:
        source = None
    return file_hash(Path(source)) if source and Path(source).is_file() else spec_hash(model)


def _kernel_is_cheap(workspace: Workspace, dataset: str, n: int, standardize: bool) -> bool:
    """Whether the complexity gap costs little here: few samples, and none without a direction."""
    if n > KERNEL_SAMPLES:
        return False
    inputs = load_split(workspace, dataset, "train").inputs
    return standardize or bool(has_direction(inputs).all())


def describe_training(training: TrainingSpec) -> str:
    """A training in a few words."""
    augmented = "" if training.augment == "none" else f", {training.augment}"
    precision = "" if training.precision == "float32" else f", {training.precision}"
    plural = "s" if training.seeds > 1 else ""
    return f"{training.model}, {training.epochs} epochs, {training.seeds} seed{plural}{augmented}{precision}"


def describe_run(spec: RunSpec) -> str:
    """The title of a run."""
    few = ", ".join(spec.scores) if len(spec.scores) <= 3 else ""
    if few and spec.detector:
        few += f" by {spec.detector}"
    if spec.probs:
        return f"probabilities of {Path(spec.probs).name}" + (f"; {few}" if few else "")
    if not spec.training:
        return few or f"{len(spec.scores)} scores"
    return describe_training(spec.training) + (f"; {few}" if few else "")
