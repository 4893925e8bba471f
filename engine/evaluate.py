"""How well scores and rules find the mislabelled, where the truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

Array = np.ndarray[Any, Any]


def evaluate_score(ranks: Array, mislabelled: Array) -> dict[str, float]:
    """Detection quality of a score whose hardest samples are the suspects.

    Args:    ranks (N,), 0 = easiest; mislabelled (N,) bool
    Returns: roc_auc and average_precision, 0..1; nothing when all or none are mislabelled
    """
    if not 0 < int(mislabelled.sum()) < len(mislabelled):
        return {}
    return {
        "roc_auc": float(roc_auc_score(mislabelled, ranks)),
        "average_precision": float(average_precision_score(mislabelled, ranks)),
    }


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
