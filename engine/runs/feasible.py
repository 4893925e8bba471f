"""What a run or a curve will take on this machine, stage by stage, before it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch

from engine.data.loader import dataset_shape
from engine.features.backbones import find_backbone, is_backbone
from engine.features.embedding import embed, faster_precision, ready, step_size
from engine.features.stored import is_stored, key_of, read_about
from engine.runs.inputs import needs_training
from engine.runs.planning import run_needs_training, trains_seeds
from engine.runs.points import plan_networks, training_of
from engine.runs.publishing import find_run
from engine.runs.relabel_units import planned_work
from engine.runs.reuse import find_trained
from engine.runs.trial import FEATURES, ON_FEATURES
from engine.runs.work import Work
from engine.scores.inputs import find_input
from engine.scores.registry import Score, resolve_scores
from engine.spec import ProveSpec, PsiSpec, RecordedSpec, RelabelSpec, RunSpec, Spec
from engine.store.progress import Unheard
from engine.store.workspace import Workspace
from engine.training.loop import epochs_before_first_drop
from engine.training.speed import Shape, measure_speed
from engine.training.together import train_together

Scores = Sequence[Score]

WIDTH = 1280
"""Taken for the width of features that are not computed yet: heads on them take next to nothing."""

ROW_SECONDS = 1e-5
"""Of copying one row of a person's own features."""

READ_SECONDS = 2e-3
"""Of reading one image: a JPEG of half a megapixel on one core."""

SMALL = ("lenet", "cnn", "mlp")
"""Networks that a processor trains within minutes; the first one is named instead of larger ones."""


def work_of(workspace: Workspace, spec: RunSpec, device: torch.device, trained: bool) -> Work:
    """A run with the measured speed of its networks, where it trains or passes any, and of its features.

    Args: trained: whether another run has trained its networks
    """
    shape, test = _shapes(workspace, spec.dataset, spec.training.trained_on if spec.training else "")
    speed, scores = None, resolve_scores(spec.scores)
    passes = bool(spec.neighbors) or any(needs_training(f, spec) and not f.over_dynamics for f in scores)
    if spec.training and run_needs_training(spec) and (passes or spec.threshold_rounds or not trained):
        speed = measure_speed(spec.training, shape, device, spec.training.seeds + spec.threshold_rounds)
    return Work(spec, shape.samples, test, speed, _feature_seconds(workspace, spec, shape.samples + test, device))


def _shapes(workspace: Workspace, dataset: str, trained_on: str) -> tuple[Shape, int]:
    """What networks read of the training set, and the samples of the test split."""
    found = dataset_shape(workspace, dataset)
    if not trained_on:
        return Shape(found.shape, getattr(torch, found.dtype), found.classes, found.train), found.test
    stored = is_stored(workspace, dataset, trained_on)
    width = int(read_about(workspace, dataset, trained_on)["width"]) if stored else WIDTH
    return Shape((width,), torch.float32, found.classes, found.train), found.test


def _feature_seconds(workspace: Workspace, spec: RunSpec, images: int, device: torch.device) -> float:
    """Rough seconds of computing the features that a run reads, 0 where they are stored."""
    if not spec.features or is_stored(workspace, spec.dataset, spec.features_hash):
        return 0.0
    if not is_backbone(spec.features):
        return images * ROW_SECONDS
    return images * _image_seconds(spec.features, spec.download, device)


@lru_cache(maxsize=8)
def _image_seconds(source: str, download: bool, device: torch.device) -> float:
    """Seconds of one image read and passed through a backbone, of one timed step of as many threads as compute them."""
    backbone = find_backbone(source, download)
    embedding = ready(backbone, device)
    embedding = replace(embedding, precision=faster_precision(embedding, backbone.side))
    pixels = torch.zeros(step_size(device, backbone.side), 3, backbone.side, backbone.side, dtype=torch.uint8)

    def timed() -> float:
        embed(embedding, pixels, lambda share: None)
        started = time.perf_counter()
        embed(embedding, pixels, lambda share: None)
        return time.perf_counter() - started

    workers = torch.get_num_threads() if device.type == "cpu" else 1
    step = sum(train_together([timed] * workers, workers, Unheard(), 1)) / workers
    return (step / len(pixels) + READ_SECONDS) / workers


def _neighbor_seconds(work: Work) -> float:
    """Of all training samples; and of the test samples among all, where features of theirs are stored."""
    n, test = work.samples, work.test if work.spec.features else 0
    return (n * n + test * (n + test)) * 1e-8


