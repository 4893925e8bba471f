"""What a noise detector sees in one sample's training: what each epoch adds to the probability of a wrong label. No torch.

The detector is the LSTM of engine/scores/lstm.py. A sample needs a thousand sequences of its forward pass, which
numpy does in a moment, so that pages can explain whatever sample is looked at.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from engine.errors import NotFoundError, StorageError
from engine.queries.connection import fetch_sql, source_run
from engine.queries.samples import fetch_trajectory
from engine.store.tensors import load_tensors

Numbers = np.ndarray[Any, np.dtype[np.float32]]

PERTURBATIONS = 1000
"""Masks drawn for one explanation."""

REFERENCE_SAMPLES = 20_000
"""Samples whose mean is what a masked epoch shows; of larger sets every k-th is taken."""


def detect(path: Path, p_given: Numbers) -> Numbers:
    """Probability of being mislabeled by a detector's file, as the score `lstm_detector` has it.

    Args:    p_given (T, N) in [0, 1], of any length: resampled linearly to the detector's
    Returns: (N,) float32
    Raises:  StorageError for a file that holds no detector
    """
    tensors, _ = load_tensors(path) or ({}, {})
    try:
        weights = {name: values.astype(np.float32) for name, values in tensors.items() if name != "epochs"}
        hidden = _resample(p_given, int(tensors["epochs"]))[:, :, None]
        layer = 0
        while f"lstm.weight_ih_l{layer}" in weights:
            hidden = _lstm_layer(hidden, *(weights[f"lstm.{name}_l{layer}"] for name in _PARTS))
            layer += 1
        logits = hidden[-1] @ weights["head.weight"][0] + weights["head.bias"][0]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise StorageError(f"{path} is no noise detector; remove it") from error
    return _sigmoid(logits)


_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _lstm_layer(inputs: Numbers, w_in: Numbers, w_hidden: Numbers, b_in: Numbers, b_hidden: Numbers) -> Numbers:
    """One LSTM layer as PyTorch defines it, gates in the order input, forget, cell, output: (T, N, D) -> (T, N, H)."""
    width = w_hidden.shape[1]
    hidden = np.zeros((inputs.shape[1], width), np.float32)
    cell, out = hidden.copy(), np.empty((*inputs.shape[:2], width), np.float32)
    for t, step in enumerate(inputs):
        gates = step @ w_in.T + hidden @ w_hidden.T + (b_in + b_hidden)
        enter, forget, offered, leave = np.split(gates, 4, axis=1)
        cell = _sigmoid(forget) * cell + _sigmoid(enter) * np.tanh(offered)
        hidden = _sigmoid(leave) * np.tanh(cell)
        out[t] = hidden
    return out


def _sigmoid(values: Numbers) -> Numbers:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * values)), np.float32)


def _resample(p_given: Numbers, epochs: int) -> Numbers:
    """Sequences (T, N) at another length, between their epochs linearly; first and last stay."""
    given = np.asarray(p_given, np.float32)
    places = np.linspace(0, len(given) - 1, epochs)
    left = np.minimum(places.astype(int), max(0, len(given) - 2))
    share = (places - left).astype(np.float32)[:, None]
    return np.asarray(given[left] * (1 - share) + given[np.minimum(left + 1, len(given) - 1)] * share, np.float32)


def explain(path: Path, sequence: Numbers, reference: Numbers, seed: int = 0) -> Numbers:
    """What each epoch adds to one sample's probability of being mislabeled: LIME with epochs as features.

    Random halves of the epochs are masked, which means replaced by the reference; a ridge regression of the
    detector's probability on the masks, weighted by closeness to the unmasked sequence, gives one coefficient
    per epoch (Ribeiro et al. 2016; LSTM paper, figure 8).

    Args:    sequence (T,), p_given of the sample; reference (T,), what a masked epoch shows: the mean over the
             dataset
    Returns: (T,) float32: > 0 speaks for mislabeled, about the change of probability that the epoch makes
    """
    masks = np.random.default_rng(seed).random((PERTURBATIONS, len(sequence))) < 0.5
    masks[0] = True
    probability = detect(path, np.where(masks, sequence, reference).T).astype(float)
    # Cosine distance between a mask and the all-ones one, with lime's own kernel for masked features (width 0.25).
    weight = np.exp(-((1 - np.sqrt(masks.mean(1))) ** 2) / 0.25**2)
    # Ridge with strength 1, whose intercept is not shrunk: on values whose weighted means are taken off.
    rows: np.ndarray[Any, Any] = masks - np.average(masks, axis=0, weights=weight)
    scaled = rows * weight[:, None]
    aim = probability - np.average(probability, weights=weight)
    found = np.linalg.solve(scaled.T @ rows + np.eye(len(sequence)), scaled.T @ aim)
    return np.asarray(found, np.float32)


def fetch_explanation(connection: duckdb.DuckDBPyConnection, run_id: str, sample_id: int, path: Path) -> Numbers:
    """What each epoch of a run's first seed adds to a sample's probability of being mislabeled, by a detector: (T,) float32.

    path: of the detector's file
    Raises: NotFoundError for a run without dynamics, or without that sample; StorageError as `detect`
    """
    dynamics = fetch_trajectory(connection, run_id, sample_id)
    if dynamics.empty:
        raise NotFoundError(f"run {run_id} has no training sample {sample_id} with dynamics (winnow run records them)")
    seed = int(dynamics["seed"].min())
    own = dynamics.loc[dynamics["seed"] == seed, "p_given"].to_numpy(np.float32)
    return explain(path, own, fetch_mean_p_given(connection, run_id, seed))


def fetch_mean_p_given(connection: duckdb.DuckDBPyConnection, run_id: str, seed: int) -> Numbers:
    """The mean of p_given over the samples after each epoch of a seed: (T,) float32, what a masked epoch shows."""
    size = fetch_sql(connection, "SELECT count(*) AS n FROM samples WHERE split = 'train'")["n"][0]
    found = fetch_sql(
        connection,
        "SELECT avg(p_given) AS mean FROM dynamics WHERE run_id = $run AND seed = $seed AND sample_id % $every = 0 "
        "GROUP BY epoch ORDER BY epoch",
        {
            "run": source_run(connection, "dynamics", run_id),
            "seed": seed,
            "every": max(1, -(-int(size) // REFERENCE_SAMPLES)),
        },
    )
    return found["mean"].to_numpy(np.float32)
