"""How well scores and rules find the mislabeled, where the truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.errors import ScoreInputError

Array = np.ndarray[Any, Any]

FOUND_AT = (10, 20, 30)
"""Where the recall is taken: the hardest 10, 20 and 30 % of the samples."""


def evaluate_detection(suspicion: Array, mislabeled: Array) -> dict[str, float]:
    """Detection quality of values that are high for suspects. Every metric of a score comes from here.

    Samples of equal suspicion stay tied: nothing is known about their order, so none is made up. ROC AUC counts a tied
    pair one half; average precision and precision take a tie as a whole.

    Args:    suspicion (N,), infinities allowed; mislabeled (N,) bool
    Returns: roc_auc, average_precision (mAP) and precision_at_recall_95 (see `precision_at_recall`), 0..1; nothing when
             all or none are mislabeled
    Raises:  ScoreInputError when a suspicion is NaN
    """
    if np.isnan(suspicion).any():
        raise ScoreInputError(f"the suspicion of sample {int(np.isnan(suspicion).argmax())} is NaN; it has no place")
    if not 0 < int(mislabeled.sum()) < len(mislabeled):
        return {}
    from sklearn.metrics import average_precision_score, roc_auc_score  # a second to import; few commands need it

    places = np.unique(suspicion, return_inverse=True)[1]  # the same ties and order, and finite
    return {
        "roc_auc": float(roc_auc_score(mislabeled, places)),
        "average_precision": float(average_precision_score(mislabeled, places)),
        "precision_at_recall_95": precision_at_recall(places, mislabeled, 0.95),
    }


def evaluate_score(values: Array, higher_means: str, mislabeled: Array) -> dict[str, float]:
    """Detection quality of a score whose hardest samples are the suspects: `evaluate_detection` of its values.

    Beside it recall_at_10, recall_at_20 and recall_at_30: the recall at the top 10, 20 and 30 %, see `find_shares`.

    Args: values (N,), not ranks: those have no ties; higher_means: "harder" or "easier"; mislabeled (N,) bool
    """
    suspicion = values if higher_means == "harder" else -values
    metrics = evaluate_detection(suspicion, mislabeled)
    if metrics:
        found = find_shares(suspicion, mislabeled, np.array(FOUND_AT) / 100)
        metrics |= {f"recall_at_{percent}": float(share) for percent, share in zip(FOUND_AT, found, strict=True)}
    return metrics


def find_shares(suspicion: Array, mislabeled: Array, looked_at: Array) -> Array:
    """The share of the mislabeled among the most suspicious samples, 0..1.

    Where so many samples end within a tie of m, k of which are mislabeled, each of its places counts k / m of a
    mislabeled sample: the expectation over all orders within the tie.

    Args: suspicion (N,); mislabeled (N,) bool, at least one; looked_at: shares 0..1 of the samples, rounded to whole ones
    """
    order = np.argsort(-suspicion, kind="stable")
    values, hits = suspicion[order], np.cumsum(mislabeled[order])
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    places = np.floor(looked_at * len(values) + 0.5 + 1e-9)
    found: Array = np.interp(places, np.append(0, ends + 1), np.append(0, hits[ends])) / hits[-1]
    return found


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
