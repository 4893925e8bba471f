"""Detection metrics against counting by hand and a plain scan over all thresholds."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from engine.errors import ScoreInputError
from engine.scores.evaluation import evaluate_detection, evaluate_score, find_shares, precision_at_recall


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
    metrics = evaluate_score(np.arange(10), "harder", mislabeled)
    assert evaluate_score(-np.arange(10), "easier", mislabeled) == metrics
    assert metrics["recall_at_10"] == pytest.approx(1 / 3)
    assert metrics["recall_at_20"] == metrics["recall_at_30"] == pytest.approx(2 / 3)


def test_nothing_to_say_without_both_kinds():
    assert evaluate_score(np.arange(4), "harder", np.zeros(4, bool)) == {}
    assert evaluate_score(np.arange(4), "harder", np.ones(4, bool)) == {}


def coarse_score(seed=0, n=3000):
    """A score with few values: of the 240 mislabeled of 3,000 it gives most the value of many others."""
    rng = np.random.default_rng(seed)
    mislabeled = np.arange(n) < 240
    return rng.binomial(3, np.where(mislabeled, 0.7, 0.2)).astype(np.float32), mislabeled


def test_metrics_come_from_values_with_their_ties():
    values, mislabeled = coarse_score()
    metrics = evaluate_score(values, "harder", mislabeled)
    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(mislabeled, values))
    assert metrics["average_precision"] == pytest.approx(average_precision_score(mislabeled, values))
    # Ranks that part the ties at random make up an order, and with it another average precision.
    rng = np.random.default_rng(1)
    parted = [average_precision_score(mislabeled, values + rng.random(len(values)) / 2) for _ in range(10)]
    assert min(parted) - metrics["average_precision"] > 0.002
    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(mislabeled, values))


def test_metrics_do_not_depend_on_the_order_of_the_samples():
    values, mislabeled = coarse_score()
    order = np.random.default_rng(2).permutation(len(values))
    assert evaluate_score(values[order], "harder", mislabeled[order]) == evaluate_score(values, "harder", mislabeled)
    mislabeled_last = np.argsort(mislabeled, kind="stable")
    found = evaluate_score(values[mislabeled_last], "harder", mislabeled[mislabeled_last])
    assert found == evaluate_score(values, "harder", mislabeled)


def test_recall_within_a_tie_is_its_expectation_by_hand():
    # One sample above, 4 tied (2 of them mislabeled), 5 below with 1: the first 3 hold 0 + 2 * 2 / 4 = 1 of 3.
    suspicion = np.array([2.0, 1, 1, 1, 1, 0, 0, 0, 0, 0])
    mislabeled = np.array([0, 1, 0, 0, 1, 0, 0, 1, 0, 0], bool)
    found = find_shares(suspicion, mislabeled, np.array([0, 0.1, 0.3, 0.5, 0.6, 1]))
    assert found.tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, (2 + 1 / 5) / 3, 1])
    assert evaluate_score(suspicion, "harder", mislabeled)["recall_at_30"] == pytest.approx(1 / 3)


def test_recall_within_a_tie_is_the_mean_over_random_orders():
    values, mislabeled = coarse_score()
    rng = np.random.default_rng(0)
    drawn = [
        mislabeled[np.lexsort((rng.random(len(values)), -values))][: len(values) // 10].sum() / mislabeled.sum()
        for _ in range(300)
    ]
    expected = evaluate_score(values, "harder", mislabeled)["recall_at_10"]
    assert np.mean(drawn) == pytest.approx(expected, abs=4 * np.std(drawn) / 300**0.5)


def test_a_constant_score_is_chance():
    mislabeled = np.arange(100) < 20
    metrics = evaluate_score(np.ones(100), "easier", mislabeled)
    assert metrics["roc_auc"] == 0.5 and metrics["average_precision"] == metrics["precision_at_recall_95"] == 0.2
    assert metrics["recall_at_10"] == pytest.approx(0.1)


def test_infinite_values_are_the_hardest_and_nan_is_refused():
    mislabeled = np.array([True, True, False, False])
    metrics = evaluate_score(np.array([np.inf, np.inf, 3.0, -np.inf]), "harder", mislabeled)
    assert metrics["roc_auc"] == metrics["average_precision"] == 1
    with pytest.raises(ScoreInputError, match="the suspicion of sample 2 is NaN"):
        evaluate_score(np.array([0, 1, np.nan, 2]), "harder", mislabeled)
