import math

import pytest
import torch
from aum import AUMCalculator

from engine.errors import ScoreInputError
from engine.scores.dynamics import (
    aum,
    confidence,
    correctness,
    draw_threshold_samples,
    dual,
    dyn_unc,
    forgetting,
    never_learned,
    threshold_flags,
    variability,
)
from engine.scores.prediction import margin_last

# Rows are epochs, columns samples: always right; learned late; forgotten twice; never learned; forgotten at the end.
CORRECT = torch.tensor(
    [
        [1, 0, 1, 0, 1],
        [1, 0, 0, 0, 1],
        [1, 1, 1, 0, 1],
        [1, 1, 0, 0, 0],
    ],
    dtype=torch.bool,
)


def test_forgetting_counts_right_then_wrong():
    assert forgetting(CORRECT).tolist() == [0, 0, 2, 4, 1]


def test_forgetting_can_be_infinite_for_the_never_learned():
    assert forgetting(CORRECT, never_learned="inf").tolist() == [0, 0, 2, math.inf, 1]


def test_never_learned_and_correctness():
    assert never_learned(CORRECT).tolist() == [0, 0, 0, 1, 0]
    assert correctness(CORRECT).tolist() == pytest.approx([1, 0.5, 0.5, 0, 0.75])


def test_confidence_and_variability_by_hand():
    p_given = torch.tensor([[0.2, 0.5], [0.4, 0.5], [0.9, 0.5]])
    assert confidence(p_given).tolist() == pytest.approx([0.5, 0.5])
    assert variability(p_given).tolist() == pytest.approx([math.sqrt((0.09 + 0.01 + 0.16) / 3), 0.0])


def test_aum_equals_the_published_package(tmp_path):
    epochs, n, classes = 7, 50, 6
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (n,), generator=generator)
    theirs = AUMCalculator(str(tmp_path), compressed=True)
    margins = []
    for _ in range(epochs):
        logits = 5 * torch.randn(n, classes, generator=generator)
        for batch in torch.randperm(n, generator=generator).split(16):
            theirs.update(logits[batch], labels[batch], batch.tolist())
        margins.append(margin_last(logits, labels))
    theirs.finalize()
    import pandas as pd

    expected = pd.read_csv(tmp_path / "aum_values.csv").set_index("sample_id")["aum"].sort_index().to_numpy()
    assert aum(torch.stack(margins)).numpy() == pytest.approx(expected, abs=1e-5)


def test_threshold_rule_by_hand():
    # Round 1: samples 0, 1 are threshold samples (AUM -3, -1); round 2: samples 2, 3 (AUM -4, -2).
    values = torch.tensor([[-3.0, -1.0, -5.0, 0.0, -1.5, 2.0], [1.0, -9.0, -4.0, -2.0, -2.5, -8.0]])
    member = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]], dtype=torch.bool)
    flagged, alpha = threshold_flags(values, member, percentile=50)
    assert alpha.tolist() == [-2.0, -3.0]  # medians of (-3, -1) and of (-4, -2)
    # 0 is judged in round 2 (1 > -3), 1 too (-9), 2 in round 1 (-5), 3 too (0); 4 and 5 must fail in both rounds.
    assert flagged.tolist() == [False, True, True, False, False, False]


def test_threshold_is_the_99th_percentile_and_includes_it():
    # 101 threshold samples with AUM 0 .. 100 have their 99th percentile at 99; two ordinary samples lie around it.
    values = torch.cat([torch.arange(101.0), torch.tensor([99.0, 99.5])])[None]
    member = torch.zeros(1, 103, dtype=torch.bool)
    member[0, :101] = True
    second = torch.zeros(1, 103), ~member  # a second round in which the others are the threshold samples
    flagged, alpha = threshold_flags(torch.cat([values, second[0]]), torch.cat([member, second[1]]))
    assert alpha[0].item() == pytest.approx(99.0)
    assert flagged[101:].tolist() == [True, False]


def test_a_sample_nobody_judges_is_refused():
    member = torch.tensor([[1, 0], [1, 0]], dtype=torch.bool)
    with pytest.raises(ScoreInputError, match="disjoint"):
        threshold_flags(torch.zeros(2, 2), member)


def test_threshold_samples_are_disjoint_and_of_the_papers_size():
    member = draw_threshold_samples(1000, 10, 2, torch.Generator().manual_seed(3))
    assert member.sum(1).tolist() == [90, 90]  # floor(1000 / 11)
    assert not (member[0] & member[1]).any()


def test_too_few_samples_for_threshold_samples():
    with pytest.raises(ScoreInputError, match="--threshold-rounds 0"):
        draw_threshold_samples(10, 10, 2, torch.Generator())


def test_dyn_unc_and_dual_by_hand():
    p_given = torch.tensor([[0.0], [0.6], [0.6]])
    # Windows of 2: (0, 0.6) with standard deviation 0.6 / sqrt 2 and mean 0.3, (0.6, 0.6) with 0 and 0.6.
    deviation = 0.6 / math.sqrt(2)
    assert float(dyn_unc(p_given, window=2)) == pytest.approx(deviation / 2)
    assert float(dual(p_given, window=2)) == pytest.approx(deviation * 0.7 / 2)
    assert float(dual(p_given, window=2, epochs=2)) == pytest.approx(deviation * 0.7)  # the first window alone
    # Fewer epochs than a window: one window over all, whose standard deviation is torch's.
    assert float(dyn_unc(p_given)) == pytest.approx(float(p_given.std()))
    assert float(dyn_unc(p_given[:1])) == 0.0
