"""How well scores and rules find the mislabeled, where the truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FOUND_AT = (10, 20, 30)
"""Where the recall is taken: the hardest 10, 20 and 30 % of the samples."""


def evaluate_detection(suspicion: Array, mislabeled: Array) -> dict[str, float]:
    """Detection quality of values that are high for suspects.

    Args:    suspicion (N,), finite; mislabeled (N,) bool
    Returns: roc_auc, average_precision (mAP) and precision_at_recall_95 (see `precision_at_recall`), 0..1; nothing when
             all or none are mislabeled
    """
    if not 0 < int(mislabeled.sum()) < len(mislabeled):
        return {}
    from sklearn.metrics import average_precision_score, roc_auc_score  # a second to import; few commands need it

    return {
        "roc_auc": float(roc_auc_score(mislabeled, suspicion)),
        "average_precision": float(average_precision_score(mislabeled, suspicion)),
        "precision_at_recall_95": precision_at_recall(suspicion, mislabeled, 0.95),
    }


def evaluate_score(ranks: Array, mislabeled: Array) -> dict[str, float]:
    """Detection quality of a score whose hardest samples are the suspects: `evaluate_detection` of its ranks.

    Beside it recall_at_10, recall_at_20 and recall_at_30: the recall at the top 10, 20 and 30 %, that is the share of the
    mislabeled that lie among so many of the hardest samples.

    Args: ranks (N,), 0 = easiest; mislabeled (N,) bool
    """
    metrics = evaluate_detection(ranks, mislabeled)
    if metrics:
        hardest_first = mislabeled[np.argsort(-ranks, kind="stable")]
        for percent in FOUND_AT:
            looked_at = round(len(ranks) * percent / 100)
            metrics[f"recall_at_{percent}"] = float(hardest_first[:looked_at].sum() / hardest_first.sum())
    return metrics


def precision_at_recall(suspicion: Array, mislabeled: Array, recall: float) -> float:
    """Precision at the first threshold, going down, that finds at least this share of the mislabeled.

    Samples of equal suspicion are found together. 0..1; needs at least one mislabeled sample.
    """
    order = np.argsort(-suspicion, kind="stable")
    values, hits = suspicion[order], np.cumsum(mislabeled[order])
    last_of_tie = np.append(values[1:] != values[:-1], True)
    # Half a sample of slack, so that 0.95 * 20 = 19.000000000000004 asks for 19.
    reached = np.flatnonzero(last_of_tie & (hits >= recall * hits[-1] - 1e-6))[0]
    return float(hits[reached] / (reached + 1))


def evaluate_rule(flagged: Array, mislabeled: Array) -> dict[str, float]:
    """Precision, recall and flagged share of a rule.

    Args:    flagged, mislabeled (N,) bool
    Returns: flagged_share always; precision where something is flagged, recall where something is mislabeled
    """
    hits = float((flagged & mislabeled).sum())
    out = {"flagged_share": float(flagged.mean())}
    if flagged.any():
        out["precision"] = hits / float(flagged.sum())
    if mislabeled.any():
        out["recall"] = hits / float(mislabeled.sum())
    return out
