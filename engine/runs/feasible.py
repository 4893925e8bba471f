"""What a run or a curve will take on this machine, stage by stage, before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from engine.data.loader import dataset_shape
from engine.features.stored import is_stored, read_about
from engine.runs.inputs import needs_training
from engine.runs.planning import run_needs_training
from engine.runs.points import plan_networks, training_of
from engine.runs.publishing import find_run
from engine.runs.reuse import find_trained
from engine.runs.work import Work
from engine.scores.inputs import find_input
from engine.scores.registry import Score, resolve_scores
from engine.spec import PsiSpec, RunSpec, Spec, TrainingSpec
from engine.store.workspace import Workspace
from engine.training.loop import epochs_before_first_drop
from engine.training.speed import Shape, measure_speed

Scores = Sequence[Score]


FEATURE_SECONDS = 6e-3
"""Of one image through the default backbone (two cores, bfloat16)."""

WIDTH = 1_280
"""Of features that are not stored yet: that of the default backbone."""


def work_of(workspace: Workspace, spec: RunSpec, device: torch.device, trained: bool) -> Work:
    """A run with the measured speed of its networks, where it trains or passes any.

    Args: trained: whether another run has trained its networks
    """
    shape, test = _shapes(workspace, spec.dataset, spec.training.trained_on if spec.training else "")
    speed, scores = None, resolve_scores(spec.scores)
    passes = bool(spec.neighbors) or any(needs_training(f, spec) and not f.over_dynamics for f in scores)
    if spec.training and run_needs_training(spec) and (passes or spec.threshold_rounds or not trained):
        speed = measure_speed(spec.training, shape, device, spec.training.seeds + spec.threshold_rounds)
    return Work(spec, shape.samples, test, speed)


def _neighbor_seconds(work: Work) -> float:
    """Of all training samples; and of the test samples among all, where features of theirs are stored."""
    n, test = work.samples, work.test if work.spec.features else 0
    return (n * n + test * (n + test)) * 1e-8


def stage_seconds(workspace: Workspace, work: Work, scores: Scores, trained: bool) -> dict[str, float]:
    """Rough seconds of each stage of a run. trained: whether another run has trained its networks."""
    spec, n = work.spec, work.samples
    stored = not spec.features or is_stored(workspace, spec.dataset, spec.features_hash)
    return {
        "features": 0.0 if stored else FEATURE_SECONDS * (n + work.test),
        "training": _training_seconds(work, trained),
        "recording": _recording_seconds(work) if not trained else 0.0,
        "neighbors": _neighbor_seconds(work) if spec.neighbors else 0.0,
        "map": 5 + n * 1e-3 if spec.embedding != "none" else 0.0,
        "scores": sum(score_seconds(work, scores).values()),
    }


def _training_seconds(work: Work, trained: bool) -> float:
    training = work.spec.training
    if not training or not work.speed:
        return 0.0
    watched = work.test + (work.samples if training.observe == "eval" else 0)
    seed = work.speed.training(work.samples, training.epochs) + training.epochs * work.passing(watched)
    rounds = work.speed.training(work.samples, epochs_before_first_drop(training))
    networks = (0 if trained else training.seeds), work.spec.threshold_rounds
    whole = networks[0] * seed + networks[1] * rounds
    count = sum(networks)
    return whole * work.side_by_side(count) / count if count else 0.0


def _recording_seconds(work: Work) -> float:
    training = work.spec.training
    return work.samples * training.seeds * training.epochs * 1e-6 + work.passing() if training and work.speed else 0.0


def score_seconds(work: Work, scores: Scores) -> dict[str, float]:
    """Rough seconds of each score with the inputs that it is the first to read.

    Those of the recorded dynamics are one entry, "dynamics".
    """
    out = {"dynamics": 0.05 + work.samples * 1e-5 * sum(found.over_dynamics for found in scores)}
    counted: set[tuple[str, int, int]] = set()
    training = work.spec.training
    for found in scores:
        if not found.over_dynamics:
            at = found.at(training.epochs) if training and needs_training(found, work.spec) else 0
            seeds = range(training.seeds if training and found.every_seed else 1)
            functions = {find_input(name).beside or name for name in found.all_inputs}
            read = {(name, at, seed) for name in functions for seed in seeds}
            costs = [find_input(name).seconds for name, _, _ in read - counted]
            counted |= read
            out[found.name] = 0.05 + work.samples * 1e-5 + sum(seconds(work) for seconds in costs if seconds)
    return out


def estimate_seconds(workspace: Workspace, spec: Spec, device: torch.device) -> float:
    """Rough seconds of computing what a spec describes on a device; 0 where it is published already.

    A step of its networks is timed, which takes seconds. What an earlier attempt has done is not taken off.
    Raises: SpecError for a network that cannot be built or trained on this dataset
    """
    if workspace.is_published(find_run(workspace, spec)) or not isinstance(spec, RunSpec | PsiSpec):
        return 0.0
    if isinstance(spec, PsiSpec):
        return psi_seconds(workspace, spec, device)
    scores = resolve_scores(spec.scores)
    trained = False
    if spec.training:
        reading = [found for found in scores if needs_training(found, spec)]
        trained = find_trained(workspace, spec.fingerprint, spec.training, reading) is not None
    return sum(stage_seconds(workspace, work_of(workspace, spec, device, trained), scores, trained).values())


def psi_seconds(workspace: Workspace, spec: PsiSpec, device: torch.device) -> float:
    """Rough seconds of a curve whose networks are trained one by one or side by side."""
    shape, test = _shapes(workspace, spec.dataset, spec.training.trained_on)
    networks = [network for level in plan_networks(spec, shape.samples) for network in level]
    speed = measure_speed(spec.training, shape, device, len(networks))
    each = (
        speed.training(n - network.pruned, training_of(spec, n, n - network.pruned).epochs) + speed.passing * test
        for n in (shape.samples,)
        for network in networks
    )
    return sum(each) / speed.workers


def _shapes(workspace: Workspace, dataset: str, trained_on: str = "") -> tuple[Shape, int]:
    """The shape of the training set as networks see it, and the samples of the test split."""
    found = dataset_shape(workspace, dataset)
    if trained_on:
        stored = is_stored(workspace, dataset, trained_on)
        width = int(read_about(workspace, dataset, trained_on)["width"]) if stored else WIDTH
        return Shape((width,), torch.float32, found.classes, found.train), found.test
    return Shape(found.shape, getattr(torch, found.dtype), found.classes, found.train), found.test


def alternatives(workspace: Workspace, spec: Spec, device: torch.device) -> dict[str, float]:
    """Other options that would take less, with the rough seconds of each: `--precision bfloat16`, for one."""
    options: dict[str, Spec] = {}
    if isinstance(spec, RunSpec | PsiSpec) and spec.training:
        for words, training in _other_trainings(spec.training, _shapes(workspace, spec.dataset)[0]).items():
            options[words] = replace(spec, training=training)
    if isinstance(spec, PsiSpec) and (spec.points > 10 or spec.training.seeds > 1):
        few = replace(spec.training, seeds=1, logit_seeds=0)
        options["--points 10 --seeds 1"] = replace(spec, points=min(10, spec.points), training=few)
    return {words: estimate_seconds(workspace, other, device) for words, other in options.items()}


def _other_trainings(training: TrainingSpec, shape: Shape) -> dict[str, TrainingSpec]:
    if len(shape.inputs) != 3:
        return {}
    out = {}
    if training.model not in ("mlp", "cnn"):
        epochs = min(8, training.epochs)
        threads = 1
        out[f"--model cnn --epochs {epochs}"] = replace(
            training, model="cnn", model_hash="", epochs=epochs, threads=threads
        )
    if training.precision == "float32" and training.model != "mlp":
        out["--precision bfloat16"] = replace(training, precision="bfloat16")
    return out
