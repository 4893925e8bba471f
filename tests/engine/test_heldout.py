"""Cross-validated scores against numbers worked out by hand, the confident joint against cleanlab's."""

import math

import pytest
import torch

from engine.errors import ScoreInputError
from engine.scores.evaluation import evaluate_detection
from engine.scores.heldout import (
    class_thresholds,
    confident_learning,
    count_confident_joint,
    draw_folds,
    estimate_consistency,
    estimate_joint,
    estimate_noise_rate,
    heldout_margin,
    incv,
    joint_noise,
    select_incv,
)
from engine.scores.registry import find_score


def test_noise_rate_solves_its_equation():
    for classes in (2, 10, 100):
        for rate in (0.0, 0.1, 0.4, 0.45):
            agreement = (1 - rate) ** 2 + rate**2 / (classes - 1)
            assert estimate_noise_rate(agreement, classes) == pytest.approx(rate, abs=1e-9)
    assert estimate_noise_rate(0.0, 10) == pytest.approx(0.9)  # below chance is chance


PROBS = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8], [0.8, 0.2]])
LABELS = torch.tensor([0, 0, 0, 1, 1])


def test_incv_by_hand():
    # Disagree: samples 2 (label 0, predicted 1) and 4 (label 1, predicted 0).
    expected = [(0 + 0.1) / 2, (0 + 0.4) / 2, (1 + 0.7) / 2, (0 + 0.2) / 2, (1 + 0.8) / 2]
    assert incv(PROBS, LABELS).tolist() == pytest.approx(expected)


def test_confident_learning_by_hand():
    # t_0 = (0.9 + 0.6 + 0.3) / 3 = 0.6; t_1 = (0.8 + 0.2) / 2 = 0.5.
    assert class_thresholds(PROBS, LABELS).tolist() == pytest.approx([0.6, 0.5])
    assert confident_learning(PROBS, LABELS).tolist() == pytest.approx([0.1, 0.4, 0.7, 0.2, 0.8])
    assert heldout_margin(PROBS, LABELS).tolist() == pytest.approx([0.8, 0.2, -0.4, 0.6, -0.6])
    # 0 -> class 0, 1 -> class 0 (0.6 >= 0.6), 2 -> class 1 (0.7), 3 -> class 1, 4 -> class 0.
    assert confident_flags(PROBS, LABELS) == [False, False, True, False, True]


def confident_flags(probs, labels):
    found = find_score("confident_learning")
    return (found.flags_by(probs, labels) > found.flags_above).tolist()


def test_the_rule_is_the_off_diagonal_of_the_confident_joint():
    # Counted as the paper writes it: of the classes a sample is confidently of, the most probable one.
    generator = torch.Generator().manual_seed(3)
    probs, labels = torch.rand(200, 5, generator=generator).softmax(1), torch.randint(5, (200,), generator=generator)
    thresholds = [float(probs[labels == j, j].mean()) for j in range(5)]
    expected = []
    for p, y in zip(probs.tolist(), labels.tolist(), strict=True):
        confident = [(p[j], j) for j in range(5) if p[j] >= thresholds[j]]
        expected.append(bool(confident) and max(confident)[1] != y)
    assert confident_flags(probs, labels) == expected
    assert 0 < sum(expected) < 200


def test_an_uncertain_sample_is_in_no_confident_class():
    probs = torch.tensor([[0.9, 0.1], [0.45, 0.55], [0.1, 0.9]])
    # t_0 = 0.675, t_1 = 0.9: sample 1 reaches neither.
    assert confident_flags(probs, torch.tensor([0, 0, 1])) == [False] * 3


def test_a_class_without_samples_is_never_confident():
    probs = torch.tensor([[0.3, 0.1, 0.6], [0.1, 0.3, 0.6]])
    assert confident_flags(probs, torch.tensor([0, 1])) == [False] * 2


# cleanlab 2.9.0, compute_confident_joint and estimate_joint of the same probabilities.
CLEANLAB = {
    "counted": [[38, 8, 0, 0], [0, 45, 6, 0], [0, 0, 42, 7], [7, 0, 0, 41]],
    "calibrated": [[62, 13, 0, 0], [0, 66, 9, 0], [0, 0, 64, 11], [11, 0, 0, 64]],
    "noise": 0.1466666666666666,
}


def waves():
    """300 samples of 4 classes, 34 of them nearer to the next class than to their own: probabilities and labels."""
    i = torch.arange(300, dtype=torch.float64)
    labels = (i * 7 % 4).long()
    odd = i % 9 == 0
    logits = [
        torch.sin(i * (1.3 + c))
        + (labels == c) * torch.where(odd, -1.0, 1.5)
        + ((labels + 1) % 4 == c) * torch.where(odd, 2.0, 0.0)
        for c in range(4)
    ]
    return torch.stack(logits, 1).softmax(1), labels


def test_the_joint_is_cleanlabs():
    probs, labels = waves()
    assert count_confident_joint(probs, labels).tolist() == CLEANLAB["counted"]
    joint = estimate_joint(probs, labels)
    assert float(joint.sum()) == pytest.approx(1)
    assert torch.allclose(joint.sum(1) * 300, torch.bincount(labels).double())  # the prior of the given labels
    # It rounds to whole samples, row by row.
    assert float((joint * 300 - torch.tensor(CLEANLAB["calibrated"])).abs().max()) < 1
    assert joint_noise(probs, labels) == pytest.approx(CLEANLAB["noise"], abs=4 / 300)
    assert joint_noise(probs.float(), labels) == pytest.approx(joint_noise(probs, labels), abs=1e-6)


