"""Noise detectors as files: train one on a run, keep it in the workspace, apply it to other runs, list them.

A detector is one safetensors file, its tensors and a JSON record of where it came from; nothing is pickled. The
one that ships with the package is called `digits+textures`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from engine.errors import NotFoundError, SpecError, StorageError
from engine.fields import check_range
from engine.queries.connection import connected, source_run
from engine.queries.explanations import Numbers, fetch_explanation
from engine.scores.evaluation import evaluate_detection
from engine.scores.lstm import (
    SHIPPED,
    Detector,
    detector_of,
    lstm_detector,
    train_detector,
)
from engine.store.detector_files import DETECTOR_NAME, detector_file, detectors_folder
from engine.store.tensors import load_tensors, save_tensors
from engine.store.workspace import Workspace


def train_on_run(
    workspace: Workspace,
    dataset: str,
    run_id: str,
    name: str,
    *,
    start: str | None = None,
    lr: float | None = None,
    epochs: int = 10,
    seed: int = 0,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Train a detector on the dynamics of a run whose mislabeled samples are known, and save it.

    Every seed of the run adds its sequences: more seeds make a detector that transfers better.

    Args:    name: of the new detector; start: the name of one to fine-tune; lr: 0.1, or 0.03 to fine-tune
    Returns: the record that is saved with it: name, dataset, run_id, noise, start, lr, sequences, epochs, metrics
             (of the held-out tenth) and notes
    Raises:  SpecError for a name that is taken or no file name, or a value outside its range; NotFoundError when the run has
             no dynamics or the dataset no true labels; ScoreInputError when too few samples are mislabeled
    """
    if not DETECTOR_NAME.fullmatch(name):
        raise SpecError(f"detector name {name!r}; allowed: up to 64 letters, digits, '-' and '_'")
    check_range("--epochs", epochs, 1, 10_000)
    check_range("--seed", seed, 0, 2**63 - 1)
    if lr is not None:
        check_range("--lr", lr, 1e-8, 100)
    if (detectors_folder(workspace) / f"{name}.safetensors").exists():
        raise SpecError(f"there is a detector '{name}' already; choose another name")
    p_given, ids = read_sequences(workspace, dataset, run_id)
    mislabeled = read_mislabeled(workspace, dataset, ids)
    if mislabeled is None:
        raise NotFoundError(
            f"dataset '{dataset}' has samples without a true label, so a detector cannot learn from it; inject noise "
            "into a clean one (winnow ingest --noise symmetric:0.3)"
        )
    seeds, length, n = p_given.shape
    fit = train_detector(
        p_given.permute(1, 0, 2).reshape(length, seeds * n),
        mislabeled.repeat(seeds),
        seed,
        start=load_detector(workspace, start)[0] if start else None,
        lr=lr,
        epochs=epochs,
        report=report,
    )
    record = {
        "name": name,
        "dataset": dataset,
        "run_id": run_id,
        "noise": f"{float(mislabeled.float().mean()):.3f} of the labels wrong",
        "start": start,
        "lr": fit.lr,
        "sequences": seeds * n,
        "epochs": fit.detector.epochs,
        "metrics": fit.metrics,
        "notes": list(fit.notes),
    }
    save_detector(workspace, fit.detector, record)
    return record


def apply_to_run(workspace: Workspace, dataset: str, run_id: str, name: str) -> dict[str, Any]:
    """Judge the samples of a run with a detector, without training anything.

    Returns: sample_ids (N,) and values (N,), the probability of being mislabeled as the mean over the run's seeds,
             as arrays, and metrics: roc_auc, average_precision, precision_at_recall_95 where the truth is known
    Raises:  NotFoundError for an unknown detector or a run without dynamics
    """
    detector, _ = load_detector(workspace, name)
    p_given, ids = read_sequences(workspace, dataset, run_id)
    values = torch.stack([lstm_detector(sequences, detector) for sequences in p_given]).double().mean(0).numpy()
    mislabeled = read_mislabeled(workspace, dataset, ids)
    metrics = {} if mislabeled is None else evaluate_detection(values, mislabeled.numpy())
    return {"sample_ids": ids, "values": values, "metrics": metrics}


