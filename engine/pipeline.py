"""The stages of a run: train what is needed, read what is there, score, publish.

A run asks only for what it needs. When a published run of the same dataset was trained with the same spec, its
dynamics, features and weights are read instead of training again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import torch
from torch import Tensor

from engine.data.loader import Samples, load_split, normalisation
from engine.embedding import compute_umap
from engine.environment import describe_environment
from engine.errors import NotFoundError, WinnowError
from engine.jobs import computing, seconds_spent
from engine.neighbors import compute_neighbors
from engine.progress import Listener, Progress
from engine.queries import fetch_fingerprint
from engine.results import Results
from engine.scores.dynamics import draw_threshold_samples, threshold_flags
from engine.scores.registry import resolve_scores
from engine.spec import Embedding, RunSpec, TrainingSpec, run_id, spec_from_json, spec_to_json, training_key
from engine.training.dynamics import write_trajectories
from engine.training.loop import Normalisation, clean_pass
from engine.training.models import build_model, compute_features, find_factory
from engine.training.tasks import load_weights, round_tasks, seed_tasks, spill_of, train_tasks
from engine.workspace import Workspace, load_tensors, save_tensors


@dataclass(frozen=True)
class Trained:
    """A published run whose training can be read instead of repeated."""

    run_id: str
    spec: RunSpec
    folder: Path


def needs_training(spec: RunSpec) -> bool:
    """Whether a run needs a trained network at all."""
    scored = any(s.needs_training for s in resolve_scores(spec.scores))
    return scored or spec.neighbors > 0 or spec.embedding != "none" or spec.threshold_rounds > 0


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
) -> RunSpec:
    """The spec of a run, with what was left open filled in so that it asks only for what it needs.

    `all` scores bring the neighbours, the map and the threshold rule; named ones bring the rule with `aum`.
    """
    resolved = resolve_scores(scores)
    names = tuple(sorted(s.name for s in resolved))
    everything = "all" in scores
    if embedding is None:
        embedding = "umap" if everything else "none"
    if neighbors is None:
        neighbors = 15 if embedding == "umap" else 0
    if threshold_rounds is None:
        threshold_rounds = 2 if everything or "aum" in names else 0
    spec = RunSpec(
        dataset, fetch_fingerprint(workspace, dataset), names, training, threshold_rounds, neighbors, embedding, seed
    )
    find_factory(training.model)
    return spec if needs_training(spec) else replace(spec, training=None)


def find_trained(workspace: Workspace, fingerprint: str, training: TrainingSpec) -> Trained | None:
    """A published run with its own dynamics from the same data and the same training, or None."""
    key = training_key(fingerprint, training)
    for candidate in workspace.published_runs():
        content = workspace.read_spec(candidate)
        folder = workspace.published_dir(candidate)
        if content.get("trains") == key and (folder / "features.safetensors").exists():
            spec = spec_from_json(content["spec"])
            assert isinstance(spec, RunSpec)
            return Trained(candidate, spec, folder)
    return None


def run(
    workspace: Workspace, spec: RunSpec, device: torch.device, listener: Listener | None = None
) -> tuple[str, bool]:
    """Compute and publish what a spec asks for, or find it published.

    Returns: (run id, whether it was there already)
    Raises:  WinnowError for what is expected; Cancelled when somebody asked the run to stop
    """
    wanted = run_id(spec)
    if workspace.is_published(wanted):
        return wanted, True
    scores = resolve_scores(spec.scores)
    trained = find_trained(workspace, spec.fingerprint, spec.training) if spec.training else None
    environment = describe_environment(device)
    trains = training_key(spec.fingerprint, spec.training) if spec.training and not trained else None
    with computing(workspace, wanted, spec_to_json(spec), _title(spec), environment, trains) as folder:
        attempt = _Attempt(workspace, spec, device, folder, trained, listener)
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
    ) -> None:
        self.spec, self.device, self.folder, self.trained = spec, device, folder, trained
        self.notes: list[str] = []
        self.samples = load_split(workspace, spec.dataset, "train", device)
        self.test = load_test(workspace, spec.dataset, device)
        self.normalisation = Normalisation(*normalisation(self.samples))
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
            "scores": n * 1e-4,
        }

    def compute(self, results: Results, target: Path, scores: Sequence[Any]) -> None:
        labels = self.samples.labels.cpu()
        features = None
        if self.trained:
            results.attach_trained(self.trained.folder / "results.duckdb")
        if self.spec.training and needs_training(self.spec):
            features = self._train(results, target)
        if self.spec.neighbors:
            assert features is not None
            self.progress.stage("neighbours")
            ids, similarities = compute_neighbors(
                features.to(self.device), min(self.spec.neighbors, len(labels) - 1), self.progress.step
            )
            results.write_neighbors(ids.cpu(), similarities.cpu())
            if self.spec.embedding == "umap":
                self.progress.stage("map")
                results.write_embedding("umap", compute_umap(features, ids.cpu(), similarities.cpu(), self.spec.seed))
        self.progress.stage("scores")
        mislabelled = None
        if self.samples.true_labels is not None:
            mislabelled = (self.samples.true_labels.cpu() != labels).numpy()
        results.write_scores(scores, labels, self.samples.classes, mislabelled, self.progress.step)
        self.notes += results.notes

    def _train(self, results: Results, target: Path) -> Tensor:
        """Train what no published run has, write its dynamics, and return the penultimate features (N, D)."""
        spec, training = self.spec, self.spec.training
        assert training is not None
        labels = self.samples.labels.cpu()
        generator = torch.Generator().manual_seed(spec.seed)
        member = None
        if spec.threshold_rounds:
            member = draw_threshold_samples(len(labels), self.samples.classes, spec.threshold_rounds, generator)
        seeds = [] if self.trained else seed_tasks(self.samples, training)
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
            features = self._features(load_weights(self.folder, seeds[0]))
            weights = {
                f"{task.name}.{name}": values
                for task in seeds
                for name, values in load_weights(self.folder, task).items()
            }
            save_tensors(target / "weights.safetensors", weights, {"training": asdict(training)})
            save_tensors(
                target / "features.safetensors",
                {"features": features.cpu().numpy()},
                {"seed": 0, "epoch": training.epochs},
            )
        else:
            assert self.trained is not None
            found = load_tensors(self.trained.folder / "features.safetensors")
            if found is None:
                raise WinnowError(f"run {self.trained.run_id} has no features; remove it (winnow remove) and run again")
            features = torch.from_numpy(found[0]["features"])
        if rounds and member is not None:
            margins = [torch.from_numpy(spill_of(self.folder, task).columns()["margin"].copy()) for task in rounds]
            aum = torch.stack([m.double().mean(0).float() for m in margins])
            results.write_threshold_rule(member, aum, *threshold_flags(aum, member))
        elif spec.threshold_rounds and self.trained:
            results.copy_flags("aum_threshold")
        return features

    def _features(self, weights: dict[str, np.ndarray[Any, Any]]) -> Tensor:
        training = self.spec.training
        assert training is not None
        shape = tuple(self.samples.inputs.shape[1:])
        network = build_model(training.model, shape, self.samples.classes, 0).to(self.device)
        network.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})
        parts = [
            values.cpu()
            for _, values in clean_pass(
                network, self.samples, self.normalisation, compute_features, pulse=self.progress.pulse
            )
        ]
        return torch.cat(parts)


def describe_training(training: TrainingSpec) -> str:
    """A training in a few words."""
    augmented = "" if training.augment == "none" else f", {training.augment}"
    plural = "s" if training.seeds > 1 else ""
    return f"{training.model}, {training.epochs} epochs, {training.seeds} seed{plural}{augmented}"


def _title(spec: RunSpec) -> str:
    return describe_training(spec.training) if spec.training else ", ".join(spec.scores)
