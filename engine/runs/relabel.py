"""Relabeling: other labels that a method proposes, each with a confidence, and what networks gain by correcting labels.

No method reads a true label. Where those are known they only measure: the share of wrong labels in a subset, how often
a proposed label is right, the accuracy on the test split. Every network, its probabilities included, is kept under its
name as soon as it is trained, and journalled: a killed run goes on with those that are left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.data.loader import Samples, normalization
from engine.features.seen import load_seen
from engine.relabel.registry import find_learner, find_method, propose
from engine.runs.cluster import HERE, Tasks
from engine.runs.feasible import relabel_seconds
from engine.runs.inputs.nearest import check_others
from engine.runs.pipeline import load_test
from engine.runs.publishing import Draft, find_run, publishing
from engine.runs.relabel_results import bins_of, describe, row_of
from engine.runs.relabel_sources import find_suspects, neighbors_of, votes_of
from engine.runs.relabel_units import (
    ALL,
    PLAIN,
    RANDOM,
    ROP,
    WITHOUT,
    Study,
    Unit,
    WarmUp,
    check_classes_left,
    learn,
    learners_of,
    planned_work,
    select_at_random,
    select_by_nli,
    warm_up,
)
from engine.spec import RelabelSpec
from engine.store.journal import append_journal
from engine.store.progress import Listener, Progress
from engine.store.tensors import load_tensors, save_tensors
from engine.store.workspace import Workspace
from engine.text import percent
from engine.training.loop import Normalization
from engine.training.own_models import allow_trusted
from engine.training.together import workers_for

Row = dict[str, Any]


def run_relabel(
    workspace: Workspace,
    spec: RelabelSpec,
    device: torch.device,
    listener: Listener | None = None,
    *,
    tasks: Tasks = HERE,
) -> tuple[str, bool]:
    """Compute and publish the labels that a method proposes, or find them published.

    tasks: where its networks are trained

    Returns: (run id, whether it was there already)
    Raises:  SpecError when a subset lost a class, or the run that is read lacks what the method needs; ScoreInputError for as
             many neighbors as samples; Cancelled
    """
    wanted = find_run(workspace, spec)
    if workspace.is_complete(wanted):
        return wanted, True
    training = spec.training
    if training:
        allow_trusted(workspace, training.model)
    samples = load_seen(workspace, spec.dataset, "train", training.trained_on if training else "", device)
    test = load_test(workspace, spec.dataset, device, training.trained_on) if training else None
    if "neighbors" in find_method(spec.method).options:
        check_others(spec.neighbors, len(samples))
    with publishing(workspace, wanted, spec, describe(spec), device, seed=spec.seed) as draft:
        _Relabeling(workspace, spec, samples, test, draft, listener, tasks).compute()
    return wanted, False


class _Relabeling:
    """One process's work on one relabeling."""

    def __init__(
        self,
        workspace: Workspace,
        spec: RelabelSpec,
        samples: Samples,
        test: Samples | None,
        draft: Draft,
        listener: Listener | None,
        tasks: Tasks,
    ) -> None:
        self.workspace, self.spec, self.samples, self.test = workspace, spec, samples, test
        self.draft, self.tasks, self.method = draft, tasks, find_method(spec.method)
        self.labels = samples.labels.cpu()
        self.truth = None if samples.true_labels is None else samples.true_labels.cpu()
        self.kept: Path = draft.folder / "partial"
        seconds = relabel_seconds(workspace, spec, samples.device)
        self.progress = Progress(draft.folder, {"relabel": seconds}, listener)
        self._work = [size * epochs for size, epochs in planned_work(spec, len(samples))]
        self._shares: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()
        self._last_report = 0.0

    def compute(self) -> None:
        """Train what the method needs, and write what it proposes."""
        self.progress.stage("relabel")
        inputs: dict[str, Any] = {"labels": self.labels, "classes": self.samples.classes}
        if self.method.trains:
            inputs |= self._learn()
        elif "votes" in self.method.inputs:
            inputs["votes"] = votes_of(self.workspace, self.spec, self.samples.classes, self.progress)
        else:
            inputs["neighbor_ids"] = neighbors_of(self.workspace, self.spec, self.progress)
        at, proposed, confidence = propose(self.method, inputs, self.labels)
        results = self.draft.results
        results.write_suggestions(self.spec.method, self.samples.sample_ids.cpu()[at], proposed, confidence)

    # The networks -----------------------------------------------------------------------------------------------

    def _learn(self) -> dict[str, Tensor]:
        """Train every network that is left, write what was measured, and return what the method reads."""
        training = self.spec.training
        assert training is not None
        untold = replace(self.samples, true_labels=None)
        seen = None if self.test is None else replace(self.test, true_labels=None)
        study = Study(untold, seen, Normalization(*normalization(self.samples)), training)
        self.shared = self.tasks.share(study)
        self.kept.mkdir(exist_ok=True)
        warmed: list[tuple[Row, dict[str, Tensor]]] = []
        if self.spec.method == "rop":
            warm_ups = [WarmUp(seed, self.spec) for seed in range(training.seeds)]
            warmed = self._together(
                warm_up, warm_ups, [float(len(self.samples) * self.spec.nli_epochs)] * len(warm_ups)
            )
        units = self._units([found["nli"] for _, found in warmed])
        cost = [float(len(unit.kept) * training.epochs * find_learner(unit.learner).cost) for unit in units]
        found = self._together(learn, units, cost)
        select = [row["seconds"] for row, _ in warmed]
        rows, bins = [], []
        for unit, (row, tensors) in zip(units, found, strict=True):
            measured = row_of(unit, row["seconds"], self.labels, self.truth, self.test, tensors)
            rows.append(measured | {"select_seconds": self._selecting(unit, select)})
            if unit.learner != PLAIN and self.truth is not None and warmed:
                bins += bins_of(unit, warmed[unit.seed][1]["nli"], self.labels, self.truth, tensors["probabilities"])
        self.draft.results.write_rows("relabelings", rows)
        self.draft.results.write_rows("relabel_bins", bins)
        self._note(units)
        return self._reached(units, [tensors for _, tensors in found])

    def _selecting(self, unit: Unit, seconds: Sequence[float]) -> float | None:
        """Seconds of choosing a subset: of the network that NLI reads, next to nothing at random."""
        if self.spec.method != "rop":
            return None
        return seconds[unit.seed] if unit.subset == ROP else 0.0

    def _units(self, values: Sequence[Tensor]) -> list[Unit]:
        """Every network but those of warm-ups. values: NLI (N,) of every seed, for rop

        Raises: SpecError when a subset lost a class
        """
        spec, n, found = self.spec, len(self.samples), []
        assert spec.training is not None
        everyone, nobody = torch.arange(n), torch.empty(0, dtype=torch.int64)
        for seed in range(spec.training.seeds):
            subsets = [(ALL, 1.0, everyone, nobody)]
            if spec.method == "rop":
                subsets = []
                for share in spec.keep:
                    subsets.append((ROP, share, select_by_nli(spec, values[seed], self.labels, seed, share), nobody))
                    if share < 1:
                        subsets.append((RANDOM, share, select_at_random(spec, self.labels, seed, share), nobody))
            elif spec.method == "debug":
                suspects = find_suspects(self.workspace, spec, n)
                rest = everyone[~torch.isin(everyone, suspects)]
                subsets.append((WITHOUT, len(rest) / n, rest, suspects))
            for subset, share, kept, predicted in subsets:
                check_classes_left(self.labels, kept, subset, share)
                size = spec.training.batch_size
                size = max(2, round(size * share)) if subset == WITHOUT else size
                for name in learners_of(spec):
                    given = ("", ()) if name == PLAIN else (spec.preset, spec.settings)
                    found.append(Unit(seed, subset, share, name, kept, predicted, size, *given))
        return found

    def _together(self, task: Any, units: Sequence[Any], costs: Sequence[float]) -> list[tuple[Row, dict[str, Tensor]]]:
        """What each unit gives: of those that are done the kept, of the others as many at a time as pays."""
        known = [self._load(unit.name) for unit in units]
        for unit, found, cost in zip(units, known, costs, strict=True):
            self._shares[unit.name] = (cost, 1.0 if found else 0.0)
        self.progress.resumed(self._spent() / max(1.0, sum(self._work)))
        assert self.spec.training is not None
        model, threads = self.spec.training.model, self.spec.training.threads
        left = [i for i, found in enumerate(known) if not found]
        workers = workers_for(model, len(left), self.samples.device, threads)
        work = [partial(self._compute, task, units[i]) for i in left]
        fresh = self.tasks.together(work, workers, self.progress, threads) if work else []
        done = dict(zip(left, fresh, strict=True))
        return [known[i] or done[i] for i in range(len(units))]

    def _compute(self, task: Any, unit: Any) -> tuple[Row, dict[str, Tensor]]:
        started = time.perf_counter()
        tensors: dict[str, Tensor] = self.tasks.call(task, self.shared, unit, partial(self._report, unit.name))
        row = {"unit": unit.name, "seconds": time.perf_counter() - started}
        save_tensors(self._path(unit.name), {name: values.numpy() for name, values in tensors.items()}, row)
        append_journal(self.draft.folder, "relabeled", durable=True, **row)
        self._report(unit.name, 1.0)
        return row, tensors

    def _path(self, name: str) -> Path:
        return self.kept / f"{name.replace(', ', '-').replace(' ', '-')}.safetensors"

    def _load(self, name: str) -> tuple[Row, dict[str, Tensor]] | None:
        found = load_tensors(self._path(name))
        return None if found is None else (found[1], {key: torch.from_numpy(rows) for key, rows in found[0].items()})

    def _spent(self) -> float:
        return sum(cost * share for cost, share in self._shares.values())

    def _report(self, name: str, share: float) -> None:
        """Report that a share 0..1 of a unit is done; Cancelled when the run is stopped."""
        self.progress.heartbeat()
        now = time.monotonic()
        if share < 1 and now - self._last_report < 0.1:
            return
        with self._lock:  # networks side by side report here
            self._last_report = now
            self._shares[name] = (self._shares[name][0], share)
            spent = self._spent()
        self.progress.step(min(spent, sum(self._work)), sum(self._work), name)

    # What is written ----------------------------------------------------------------------------------------------

    def _reached(self, units: Sequence[Unit], found: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The probabilities that the method reads: by its learner; of rop, those of the largest share kept."""
        spec = self.spec
        assert spec.training is not None
        wanted = {"rop": (ROP, max(spec.keep, default=1.0)), "debug": (WITHOUT, None)}.get(spec.method, (ALL, 1.0))
        learned = torch.zeros(spec.training.seeds, len(self.samples), self.samples.classes)
        reached = torch.zeros(spec.training.seeds, len(self.samples), dtype=torch.bool)
        for unit, tensors in zip(units, found, strict=True):
            if unit.learner == learners_of(spec)[-1] and unit.subset == wanted[0]:
                if wanted[1] in (None, unit.kept_share):
                    at = unit.predicted if spec.method == "debug" else unit.kept
                    learned[unit.seed, at] = tensors["predicted" if spec.method == "debug" else "probabilities"]
                    reached[unit.seed, at] = True
        return {"learned": learned, "reached": reached}

    def _note(self, units: Sequence[Unit]) -> None:
        if self.test is None:
            self.draft.notes.append(
                "there is no test split, so accuracies are left out; the labels are proposed all the same"
            )
        if self.spec.method == "rop":
            largest = max(self.spec.keep)
            left = len(self.samples) - max(len(unit.kept) for unit in units if unit.kept_share == largest)
            if left:
                self.draft.notes.append(
                    f"labels are proposed for the {percent(largest)} of the samples that the largest share keeps; the other "
                    f"{left:,} are those that the selection leaves out"
                )
