"""What is measured of a relabeling where the truth is known, and how it is called."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.data.loader import Samples
from engine.relabel.registry import find_method
from engine.runs.planning import describe_training
from engine.runs.relabel_units import PLAIN, Unit
from engine.spec import RelabelSpec
from engine.text import percent

BINS = 14
"""Of equal width over NLI (ROP, figure 3)."""


def describe(spec: RelabelSpec) -> str:
    """The title of a relabeling."""
    parts = [spec.method]
    if spec.method == "rop":
        parts = [f"rop with {spec.learner}, {spec.select}, keeping {', '.join(f'{share:g}' for share in spec.keep)}"]
        switches = ("no_feature_propagation", "no_label_propagation", "no_bias", "unbalanced")
        parts += [name.replace("_", " ") for name in switches if getattr(spec, name)]
    parts += [f"preset {spec.preset}"] if spec.preset else []
    parts += [", ".join(spec.settings)] if spec.settings else []
    if spec.method == "debug":
        parts = [f"debug: the first {percent(spec.share)} by {spec.score}"]
    if "neighbors" in find_method(spec.method).options:
        parts.append(f"{spec.neighbors} neighbors")
    return "relabel: " + "; ".join([*parts, *([describe_training(spec.training)] if spec.training else [])])


def row_of(
    unit: Unit,
    seconds: float,
    labels: Tensor,
    truth: Tensor | None,
    test: Samples | None,
    tensors: dict[str, Tensor],
) -> dict[str, Any]:
    """One row of the table `relabelings`, without select_seconds. labels, truth (N,): given and true"""
    row: dict[str, Any] = {
        "seed": unit.seed,
        "subset": unit.subset,
        "kept_fraction": unit.kept_share,
        "learner": unit.learner,
        "samples": len(unit.kept),
        "noise": None,
        "noise_left": None,
        "accuracy": None,
        "accuracy_true": None,
        "seconds": seconds,
    }
    if truth is not None:
        row["noise"] = float((labels[unit.kept] != truth[unit.kept]).double().mean())
        if unit.learner != PLAIN:
            proposed = tensors["probabilities"].argmax(1)
            row["noise_left"] = float((proposed != truth[unit.kept]).double().mean())
    if test is not None:
        predicted = tensors["test"].argmax(1)
        row["accuracy"] = float((predicted == test.labels.cpu()).double().mean())
        if test.true_labels is not None:
            row["accuracy_true"] = float((predicted == test.true_labels.cpu()).double().mean())
    return row


def bins_of(unit: Unit, nli: Tensor, labels: Tensor, truth: Tensor, probabilities: Tensor) -> list[dict[str, Any]]:
    """Rows of the table `relabel_bins`: how often given and corrected labels are right, by NLI (N,).

    Bins of equal width over the range of all samples; those without a sample of the subset are left out.
    """
    values = nli.double()
    low, high = float(values.min()), float(values.max())
    width = max(high - low, 1e-9) / BINS
    place = ((values[unit.kept] - low) / width).long().clamp(0, BINS - 1)
    true, given, corrected = truth[unit.kept], labels[unit.kept], probabilities.argmax(1)
    rows = []
    for bin in torch.unique(place).tolist():
        mine = place == bin
        rows.append(
            {
                "seed": unit.seed,
                "subset": unit.subset,
                "kept_fraction": unit.kept_share,
                "learner": unit.learner,
                "bin": bin,
                "low": low + bin * width,
                "high": low + (bin + 1) * width,
                "samples": int(mine.sum()),
                "right_given": float((given == true)[mine].double().mean()),
                "right_corrected": float((corrected == true)[mine].double().mean()),
            }
        )
    return rows