def test_the_joint_by_hand():
    # t = 0.6, 0.5: as flagged above, [[0 -> 0: 0, 1], [0 -> 1: 2]], [[1 -> 1: 3], [1 -> 0: 4]].
    assert count_confident_joint(PROBS, LABELS).tolist() == [[2, 1], [1, 1]]
    # Rows 2/3, 1/3 of 3/5 and 1/2, 1/2 of 2/5.
    assert estimate_joint(PROBS, LABELS).flatten().tolist() == pytest.approx([0.4, 0.2, 0.2, 0.2])
    assert joint_noise(PROBS, LABELS) == pytest.approx(0.4)
    # The joint's off-diagonal holds as many as its rule flags.
    probs, labels = waves()
    counted = count_confident_joint(probs, labels)
    assert int(counted.sum() - counted.trace()) == sum(confident_flags(probs, labels))


def test_a_class_that_no_sample_is_confidently_of_keeps_a_correct_one():
    # t = 0.6, 0.7, none for class 2; sample 3 reaches neither. cleanlab gives the same.
    probs = torch.tensor([[0.8, 0.1, 0.1], [0.4, 0.5, 0.1], [0.1, 0.9, 0.0], [0.5, 0.5, 0.0]])
    assert count_confident_joint(probs, torch.tensor([0, 0, 1, 1])).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_of_two_confident_classes_the_more_probable_one_counts():
    # t = 0.85, 0.217, 0.517. Samples 2, 5 and 7 (labels 1) reach 1, none and none; sample 6 (label 2) reaches none.
    probs = torch.tensor(
        [
            [0.9, 0.05, 0.05],
            [0.8, 0.1, 0.1],
            [0.45, 0.35, 0.2],
            [0.05, 0.3, 0.65],
            [0.1, 0.3, 0.6],
            [0.6, 0.2, 0.2],
            [0.5, 0.2, 0.3],
            [0.7, 0.1, 0.2],
        ]
    )
    labels = torch.tensor([0, 0, 1, 2, 2, 1, 2, 1])
    # Samples 3 and 4 reach classes 1 and 2, and class 2 is the more probable.
    assert count_confident_joint(probs, labels).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 2]]


def test_self_confidence_and_the_margin_rank_what_the_paper_ranks():
    probs, labels = waves()
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(300, generator=generator)
    wrong = torch.arange(300) % 9 == 0
    for value, sign in ((confident_learning(probs, labels), 1), (heldout_margin(probs, labels), -1)):
        found = evaluate_detection((sign * value[order]).numpy(), wrong[order].numpy())
        assert found["average_precision"] > 0.9


def test_consistency_by_hand():
    heldout = torch.tensor([[True, False], [True, True], [True, True], [False, True]])
    correct = torch.tensor([[True, True], [False, True], [True, False], [True, True]])
    # Sample 0: held out in runs 0..2, right in 2 of 3; sample 1: runs 1..3, right in 2 of 3.
    assert estimate_consistency(heldout, correct).tolist() == pytest.approx([2 / 3, 2 / 3])
    with pytest.raises(ScoreInputError, match="sample 1 was in every random subset"):
        estimate_consistency(torch.tensor([[True, False]]), torch.tensor([[True, False]]))


def test_folds_spread_every_class():
    labels = torch.tensor([0] * 10 + [1] * 5 + [2])
    fold = draw_folds(labels, 5, torch.Generator().manual_seed(1))
    assert [int(((fold == k) & (labels == 0)).sum()) for k in range(5)] == [2] * 5
    assert [int(((fold == k) & (labels == 1)).sum()) for k in range(5)] == [1] * 5
    assert torch.equal(fold, draw_folds(labels, 5, torch.Generator().manual_seed(1)))
    with pytest.raises(ScoreInputError, match="cross-validation of 16 samples in 17 folds; allowed: 2 to 16"):
        draw_folds(labels, 17, torch.Generator())


def test_incv_rounds_select_the_clean_and_estimate_the_noise():
    # A predictor that has learned the classes, wrong on a tenth, and copies the noise at its rate.
    generator = torch.Generator().manual_seed(0)
    n, classes, rate = 4000, 10, 0.2
    truth = torch.randint(classes, (n,), generator=generator)
    labels = truth.clone()
    labels[: int(rate * n)] = (truth[: int(rate * n)] + 1) % classes
    seen = []

    def predict(parts):
        return [predict_one(train, test) for train, test in parts]

    def predict_one(train, test):
        assert not set(train.tolist()) & set(test.tolist())
        seen.append(len(train))
        wrong = torch.rand(len(test), generator=generator) < rate
        guess = torch.where(
            wrong, (truth[test] + torch.randint(1, classes, (len(test),), generator=generator)), truth[test]
        )
        probs = torch.full((len(test), classes), 0.01)
        probs[torch.arange(len(test)), guess % classes] = 0.91
        return probs

    selected, estimated = select_incv(predict, labels, generator, rounds=3)
    assert estimated == pytest.approx(rate, abs=0.03)
    clean = labels == truth
    assert float(clean[selected].float().mean()) > 0.9
    assert float(selected[clean].float().mean()) > 0.75
    assert len(seen) == 6


def test_not_a_number_is_refused():
    with pytest.raises(ScoreInputError, match="heldout_probs of sample 1 is not finite"):
        incv(torch.tensor([[0.5, 0.5], [math.nan, 0.5]]), torch.tensor([0, 1]))
