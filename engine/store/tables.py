"""The tables in a dataset file and in a results file, as data: what is created, and what a reader may expect.

A column that is added here is NULL in the views over older files, unless DERIVED has an expression for it.
"""

from __future__ import annotations

from collections.abc import Collection

Columns = dict[str, str]
"""Of a table: the SQL type of each column, in the order in which they are made."""

DATASET_TABLES: dict[str, Columns] = {
    "dataset": {
        "name": "VARCHAR",
        "fingerprint": "VARCHAR",
        "format": "INTEGER",
        "created_at": "TIMESTAMP",
        "version": "VARCHAR",
        "spec": "JSON",
        "source": "VARCHAR",
        "input_shape": "INTEGER[]",
        "input_dtype": "VARCHAR",
        "noise": "VARCHAR",
        "noise_rate": "DOUBLE",
        "parent": "VARCHAR",
        "parent_fingerprint": "VARCHAR",
        "bytes": "BIGINT",
    },
    "classes": {"label": "INTEGER", "class_name": "VARCHAR"},
    "samples": {
        "sample_id": "INTEGER",
        "split": "VARCHAR",
        "label": "INTEGER",
        "true_label": "INTEGER",
        "source": "VARCHAR",
        "content": "VARCHAR",
    },
    "thumbnails": {"sample_id": "INTEGER", "thumbnail": "BLOB"},
    "inputs": {"first_id": "INTEGER", "n": "INTEGER", "data": "BLOB"},
    "skipped": {"source": "VARCHAR", "reason": "VARCHAR"},
    "metadata": {"sample_id": "INTEGER", "name": "VARCHAR", "value": "VARCHAR", "number": "DOUBLE"},
    "versions": {"fingerprint": "VARCHAR", "train": "INTEGER", "test": "INTEGER"},
}
"""A dataset file. inputs.data: the raw bytes of n consecutive samples from first_id on, in input_shape and
input_dtype (uint8 images C, H, W; float32 vectors). Training samples have the ids 0 .. N-1, test samples
N .. N+M-1. dataset.bytes: size of all inputs. samples.content: BLAKE2b of one sample's bytes in inputs, 32
hexadecimal digits, by which decisions find their image again; files of version 0.1 have no such column. versions:
what the dataset was before samples were added to it."""

PROPERTIES = {
    "brightness": "brightness of the mean color, 0 = black .. 1 = white",
    "brightness_p05": "5th percentile of the pixels' brightness, 0..1",
    "brightness_p99": "99th percentile of the pixels' brightness, 0..1",
    "sharpness": "standard deviation of the edges at 64 pixels, 0..127",
    "histogram_spread": "standard deviation of the 256 counts of the gray histogram at 64 pixels",
    "histogram_entropy": "of the counts of values over all channels, bits: 1.6 = one color (0 in gray) .. 9.6",
    "aspect_ratio": "shorter side / longer side, above 0 to 1",
    "resolution": "square root of width times height, pixels",
}
"""What is measured of each image at ingest (engine.data.properties), by its name in `metadata`. The brightness of a pixel
is sqrt(.241 R^2 + .691 G^2 + .068 B^2) / 255."""

