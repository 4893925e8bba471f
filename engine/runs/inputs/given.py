"""Inputs that need no network: the labels, and what the scores of a run are handed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from engine.runs.detectors import load_detector
from engine.runs.inputs.computed import Inputs, provides
from engine.scores.inputs import Input, declare_input
from engine.scores.lstm import Detector

declare_input(Input("generator", "a seeded torch.Generator, another one for each score", "free"))


@provides(cost="free")
def labels(run: Inputs, at: Any) -> Tensor:
    """(N,) int64 given labels."""
    return run.samples.labels.cpu()


@provides(cost="free", test=True)
def validation_labels(run: Inputs, at: Any) -> Tensor:
    """(M,) int64 labels of the test split."""
    return run.validation().labels.cpu()


@provides(cost="free")
def detector(run: Inputs, at: Any) -> Detector | None:
    """a noise detector (engine.scores.lstm), None = the one that ships."""
    return load_detector(run.workspace, run.spec.detector)[0] if run.spec.detector else None
