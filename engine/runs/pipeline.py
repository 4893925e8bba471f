"""The stages of a run: train what is needed, read what is there, score, publish.

A run asks only for what it needs. When a published run of the same dataset was trained with the same spec, its
dynamics, features and weights are read instead of training again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import torch

from engine.data.cscores import cscores_file
from engine.data.loader import Samples, load_split, normalisation
from engine.errors import NotFoundError
from engine.features.pretrained import file_hash, parse_source
from engine.features.umap_map import compute_umap
from engine.queries.connection import class_sizes, fetch_fingerprint, has_test
from engine.runs.checks import check_inputs_exist, estimate_seconds
from engine.runs.cluster import HERE, Tasks
from engine.runs.detectors import detector_file
from engine.runs.inputs import At, Inputs, kept_epochs, needs_training
from engine.runs.inputs.gaps import has_direction
from engine.runs.inputs.networks import network_features
from engine.runs.results import Results
from engine.scores.dynamics import draw_threshold_samples, threshold_flags
from engine.scores.registry import Score, resolve_scores
from engine.spec import (
    Complexity,
    Embedding,
    RunSpec,
    TrainingSpec,
    run_id,
    spec_from_json,
    spec_to_json,
    training_key,
)
from engine.store.jobs import computing, seconds_spent
from engine.store.progress import Listener, Parts, Progress
from engine.store.tensors import save_tensors
from engine.store.workspace import Workspace
from engine.training.device import describe_environment
from engine.training.kept import weights_file
from engine.training.loop import Normalisation
from engine.training.models import find_factory
from engine.training.recording import write_trajectories
from engine.training.tasks import load_weights, round_tasks, seed_tasks, spill_of, train_tasks

KERNEL_SAMPLES = 10_000
"""Up to so many samples `standard` has the complexity gap: its time grows with their cube, 20 s at 10,000."""

KERNEL_SCORES = ("cg", "cg_partial", "cg_fit", "cg_forward", "cg_feature")


@dataclass(frozen=True)
class Trained:
    """A published run whose training can be read instead of repeated."""

    run_id: str
    spec: RunSpec
    folder: Path


def run_needs_training(spec: RunSpec) -> bool:
    """Whether a run needs a trained network at all."""
    scored = any(needs_training(found, spec) for found in resolve_scores(spec.scores))
    return scored or bool(spec.neighbors and not spec.features) or spec.threshold_rounds > 0


def plan_run(
    workspace: Workspace,
    dataset: str,
    scores: Sequence[str],
    training: TrainingSpec,
    *,
    threshold_rounds: int | None = None,
    neighbors: int | None = None,
    embedding: Embedding | None = None,
    seed: int = 0,
    complexity: Complexity = "exact",
    standardise: bool = False,
    features: str = "",
    detector: str = "",
    cscores: str = "",
) -> RunSpec:
    """The spec of a run, with what was left open filled in so that it asks only for what it needs.

    `standard` and `all` bring the neighbours, the map and the threshold rule; named scores bring the rule with `aum`.
    `standard` has the complexity gap up to KERNEL_SAMPLES samples. Both pass over scores that cannot be had: those
    that need a test split where there is none, those that read the trained network's last layer where the features
    are another's, and those of neighbours and kernels where a class has a single sample.
    """
    everything = bool({"all", "standard"} & set(scores))
    sizes, by_name = class_sizes(workspace, dataset), set(scores)
    if "standard" in scores and _kernel_is_cheap(workspace, dataset, sum(sizes), standardise):
        scores = [*scores, *KERNEL_SCORES]
    resolved = resolve_scores(scores)
    if everything:
        single = min(sizes) < 2 or len(sizes) < 2
        passed = {s.name for s in resolved if s.needs_test} if not has_test(workspace, dataset) else set()
        passed |= {s.name for s in resolved if features and s.reads_features and not s.features_suffice}
        passed |= {s.name for s in resolved if single and s.family in ("geometry", "complexity")}
        resolved = tuple(s for s in resolved if s.name not in passed or s.name in by_name)
    names = tuple(sorted(s.name for s in resolved))
    if embedding is None:
        embedding = "umap" if everything else "none"
    if neighbors is None:
        neighbors = 15 if embedding == "umap" else 0
    if threshold_rounds is None:
        threshold_rounds = 2 if everything or "aum" in names else 0
    spec = RunSpec(
        dataset,
        fetch_fingerprint(workspace, dataset),
        names,
        training,
        threshold_rounds,
        neighbors,
        embedding,
        seed,
        complexity,
        standardise,
        features,
        file_hash(parse_source(features)[1]) if features else "",
        detector,
        file_hash(detector_file(workspace, detector)) if detector else "",
        str(Path(cscores).resolve()) if cscores else "",
        file_hash(cscores_file(cscores)) if cscores else "",
    )
    find_factory(training.model)
    return spec if run_needs_training(spec) else replace(spec, training=None)


def _kernel_is_cheap(workspace: Workspace, dataset: str, n: int, standardise: bool) -> bool:
    """Whether the complexity gap can be had in passing: few samples, and none without a direction."""
    if n > KERNEL_SAMPLES:
        return False
    inputs = load_split(workspace, dataset, "train").inputs
    return standardise or bool(has_direction(inputs).all())


def find_trained(
    workspace: Workspace, fingerprint: str, training: TrainingSpec, scores: Sequence[Score] = ()
) -> Trained | None:
    """A published run with its own dynamics from the same data and the same training, or None.

    It must have kept the weights that the scores read.
    """
    files = {weights_file(epoch, training.epochs) for epoch in kept_epochs(scores, training)}
    key = training_key(fingerprint, training)
    for candidate in workspace.published_runs():
        content = workspace.read_spec(candidate)
        folder = workspace.published_dir(candidate)
        if content.get("trains") == key and all((folder / name).exists() for name in files):
            spec = spec_from_json(content["spec"])
            assert isinstance(spec, RunSpec)
            return Trained(candidate, spec, folder)
    return None


def run(
    workspace: Workspace, spec: RunSpec, device: torch.device, listener: Listener | None = None, tasks: Tasks = HERE
) -> tuple[str, bool]:
    """Compute and publish what a spec asks for, or find it published.

    tasks: where what its scores read is computed; the networks of the training itself are trained here

    Returns: (run id, whether it was there already)
    Raises:  WinnowError for what is expected; Cancelled when somebody asked the run to stop
    """
    wanted = run_id(spec)
    if workspace.is_published(wanted):
        return wanted, True
    scores = resolve_scores(spec.scores)
    trained = find_trained(workspace, spec.fingerprint, spec.training, scores) if spec.training else None
    environment = describe_environment(device)
    trains = training_key(spec.fingerprint, spec.training) if spec.training and not trained else None
    with computing(workspace, wanted, spec_to_json(spec), _title(spec), environment, trains) as folder:
        attempt = _Attempt(workspace, spec, device, folder, trained, listener, tasks)
        with workspace.building_run(wanted) as target:
            with duckdb.connect(str(target / "results.duckdb"), config={"memory_limit": "1GB"}) as connection:
                results = Results(connection, spec.seed)
                attempt.compute(results, target, scores)
                results.write_run(
                    run_id=wanted,
                    kind="run",
                    title=_title(spec),
                    dataset=spec.dataset,
                    fingerprint=spec.fingerprint,
                    spec=json.dumps(spec_to_json(spec)),
                    environment=json.dumps(environment),
                    seconds=seconds_spent(folder),
                    training_key=trains,
                    dynamics_run=trained.run_id if trained else wanted if trains else None,
                    notes=json.dumps(attempt.notes),
                )
    return wanted, False


def load_test(workspace: Workspace, dataset: str, device: torch.device) -> Samples | None:
    """The test split, or None where the dataset has none."""
    try:
        return load_split(workspace, dataset, "test", device)
    except NotFoundError:
        return None


class _Attempt:
    """One process's work on one run."""

    def __init__(
        self,
        workspace: Workspace,
        spec: RunSpec,
        device: torch.device,
        folder: Path,
        trained: Trained | None,
        listener: Listener | None,
        tasks: Tasks,
    ) -> None:
        self.workspace, self.spec, self.device, self.folder, self.trained = workspace, spec, device, folder, trained
        self.tasks = tasks
        self.notes: list[str] = []
        self.samples = load_split(workspace, spec.dataset, "train", device)
        self.test = load_test(workspace, spec.dataset, device)
        self.normalisation = Normalisation(*normalisation(self.samples))
        self.score_seconds = estimate_seconds(resolve_scores(spec.scores), spec, len(self.samples))
        self.progress = Progress(folder, self._weights(), listener)

    def _weights(self) -> dict[str, float]:
        """Rough relative costs of the stages, for the fraction done."""
        n, spec = len(self.samples.labels), self.spec
        networks = 0
        if spec.training:
            networks = (0 if self.trained else spec.training.seeds) + spec.threshold_rounds
        epochs = spec.training.epochs if spec.training else 0
        return {
            "training": networks * epochs * n * 3e-5,
            "recording": 0.0 if self.trained else n * networks * epochs * 1e-6,
            "neighbours": n * n * 1e-8 if spec.neighbors else 0.0,
            "map": 5 + n * 1e-3 if spec.embedding != "none" else 0.0,
            "scores": sum(self.score_seconds.values()),
        }

    def compute(self, results: Results, target: Path, scores: Sequence[Score]) -> None:
        labels = self.samples.labels.cpu()
        check_inputs_exist(scores, self.spec, self.samples, self.test)
        if self.trained:
            results.attach_trained(self.trained.folder / "results.duckdb")
        if self.spec.training and run_needs_training(self.spec):
            self._train(results, target, scores)
        inputs = Inputs(
            self.workspace,
            self.spec,
            self.samples,
            self.test,
            self.normalisation,
            self.trained.folder if self.trained else target,
            self.folder / "partial",
            results.generator,
            self.progress,
            self.tasks,
            self.notes,
        )
        if self.spec.training and not self.trained:
            self._write_features(inputs, target)
        if self.spec.neighbors:
            self.progress.stage("neighbours")
            ids, similarities = (inputs.get(name, inputs.last) for name in ("neighbor_ids", "similarities"))
            results.write_neighbors(ids, similarities)
            if self.spec.embedding == "umap":
                self.progress.stage("map")
                features = inputs.get("features", inputs.last)
                results.write_embedding("umap", compute_umap(features, ids, similarities, self.spec.seed))
        self.progress.stage("scores")
        inputs.progress = parts = Parts(self.progress, self.score_seconds)
        mislabelled = None
        if self.samples.true_labels is not None:
            mislabelled = (self.samples.true_labels.cpu() != labels).numpy()
        results.write_scores(scores, labels, self.samples.classes, mislabelled, parts, inputs)
        self.notes += results.notes

    def _train(self, results: Results, target: Path, scores: Sequence[Score]) -> None:
        """Train what no published run has; write its dynamics and weights."""
        spec, training = self.spec, self.spec.training
        assert training is not None
        labels = self.samples.labels.cpu()
        generator = torch.Generator().manual_seed(spec.seed)
        member = None
        if spec.threshold_rounds:
            member = draw_threshold_samples(len(labels), self.samples.classes, spec.threshold_rounds, generator)
        kept = kept_epochs(scores, training)
        seeds = [] if self.trained else seed_tasks(self.samples, training, kept)
        rounds = round_tasks(self.samples, training, member) if member is not None else []
        if (
            self.trained
            and self.trained.spec.threshold_rounds == spec.threshold_rounds
            and self.trained.spec.seed == spec.seed
        ):
            rounds = []
        if seeds or rounds:
            self.progress.stage("training")
            rows = train_tasks(self.folder, seeds + rounds, self.samples, self.test, self.normalisation, self.progress)
            results.write_epochs(rows)
        if seeds:
            self.progress.stage("recording")
            results.make_trajectories()
            write_trajectories(
                results.connection,
                [spill_of(self.folder, task) for task in seeds],
                np.arange(len(labels)),
                labels.numpy(),
                self.progress.step,
            )
            for epoch, count in kept.items():
                weights = {
                    f"{task.name}.{name}": values
                    for task in seeds[:count]
                    for name, values in load_weights(self.folder, task, epoch).items()
                }
                path = target / weights_file(epoch, training.epochs)
                save_tensors(path, weights, {"training": asdict(training), "epoch": epoch})
        if rounds and member is not None:
            margins = [torch.from_numpy(spill_of(self.folder, task).columns()["margin"].copy()) for task in rounds]
            aum = torch.stack([m.double().mean(0).float() for m in margins])
            results.write_threshold_rule(member, aum, *threshold_flags(aum, member))
        elif spec.threshold_rounds and self.trained:
            results.copy_flags("aum_threshold")

    def _write_features(self, inputs: Inputs, target: Path) -> None:
        """Publish the penultimate features (N, D) of the first seed's network at the end of training."""
        last = At(0, inputs.training.epochs)
        features = network_features(inputs, last)
        meta = {"seed": last.seed, "epoch": last.epoch}
        save_tensors(target / "features.safetensors", {"features": features.numpy()}, meta)


def describe_training(training: TrainingSpec) -> str:
    """A training in a few words."""
    augmented = "" if training.augment == "none" else f", {training.augment}"
    plural = "s" if training.seeds > 1 else ""
    return f"{training.model}, {training.epochs} epochs, {training.seeds} seed{plural}{augmented}"


def _title(spec: RunSpec) -> str:
    few = ", ".join(spec.scores) if len(spec.scores) <= 3 else ""
    if few and spec.detector:
        few += f" by {spec.detector}"
    if not spec.training:
        return few or f"{len(spec.scores)} scores"
    return describe_training(spec.training) + (f"; {few}" if few else "")