RESULT_TABLES: dict[str, Columns] = {
    "run": {
        "run_id": "VARCHAR",
        "kind": "VARCHAR",
        "title": "VARCHAR",
        "dataset": "VARCHAR",
        "fingerprint": "VARCHAR",
        "spec": "JSON",
        "environment": "JSON",
        "created_at": "TIMESTAMP",
        "seconds": "DOUBLE",
        "training_key": "VARCHAR",
        "dynamics_run": "VARCHAR",
        "notes": "JSON",
    },
    "epochs": {
        "seed": "INTEGER",
        "epoch": "INTEGER",
        "train_loss": "DOUBLE",
        "train_accuracy": "DOUBLE",
        "test_accuracy": "DOUBLE",
        "lr": "DOUBLE",
        "seconds": "DOUBLE",
    },
    "logit_trajectories": {"sample_id": "INTEGER", "seed": "INTEGER", "classes": "INTEGER", "logits": "FLOAT[]"},
    "scores": {"score": "VARCHAR", "sample_id": "INTEGER", "value": "FLOAT", "rank": "INTEGER"},
    "seed_scores": {"score": "VARCHAR", "seed": "INTEGER", "sample_id": "INTEGER", "value": "FLOAT"},
    "score_catalog": {
        "score": "VARCHAR",
        "title": "VARCHAR",
        "higher_means": "VARCHAR",
        "evidence": "VARCHAR",
        "value_min": "DOUBLE",
        "value_max": "DOUBLE",
        "source": "VARCHAR",
        "cost": "VARCHAR",
        "seconds": "DOUBLE",
        "version": "INTEGER",
    },
    "flags": {
        "rule": "VARCHAR",
        "score": "VARCHAR",
        "sample_id": "INTEGER",
        "flagged": "BOOLEAN",
        "threshold": "FLOAT",
        "value": "FLOAT",
    },
    "threshold_rounds": {"round": "INTEGER", "sample_id": "INTEGER", "threshold_sample": "BOOLEAN", "aum": "FLOAT"},
    "rules": {"rule": "VARCHAR", "score": "VARCHAR", "flagged": "INTEGER", "why_unused": "VARCHAR"},
    "verdict": {
        "accuracy": "DOUBLE",
        "chance": "DOUBLE",
        "noise": "DOUBLE",
        "noise_low": "DOUBLE",
        "noise_high": "DOUBLE",
        "noise_joint": "DOUBLE",
        "noise_mixture": "DOUBLE",
        "score": "VARCHAR",
        "judged": "INTEGER",
        "listed": "INTEGER",
        "reason": "VARCHAR",
        "advice": "VARCHAR",
    },
    "shortlist": {"sample_id": "INTEGER", "rank": "INTEGER", "p_wrong": "FLOAT", "listed": "BOOLEAN"},
    "duplicates": {
        "group_id": "INTEGER",
        "sample_id": "INTEGER",
        "split": "VARCHAR",
        "similarity": "FLOAT",
        "exact": "BOOLEAN",
        "leak": "BOOLEAN",
    },
    "neighbor_lists": {"sample_id": "INTEGER", "neighbor_ids": "INTEGER[]", "similarities": "FLOAT[]"},
    "embedding": {"method": "VARCHAR", "sample_id": "INTEGER", "x": "FLOAT", "y": "FLOAT"},
    "psi": {
        "order": "VARCHAR",
        "score": "VARCHAR",
        "reversed": "BOOLEAN",
        "sampler": "VARCHAR",
        "options": "JSON",
        "seed": "INTEGER",
        "pruned": "INTEGER",
        "kept_fraction": "DOUBLE",
        "accuracy": "DOUBLE",
        "seconds": "DOUBLE",
    },
    "proofs": {
        "seed": "INTEGER",
        "set": "VARCHAR",
        "accuracy": "DOUBLE",
        "accuracy_true": "DOUBLE",
        "samples": "INTEGER",
        "tested": "INTEGER",
        "held_out": "BOOLEAN",
        "steps": "INTEGER",
        "seconds": "DOUBLE",
    },
    "relabelings": {
        "seed": "INTEGER",
        "subset": "VARCHAR",
        "kept_fraction": "DOUBLE",
        "learner": "VARCHAR",
        "samples": "INTEGER",
        "noise": "DOUBLE",
        "noise_left": "DOUBLE",
        "accuracy": "DOUBLE",
        "accuracy_true": "DOUBLE",
        "select_seconds": "DOUBLE",
        "seconds": "DOUBLE",
    },
    "relabel_bins": {
        "seed": "INTEGER",
        "subset": "VARCHAR",
        "kept_fraction": "DOUBLE",
        "learner": "VARCHAR",
        "bin": "INTEGER",
        "low": "DOUBLE",
        "high": "DOUBLE",
        "samples": "INTEGER",
        "right_given": "DOUBLE",
        "right_corrected": "DOUBLE",
    },
    "suggestions": {
        "sample_id": "INTEGER",
        "suggested_label": "INTEGER",
        "confidence": "FLOAT",
        "method": "VARCHAR",
    },
    "metrics": {"score": "VARCHAR", "metric": "VARCHAR", "value": "DOUBLE"},
}
"""A results file. The table `trajectories` (sample_id, seed, label, then one array per recorded column, epochs
1 .. T) is made by the recorder, which knows the columns."""


def create_sql(tables: dict[str, Columns]) -> str:
    """The CREATE TABLE statements of a new file."""
    made = []
    for table, columns in tables.items():
        listed = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        made.append(f'CREATE TABLE "{table}" ({listed});')
    return "\n".join(made)


_INNER = "regexp_extract(\"order\", '\\((.*)\\)$', 1)"
_BASE = "regexp_extract(\"order\", '^[^(*]+')"
_SCORELESS = "('random', 'oracle', 'moderate', 'kcenter', 'craig', 'pr4rel', 'fdmat')"

DERIVED: dict[str, dict[str, str]] = {
    "psi": {
        "score": f"CASE WHEN contains(\"order\", '(') THEN list_filter(string_split({_INNER}, ','), "
        f"lambda word: word <> '' AND NOT contains(word, '='))[1] WHEN {_BASE} NOT IN {_SCORELESS} THEN {_BASE} END",
        "reversed": "ends_with(\"order\", '*') OR starts_with(\"order\", 'descending(')",
        "sampler": f"CASE WHEN contains(\"order\", '(') OR {_BASE} IN {_SCORELESS} THEN {_BASE} "
        "WHEN ends_with(\"order\", '*') THEN 'descending' ELSE 'ascending' END",
        "options": "TRY_CAST('{' || array_to_string(list_transform(list_filter("
        f"string_split({_INNER}, ','), lambda word: contains(word, '=')), "
        "lambda word: '\"' || string_split(word, '=')[1] || '\": ' || string_split(word, '=')[2]), ', ') || '}' AS JSON)",
    },
    "flags": {
        "score": "CASE rule WHEN 'aum_threshold' THEN 'aum' WHEN 'confident_joint' THEN 'confident_learning' "
        "WHEN 'discarded_by_incv' THEN 'incv' ELSE rule END",
    },
}
"""What stands for a column in files of version 0.1, which lack it: by table and column, SQL over the columns that
they have. There the name of an order, such as `el2n*` or `ccs(nli,beta=0.1)`, was all that was stored of it."""


def complete_select(table: str, found: Collection[str], expected: Columns, source: str) -> str:
    """A SELECT from a table (`source`, quoted) of an older file that gives every column it should have.

    found: the columns that are there; one that is missing is derived or NULL.
    """
    derived = DERIVED.get(table, {})
    parts = [
        f'"{name}"' if name in found else f'CAST({derived.get(name, "NULL")} AS {kind}) AS "{name}"'
        for name, kind in expected.items()
    ]
    return f"SELECT {', '.join(parts)} FROM {source}"
