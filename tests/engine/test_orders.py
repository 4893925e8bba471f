import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from engine.errors import ScoreInputError
from engine.selection.orders import ascending, compute_ranks, descending, oracle, random_order


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rank_zero_is_the_easiest_whatever_the_direction():
    values = torch.tensor([3.0, 1.0, 2.0])
    assert compute_ranks(values, "harder", seeded()).tolist() == [2, 0, 1]
    assert compute_ranks(values, "easier", seeded()).tolist() == [0, 2, 1]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60), st.integers(0, 1000))
def test_ranks_are_a_permutation_that_respects_the_values(values, seed):
    ranks = compute_ranks(torch.tensor(values).float(), "harder", seeded(seed)).numpy()
    assert sorted(ranks) == list(range(len(values)))
    assert (ranks + 1 >= rankdata(values, "min")).all() and (ranks + 1 <= rankdata(values, "max")).all()


def test_ties_are_broken_by_the_seed_and_not_by_the_index():
    tied = torch.zeros(100)
    first, again, other = (compute_ranks(tied, "harder", seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first, torch.arange(100))


def test_infinities_rank_last_and_nan_is_refused():
    assert compute_ranks(torch.tensor([float("inf"), 1.0]), "harder", seeded()).tolist() == [1, 0]
    with pytest.raises(ScoreInputError, match="sample 1 is NaN"):
        compute_ranks(torch.tensor([0.0, float("nan")]), "harder", seeded())


def test_ascending_prunes_the_easiest_first_and_descending_the_hardest():
    ranks = torch.tensor([2, 0, 3, 1])
    assert ascending(ranks).tolist() == [1, 3, 0, 2]
    assert descending(ranks).tolist() == [2, 0, 3, 1]


def test_oracle_prunes_the_mislabeled_first():
    wrong = torch.tensor([0, 1, 0, 1, 1, 0], dtype=torch.bool)
    order = oracle(wrong, seeded())
    assert wrong[order].tolist() == [True] * 3 + [False] * 3
    assert sorted(order.tolist()) == list(range(6))


def test_random_order_is_seeded():
    assert torch.equal(random_order(50, seeded(4)), random_order(50, seeded(4)))
