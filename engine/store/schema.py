"""The data contract: the views over the files, and what every column means. engine/store/tables.py has the tables.

Pages, the command line, exports and people's own SQL read the views and nothing else. A dataset file and the
results files of its published runs are attached read-only, each view is the union over them, and a change to a
view is a change of contract. Files may lay a table out differently from its view: trajectories are stored as
one array per (sample, seed), because one sample's whole history is then one small read.
"""

from __future__ import annotations

from engine.store.dataset_views import DATASET_VIEWS, SAMPLE, View
from engine.store.sql import identifier
from engine.store.trained_views import RUN as _RUN
from engine.store.trained_views import TRAINED_VIEWS

VIEWS: dict[str, View] = DATASET_VIEWS | {
    "runs": View(
        "The published runs.",
        {
            "run_id": _RUN,
            "kind": ("VARCHAR", "run, psi, recorded, prove or relabel"),
            "title": ("VARCHAR", "a short description"),
            "created_at": ("TIMESTAMP", "when it was published, UTC"),
            "seconds": ("DOUBLE", "time to compute, over all attempts"),
            "dynamics_run": (
                "VARCHAR",
                "the run whose dynamics, logits and epochs it reads (itself, if it trained)",
            ),
            "spec": ("JSON", "all options of the run"),
            "environment": ("JSON", "device, versions, git commit"),
            "notes": ("JSON", "what a reader should know about the run, a list of sentences"),
        },
        "run",
        "SELECT {run_id} AS run_id, kind, title, created_at, seconds, dynamics_run, spec, environment, notes FROM {run}",
    ),
    "epochs": View(
        "Training and test accuracy per epoch.",
        {
            "run_id": _RUN,
            "seed": ("INTEGER", "0 .. S-1; threshold rounds are not in here"),
            "epoch": ("INTEGER", "1 .. T"),
            "train_loss": ("DOUBLE", "mean cross-entropy over the epoch, nats"),
            "train_accuracy": ("DOUBLE", "against the given labels, 0..1"),
            "test_accuracy": ("DOUBLE", "on the test split after the epoch, 0..1; NULL without one"),
            "lr": ("DOUBLE", "learning rate at the start of the epoch"),
            "seconds": ("DOUBLE", "time of the epoch"),
        },
        "epochs",
        "SELECT {run_id} AS run_id, seed, epoch, train_loss, train_accuracy, test_accuracy, lr, seconds FROM {epochs}",
    ),
    "dynamics": View(
        "What each training sample looked like to the network, per seed and epoch.",
        {
            "run_id": _RUN,
            "seed": ("INTEGER", "0 .. S-1"),
            "epoch": ("INTEGER", "1 .. T"),
            "sample_id": SAMPLE,
            "p_given": ("FLOAT", "softmax probability of the given label"),
            "margin": ("FLOAT", "logit of the given label minus the largest other logit"),
            "loss": ("FLOAT", "cross-entropy against the given label, nats"),
            "el2n": ("FLOAT", "L2 distance of the softmax output to the one-hot label, 0..sqrt 2"),
            "entropy": ("FLOAT", "of the softmax output, nats"),
            "top2_gap": ("FLOAT", "largest minus second largest probability"),
            "logit_given": ("FLOAT", "logit of the given label"),
            "other": ("SMALLINT", "class of the largest other logit"),
            "predicted": ("SMALLINT", "class of the largest logit"),
            "correct": ("BOOLEAN", "predicted = given label"),
        },
        "trajectories",
        "",  # the columns follow the file: see dynamics_select
    ),
    "logits": View(
        "Full logits of the seeds that keep them.",
        {
            "run_id": _RUN,
            "seed": ("INTEGER", "0 .. S-1"),
            "epoch": ("INTEGER", "1 .. T"),
            "sample_id": SAMPLE,
            "logits": ("FLOAT[]", "C logits"),
        },
        "logit_trajectories",
        "SELECT {run_id} AS run_id, seed, CAST(epoch AS INTEGER) AS epoch, sample_id, "
        "logits[(epoch - 1) * classes + 1 : epoch * classes] AS logits FROM "
        "(SELECT *, unnest(range(1, len(logits) // classes + 1)) AS epoch FROM {logit_trajectories})",
    ),
    "scores": View(
        "Every score of every training sample.",
        {
            "run_id": _RUN,
            "score": ("VARCHAR", "name of the score (see score_catalog)"),
            "sample_id": SAMPLE,
            "value": ("FLOAT", "mean over seeds"),
            "rank": ("INTEGER", "0 = easiest; ties broken by a seeded permutation"),
        },
        "scores",
        "SELECT {run_id} AS run_id, score, sample_id, value, rank FROM {scores}",
    ),
    "seed_scores": View(
        "The per-seed values behind scores.",
        {
            "run_id": _RUN,
            "score": ("VARCHAR", "name"),
            "seed": ("INTEGER", "0 .. S-1"),
            "sample_id": SAMPLE,
            "value": ("FLOAT", "the score in this seed"),
        },
        "seed_scores",
        "SELECT {run_id} AS run_id, score, seed, sample_id, value FROM {seed_scores}",
    ),
    "score_catalog": View(
        "What every score means.",
        {
            "score": ("VARCHAR", "name"),
            "title": ("VARCHAR", "one line"),
            "higher_means": ("VARCHAR", "harder or easier"),
            "evidence": (
                "VARCHAR",
                "what its hard end is evidence of: label, hardness, outlier, duplicate, picture or none; only label may rank "
                "suspected labels; NULL in runs of version 0.1",
            ),
            "value_min": ("DOUBLE", "smallest possible value; -inf if unbounded"),
            "value_max": ("DOUBLE", "largest possible value; inf if unbounded"),
            "source": ("VARCHAR", "paper and equation"),
            "cost": ("VARCHAR", "what it needs"),
        },
        "score_catalog",
        "SELECT score, title, higher_means, evidence, value_min, value_max, source, cost FROM {score_catalog}",
    ),
    "score_costs": View(
        "Seconds each score took in each run, its inputs included, training and recording not.",
        {
            "run_id": _RUN,
            "score": ("VARCHAR", "name"),
            "seconds": ("DOUBLE", "time of the score and of its inputs, without the training"),
            "version": ("INTEGER", "of the score's formula; NULL in runs of version 0.1"),
        },
        "score_catalog",
        "SELECT {run_id} AS run_id, score, seconds, version FROM {score_catalog}",
    ),
    "flags": View(
        "Which samples a rule flags.",
        {
            "run_id": _RUN,
            "rule": ("VARCHAR", "name of the rule"),
            "score": ("VARCHAR", "the score whose value the rule looks at"),
            "sample_id": SAMPLE,
            "flagged": ("BOOLEAN", "whether the rule flags the sample: as mislabeled, or for how its picture looks"),
            "threshold": ("FLOAT", "the threshold that its value is compared with"),
            "value": ("FLOAT", "the value that is compared; for aum_threshold the AUM in the round of that threshold"),
        },
        "flags",
        "SELECT {run_id} AS run_id, rule, score, sample_id, flagged, threshold, value FROM {flags}",
    ),
    "threshold_rounds": View(
        "The AUM of every sample in the networks that were trained with threshold samples.",
        {
            "run_id": _RUN,
            "round": ("INTEGER", "which set of threshold samples, from 1"),
            "sample_id": SAMPLE,
            "threshold_sample": ("BOOLEAN", "whether it carried the label of the extra class in that round"),
            "aum": ("FLOAT", "its AUM in that round"),
        },
        "threshold_rounds",
        "SELECT {run_id} AS run_id, round, sample_id, threshold_sample, aum FROM {threshold_rounds}",
    ),
    "rules": View(
        "The rules of each run, and which of them are left out of the vote.",
        {
            "run_id": _RUN,
            "rule": ("VARCHAR", "name of the rule"),
            "score": ("VARCHAR", "the score whose value the rule looks at"),
            "flagged": ("INTEGER", "samples that it flags"),
            "why_unused": ("VARCHAR", "why it is left out of the vote; empty where it is not"),
        },
        "rules",
        "SELECT {run_id} AS run_id, rule, score, flagged, why_unused FROM {rules}",
    ),
    "verdict": View(
        "What to believe of a run, one row.",
        {
            "run_id": _RUN,
            "accuracy": ("DOUBLE", "share of the held-out predictions that are the given label, 0..1"),
            "chance": ("DOUBLE", "share of the largest class: what a guess would reach, 0..1"),
            "noise": ("DOUBLE", "estimated share of wrong labels, 0..1; NULL where the networks cannot tell"),
            "noise_low": ("DOUBLE", "lower end of its 95 % interval"),
            "noise_high": ("DOUBLE", "upper end of its 95 % interval"),
            "noise_joint": ("DOUBLE", "the share by the joint of given and held-out labels"),
            "noise_mixture": ("DOUBLE", "the share by the likelihood of the labels, of which the interval is"),
            "score": ("VARCHAR", "what the shortlist is ranked by"),
            "judged": ("INTEGER", "samples that were judged, training and test"),
            "listed": ("INTEGER", "samples on the shortlist"),
            "reason": ("VARCHAR", "why to believe it, or why not, in a sentence"),
            "advice": ("VARCHAR", "what to do next, in a sentence"),
        },
        "verdict",
        "SELECT {run_id} AS run_id, accuracy, chance, noise, noise_low, noise_high, noise_joint, noise_mixture, score, "
        "judged, listed, reason, advice FROM {verdict}",
    ),
    "shortlist": View(
        "Every judged sample, the most suspicious first, with its probability of a wrong label.",
        {
            "run_id": _RUN,
            "sample_id": SAMPLE,
            "rank": ("INTEGER", "0 = the most suspicious"),
            "p_wrong": ("FLOAT", "estimated probability that the given label is wrong, 0..1; never reads the truth"),
            "listed": ("BOOLEAN", "on the shortlist: this is what flagged means"),
        },
        "shortlist",
        "SELECT {run_id} AS run_id, sample_id, rank, p_wrong, listed FROM {shortlist}",
    ),
    "duplicates": View(
        "Samples that are there more than once, by groups, over the training and the test split.",
        {
            "run_id": _RUN,
            "group_id": ("INTEGER", "0 .. groups - 1"),
            "sample_id": SAMPLE,
            "split": ("VARCHAR", "train or test"),
            "similarity": ("FLOAT", "largest cosine to another sample of the group; 1 of an exact copy"),
            "exact": ("BOOLEAN", "whether another sample of the group has the same pixels, as the dataset stores them"),
            "leak": ("BOOLEAN", "whether the group has samples of both splits, so that the test part is not unseen"),
        },
        "duplicates",
        "SELECT {run_id} AS run_id, group_id, sample_id, split, similarity, exact, leak FROM {duplicates}",
    ),
    "neighbors": View(
        "The nearest training samples by cosine similarity of penultimate features.",
        {
            "run_id": _RUN,
            "sample_id": SAMPLE,
            "rank": ("INTEGER", "0 = nearest; the sample itself is not in"),
            "neighbor_id": ("INTEGER", "sample_id of the neighbor"),
            "similarity": ("FLOAT", "cosine, -1..1"),
        },
        "neighbor_lists",
        "SELECT {run_id} AS run_id, sample_id, CAST(unnest(range(len(neighbor_ids))) AS INTEGER) AS rank, "
        "unnest(neighbor_ids) AS neighbor_id, unnest(similarities) AS similarity FROM {neighbor_lists}",
    ),
    "embedding": View(
        "Two-dimensional map of the training samples.",
        {
            "run_id": _RUN,
            "method": ("VARCHAR", "umap"),
            "sample_id": SAMPLE,
            "x": ("FLOAT", "coordinate"),
            "y": ("FLOAT", "coordinate"),
        },
        "embedding",
        "SELECT {run_id} AS run_id, method, sample_id, x, y FROM {embedding}",
    ),
    **TRAINED_VIEWS,
    "suggestions": View(
        "Another label that a method proposes.",
        {
            "run_id": _RUN,
            "sample_id": SAMPLE,
            "suggested_label": ("INTEGER", "the proposed label, different from the given one"),
            "confidence": ("FLOAT", "0..1"),
            "method": ("VARCHAR", "name of the method that proposes it"),
        },
        "suggestions",
        "SELECT {run_id} AS run_id, sample_id, suggested_label, confidence, method FROM {suggestions}",
    ),
    "metrics": View(
        "How well scores and rules find the mislabeled, where the truth is known.",
        {
            "run_id": _RUN,
            "score": ("VARCHAR", "score or rule"),
            "metric": (
                "VARCHAR",
                "roc_auc, average_precision, recall_at_10 (recall at the top 10 %), precision_at_recall_95, precision, ...",
            ),
            "value": ("DOUBLE", "0..1"),
        },
        "metrics",
        # files of version 0.1 call two of them otherwise
        "SELECT {run_id} AS run_id, score, replace(replace(metric, 'found_at_', 'recall_at_'), 'precision_at_95', "
        "'precision_at_recall_95') AS metric, value FROM {metrics}",
    ),
}

