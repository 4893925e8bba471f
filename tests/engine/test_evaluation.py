"""Detection metrics against counting by hand and a plain scan over all thresholds."""

import numpy as np
import pytest

from engine.scores.evaluation import evaluate_detection, evaluate_score, precision_at_recall


def test_precision_at_recall_by_hand():
    # Going down: hit, miss, hit, miss, hit. Recall 2/3 is reached at the third sample (2 of 3 looked at are hits),
    # full recall at the fifth.
    suspicion = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    mislabeled = np.array([True, False, True, False, True])
    assert precision_at_recall(suspicion, mislabeled, 0.6) == pytest.approx(2 / 3)
    assert precision_at_recall(suspicion, mislabeled, 0.95) == pytest.approx(3 / 5)
    # Ties are found together: all at once is the base rate.
    assert precision_at_recall(np.zeros(5), mislabeled, 0.1) == pytest.approx(3 / 5)


def test_precision_at_recall_95_is_the_first_threshold_with_that_recall():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mislabeled = rng.random(200) < 0.3
        suspicion = np.round(rng.normal(size=200) + mislabeled, 1)  # with ties
        for threshold in sorted(set(suspicion), reverse=True):
            chosen = suspicion >= threshold
            if (chosen & mislabeled).sum() >= 0.95 * mislabeled.sum():
                expected = (chosen & mislabeled).sum() / chosen.sum()
                break
        assert evaluate_detection(suspicion, mislabeled)["precision_at_recall_95"] == pytest.approx(expected)


def test_twenty_mislabeled_ask_for_nineteen():
    # 0.95 * 20 is a little more than 19 in floating point.
    mislabeled = np.r_[np.ones(19, bool), np.zeros(10, bool), True]
    assert precision_at_recall(-np.arange(30.0), mislabeled, 0.95) == 1.0


def test_what_the_hardest_hold_by_hand():
    # Ten samples, wrong are ranks 9, 8 and 2: the hardest one holds 1 of 3, the hardest two and three 2 of 3.
    mislabeled = np.isin(np.arange(10), (2, 8, 9))
    metrics = evaluate_score(np.arange(10), mislabeled)
    assert metrics["recall_at_10"] == pytest.approx(1 / 3)
    assert metrics["recall_at_20"] == metrics["recall_at_30"] == pytest.approx(2 / 3)


def test_nothing_to_say_without_both_kinds():
    assert evaluate_score(np.arange(4), np.zeros(4, bool)) == {}
    assert evaluate_score(np.arange(4), np.ones(4, bool)) == {}
