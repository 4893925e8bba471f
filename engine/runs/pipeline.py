"""The stages of a run: train what is needed, read what is there, score, publish.

A run computes only what it needs. When a published run of the same dataset has networks of the same training, their
dynamics, features and weights are read instead of training again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import torch

from engine.data.loader import Samples, dataset_shape, normalization
from engine.errors import NotFoundError, SpecError
from engine.features.seen import load_seen
from engine.features.stored import compute_stored, is_stored, key_of, notes_of
from engine.features.umap_map import LARGEST_FIT, compute_large_umap, compute_umap
from engine.runs.checks import check_inputs_exist
from engine.runs.cluster import HERE, Tasks
from engine.runs.duplicates import find_duplicates
from engine.runs.feasible import score_seconds, stage_seconds, work_of
from engine.runs.inputs import At, Inputs, kept_epochs, needs_training
from engine.runs.inputs.networks import network_features
from engine.runs.planning import describe_run, model_hash, trains_seeds
from engine.runs.publishing import Draft, find_run, publishing
from engine.runs.reuse import Trained, adopt_networks, find_threshold_run, find_trained
from engine.runs.threshold import copy_threshold_rule, write_threshold_rule
from engine.runs.verdict import judges, write_verdict
from engine.scores.dynamics import draw_threshold_samples, threshold_flags
from engine.scores.inputs import find_input
from engine.scores.registry import Score, resolve_scores
from engine.spec import RunSpec, network_key
from engine.store.progress import Listener, Parts, Progress
from engine.store.tensors import save_tensors
from engine.store.workspace import Workspace
from engine.training.away import train_away
from engine.training.kept import weights_file
from engine.training.loop import Normalization
from engine.training.own_models import allow_trusted
from engine.training.recording import write_trajectories
from engine.training.tasks import Splits, load_weights, round_tasks, seed_tasks, spill_of, train_tasks


def run(
    workspace: Workspace, spec: RunSpec, device: torch.device, listener: Listener | None = None, tasks: Tasks = HERE
) -> tuple[str, bool]:
    """Compute and publish what a spec describes, or find it published.

    tasks: where its networks are trained and what its scores read is computed

    Returns: (run id, whether it was there already)
    Raises:  WinnowError for what is expected; Cancelled when somebody stops the run
    """
    wanted = find_run(workspace, spec)
    if workspace.is_complete(wanted):
        return wanted, True
    if spec.training:
        allow_trusted(workspace, spec.training.model)
    if spec.training and model_hash(spec.training.model) != spec.training.model_hash:
        raise SpecError(
            f"the source of --model {spec.training.model} has changed since this run was started; start a new run"
        )
    scores = resolve_scores(spec.scores)
    reading = [found for found in scores if needs_training(found, spec)]
    seeds = spec.training if trains_seeds(spec) else None
    trained = find_trained(workspace, spec.fingerprint, seeds, reading) if seeds else None
    trains = network_key(spec.fingerprint, seeds) if seeds and not trained else None
    with publishing(workspace, wanted, spec, describe_run(spec), device, trains=trains, seed=spec.seed) as draft:
        if trained:
            draft.dynamics_run = trained.run_id
        _Attempt(workspace, spec, device, draft, trained, listener, tasks).compute(scores)
    return wanted, False


def load_test(workspace: Workspace, dataset: str, device: torch.device, trained_on: str = "") -> Samples | None:
    """The test split as networks see it, or None where the dataset, or a person's file of features, has none."""
    try:
        return load_seen(workspace, dataset, "test", trained_on, device)
    except NotFoundError:
        return None


