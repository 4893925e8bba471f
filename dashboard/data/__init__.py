"""What pages read. The only folder here that imports the engine.

Runs are immutable, so whatever was read of a run is cached and never stale; caches are bounded. A connection is
shared by all sessions that see the same files, and every script run takes its own cursor of it.
"""

from __future__ import annotations

from dashboard.data.core import (
    Snapshot,
    View,
    datasets,
    disk_use,
    published,
    snapshot,
    workspace_root,
)
from dashboard.data.exports import export, file_bytes
from dashboard.data.jobs import (
    jobs,
    latest_dataset,
    pause,
    remove,
    start,
    started_run,
    throughput,
)
from dashboard.data.runs import (
    best_run,
    catalog,
    class_names,
    classes,
    dataset_facts,
    detection_curve,
    epoch_quality,
    epochs,
    figure_table,
    having,
    histogram,
    kept_sets,
    psi_points,
    rules,
    runs,
    settings,
    spearman,
    suspicion,
    training,
    transition_matrix,
    unreadable,
    velocity,
    verdict,
    verdicts_of,
    window_points,
    windows,
)
from dashboard.data.samples import (
    cards,
    condition,
    facets,
    ids,
    labels,
    metadata,
    neighbors,
    sample,
    sample_flags,
    sample_logits,
    sample_map,
    sample_scores,
    score,
    suspect,
    trajectory,
)
from engine.errors import WinnowError
from engine.fields import Setting
from engine.queries.pruned import EPOCH_COLUMNS
from engine.queries.samples import SUSPICION, Filter, Ids
from engine.queries.verdicts import Verdict, likely, percent
from engine.queries.writers import WRITERS
from engine.store.jobs import Job, Started
from engine.store.usage import size
from engine.text import shown

__all__ = [
    "EPOCH_COLUMNS", "Filter", "Ids", "Job", "SUSPICION", "Setting", "Snapshot", "Started", "Verdict", "View",
    "WRITERS", "WinnowError", "best_run", "cards", "catalog", "class_names", "classes", "condition", "dataset_facts",
    "datasets", "detection_curve", "disk_use", "epoch_quality", "epochs", "export", "facets",
    "file_bytes",
    "figure_table", "having", "histogram", "ids", "jobs", "kept_sets", "labels", "latest_dataset", "likely",
    "metadata", "neighbors", "pause", "percent", "psi_points", "published", "remove", "rules", "runs", "sample",
    "sample_flags", "sample_logits", "sample_map", "sample_scores", "score", "settings", "shown", "size", "snapshot",
    "spearman", "start", "started_run", "suspect", "suspicion", "throughput", "training", "trajectory",
    "transition_matrix", "unreadable", "velocity", "verdict", "verdicts_of", "window_points", "windows",
    "workspace_root",
]  # fmt: skip
