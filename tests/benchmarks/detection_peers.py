"""Other ways to find wrong labels, on the features and held-out predictions of a run of Winnow.

cleanlab 2.9 by its own package, see with_cleanlab.py. SelfClean by its published formula, since its package wants other
versions than Winnow: Gröger et al., "Intrinsic Self-Supervision for Data Quality Audits" (arXiv 2305.17048), and its
repository, github.com/Digital-Dermatology/SelfClean.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.data.loader import Samples, joined, load_split, normalization
from engine.errors import NotFoundError
from engine.features.seen import load_seen
from engine.runs.crossval import CrossValidation, compute_heldout_probs, refine_heldout_probs
from engine.spec import RunSpec, spec_hash
from engine.store.workspace import Workspace
from engine.training.loop import Normalization

Array = np.ndarray[Any, Any]
BLOCK = 1024
"""Samples whose distances to all others are in memory at a time."""

CUT_SHARE, CUT_LEVEL = 0.01, 0.05
"""SelfClean's defaults: the share of label errors that its cut guesses, and its significance level."""


@dataclass(frozen=True)
class Given:
    """What every peer is given, in the order of the sample ids, training samples in front.

    inputs: (N, D) float32, features or flattened pixels; labels (N,) int64; probs: (N, C) held out, those that the run
    ranks by; accuracy: how often plain cross-validation agrees with the labels, as the run's verdict has it
    """

    inputs: Array
    labels: Array
    probs: Array
    accuracy: float


class Quiet:
    """A listener to progress that says nothing."""

    def step(self, done: float, total: float, detail: str = "") -> None: ...

    def heartbeat(self) -> None: ...

    def stop(self, stopped: bool = True) -> None: ...


def load_given(workspace: Workspace, spec: RunSpec) -> Given:
    """The samples of a run with its held-out predictions, which are computed once more: a workspace does not keep them."""
    training = spec.training
    if training is None:
        raise NotFoundError("this run trained nothing; the peers need a run with networks of its own")
    own = load_seen(workspace, spec.dataset, "train", training.trained_on)
    scale = Normalization(*normalization(own))
    everything = _with_test(workspace, spec.dataset, training.trained_on, own)
    with tempfile.TemporaryDirectory() as folder:
        how = CrossValidation(everything, training, training.epochs, scale, Path(folder), Quiet())
        # as engine.runs.results draws the folds of a run
        generator = torch.Generator().manual_seed(int(spec_hash([spec.seed, "folds"]), 16))
        plain = compute_heldout_probs(how, generator)
        probs = refine_heldout_probs(how, generator, plain)
    inputs = everything.inputs.flatten(1).float().numpy()
    accuracy = float((plain.argmax(1) == everything.labels).double().mean())
    return Given(inputs, everything.labels.numpy(), probs.numpy(), accuracy)


def _with_test(workspace: Workspace, dataset: str, trained_on: str, own: Samples) -> Samples:
    try:
        load_split(workspace, dataset, "test")
    except NotFoundError:
        return own
    return joined(own, load_seen(workspace, dataset, "test", trained_on))


def regression_probs(inputs: Array, labels: Array, seed: int = 0) -> Array:
    """(N, C) held-out probabilities as cleanlab's tutorials make them: ten-fold logistic regression, C = .001."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    deviation = inputs.std(0)
    standardized = (inputs - inputs.mean(0)) / np.where(deviation > 0, deviation, 1)
    folds = StratifiedKFold(min(10, int(np.bincount(labels).min())), shuffle=True, random_state=seed)
    model = LogisticRegression(C=0.001, max_iter=400)
    return np.asarray(cross_val_predict(model, standardized, labels, cv=folds, method="predict_proba"))


def selfclean_scores(inputs: Array, labels: Array) -> Array:
    """SelfClean's score of a label, (N,) float64 in 0..1; low = suspicious.

    s = d_other^2 / (d_same^2 + d_other^2), with the cosine distance (1 - cos) / 2 to the nearest sample of another label
    and to the nearest other one of the same. A sample alone in its class takes the largest distance for d_same; where
    both distances are 0, the score is 1/2.
    """
    unit = torch.nn.functional.normalize(torch.from_numpy(inputs), dim=1)
    given, out = torch.from_numpy(labels), []
    for start in range(0, len(unit), BLOCK):
        away = ((1 - unit[start : start + BLOCK] @ unit.T) / 2).clamp(0, 1).double()
        same = given[start : start + BLOCK, None] == given
        other = away.masked_fill(same, torch.inf).min(1).values
        rows = torch.arange(len(away))
        same[rows, start + rows] = False
        nearest = away.masked_fill(~same, torch.inf).min(1).values
        nearest = torch.where(nearest.isinf(), away.max(1).values, nearest)
        out.append((other**2 / (nearest**2 + other**2)).nan_to_num(0.5))
    return torch.cat(out).numpy()


def selfclean_cut(scores: Array) -> Array:
    """What SelfClean's automatic cleaning takes for label errors, (N,) bool.

    A logistic distribution is fitted to two low quantiles of the scores' logits; listed is what lies below its quantile at
    CUT_LEVEL * CUT_SHARE.
    """
    from scipy.special import logit
    from scipy.stats import logistic

    inside = (scores > 0) & (scores < 1)
    shares = np.array([CUT_SHARE, (CUT_SHARE / 2) ** 0.5])
    seen, expected = np.quantile(logit(scores[inside]), shares), logistic.ppf(shares)
    scale = (seen[1] - seen[0]) / (expected[1] - expected[0])
    cut = seen[0] + scale * (logistic.ppf(CUT_LEVEL * CUT_SHARE) - expected[0])
    listed = np.zeros(len(scores), bool)
    listed[inside] = logit(scores[inside]) < cut
    return listed


def cleanlab_python(given: str) -> str:
    """The Python to run cleanlab with: the one that was given, else this one where it has cleanlab, else ""."""
    return given or (sys.executable if importlib.util.find_spec("cleanlab") else "")


def run_cleanlab(python: str, labels: Array, probs: dict[str, Array]) -> tuple[str, dict[str, Any]]:
    """cleanlab's version, and what it finds by each of several held-out probabilities: see with_cleanlab.py."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.npz", Path(folder) / "found.json"
        np.savez(given, labels=labels, **{name: rows.astype(np.float64) for name, rows in probs.items()})
        script = Path(__file__).with_name("with_cleanlab.py")
        done = subprocess.run([python, str(script), str(given), str(found)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"cleanlab failed; --cleanlab takes a Python that has cleanlab[datalab]:\n{done.stderr}")
        content = json.loads(found.read_text())
    return content["version"], content["found"]


def find_with_peers(given: Given, python: str) -> tuple[str, dict[str, tuple[Array, Array]]]:
    """cleanlab's version, "" without it, and (suspicion, listed), (N,) each, of every peer by what it is."""
    scores = selfclean_scores(given.inputs, given.labels)
    out = {"SelfClean's distances, its automatic cut": (-scores, selfclean_cut(scores))}
    if not python:
        return "", out
    names = {"own": "Winnow's held-out predictions", "regression": "ten-fold logistic regression"}
    probs = {"own": given.probs, "regression": regression_probs(given.inputs, given.labels)}
    version, found = run_cleanlab(python, given.labels, probs)
    for name, results in found.items():
        for function, result in results.items():
            what = f"cleanlab {function}, {names[name]}"
            out[what] = (np.array(result["suspicion"]), np.array(result["listed"], bool))
    return version, out
