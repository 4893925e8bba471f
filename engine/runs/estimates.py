"""How long ingesting, kernel velocity and training a detector will take on this machine, from a part that is timed."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from engine.data.columns import parse_wanted
from engine.data.dataset_file import DatasetWriter
from engine.data.decoding import choose_form
from engine.data.ingest import is_made
from engine.data.loader import dataset_shape
from engine.data.noise import reads
from engine.data.request import IngestSpec
from engine.data.sources import open_source, roots_of
from engine.data.writing import write_part
from engine.runs.detectors import load_detector, read_mislabeled, read_sequences
from engine.runs.velocity import kernel_seconds, prepare_velocity
from engine.scores.kernel import GROUP_SIZE
from engine.scores.lstm import train_detector
from engine.store.trust import fetch_trust, named_folders
from engine.store.workspace import Workspace
from engine.training.confusions import confusion_seconds

TIMED = 256
"""Samples of a source that are read, and thrown away, to time the others."""

TIMED_SEQUENCES = 2_048
"""Sequences that a detector learns from to time an epoch."""

COPIED = 2e-5
"""Seconds of copying a sample of another dataset."""

LEAST = 0.5
"""Seconds that anything takes."""


def ingest_seconds(workspace: Workspace, spec: IngestSpec) -> float:
    """Rough seconds of ingesting a source: some of its samples are read and thrown away. 0 where the dataset is there.

    Raises: SpecError when the name is taken by something else; SourceError when the source is missing or malformed
    """
    if is_made(workspace, spec) and not spec.add:
        return 0.0
    if spec.parent is not None:
        workspace.require_dataset(spec.parent)
        found = dataset_shape(workspace, spec.parent)
        confused = confusion_seconds(workspace, spec.parent) if reads(spec.noise, "confusions") else 0.0
        return LEAST + COPIED * (found.train + found.test) + confused
    named = (*roots_of(spec.source), *roots_of(spec.test), *named_folders(spec.originals))
    within = fetch_trust(workspace).roots + named
    started = time.perf_counter()
    source = open_source(spec.source, spec.seed, spec.test, parse_wanted(spec.columns, spec.metadata), within)
    train, total = len(source.train), len(source.train) + (len(source.test) if source.test else 0)
    count = total * (min(1.0, spec.limit / train) if spec.limit and train else 1.0)
    some = source.train.subset(np.unique(np.linspace(0, train - 1, min(TIMED, train)).astype(np.int64)))
    form = choose_form(some, spec.image_size)
    opened = time.perf_counter() - started
    with (
        tempfile.TemporaryDirectory() as folder,
        DatasetWriter(Path(folder) / "timed", form.shape, form.dtype) as writer,
    ):
        write_part(writer, some.subset(np.arange(min(8, len(some)))), form, True, [], lambda n: None)  # warms up
        writer.end_split()
        started = time.perf_counter()
        write_part(writer, some, form, True, [], lambda n: None)
        writer.end_split()
        each = (time.perf_counter() - started) / len(some)
    return LEAST + opened + each * count


def velocity_seconds(
    workspace: Workspace,
    dataset: str,
    score: str,
    run_id: str | None,
    size: int = GROUP_SIZE,
    device: torch.device | str = "cpu",
) -> float:
    """Rough seconds of the kernel velocity by decile: the kernels of a few samples are computed. 0 where it is kept beside the run.

    Raises: as `velocity_by_decile`
    """
    if run_id and workspace.velocity_path(run_id, score).exists():
        return 0.0
    found = prepare_velocity(workspace, dataset, score, run_id, size, device)
    return LEAST + kernel_seconds(found) * len(found.groups) * len(found.networks)


def detector_seconds(workspace: Workspace, dataset: str, run_id: str, start: str | None, epochs: int) -> float:
    """Rough seconds of training a noise detector on a run: its second epoch on a part of the sequences is timed.

    Raises: as `train_on_run` for a run without dynamics, or a dataset without true labels
    """
    p_given, ids = read_sequences(workspace, dataset, run_id)
    mislabeled = read_mislabeled(workspace, dataset, ids)
    seeds, length, n = p_given.shape
    if mislabeled is None or not 0 < int(mislabeled.sum()) < n:
        return LEAST  # the command refuses it at once
    both = torch.cat([side.nonzero()[:, 0][: TIMED_SEQUENCES // 2] for side in (mislabeled, ~mislabeled)])
    ended: list[float] = []
    train_detector(
        p_given[0][:, both],
        mislabeled[both],
        0,
        start=load_detector(workspace, start)[0] if start else None,
        epochs=2,
        report=lambda done, total: ended.append(time.perf_counter()),
    )
    return LEAST + (ended[1] - ended[0]) * epochs * seeds * n / len(both)
