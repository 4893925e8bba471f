"""`winnow ingest` whole: engine.data.ingest, and the networks that some label noise is made by. torch only where they are."""

from __future__ import annotations

from engine.data import ingest as reading
from engine.data.noise import reads
from engine.data.outcome import IngestResult
from engine.data.request import IngestSpec
from engine.data.writing import Report
from engine.store.workspace import Workspace


def ingest(workspace: Workspace, spec: IngestSpec, report: Report | None = None) -> IngestResult:
    """Make the dataset, or find it, as `engine.data.ingest.ingest` does; noise that networks decide on trains them."""
    if not reads(spec.noise, "confusions"):
        return reading.ingest(workspace, spec, report)
    from engine.training.confusions import compute_confusions

    return reading.ingest(workspace, spec, report, compute_confusions)