def explain_sample(workspace: Workspace, dataset: str, run_id: str, sample_id: int, name: str = SHIPPED) -> Numbers:
    """What each epoch of a run's first seed adds to a sample's probability of being mislabeled: (T,).

    Raises: NotFoundError for an unknown detector, run or sample
    """
    path = detector_file(workspace, name)
    with connected(workspace, dataset) as connection:
        return fetch_explanation(connection, run_id, sample_id, path)


def list_detectors(workspace: Workspace) -> list[dict[str, Any]]:
    """The records of the detectors that can be applied: the shipped one, then the workspace's by name."""
    names = sorted(path.stem for path in detectors_folder(workspace).glob("*.safetensors"))
    return [load_detector(workspace, name)[1] for name in (SHIPPED, *names)]


def save_detector(workspace: Workspace, detector: Detector, record: dict[str, Any]) -> Path:
    """Write a detector under its record's name; returns the file."""
    path = detectors_folder(workspace) / f"{record['name']}.safetensors"
    path.parent.mkdir(exist_ok=True)
    tensors = {name: values.detach().cpu().numpy() for name, values in detector.state_dict().items()}
    save_tensors(path, {**tensors, "epochs": np.array(detector.epochs, np.int32)}, record)
    return path


def load_detector(workspace: Workspace, name: str) -> tuple[Detector, dict[str, Any]]:
    """A detector and its record; NotFoundError for an unknown name, StorageError for a damaged file."""
    path = detector_file(workspace, name)
    tensors, record = load_tensors(path) or ({}, {})
    try:
        return detector_of({key: torch.from_numpy(values).float() for key, values in tensors.items()}), record
    except (KeyError, RuntimeError) as error:
        raise StorageError(f"{path} is no noise detector; remove it") from error


def read_sequences(
    workspace: Workspace, dataset: str, run_id: str, column: Literal["p_given", "margin", "loss"] = "p_given"
) -> tuple[Tensor, np.ndarray[Any, Any]]:
    """A column of a run's own or borrowed dynamics: (S, T, N) and the sample ids (N,), ascending.

    Raises: NotFoundError when the run has none
    """
    with connected(workspace, dataset) as connection:
        owner = source_run(connection, "dynamics", run_id)
        rows = (
            connection.cursor()
            .sql(
                f"SELECT seed, list({column} ORDER BY epoch) AS value, sample_id FROM dynamics WHERE run_id = ? "
                "GROUP BY seed, sample_id ORDER BY seed, sample_id",
                params=[owner],
            )
            .to_arrow_table()
        )
    if not rows.num_rows:
        raise NotFoundError(f"run {run_id} of '{dataset}' has no dynamics; make one: winnow run {dataset}")
    ids = np.unique(rows.column("sample_id").to_numpy())
    flat = rows.column("value").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    sequences = torch.from_numpy(flat.reshape(rows.num_rows // len(ids), len(ids), -1).copy())
    return sequences.transpose(1, 2).float(), ids


def read_mislabeled(workspace: Workspace, dataset: str, ids: np.ndarray[Any, Any]) -> Tensor | None:
    """Whether the label of each sample is wrong (N,) bool; None where that is unknown of any."""
    with connected(workspace, dataset) as connection:
        columns = connection.execute(
            "SELECT sample_id, coalesce(true_label, -1) AS truth, label FROM samples WHERE split = 'train' ORDER BY 1"
        ).fetchnumpy()
    place = np.searchsorted(columns["sample_id"], ids)
    truth, labels = columns["truth"][place], columns["label"][place]
    return None if (truth < 0).any() else torch.from_numpy(np.asarray(truth != labels))
