"""The views over the dataset file alone: samples, classes, metadata. engine/store/schema.py has those over runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """One view: its columns with type and meaning, and the SELECT that makes it from one attached file.

    `select` may use {run_id}, the run's id as an SQL literal, and the name of a table in braces, which stands for that
    table of the attached file with all the columns it should have. `table` is the table that must be in the file
    for it to take part. Views with over="dataset" read the dataset file alone.
    """

    comment: str
    columns: dict[str, tuple[str, str]]
    table: str
    select: str
    over: str = "runs"


SAMPLE = ("INTEGER", "the sample; training samples count from 0")

DATASET_VIEWS: dict[str, View] = {
    "dataset": View(
        "The dataset itself, one row.",
        {
            "name": ("VARCHAR", "name in the workspace"),
            "fingerprint": ("VARCHAR", "SHA-256 of inputs, labels and classes"),
            "created_at": ("TIMESTAMP", "when it was ingested, UTC"),
            "source": ("VARCHAR", "the source that was given at ingest (--from)"),
            "input_shape": ("INTEGER[]", "shape of one input: C, H, W of an image or D of a vector"),
            "input_dtype": ("VARCHAR", "uint8 or float32"),
            "noise": ("VARCHAR", "the label noise given at ingest (--noise), or NULL"),
            "noise_rate": (
                "DOUBLE",
                "realized share of training samples whose label is wrong, 0..1; NULL = unknown",
            ),
            "parent": ("VARCHAR", "the dataset it was derived from: same sample ids, other labels"),
            "spec": ("JSON", "all options of the ingest"),
            "bytes": ("BIGINT", "size of all inputs"),
        },
        "dataset",
        "SELECT name, fingerprint, created_at, source, input_shape, input_dtype, noise, noise_rate, parent, spec, "
        "bytes FROM {dataset}",
        over="dataset",
    ),
    "classes": View(
        "The classes, in label order.",
        {"label": ("INTEGER", "0 .. C-1"), "class_name": ("VARCHAR", "name of the class")},
        "classes",
        "SELECT label, class_name FROM {classes}",
        over="dataset",
    ),
    "skipped": View(
        "Samples passed over at ingest with --skip-bad.",
        {"source": ("VARCHAR", "where it is"), "reason": ("VARCHAR", "why it could not be read")},
        "skipped",
        "SELECT source, reason FROM {skipped}",
        over="dataset",
    ),
    "samples": View(
        "Every sample with its labels.",
        {
            "sample_id": SAMPLE,
            "split": ("VARCHAR", "train or test"),
            "label": ("INTEGER", "the given label, maybe wrong"),
            "true_label": ("INTEGER", "the true label; NULL where unknown"),
            "class_name": ("VARCHAR", "name of the given label"),
            "source": ("VARCHAR", "a path, or <source>:<index in the source>"),
        },
        "samples",
        "SELECT sample_id, split, label, true_label, class_name, source "
        "FROM {samples} LEFT JOIN {classes} USING (label)",
        over="dataset",
    ),
    "images": View(
        "A small picture of every sample.",
        {"sample_id": SAMPLE, "thumbnail": ("BLOB", "WebP")},
        "thumbnails",
        "SELECT sample_id, thumbnail FROM {thumbnails}",
        over="dataset",
    ),
    "metadata": View(
        "Further columns of the source, and properties measured of each image.",
        {
            "sample_id": SAMPLE,
            "name": ("VARCHAR", "name of the column or property"),
            "value": ("VARCHAR", "its value as text"),
            "number": ("DOUBLE", "its value where it is a number, else NULL"),
        },
        "metadata",
        "SELECT sample_id, name, value, number FROM {metadata}",
        over="dataset",
    ),
    "transition_matrix": View(
        "The realized transition matrix of the training labels, where the truth is known.",
        {
            "true_label": ("INTEGER", "the true label"),
            "label": ("INTEGER", "the given label"),
            "count": ("BIGINT", "training samples"),
            "share": ("DOUBLE", "of the true label's samples, 0..1"),
        },
        "samples",
        "SELECT true_label, label, count(*) AS count, count(*) / sum(count(*)) OVER (PARTITION BY true_label) AS share "
        "FROM {samples} WHERE split = 'train' AND true_label IS NOT NULL GROUP BY true_label, label",
        over="dataset",
    ),
}