DECISIONS_COLUMNS: dict[str, tuple[str, str]] = {
    "sample_id": SAMPLE,
    "action": ("VARCHAR", "keep, drop, relabel or unsure"),
    "new_label": ("INTEGER", "the label a person gave; NULL unless relabel"),
    "note": ("VARCHAR", "the note of that person"),
    "author": ("VARCHAR", "the person; empty where none was named"),
    "decided_at": ("TIMESTAMP", "when, UTC"),
    "disputed": ("BOOLEAN", "whether the latest decisions of its authors differ in action or label"),
}
"""The view `decisions`: the latest decision per sample. It is read from decisions.duckdb, not from a run."""

VERSIONS_COLUMNS: dict[str, tuple[str, str]] = {
    "name": ("VARCHAR", "of the version"),
    "dataset": ("VARCHAR", "whose samples it is of"),
    "created_at": ("TIMESTAMP", "when it was made, UTC"),
    "author": ("VARCHAR", "the person; empty where none was named"),
    "note": ("VARCHAR", "the note of that person"),
    "samples": ("INTEGER", "training samples that the dataset had then"),
    "kept": ("INTEGER", "of these, those that stay"),
    "dropped": ("INTEGER", "of these, those that do not"),
    "relabeled": ("INTEGER", "of those that stay, those with another label than the given one"),
    "unsure": ("INTEGER", "samples that a person was unsure of"),
    "noise_before": ("DOUBLE", "estimated share of wrong labels before, 0..1; NULL where the run cannot tell"),
    "noise_left": ("DOUBLE", "the same of those that stay, under their labels in the version"),
    "run_id": ("VARCHAR", "the run that its rules read; empty where there was none"),
    "fingerprint": ("VARCHAR", "of the dataset then"),
    "hash": ("VARCHAR", "SHA-256 of its sample ids and labels"),
    "recipe": ("VARCHAR", "what gives it its samples, as JSON"),
}
"""The view `versions`. It is read from decisions.duckdb when a connection opens."""

