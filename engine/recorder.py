"""Recording the dynamics of a training loop that is not ours, published as a run like any other.

recorder = Recorder("workspace", "cifar10", name="my resnet")
loader = DataLoader(WithIds(images_and_labels), batch_size=128, shuffle=True)
for epoch in range(20):
    for images, labels, sample_ids in loader:
        logits = network(images)
        ...
        recorder.log(logits, labels, sample_ids)
    recorder.end_epoch()
run_id = recorder.close()
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
import weakref
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from engine.errors import ScoreInputError, SpecError
from engine.fields import check_choice
from engine.queries.connection import connected, fetch_fingerprint, fetch_sql
from engine.runs.publishing import find_run, publishing
from engine.runs.results import DYNAMICS
from engine.scores.registry import all_scores
from engine.spec import Observe, RecordedSpec
from engine.store.atomic import remove_path
from engine.store.progress import Parts, Progress
from engine.store.workspace import Workspace
from engine.training.recording import DynamicsRecorder, Spill, write_trajectories

Outputs = Literal["logits", "probs", "log_probs"]

SMALLEST_PROB = torch.finfo(torch.float32).tiny
"""What a probability of 0 is taken for: its logarithm is -87.3, and no margin goes beyond 87.3."""

SUM_TOLERANCE = 1e-3
"""How far a row of probabilities may be from summing to 1."""


class WithIds(Dataset[Any]):
    """A map-style dataset whose items also carry their sample id, for a DataLoader that shuffles.

    An item (image, label) becomes (image, label, sample_id), a mapping gets the key "sample_ids", and anything else
    becomes (item, sample_id).

    Args:
        dataset: the items, in the order of the ingested dataset's training samples unless ids are given
        ids: the sample id of each item; None = 0 .. len(dataset) - 1. Of a torch Subset of the whole, its `indices`
    Raises:
        ScoreInputError for ids of another number than the items, or that are not whole numbers from 0
    """

    def __init__(self, dataset: Any, ids: Sequence[int] | Tensor | np.ndarray[Any, Any] | None = None) -> None:
        size = len(dataset)
        given = np.arange(size) if ids is None else np.asarray(ids)
        if given.shape != (size,):
            raise ScoreInputError(
                f"ids has shape {given.shape}; allowed: ({size},), one id for each item of the dataset"
            )
        if size and (given.dtype.kind not in "iu" or int(given.min()) < 0):
            raise ScoreInputError(f"ids holds {given.min()} ({given.dtype}); allowed: whole numbers from 0")
        self.dataset, self.ids = dataset, given.astype(np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Any:
        item, sample_id = self.dataset[index], int(self.ids[index])
        if isinstance(item, Mapping):
            return {**item, "sample_ids": sample_id}
        return (*item, sample_id) if isinstance(item, (tuple, list)) else (item, sample_id)


class Recorder:
    """Takes the logits of a training loop of the user's own, epoch by epoch, and publishes them as a run.

    Args:
        workspace: folder of the workspace, or one that `engine.open` gave; None = WINNOW_WORKSPACE, or
            ./winnow-workspace
        dataset: the ingested dataset; sample_ids are its ids, 0 .. N-1 for the training samples
        name: what the run is called
        observe: "train" when the logits are those of the training pass, "eval" for a evaluation pass after it
        keep_logits: whether the first network's full logits are kept (C <= 100)
        outputs: what `log` is given: "logits"; "probs", the softmax of them; or "log_probs", its logarithm
    Raises:
        NotFoundError for an unknown workspace or dataset
    Attributes:
        labels: (N,) int64, the given labels of the training samples, on the CPU

    Probabilities are recorded as their logarithms, whose softmax gives them back. These differ from the logits by a
    constant in each row, so every score and column is the same but `logit_given` and the kept logits, which are then
    log-probabilities. A probability below 1.2e-38 (a zero) is taken for that: a margin, ln(p_given / p_other), then
    lies between -87.3 and 87.3.

    Several networks (seeds) are recorded one after another: `next_seed()` between them, with as many epochs each.
    Use it as a context manager, or call `close()`; left by an exception, it publishes nothing and leaves nothing.
    """

    def __init__(
        self,
        workspace: str | PathLike[str] | None,
        dataset: str,
        *,
        name: str = "recorded",
        observe: Observe = "train",
        keep_logits: bool = True,
        outputs: Outputs = "logits",
    ) -> None:
        check_choice("observe", observe, Observe)
        check_choice("outputs", outputs, Outputs)
        self.workspace = Workspace.open(Path(workspace) if workspace is not None else None)
        self.dataset, self.name, self.observe, self.outputs = dataset, name, observe, outputs
        with connected(self.workspace, dataset, []) as connection:
            rows = fetch_sql(
                connection, "SELECT label, true_label FROM samples WHERE split = 'train' ORDER BY sample_id"
            )
            self._classes = int(fetch_sql(connection, "SELECT count(*) AS n FROM classes")["n"][0])
        self.labels = torch.from_numpy(rows["label"].to_numpy(np.int64, copy=True))
        known = bool(rows["true_label"].notna().all())
        self._truth = torch.from_numpy(rows["true_label"].to_numpy(np.int64, copy=True)) if known else None
        self._folder = self.workspace.root / "runs" / f".recording-{secrets.token_hex(6)}"
        self._folder.mkdir(parents=True)
        # A loop that ends without close() and without the context manager leaves nothing either.
        weakref.finalize(self, remove_path, self._folder)
        self._keep_logits = keep_logits and self._classes <= 100
        self._recorders: list[DynamicsRecorder] = []
        self._rows: list[dict[str, Any]] = []
        self._epoch = 0
        self._epoch_started = time.perf_counter()
        self._run_id: str | None = None

    def log(self, logits: Tensor, labels: Tensor, sample_ids: Tensor) -> None:
        """Take one batch. No loop over samples: a few tensor operations every some thousand rows.

        Args:   logits (B, C), or what `outputs` says, on any device; labels (B,) int64, the given ones;
                sample_ids (B,) int64 in [0, N)
        Raises: ScoreInputError for a wrong shape, or probabilities that do not sum to 1; at the latest in end_epoch
                also for an unknown sample, a label that is not the dataset's, or logits that are not finite
        """
        if self._run_id is not None:
            raise SpecError("the recorder is closed; make a new one for another run")
        size, classes = len(sample_ids), self._classes
        if logits.shape != (size, classes) or labels.shape != (size,):
            raise ScoreInputError(
                f"log was given logits {tuple(logits.shape)} and labels {tuple(labels.shape)} for {size} samples; "
                f"expected ({size}, {classes}) and ({size},)"
            )
        if size == 0:
            return
        if not self._recorders:
            self._start_seed(logits.device)
        # Copies: such a loop may reuse its tensors before they are looked at.
        kept = logits.detach().clone() if self.outputs == "logits" else self._log_probs(logits.detach(), sample_ids)
        self._recorders[-1].log(kept, labels.long().clone(), sample_ids.long().clone())

    def end_epoch(self) -> dict[str, float]:
        """End an epoch: mean loss (nats) and accuracy (0..1) against the given labels.

        A sample that was not logged in it keeps its values of the epoch before (drop_last=True is fine after the
        first epoch). Raises ScoreInputError when a sample has never been logged.
        """
        if not self._recorders:
            raise ScoreInputError("end_epoch was called before any log; log the batches of the epoch first")
        row = self._recorders[-1].end_epoch(self._epoch)
        now = time.perf_counter()
        timing = {"lr": None, "test_accuracy": None, "seconds": now - self._epoch_started}
        self._rows.append({"seed": len(self._recorders) - 1, "epoch": self._epoch + 1, **row, **timing})
        self._epoch += 1
        self._epoch_started = now
        return row

    def next_seed(self) -> None:
        """Go on with another network, freshly initialized, of as many epochs."""
        if self._epoch == 0:
            raise ScoreInputError("next_seed was called before end_epoch; end the epochs of this network first")
        self._start_seed(self._recorders[-1].device)

    def close(self) -> str:
        """Score what was recorded and publish it.

        Returns: the run id; the same recording published twice is one run
        Raises:  ScoreInputError when no epoch was ended, or the networks have different numbers of epochs
        """
        if self._run_id is not None:
            return self._run_id
        spills = [recorder.spill for recorder in self._recorders]
        epochs = {spill.epochs() for spill in spills}
        if len(epochs) != 1 or 0 in epochs:
            counted = ", ".join(str(spill.epochs()) for spill in spills) or "none"
            raise ScoreInputError(
                f"epochs recorded per network: {counted}; every network needs the same number, at least 1"
            )
        digest = hashlib.sha256()
        for spill in spills:
            with open(spill.path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        spec = RecordedSpec(
            self.dataset,
            fetch_fingerprint(self.workspace, self.dataset),
            self.name,
            len(spills),
            epochs.pop(),
            self.observe,
            digest.hexdigest(),
        )
        self._run_id = find_run(self.workspace, spec)
        if not self.workspace.is_published(self._run_id):
            self._publish(self._run_id, spec, spills)
        remove_path(self._folder)
        return self._run_id

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        self.discard()

    def discard(self) -> None:
        """Forget what was recorded and not published."""
        with contextlib.suppress(OSError):
            remove_path(self._folder)

    def _log_probs(self, given: Tensor, sample_ids: Tensor) -> Tensor:
        """Probabilities or their logarithms (B, C), checked, as finite float32 log-probabilities."""
        values = given.double() if given.dtype == torch.float64 else given.float()
        probs = values if self.outputs == "probs" else values.exp()
        # Written so that a NaN fails too.
        wrong = ~((probs >= 0).all(1) & ((probs.sum(1) - 1).abs() <= SUM_TOLERANCE))
        if bool(wrong.any()):
            i = int(wrong.nonzero()[0])
            raise ScoreInputError(
                f"the {self.outputs} of sample {int(sample_ids[i])} sum to {float(probs[i].sum()):.4g}, the smallest is "
                f"{float(probs[i].min()):.4g}; allowed: 0 or more, with a sum of 1 within {SUM_TOLERANCE:g} (take a "
                "softmax in float32, or log the logits)"
            )
        log_probs = values.log() if self.outputs == "probs" else values
        return log_probs.float().clamp_min(float(np.log(SMALLEST_PROB)))

    def _start_seed(self, device: torch.device) -> None:
        seed = len(self._recorders)
        path = self._folder / f"seed{seed}.dynamics"
        spill = Spill(path, len(self.labels), self._classes, self._keep_logits and seed == 0)
        self._recorders.append(DynamicsRecorder(spill, device, self.labels))
        self._epoch = 0
        self._epoch_started = time.perf_counter()

    def _publish(self, wanted: str, spec: RecordedSpec, spills: list[Spill]) -> None:
        labels = self.labels.cpu()
        scores = [found for found in all_scores().values() if found.over_dynamics or found.cost == "free"]
        truth = None if self._truth is None else (self._truth != labels).numpy()
        title = f"{self.name}, {spec.epochs} epochs, {spec.seeds} seed{'s' if spec.seeds > 1 else ''}"
        with publishing(self.workspace, wanted, spec, title, self._recorders[0].device) as draft:
            results, progress = draft.results, Progress(draft.folder, {"recording": 1.0, "scores": 1.0})
            progress.stage("recording")
            results.make_trajectories()
            write_trajectories(results.connection, spills, np.arange(len(labels)), labels.numpy(), progress.step)
            results.write_epochs(self._rows)
            progress.stage("scores")
            results.write_scores(scores, labels, self._classes, truth, Parts(progress, {DYNAMICS: 1.0}))
            draft.dynamics_run, draft.notes = wanted, results.notes
            draft.seconds = sum(row["seconds"] for row in self._rows)
