"""How well scores and rules find the mislabelled, where the truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

Array = np.ndarray[Any, Any]

FOUND_AT = (10, 20, 30)
"""Where the recall is taken: the hardest 10, 20 and 30 % of the samples."""


def evaluate_detection(suspicion: Array, mislabelled: Array) -> dict[str, float]:
    """Detection quality of values that are high for suspects.

    Args:    suspicion (N,), finite; mislabelled (N,) bool
    Returns: roc_auc, average_precision (mAP) and precision_at_95 (see `precision_at_recall`), 0..1; nothing when
             all or none are mislabelled
    """
    if not 0 < int(mislabelled.sum()) < len(mislabelled):
        return {}
    return {
        "roc_auc": float(roc_auc_score(mislabelled, suspicion)),
        "average_precision": float(average_precision_score(mislabelled, suspicion)),
        "precision_at_95": precision_at_recall(suspicion, mislabelled, 0.95),
    }


def evaluate_score(ranks: Array, mislabelled: Array) -> dict[str, float]:
    """Detection quality of a score whose hardest samples are the suspects: `evaluate_detection` of its ranks.

    Beside it found_at_10, found_at_20 and found_at_30: the recall at the top 10, 20 and 30 %, that is the share of the
    mislabelled that lie among so many of the hardest samples.

    Args: ranks (N,), 0 = easiest; mislabelled (N,) bool
    """
    metrics = evaluate_detection(ranks, mislabelled)
    if metrics:
        hardest_first = mislabelled[np.argsort(-ranks, kind="stable")]
        for percent in FOUND_AT:
            looked_at = round(len(ranks) * percent / 100)
            metrics[f"found_at_{percent}"] = float(hardest_first[:looked_at].sum() / hardest_first.sum())
    return metrics


def precision_at_recall(suspicion: Array, mislabelled: Array, recall: float) -> float:
    """Precision at the first threshold, going down, that finds at least this share of the mislabelled.

    Samples of equal suspicion are found together. 0..1; needs at least one mislabelled sample.
    """
    order = np.argsort(-suspicion, kind="stable")
    values, hits = suspicion[order], np.cumsum(mislabelled[order])
    last_of_tie = np.append(values[1:] != values[:-1], True)
    # Half a sample of slack, so that 0.95 * 20 = 19.000000000000004 asks for 19.
    reached = np.flatnonzero(last_of_tie & (hits >= recall * hits[-1] - 1e-6))[0]
    return float(hits[reached] / (reached + 1))


def evaluate_rule(flagged: Array, mislabelled: Array) -> dict[str, float]:
    """Precision, recall and flagged share of a rule.

    Args:    flagged, mislabelled (N,) bool
    Returns: flagged_share always; precision where something is flagged, recall where something is mislabelled
    """
    hits = float((flagged & mislabelled).sum())
    out = {"flagged_share": float(flagged.mean())}
    if flagged.any():
        out["precision"] = hits / float(flagged.sum())
    if mislabelled.any():
        out["recall"] = hits / float(mislabelled.sum())
    return out