class _Attempt:
    """One process's work on one run."""

    def __init__(
        self,
        workspace: Workspace,
        spec: RunSpec,
        device: torch.device,
        draft: Draft,
        trained: Trained | None,
        listener: Listener | None,
        tasks: Tasks,
    ) -> None:
        self.workspace, self.spec, self.device, self.trained = workspace, spec, device, trained
        self.tasks = tasks
        self.folder, self.target, self.results, self.notes = draft.folder, draft.target, draft.results, draft.notes
        scores = resolve_scores(spec.scores)
        self.work = work_of(workspace, spec, device, trained is not None)
        stages = stage_seconds(self.work, scores, trained is not None)
        self.progress = Progress(self.folder, stages, listener)
        if spec.features:
            self._store_features()
        on = spec.training.trained_on if spec.training else spec.features_hash
        self.samples = self.own = load_seen(workspace, spec.dataset, "train", on, device)
        if on and any(find_input(name).own_inputs for found in scores for name in found.all_inputs):
            self.own = load_seen(workspace, spec.dataset, "train", "", device)
        elif on:
            facts = dataset_shape(workspace, spec.dataset)
            self.own = self.samples.with_inputs(torch.empty(len(self.samples), *facts.shape, device="meta"))
        self.test = load_test(workspace, spec.dataset, device, on)
        self.normalization = Normalization(*normalization(self.samples))

    def _store_features(self) -> None:
        """Compute the features that the run reads, where no run has."""
        spec = self.spec
        self.progress.stage("features")
        workspace, dataset, source, key = self.workspace, spec.dataset, spec.features, spec.features_hash
        if not is_stored(workspace, dataset, key):
            if key_of(workspace, dataset, source, spec.download) != key:
                raise SpecError(f"the file of --features {source} has changed since this run was planned; run it again")
            compute_stored(workspace, dataset, source, self.device, self.progress, self.tasks, spec.download)
        self.notes += notes_of(workspace, dataset, key)

    def compute(self, scores: Sequence[Score]) -> None:
        results, target = self.results, self.target
        labels = self.samples.labels.cpu()
        check_inputs_exist(scores, self.spec, self.own, self.samples, self.test)
        if self.trained:
            results.attach_trained(self.trained.folder / "results.duckdb")
        if trains_seeds(self.spec):
            self._train(scores)
        inputs = Inputs(
            self.workspace,
            self.spec,
            self.own,
            self.samples,
            self.test,
            self.normalization,
            self.trained.folder if self.trained else target,
            self.folder / "partial",
            results.generator,
            self.progress,
            self.tasks,
            self.notes,
        )
        if trains_seeds(self.spec) and not self.trained:
            self._write_features(inputs)
        if self.spec.neighbors:
            self.progress.stage("neighbors")
            ids, similarities = (inputs.get(name, inputs.last) for name in ("neighbor_ids", "similarities"))
            results.write_neighbors(ids, similarities)
            if self.spec.embedding == "umap":
                self.progress.stage("map")
                features = inputs.get("features", inputs.last)
                if len(features) > LARGEST_FIT:
                    places, note = compute_large_umap(features, self.spec.neighbors, self.spec.seed)
                    self.notes.append(note)
                else:
                    places = compute_umap(features, ids, similarities, self.spec.seed)
                results.write_embedding("umap", places)
        self.progress.stage("duplicates")
        results.write_duplicates(find_duplicates(inputs), len(self.own))
        self.progress.stage("scores")
        inputs.progress = parts = Parts(self.progress, score_seconds(self.work, scores))
        mislabeled = None
        if self.samples.true_labels is not None:
            mislabeled = (self.samples.true_labels.cpu() != labels).numpy()
        results.write_scores(scores, labels, self.samples.classes, mislabeled, parts, inputs)
        if judges(scores):
            parts.enter("verdict")
            write_verdict(inputs, results, scores)
        self.notes += results.notes

    def _train(self, scores: Sequence[Score]) -> None:
        """Train what no other run has; write its dynamics and weights."""
        spec, training, results = self.spec, self.spec.training, self.results
        assert training is not None
        labels = self.samples.labels.cpu()
        generator = torch.Generator().manual_seed(spec.seed)
        member = None
        if spec.threshold_rounds:
            member = draw_threshold_samples(len(labels), self.samples.classes, spec.threshold_rounds, generator)
        kept = kept_epochs(scores, training)
        seeds = [] if self.trained else seed_tasks(self.samples, training, kept)
        rounds = round_tasks(self.samples, training, member) if member is not None else []
        judged = find_threshold_run(self.workspace, spec) if rounds else None
        if judged:
            rounds = []
        adopted = adopt_networks(self.workspace, self.folder, spec, seeds + rounds)
        if adopted:
            self.notes.append(f"trained before, by runs with the same training: {', '.join(adopted)}")
        if seeds or rounds:
            self.progress.stage("training")
            splits = Splits(self.samples, self.test, self.normalization)
            away = None if self.tasks is HERE else partial(train_away, self.tasks, self.tasks.share(splits))
            results.write_epochs(
                train_tasks(
                    self.folder, seeds + rounds, splits, self.progress, train=away, together=self.tasks.together
                )
            )
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
                path = self.target / weights_file(epoch, training.epochs)
                save_tensors(path, weights, {"training": asdict(training), "epoch": epoch})
        if rounds and member is not None:
            margins = [torch.from_numpy(spill_of(self.folder, task).columns()["margin"].copy()) for task in rounds]
            aum = torch.stack([m.double().mean(0).float() for m in margins])
            write_threshold_rule(results, member, aum, *threshold_flags(aum, member))
        elif judged:
            copy_threshold_rule(results, judged.folder / "results.duckdb")

    def _write_features(self, inputs: Inputs) -> None:
        """Publish the penultimate features (N, D) of the first seed's network at the end of training."""
        last = At(0, inputs.training.epochs)
        features = network_features(inputs, last)
        meta = {"seed": last.seed, "epoch": last.epoch}
        save_tensors(self.target / "features.safetensors", {"features": features.numpy()}, meta)
