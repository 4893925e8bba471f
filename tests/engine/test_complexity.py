"""The complexity gap against its definition, by hand, and on sets where H is singular."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from engine.errors import ScoreInputError
from engine.scores import gap as solver
from engine.scores.complexity import cg, cg_feature, cg_fit, cg_forward, cg_partial
from engine.scores.gap import Gap, find_copies, solve_gap, solve_stochastic_gap

PAIRS = torch.tensor([[1, 0, 0, 0], [0.5, math.sqrt(0.75), 0, 0], [0, 0, 2, 0], [0, 0, 1, math.sqrt(3)]])
"""Two pairs of rows at 60 degrees, orthogonal to each other: H is 1/2 on the diagonal and 1/6 within a pair."""


def scores(gap: Gap) -> dict[str, Tensor]:
    read = (gap.alpha, gap.inverse_diagonal)
    return {
        "cg": cg(*read),
        "cg_partial": cg_partial(*read),
        "cg_fit": cg_fit(*read),
        "cg_forward": cg_forward(gap.kernel_labels),
    }


def digits(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    data, target = load_digits(return_X_y=True)
    chosen = np.random.default_rng(seed).permutation(len(data))[:n]
    return torch.tensor(data[chosen]), torch.tensor(target[chosen])


def kernel(rows: Tensor) -> np.ndarray:
    unit = rows.numpy() / np.linalg.norm(rows.numpy(), axis=1, keepdims=True)
    cosine = np.clip(unit @ unit.T, -1, 1)
    h = cosine * (np.pi - np.arccos(cosine)) / (2 * np.pi)
    np.fill_diagonal(h, 0.5)
    return h


@pytest.mark.parametrize(
    "labels, expected",
    [
        # H^-1 of a pair is ((9/4, -3/4), (-3/4, 9/4)): alpha = 3/2 where the pair agrees, 3 where it does not.
        ([0, 0, 1, 1], {"cg": 1, "cg_partial": -1.5, "cg_fit": 0.25, "cg_forward": 5 / 6}),
        ([0, 1, 0, 1], {"cg": 4, "cg_partial": 1.5, "cg_fit": 0.25, "cg_forward": 1 / 6}),
    ],
)
def test_two_pairs_by_hand(labels, expected):
    found = scores(solve_gap(PAIRS, torch.tensor(labels)))
    for name, value in expected.items():
        assert found[name].tolist() == pytest.approx([value] * 4, rel=1e-6), name


def test_it_is_the_complexity_lost_by_leaving_a_sample_out():
    rows, labels = digits(200)
    h, found = kernel(rows), cg(*(lambda g: (g.alpha, g.inverse_diagonal))(solve_gap(rows, labels)))
    for i in range(200):
        y = np.where(labels == labels[i], 1.0, -1.0)
        rest = np.arange(200) != i
        left = y[rest] @ np.linalg.solve(h[np.ix_(rest, rest)], y[rest])
        assert float(found[i]) == pytest.approx(y @ np.linalg.solve(h, y) - left, rel=1e-8)


def test_the_terms_add_up():
    gap = solve_gap(*digits(300))
    found = scores(gap)
    assert torch.allclose(found["cg"], found["cg_fit"] + found["cg_partial"] + gap.inverse_diagonal[0])
    assert torch.equal(cg_feature(gap.alpha, gap.inverse_diagonal), found["cg"])


def test_forward_is_the_loss_of_alignment():
    rows, labels = digits(100)
    h, found = kernel(rows), scores(solve_gap(rows, labels))["cg_forward"]
    for i in range(100):
        y = np.where(labels == labels[i], 1.0, -1.0)
        rest = np.arange(100) != i
        lost = y @ h @ y - y[rest] @ h[np.ix_(rest, rest)] @ y[rest]
        assert float(found[i]) == pytest.approx(lost, rel=1e-9)


def test_one_factor_serves_several_labelings():
    rows, labels = digits(150)
    noised = (labels + torch.arange(150) % 3) % 10
    both = solve_gap(rows, torch.stack([labels, noised]))
    for gap, row in ((solve_gap(rows, labels), 0), (solve_gap(rows, noised), 1)):
        assert torch.allclose(both.alpha[row], gap.alpha[0], rtol=1e-10)
        assert torch.allclose(both.kernel_labels[row], gap.kernel_labels[0], rtol=1e-10)


def test_blocks_change_nothing(monkeypatch):
    rows, labels = digits(130)
    whole = scores(solve_gap(rows, labels))
    monkeypatch.setattr(solver, "BLOCK", 33)
    monkeypatch.setattr(solver, "COLUMNS", 29)
    for name, values in scores(solve_gap(rows, labels)).items():
        assert torch.allclose(values, whole[name], rtol=1e-9), name


def test_float32_is_refined():
    rows, labels = digits(200)
    exact, refined = solve_gap(rows, labels), solve_gap(rows, labels, dtype=torch.float32)
    assert refined.alpha.dtype == torch.float64
    assert torch.allclose(refined.alpha, exact.alpha, rtol=1e-6, atol=1e-9)
    assert torch.allclose(refined.inverse_diagonal, exact.inverse_diagonal, rtol=1e-4)


def test_copies_are_scored_once_and_share_the_score():
    rows, labels = digits(200)
    alone = scores(solve_gap(rows, labels))
    # A copy, and a copy of another brightness: the unit rows are the same.
    gap = solve_gap(torch.cat([rows, rows[:50], 3 * rows[:10]]), torch.cat([labels, labels[:50], labels[:10]]))
    assert (gap.copies, gap.ridge) == (60, 0.0)
    for name, values in scores(gap).items():
        assert torch.equal(values[:200], alone[name]), name
        assert torch.equal(values[200:250], alone[name][:50]) and torch.equal(values[250:], alone[name][:10])


def test_a_contradicting_copy_is_scored_against_its_own_label():
    rows, labels = digits(100)
    other = (labels[:1] + 1) % 10
    gap = solve_gap(torch.cat([rows, rows[:1], rows[:1]]), torch.cat([labels, labels[:1], other]))
    assert (gap.copies, gap.contradicting) == (2, 1)
    found, alone = scores(gap), scores(solve_gap(rows, labels))
    # The set as it would be with that label at the row, by leaving the row out of it.
    h, relabeled = kernel(rows), labels.clone()
    relabeled[0] = other
    y, rest = np.where(relabeled == other, 1.0, -1.0), np.arange(100) != 0
    left = y[rest] @ np.linalg.solve(h[np.ix_(rest, rest)], y[rest])
    assert float(found["cg"][101]) == pytest.approx(y @ np.linalg.solve(h, y) - left, rel=1e-8)
    lost = y @ h @ y - y[rest] @ h[np.ix_(rest, rest)] @ y[rest]
    assert float(found["cg_forward"][101]) == pytest.approx(lost, rel=1e-8)
    for name, values in scores(solve_gap(rows, relabeled)).items():
        assert float(found[name][101]) == pytest.approx(float(values[0]), rel=1e-8), name
        assert torch.equal(found[name][:100], alone[name]) and found[name][100] == alone[name][0], name
    # The copy that contradicts is among the surest errors, and its rule says so.
    assert found["cg"][101] > 4 * found["cg"][0] and found["cg_partial"][101] > 0 > found["cg_partial"][0]


def test_copies_by_hand():
    # Two rows at 60 degrees, H = ((1/2, 1/6), (1/6, 1/2)), H^-1 = ((9/4, -3/4), (-3/4, 9/4)). The first row is there
    # four times, once as class 1, the second twice, both class 0: with class 1 at the first row alone y = (1, -1) and
    # alpha = 3, cg = 9 / (9/4) = 4; the others have y = (1, 1), alpha = 3/2 and cg = 1. One more pair makes class 1.
    rows = torch.cat([PAIRS[[0, 0, 0, 0, 1, 1]], PAIRS[2:]])
    gap = solve_gap(rows, torch.tensor([0, 0, 1, 0, 0, 0, 1, 1]))
    assert scores(gap)["cg"].tolist() == pytest.approx([1, 1, 4, 1, 1, 1, 1, 1])
    assert scores(gap)["cg_partial"].tolist() == pytest.approx([-1.5, -1.5, 1.5, -1.5, -1.5, -1.5, -1.5, -1.5])
    assert scores(gap)["cg_fit"].tolist() == pytest.approx([0.25] * 8)


def test_a_class_of_contradicting_copies_alone_is_scored():
    rows, labels = digits(60)
    both = torch.cat([rows, rows, rows[:3]]), torch.cat([labels, labels, torch.full((3,), 11)])
    gap = solve_gap(*both)
    assert gap.contradicting == 3
    assert (scores(gap)["cg"][-3:] > scores(gap)["cg"][:3]).all()
    drawn = solve_stochastic_gap(*both, negatives=4, runs=2, generator=torch.Generator().manual_seed(0))
    assert drawn.contradicting == 3 and all(bool(torch.isfinite(v).all()) for v in scores(drawn).values())


def test_copies_are_found_wherever_they_are():
    rows = torch.nn.functional.normalize(torch.randn(60, 5, generator=torch.Generator().manual_seed(0)).double(), dim=1)
    rows[[7, 40, 59]] = rows[3].clone()
    rows[21] = rows[20].clone()
    expected = torch.arange(60)
    expected[[7, 40, 59]], expected[21] = 3, 20
    assert torch.equal(find_copies(rows), expected)


def test_almost_equal_rows_get_a_ridge_that_is_told():
    rows, labels = digits(100)
    near = rows[:1].clone()
    near[0, 20] += 1e-8  # too far to be a copy, so near that H is singular in float64
    gap = solve_gap(torch.cat([rows, near]), torch.cat([labels, labels[:1]]))
    assert gap.copies == 0 and gap.ridge > 0
    assert all(bool(torch.isfinite(v).all()) for v in scores(gap).values())


def test_the_stochastic_form_with_all_negatives_is_the_exact_one():
    rows, labels = digits(120)
    # Copies of ten, of which five contradict.
    rows, labels = torch.cat([rows, rows[:10], rows[:5]]), torch.cat([labels, labels[:10], (labels[:5] + 1) % 10])
    found = solve_stochastic_gap(rows, labels, negatives=1000, runs=2, generator=torch.Generator().manual_seed(0))
    assert found.alpha.shape == (2, 135) and (found.copies, found.contradicting) == (15, 5)
    exact = scores(solve_gap(rows, labels))
    for name, values in scores(found).items():
        assert torch.allclose(values, exact[name], rtol=1e-8), name


def test_the_stochastic_form_ranks_like_the_exact_one():
    rows, labels = digits(600)
    drawn = solve_stochastic_gap(rows, labels, negatives=4, runs=5, generator=torch.Generator().manual_seed(1))
    ranks = [scores(gap)["cg"].argsort().argsort().double() for gap in (drawn, solve_gap(rows, labels))]
    assert float(torch.corrcoef(torch.stack(ranks))[0, 1]) > 0.95  # the paper: 0.973 on CIFAR-10


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x, y: (x.index_fill(0, torch.tensor([4]), 0.0), y), "the rows of sample 4 have norm 0"),
        (lambda x, y: (x.index_fill(0, torch.tensor([5]), math.nan), y), "the rows of sample 5 have norm nan"),
        (lambda x, y: (x, torch.full_like(y, 2)), "all 150 samples have the label 2"),
        (lambda x, y: (x, torch.cat([torch.zeros(149).long(), torch.ones(1).long()])), "class 1 has a single sample"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ScoreInputError, match=message):
        solve_gap(*change(*digits(150)))
