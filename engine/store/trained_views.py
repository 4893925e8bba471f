"""The views of what networks reach on parts of a set: psi-curves, proofs and relabelings."""

from __future__ import annotations

from engine.store.dataset_views import View

RUN = ("VARCHAR", "the published run")

TRAINED_VIEWS: dict[str, View] = {
    "psi": View(
        "psi-curves: test accuracy after pruning.",
        {
            "run_id": RUN,
            "order": ("VARCHAR", "random, oracle, a score (* = reversed, the hardest pruned first) or a sampler"),
            "score": ("VARCHAR", "the score that the order reads; NULL where it reads none"),
            "reversed": ("BOOLEAN", "whether the hardest by the score are pruned first"),
            "sampler": (
                "VARCHAR",
                "what chooses: ascending or descending by the score, random, oracle, window, ccs, ...",
            ),
            "options": ("JSON", "options of the sampler that were given, by name"),
            "seed": ("INTEGER", "of the network"),
            "pruned": ("INTEGER", "training samples dropped"),
            "kept_fraction": ("DOUBLE", "share of the training samples kept, 0..1"),
            "accuracy": ("DOUBLE", "on the test split, 0..1"),
            "seconds": ("DOUBLE", "to train and test"),
        },
        "psi",
        'SELECT {run_id} AS run_id, "order", score, reversed, sampler, options, seed, pruned, kept_fraction, accuracy, seconds '
        "FROM {psi}",
    ),
    "proofs": View(
        "What a curated set gains: accuracy of networks trained on it, and of the same trained on the full set.",
        {
            "run_id": RUN,
            "seed": ("INTEGER", "of the network; the two networks of a seed are a pair"),
            "set": (
                "VARCHAR",
                "what it was trained on: full (every training sample, given label) or curated (those that stay, with "
                "their corrected labels)",
            ),
            "accuracy": ("DOUBLE", "against the given labels of what it was tested on, 0..1"),
            "accuracy_true": ("DOUBLE", "the same against the true labels; NULL where one of them is unknown"),
            "samples": ("INTEGER", "samples it was trained on"),
            "tested": ("INTEGER", "samples it was tested on, the same for both networks of a seed"),
            "held_out": (
                "BOOLEAN",
                "whether these are training samples that the seed held out of both sets, for lack of a test split",
            ),
            "steps": ("INTEGER", "optimizer steps"),
            "seconds": ("DOUBLE", "to train and test"),
        },
        "proofs",
        'SELECT {run_id} AS run_id, seed, "set", accuracy, accuracy_true, samples, tested, held_out, steps, seconds '
        "FROM {proofs}",
    ),
    "relabelings": View(
        "What networks gain by a relabeling: one row for each subset, learner and seed.",
        {
            "run_id": RUN,
            "seed": ("INTEGER", "of the network"),
            "subset": (
                "VARCHAR",
                "what it learned from: all, without suspects, rop (its selection) or random (as many)",
            ),
            "kept_fraction": ("DOUBLE", "share of the training samples in the subset, 0..1"),
            "learner": ("VARCHAR", "cross-entropy (the labels as they are) or the learner that corrects them"),
            "samples": ("INTEGER", "samples it learned from"),
            "noise": ("DOUBLE", "share of them with a wrong given label; NULL where a true label is unknown"),
            "noise_left": ("DOUBLE", "the same of the corrected labels; NULL without correction"),
            "accuracy": ("DOUBLE", "on the test split against its given labels, 0..1; NULL without a test split"),
            "accuracy_true": ("DOUBLE", "the same against true labels; NULL where one is unknown"),
            "select_seconds": ("DOUBLE", "to choose the subset; NULL where none is chosen"),
            "seconds": ("DOUBLE", "to train and predict"),
        },
        "relabelings",
        "SELECT {run_id} AS run_id, seed, subset, kept_fraction, learner, samples, noise, noise_left, accuracy, "
        "accuracy_true, select_seconds, seconds FROM {relabelings}",
    ),
    "relabel_bins": View(
        "How often given and corrected labels are right, by NLI.",
        {
            "run_id": RUN,
            "seed": ("INTEGER", "of the network"),
            "subset": ("VARCHAR", "rop or random"),
            "kept_fraction": ("DOUBLE", "share of the training samples in the subset, 0..1"),
            "learner": ("VARCHAR", "what corrected the labels"),
            "bin": ("INTEGER", "0 .. 13, of equal width over the NLI of all training samples"),
            "low": ("DOUBLE", "NLI at which the bin begins"),
            "high": ("DOUBLE", "NLI at which it ends"),
            "samples": ("INTEGER", "samples of the subset in it"),
            "right_given": ("DOUBLE", "share of their given labels that are the true one, 0..1"),
            "right_corrected": ("DOUBLE", "share of their corrected labels that are the true one, 0..1"),
        },
        "relabel_bins",
        "SELECT {run_id} AS run_id, seed, subset, kept_fraction, learner, bin, low, high, samples, right_given, "
        "right_corrected FROM {relabel_bins}",
    ),
}
