"""What a table is computed on: a dataset with the label noise that it needs, published runs, and networks that are trained
again. Everything that is finished is found again, so the same command goes on where it was stopped."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.data.loader import Samples, normalization
from engine.data.request import IngestSpec
from engine.errors import SpecError
from engine.features.seen import load_seen
from engine.queries.connection import fetch_fingerprint
from engine.queries.frames import Run
from engine.relabel.problem import Report
from engine.reproduce.size import Size
from engine.reproduce.values import Values
from engine.runs.cluster import tasks_on
from engine.runs.compute import compute
from engine.runs.ingesting import ingest
from engine.runs.options import plan_psi_from, plan_relabel_from, plan_run_from
from engine.runs.pipeline import load_test
from engine.runs.relabel_units import PLAIN, Study, Unit, learn
from engine.scores.mixture import fit_beta_mixture
from engine.spec import Spec, TrainingSpec, spec_from_json, spec_hash
from engine.store.journal import append_journal, read_journal
from engine.store.progress import Listener, Progress
from engine.store.workspace import Workspace
from engine.training.device import pick_device
from engine.training.loop import Normalization
from engine.training.together import workers_for

EARLY = 2
"""Epoch of EL2N in the small size: a tenth of the training, as in the papers (20 of 200)."""


@dataclass(frozen=True)
class Job:
    """One network to train and to test.

    seed: of the network; kept (K,) int64: positions of the training samples that it learns from, None = all; labels (N,)
    int64: in place of the given ones, None = those; learner: one of engine.relabel; preset: of its settings; what: name
    of the subset in an error, such as "the subset by AUM"; batch_size: None = that of the training
    """

    seed: int
    kept: Tensor | None = None
    labels: Tensor | None = None
    learner: str = PLAIN
    preset: str = ""
    what: str = "all"
    batch_size: int | None = None


@dataclass(frozen=True)
class Outcome:
    """accuracy: share 0..1 of the test samples that the network gets right, by their true labels where all are known;
    corrected: share of the samples learned from whose true label it predicts, None where the truth is unknown; doubted: share
    of them whose loss a beta mixture counts as that of a wrong label; seconds: of the training"""

    accuracy: float
    corrected: float | None
    doubted: float
    seconds: float


class Bench:
    """Where one table or figure is computed.

    Attributes:
        workspace, dataset: the dataset without injected noise; size: how much is computed; small: whether it is the small
        size; values: what was put; folder: of the journal
    """

    def __init__(
        self, workspace: Workspace, dataset: str, size: Size, small: bool, folder: Path, device: str, cluster: str,
        listener: Listener,
    ) -> None:  # fmt: skip
        self.workspace, self.dataset, self.size, self.small, self.folder = workspace, dataset, size, small, folder
        self.device, self.cluster, self.listener = device, cluster, listener
        self.values = Values()
        self.runs: list[str] = []
        self._study: tuple[tuple[str, TrainingSpec], Study, Tensor | None] | None = None

    # What a part puts -------------------------------------------------------------------------------------------

    def put(self, row: str, column: str, value: float, seed: int = 0) -> None:
        """Put a value into the part that is computed; shares are 0..1."""
        self.values.put(row, column, value, seed)

    @property
    def seeds(self) -> range:
        """The seeds of the networks behind every value."""
        return range(self.size.seeds)

    def score_name(self, score: str) -> str:
        """A score as it is computed in this size: EL2N of the small one is that of an earlier epoch."""
        return f"{score}@{EARLY}" if self.small and score == "el2n" else score

    # Data and runs ----------------------------------------------------------------------------------------------

    def noisy(self, noise: str, draw: int = 0) -> str:
        """The dataset with a noise, as `winnow ingest --noise` reads it, made where it is not there; "" = as it is.

        draw: of the wrong labels: another number is another draw
        """
        if not noise:
            return self.dataset
        suffix = re.sub(r"[^A-Za-z0-9.]+", "-", noise) + (f"-draw{draw}" if draw else "")
        name = f"{self.dataset}-{suffix}"
        if len(name) > 64:
            name = f"{self.dataset[:50]}-{spec_hash([self.dataset, noise, draw] if draw else [self.dataset, noise])}"
        spec = IngestSpec(name=name, source=f"dataset:{self.dataset}", noise=noise, seed=draw)
        ingest(
            self.workspace,
            spec,
            lambda stage, done, total: self.listener(f"{name}: {stage}", done / max(1, total), None),
        )
        return name

    def run(self, dataset: str, scores: str, **options: Any) -> Run:
        """A `winnow run` of the size's training. Args: scores: names, separated by commas; options: in place of the size's"""
        given = {"scores": scores, **self.size.options, "seeds": self.size.seeds, **options}
        device = pick_device(self.device)
        return self._compute(plan_run_from(self.workspace, dataset, given, device, self.listener))

    def psi(self, scored: Run, orders: Sequence[str], **options: Any) -> Run:
        """A `winnow psi` by the scores of a run, trained as its networks are. Args: options: as the command takes them"""
        given = {"orders": orders, "seeds": self.size.seeds, **options}
        spec = plan_psi_from(self.workspace, scored.dataset, given)
        training = replace(self.training_of(scored), observe="train", logit_seeds=0)
        return self._compute(replace(spec, scores_run=spec.scores_run and scored.id, training=training))

    def relabel(self, dataset: str, method: str, **options: Any) -> Run:
        """A `winnow relabel`. Args: method, options: as the command takes them"""
        given = {"seeds": self.size.seeds, **options}
        return self._compute(plan_relabel_from(self.workspace, dataset, method, given))

    def _compute(self, spec: Spec) -> Run:
        run_id, _ = compute(self.workspace, spec, self.device, self.listener, self.cluster)
        self.runs.append(run_id)
        return Run(self.workspace, run_id)

    def training_of(self, run: Run) -> TrainingSpec:
        """How the networks of a run were trained; SpecError where it trained none."""
        training = getattr(spec_from_json(run.spec), "training", None)
        if not isinstance(training, TrainingSpec):
            raise SpecError(f"run {run.id} trained no network; --dataset must name images or features without --probs")
        return replace(training, seeds=self.size.seeds)

    def samples(self, dataset: str, trained_on: str = "") -> Samples:
        """The training samples as networks see them, with their true labels where all are known."""
        return load_seen(self.workspace, dataset, "train", trained_on, pick_device(self.device))

    # Networks ---------------------------------------------------------------------------------------------------

    def train(self, dataset: str, training: TrainingSpec, jobs: Sequence[Job]) -> list[Outcome]:
        """Train and test networks, as many at a time as pays; those that were trained before are found.

        Args:   training: how, but for its seeds
        Raises: SpecError without a test split, or for a subset of fewer than two samples; Cancelled
        """
        study, truth = self._open(dataset, training)
        everyone = torch.arange(len(study.samples))
        units = []
        for job in jobs:
            kept = everyone if job.kept is None else job.kept.cpu()
            share = len(kept) / len(everyone)
            labels = study.samples.labels.cpu() if job.labels is None else job.labels.cpu()
            if len(kept) < 2:
                raise SpecError(
                    f"{job.what} leaves {len(kept)} of {len(everyone)} samples of '{dataset}'; two are the fewest"
                )
            empty = torch.empty(0, dtype=torch.int64)
            units.append(
                (
                    Unit(
                        job.seed,
                        job.what,
                        share,
                        job.learner,
                        kept,
                        empty,
                        job.batch_size or training.batch_size,
                        job.preset,
                    ),
                    labels,
                )
            )
        keys = [_key(study, self._fingerprint(dataset), unit, labels) for unit, labels in units]
        known = self._trained()
        left = [i for i, key in enumerate(keys) if key not in known and key not in keys[:i]]  # some may be the same
        self._learn(study, truth, [units[i] for i in left], [keys[i] for i in left])
        known = self._trained()
        return [known[key] for key in keys]

    def _trained(self) -> dict[str, Outcome]:
        """What was measured of every network by its key, but for those of a version that measured less."""
        names = [field.name for field in fields(Outcome)]
        events = [
            event for event in read_journal(self.folder) if event["event"] == "trained" and event.keys() >= set(names)
        ]
        return {event["key"]: Outcome(**{name: event[name] for name in names}) for event in events}

    def _learn(
        self, study: Study, truth: Tensor | None, units: Sequence[tuple[Unit, Tensor]], keys: Sequence[str]
    ) -> None:
        if not units:
            return
        done = [0.0] * len(units)
        progress = Progress(self.folder, {"train": 0.0}, self.listener)
        progress.stage("train")
        training = study.training
        device = study.samples.device
        with tasks_on(self.cluster, device, training.threads) as tasks:
            shared = tasks.share(study)

            def report(i: int, share: float) -> None:
                done[i] = share
                progress.heartbeat()
                progress.step(sum(done), len(done), f"{int(sum(done)) + 1} of {len(done)} networks")

            def one(i: int) -> None:
                found = tasks.call(_train, shared, units[i], partial(report, i))
                append_journal(self.folder, "trained", key=keys[i], **asdict(_measured(study, truth, units[i], found)))
                report(i, 1.0)

            workers = workers_for(training.model, len(units), device, training.threads)
            work: list[Callable[[], None]] = [partial(one, i) for i in range(len(units))]
            tasks.together(work, workers, progress, training.threads)

    def _open(self, dataset: str, training: TrainingSpec) -> tuple[Study, Tensor | None]:
        """What the networks of a dataset read, and the true labels (N,), kept for the next call."""
        if self._study and self._study[0] == (dataset, training):
            return self._study[1], self._study[2]
        samples = self.samples(dataset, training.trained_on)
        test = load_test(self.workspace, dataset, pick_device(self.device), training.trained_on)
        if test is None:
            raise SpecError(
                f"dataset '{dataset}' has no test split to measure on; ingest it with --test or --test-fraction"
            )
        truth = None if samples.true_labels is None else samples.true_labels.cpu()
        study = Study(replace(samples, true_labels=None), test, Normalization(*normalization(samples)), training)
        self._study = (dataset, training), study, truth
        return study, truth

    def _fingerprint(self, dataset: str) -> str:
        return fetch_fingerprint(self.workspace, dataset)


def _train(study: Study, item: tuple[Unit, Tensor], report: Report) -> dict[str, Any]:
    """Train one network: probabilities (K, C), test (M, C) and seconds."""
    started = time.perf_counter()
    unit, labels = item
    samples = replace(study.samples, labels=labels.to(study.samples.labels.device))
    found = learn(replace(study, samples=samples), unit, report)
    return {**found, "seconds": time.perf_counter() - started}


def _measured(study: Study, truth: Tensor | None, item: tuple[Unit, Tensor], found: dict[str, Any]) -> Outcome:
    assert study.test is not None
    unit, given = item
    labels = study.test.labels if study.test.true_labels is None else study.test.true_labels
    right = (found["test"].argmax(1) == labels.cpu()).double().mean()
    corrected = None
    if truth is not None:
        corrected = float((found["probabilities"].argmax(1) == truth[unit.kept]).double().mean())
    probability = found["probabilities"].gather(1, given[unit.kept][:, None])[:, 0]
    doubted = fit_beta_mixture(-probability.clamp_min(1e-8).log()) > 0.5
    return Outcome(float(right), corrected, float(doubted.double().mean()), found["seconds"])


def _key(study: Study, fingerprint: str, unit: Unit, labels: Tensor) -> str:
    """Equal for two networks exactly where they learn the same labels of the same samples in the same way."""
    how = {k: v for k, v in asdict(study.training).items() if k not in ("seeds", "observe", "logit_seeds")}
    samples = hashlib.sha256(unit.kept.numpy().astype("<i8").tobytes() + labels.numpy().astype("<i8").tobytes())
    content = [fingerprint, how, samples.hexdigest(), unit.seed, unit.learner, unit.preset, unit.batch_size]
    return spec_hash(content)