UNREADABLE_COLUMNS: dict[str, tuple[str, str]] = {
    "run_id": ("VARCHAR", "a run that the other views leave out"),
    "problem": ("VARCHAR", "what is wrong with it, and what to do"),
}

TABLE_VIEWS: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "decisions": ("The latest decision of a person per sample.", DECISIONS_COLUMNS),
    "versions": ("The named versions of the curated set, the oldest first.", VERSIONS_COLUMNS),
    "unreadable": ("Runs that cannot be read: broken, of a newer version, or of other data.", UNREADABLE_COLUMNS),
}
"""The views that are not made over the files of a dataset and its runs: their comments and columns."""


def dynamics_select(columns: dict[str, str], db: str, run_id: str) -> str:
    """The SELECT of `dynamics` over one file, whose recorded columns may go beyond the contract's.

    columns: the type of each column of its table
    """
    recorded = [c for c, kind in columns.items() if kind in ("FLOAT[]", "SMALLINT[]")]
    names = ", ".join(identifier(c) for c in recorded)
    unnested = ", ".join(f"unnest({identifier(c)}) AS {identifier(c)}" for c in recorded)
    return (
        f"SELECT {run_id} AS run_id, seed, epoch, sample_id, {names}, predicted = label AS correct FROM (SELECT seed, "
        f"CAST(unnest(range(1, len({identifier(recorded[0])}) + 1)) AS INTEGER) AS epoch, sample_id, {unnested}, label "
        f"FROM {db}.trajectories)"
    )


def empty_select(columns: dict[str, tuple[str, str]]) -> str:
    """A SELECT of no rows with the columns of a view."""
    return "SELECT " + ", ".join(f'CAST(NULL AS {t}) AS "{c}"' for c, (t, _) in columns.items()) + " WHERE false"
