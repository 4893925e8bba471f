"""What a curated set gains: networks trained on it and on the full set, side by side, with the same seeds.

The two networks of a seed start from the same weights and are trained in the same way, so their difference is what
curating does; over the seeds it has an interval (engine/queries/proofs.py). The full set is every training sample with
its given label, the curated one what stays of it with corrected labels; both are measured on the same samples by their
given labels, and by the true ones where those are known.

Without a test split every seed holds out a fifth of the training samples, of each class the same share, before either set
is formed. They keep their given labels, dropped and relabeled ones too: curating has no say in what it is measured on.
Wrong labels among them lower both accuracies, and reward a network that has learned the wrong labels, so that what is
gained is rather understated.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.data.loader import Samples, normalization
from engine.data.splits import stratified
from engine.errors import SpecError, StorageError
from engine.features.seen import load_seen
from engine.queries.connection import connected, fetch_fingerprint
from engine.queries.curated import CuratedSet, relabeled
from engine.queries.summaries import fetch_classes
from engine.runs.cluster import HERE, Tasks
from engine.runs.curated_file import SET_FILE, hold_set, save_set
from engine.runs.feasible import prove_seconds
from engine.runs.pipeline import load_test
from engine.runs.planning import describe_training
from engine.runs.points import Study, network_id, train_networks, training_of
from engine.runs.publishing import find_run, publishing
from engine.spec import ProveSpec, PsiSteps, TrainingSpec, spec_hash
from engine.store.documents import number, read_json
from engine.store.journal import append_journal, proof_networks, read_journal
from engine.store.progress import Listener, Progress
from engine.store.verified import checked_file
from engine.store.workspace import Workspace
from engine.text import percent
from engine.training.loop import Normalization, batches_per_epoch
from engine.training.models import build_model
from engine.training.own_models import allow_trusted
from engine.training.stacked import Member, batch_width, can_stack, stack_size
from engine.training.together import workers_for

HELD_OUT = 0.2
"""Share of the training samples that a seed holds out where there is no test split."""

NETWORKS_FILE = "networks.json"
"""What a proof publishes for others: its networks by what they were trained on."""

SETS = ("full", "curated")
Row = dict[str, Any]


def plan_prove(
    workspace: Workspace,
    dataset: str,
    curated: CuratedSet,
    source: str,
    training: TrainingSpec,
    steps: PsiSteps = "epochs",
) -> ProveSpec:
    """The spec of a proof. source: where the set came from, in words."""
    with connected(workspace, dataset, []) as connection:
        changed = relabeled(connection, curated)
    # What a proof does not record must not make two equal ones different.
    training = replace(training, observe="train", logit_seeds=0)
    fingerprint = fetch_fingerprint(workspace, dataset)
    return ProveSpec(dataset, fingerprint, curated.hash, len(curated), changed, training, steps, source)


def run_prove(
    workspace: Workspace,
    spec: ProveSpec,
    device: torch.device,
    listener: Listener | None = None,
    *,
    curated: CuratedSet | None = None,
    stacked: bool | None = None,
    tasks: Tasks = HERE,
) -> tuple[str, bool]:
    """Compute and publish a proof, or find it published.

    Args:    curated: the set; None = the one that the run's folder holds; stacked: train small networks as one, None: on
             a GPU, where it pays; tasks: where they are trained
    Returns: (run id, whether it was there already)
    Raises:  SpecError when fewer than two samples stay; StorageError when the run holds no set; Cancelled when it is stopped
    """
    wanted = find_run(workspace, spec)
    if workspace.is_complete(wanted):
        return wanted, True
    allow_trusted(workspace, spec.training.model)
    on = spec.training.trained_on
    samples = load_seen(workspace, spec.dataset, "train", on, device)
    kept = hold_set(workspace, wanted, spec, curated, samples)
    test = load_test(workspace, spec.dataset, device, on)
    network = build_model(spec.training.model, samples.shape, samples.classes, 0)
    one = can_stack(network) and spec.training.augment == "none" and (device.type == "cuda" or bool(stacked))
    one = one and stacked is not False and test is not None  # networks that are tested on other samples share no stack
    size = stack_size(network, spec.training, samples, device) if one else 1
    with publishing(workspace, wanted, spec, _title(spec), device) as draft:
        seconds = 0.0 if one else prove_seconds(workspace, spec, device)
        progress = Progress(draft.folder, {"prove": seconds}, listener)
        progress.stage("prove")
        proof = _Proof(workspace, spec, kept, samples, test, draft.folder, progress, one, tasks)
        proof.train(size)
        draft.results.write_rows("proofs", proof.rows())
        save_set(draft.target / SET_FILE, kept)
        (draft.target / NETWORKS_FILE).write_text(json.dumps(proof.shared()) + "\n")
        draft.notes += _notes(workspace, spec, kept, len(samples), test is None)
    return wanted, False


def _title(spec: ProveSpec) -> str:
    source = spec.source if len(spec.source) <= 80 else f"{spec.source[:79]}…"
    parts = [source or "curated set", f"{spec.kept:,} samples, {spec.relabeled:,} relabeled"]
    parts += [describe_training(spec.training)]
    parts += ["as many steps"] if spec.steps == "fixed" else []
    return f"prove: {'; '.join(parts)}"


def _notes(workspace: Workspace, spec: ProveSpec, curated: CuratedSet, n: int, held_out: bool) -> list[str]:
    """What a reader of the proof should know."""
    with connected(workspace, spec.dataset, []) as connection:
        classes = fetch_classes(connection)
    left = set(curated.labels.tolist())
    counted = zip(classes["class_name"], classes["label"], classes["train"], strict=True)
    gone = [str(name) for name, label, train in counted if train and label not in left]
    notes = []
    if len(curated) == n and not spec.relabeled:
        notes.append("the curated set is the full set: nothing is dropped or relabeled, so no network can differ")
    if gone:
        more = f" and {len(gone) - 5} more" if len(gone) > 5 else ""
        notes.append(f"no sample of the curated set has the class {', '.join(gone[:5])}{more}: it cannot be predicted")
    if held_out:
        notes.append(
            f"there is no test split: every seed holds out {percent(HELD_OUT)} of the training samples and is tested on their "
            "given labels, wrong ones included, which rather understates the gain; the interval allows for the samples "
            "that the seeds share"
        )
    return notes


# The networks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """One network to train. sets: which of the sets it stands for: both, where both are the same samples and labels.

    kept (K,) int64: positions in the training split; tested (M,) int64: those held out, empty with a test split; key: what
    it shares with every network that is trained and tested in the same way; epochs, steps: of its training
    """

    seed: int
    sets: tuple[str, ...]
    kept: Tensor
    tested: Tensor
    key: str
    epochs: int
    steps: int


class _Proof:
    """One process's work on one proof. stacked: whether the networks of a set are trained as one."""

    def __init__(
        self,
        workspace: Workspace,
        spec: ProveSpec,
        curated: CuratedSet,
        samples: Samples,
        test: Samples | None,
        folder: Path,
        progress: Progress,
        stacked: bool,
        tasks: Tasks,
    ) -> None:
        self.workspace, self.spec, self.samples, self.test = workspace, spec, samples, test
        self.folder, self.progress, self.stacked, self.tasks = folder, progress, stacked, tasks
        labels = samples.labels.clone()
        at = torch.from_numpy(curated.sample_ids.astype(np.int64))
        labels[at.to(labels.device)] = torch.from_numpy(curated.labels.astype(np.int64)).to(labels.device)
        self._labels = {"full": samples.labels, "curated": labels}
        self._positions = {"full": torch.arange(len(samples)), "curated": at}
        self._normalization = Normalization(*normalization(samples))
        self.networks = self._plan()
        self._whole = sum(network.steps for network in self.networks)
        self._shares: dict[str, float] = {}
        self._lock = threading.Lock()
        self._last_report = 0.0
        self.done: dict[str, list[Row]] = {}
        """The rows of each finished network, by its key."""

    def _plan(self) -> list[Network]:
        """Every network once, seed by seed, so that pairs are finished early."""
        found: list[Network] = []
        n = len(self.samples)
        given = self.samples.labels.cpu().numpy()
        for seed in range(self.spec.training.seeds):
            tested = torch.empty(0, dtype=torch.int64)
            if self.test is None:
                tested = torch.from_numpy(stratified(given, max(1, round(HELD_OUT * n)), seed, keep_one=True))
            pair: dict[str, Network] = {}
            for name in SETS:
                kept = self._positions[name]
                kept = kept[~torch.isin(kept, tested)]
                if len(kept) < 2 or (self.test is None and not len(tested)):
                    raise SpecError(
                        f"{len(kept)} training samples of the {name} set are left beside those held out; allowed: 2 or more"
                    )
                training = training_of(self.spec, n - len(tested), len(kept))
                key = self._key(training, name, kept, tested, seed)
                steps = training.epochs * batches_per_epoch(len(kept), training.batch_size)
                sets = (*pair[key].sets, name) if key in pair else (name,)
                pair[key] = Network(seed, sets, kept, tested, key, training.epochs, steps)
            found += pair.values()
        return found

    def _key(self, training: TrainingSpec, name: str, kept: Tensor, tested: Tensor, seed: int) -> str:
        labels = self._labels[name].cpu()[kept].numpy().astype("<i8").tobytes()
        held_out = tested.numpy().astype("<i8").tobytes()
        hashes = [hashlib.sha256(content).hexdigest() for content in (labels, held_out)]
        return spec_hash([network_id(self.spec, training, kept, seed), *hashes])

    def train(self, size: int) -> None:
        """Train what neither the journal nor another proof of the same data holds, in stacks of up to `size`."""
        for row in proof_networks(read_journal(self.folder)):
            self.done.setdefault(row["network"], []).append(row)
        known = self._published()
        for network in self.networks:
            if network.key in known and network.key not in self.done:
                self._finish([network], [known[network.key]])
        self._shares = dict.fromkeys(self.done, 1.0)
        self.progress.resumed(self._spent() / self._whole)
        left = [network for network in self.networks if network.key not in self.done]
        training, device = self.spec.training, self.samples.device
        stacks = self._stacks(left, size)
        workers = 1 if self.stacked else workers_for(training.model, len(stacks), device, training.threads)
        studies: dict[tuple[str, int], Any] = {}
        for stack in stacks:  # shared once for all networks that read the same
            where = (stack[0].sets[0], stack[0].seed if self.test is None else 0)
            studies.setdefault(where, self.tasks.share(self._study(*where, stack[0].tested)))
        work: list[Callable[[], None]] = [
            partial(self._train, stack, studies[stack[0].sets[0], stack[0].seed if self.test is None else 0])
            for stack in stacks
        ]
        self.tasks.together(work, workers, self.progress, None if self.stacked else training.threads)

    def _stacks(self, networks: Sequence[Network], size: int) -> list[list[Network]]:
        """Networks that are trained together: of one set, and so of one batch width; seed by seed where each is alone."""
        if not self.stacked:
            return [[network] for network in networks]
        groups: dict[tuple[str, int], list[Network]] = {}
        for network in networks:
            width = batch_width(len(network.kept), self.spec.training.batch_size)
            groups.setdefault((network.sets[0], width), []).append(network)
        return [same[i : i + size] for same in groups.values() for i in range(0, len(same), size)]

    def _study(self, name: str, seed: int, tested: Tensor) -> Study:
        """What the networks of a set read, and what they are tested on: given labels, and true ones where those differ."""
        given = self.samples.subset(tested) if self.test is None else self.test
        tests = [given]
        if given.true_labels is not None and bool((given.true_labels != given.labels).any()):
            tests.append(replace(given, labels=given.true_labels))
        seen = replace(self.samples, labels=self._labels[name])
        return Study(seen, tuple(tests), self._normalization, self.spec.training, self.stacked)

    def _train(self, stack: Sequence[Network], study: Any) -> None:
        started = time.perf_counter()
        device = self.samples.device
        members = [Member(network.kept.to(device), network.seed, network.epochs) for network in stack]
        report = partial(self._report, stack)
        accuracies = self.tasks.call(train_networks, study, members, report)
        seconds, steps = time.perf_counter() - started, sum(network.steps for network in stack)
        measured = [
            {
                "accuracy": found[0],
                "accuracy_true": self._true(network, found),
                "seconds": seconds * network.steps / steps,
            }
            for network, found in zip(stack, accuracies, strict=True)
        ]
        self._finish(stack, measured)
        self._report(stack, 1.0)

    def _true(self, network: Network, accuracies: Sequence[float]) -> float | None:
        """The accuracy by true labels: the last measured, which is that by given labels where all of these are true."""
        truth = self.samples.true_labels if self.test is None else self.test.true_labels
        return None if truth is None else accuracies[-1]

    def _finish(self, stack: Sequence[Network], measured: Sequence[Row]) -> None:
        """Journal networks that are trained and tested, in one line."""
        rows = [
            {
                "network": network.key,
                "seed": network.seed,
                "set": name,
                **found,
                "samples": len(network.kept),
                "tested": len(network.tested) if self.test is None else len(self.test),
                "held_out": self.test is None,
                "steps": network.steps,
            }
            for network, found in zip(stack, measured, strict=True)
            for name in network.sets
        ]
        append_journal(self.folder, "proof", durable=True, networks=rows)
        for row in rows:
            self.done.setdefault(row["network"], []).append(row)

    def _spent(self) -> float:
        return sum(network.steps * self._shares.get(network.key, 0.0) for network in self.networks)

    def _report(self, stack: Sequence[Network], share: float) -> None:
        """Report that a share 0..1 of these networks is done; Cancelled when the run is stopped."""
        self.progress.heartbeat()
        now = time.monotonic()
        if share < 1 and now - self._last_report < 0.1:
            return
        with self._lock:  # networks side by side report here
            self._last_report = now
            self._shares.update(dict.fromkeys((network.key for network in stack), share))
            spent = self._spent()
        self.progress.step(spent, self._whole, f"{' and '.join(stack[0].sets)} set, seed {stack[0].seed}")

    def _published(self) -> dict[str, Row]:
        """The networks of published proofs of the same data: the full set is trained once, whatever it is compared with."""
        known: dict[str, Row] = {}
        for record, spec in self.workspace.known_runs():
            ours = isinstance(spec, ProveSpec) and spec.fingerprint == self.spec.fingerprint
            folder = self.workspace.published_dir(record.run_id)
            if not ours or not (folder / NETWORKS_FILE).exists():
                continue
            with suppress(StorageError):  # then its networks are trained here
                content = read_json(checked_file(folder, NETWORKS_FILE))
                for key, row in content.items() if isinstance(content, dict) else ():
                    if isinstance(row, dict) and 0 <= number(row.get("accuracy"), -1) <= 1:
                        true = row.get("accuracy_true")
                        known[str(key)] = {
                            "accuracy": number(row["accuracy"]),
                            "accuracy_true": None if true is None else min(1.0, max(0.0, number(true))),
                            "seconds": max(0.0, number(row.get("seconds"))),
                        }
        return known

    def rows(self) -> list[Row]:
        """One row for each set and seed, pair by pair."""
        by = {(row["seed"], row["set"]): row for network in self.networks for row in self.done[network.key]}
        return [by[seed, name] for seed in range(self.spec.training.seeds) for name in SETS]

    def shared(self) -> dict[str, Row]:
        """The networks for other proofs, by what they were trained on."""
        names = ("accuracy", "accuracy_true", "seconds")
        return {network.key: {name: self.done[network.key][0][name] for name in names} for network in self.networks}