def stage_seconds(work: Work, scores: Scores, trained: bool) -> dict[str, float]:
    """Rough seconds of each stage of a run. trained: whether another run has trained its networks."""
    spec, n = work.spec, work.samples
    return {
        "features": work.features,
        "training": _training_seconds(work, trained),
        "recording": _recording_seconds(work) if trains_seeds(spec) and not trained else 0.0,
        "neighbors": _neighbor_seconds(work) if spec.neighbors else 0.0,
        "duplicates": (n + work.test) * 1e-5 + n * work.test * 1e-8,
        "map": 5 + n * 1e-3 if spec.embedding != "none" else 0.0,
        "scores": sum(score_seconds(work, scores).values()),
    }


def _training_seconds(work: Work, trained: bool) -> float:
    training = work.spec.training
    if not training or not work.speed or not trains_seeds(work.spec):
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
    if workspace.is_published(find_run(workspace, spec)) or isinstance(spec, RecordedSpec):
        return 0.0
    if isinstance(spec, PsiSpec):
        return psi_seconds(workspace, spec, device)
    if isinstance(spec, ProveSpec):
        return prove_seconds(workspace, spec, device)
    if isinstance(spec, RelabelSpec):
        return relabel_seconds(workspace, spec, device)
    scores = resolve_scores(spec.scores)
    trained = False
    if spec.training:
        reading = [found for found in scores if needs_training(found, spec)]
        trained = find_trained(workspace, spec.fingerprint, spec.training, reading) is not None
    return sum(stage_seconds(work_of(workspace, spec, device, trained), scores, trained).values())


def psi_seconds(workspace: Workspace, spec: PsiSpec, device: torch.device) -> float:
    """Rough seconds of a curve whose networks are trained one by one or side by side."""
    shape, test = _shapes(workspace, spec.dataset, spec.training.trained_on)
    kept = [shape.samples - network.pruned for level in plan_networks(spec, shape.samples) for network in level]
    return _seconds_of(spec, kept, shape, test, device)


def prove_seconds(workspace: Workspace, spec: ProveSpec, device: torch.device) -> float:
    """The same of a proof: two networks for each seed."""
    shape, test = _shapes(workspace, spec.dataset, spec.training.trained_on)
    return _seconds_of(spec, [shape.samples, spec.kept] * spec.training.seeds, shape, test, device)


def relabel_seconds(workspace: Workspace, spec: RelabelSpec, device: torch.device) -> float:
    """Rough seconds of a relabeling; next to nothing where no network is trained."""
    if spec.training is None:
        return 1.0
    shape, test = _shapes(workspace, spec.dataset, spec.training.trained_on)
    networks = planned_work(spec, shape.samples)
    speed = measure_speed(spec.training, shape, device, len(networks))
    return sum(speed.training(n, epochs) + speed.passing * (n + test) for n, epochs in networks) / speed.workers


def _seconds_of(spec: PsiSpec | ProveSpec, kept: Sequence[int], shape: Shape, test: int, device: torch.device) -> float:
    """Rough seconds of networks on so many samples each."""
    speed = measure_speed(spec.training, shape, device, len(kept))
    each = [speed.training(n, training_of(spec, shape.samples, n).epochs) + speed.passing * test for n in kept]
    return sum(each) / speed.workers


def alternatives(workspace: Workspace, spec: Spec, device: torch.device) -> dict[str, float]:
    """Other options that would take less, with the rough seconds of each: `--precision bfloat16`, for one."""
    options: dict[str, Spec] = {}
    if isinstance(spec, RecordedSpec) or not spec.training:
        return {}
    facts = dataset_shape(workspace, spec.dataset)
    on_images = len(facts.shape) == 3 and not spec.training.trained_on
    if isinstance(spec, RunSpec) and on_images and not spec.features:
        key = key_of(workspace, spec.dataset, FEATURES)
        head = replace(spec.training, precision="float32", model_hash="", **ON_FEATURES, threads=1, trained_on=key)
        options[f"--features {FEATURES}"] = replace(spec, training=head, features=FEATURES, features_hash=key)
    small = spec.training.model in SMALL
    if on_images and not small:
        epochs = spec.training.epochs if isinstance(spec, RelabelSpec) else min(8, spec.training.epochs)
        fewer = replace(spec.training, model=SMALL[0], model_hash="", epochs=epochs, threads=1)
        options[f"--model {SMALL[0]} --epochs {fewer.epochs}"] = replace(spec, training=fewer)
    if on_images and not small and spec.training.precision == "float32":
        options["--precision bfloat16"] = replace(spec, training=replace(spec.training, precision="bfloat16"))
    if isinstance(spec, PsiSpec) and (spec.points > 10 or spec.training.seeds > 1):
        few = replace(spec.training, seeds=1)
        options["--points 10 --seeds 1"] = replace(spec, points=min(10, spec.points), training=few)
    return {words: estimate_seconds(workspace, other, device) for words, other in options.items()}
