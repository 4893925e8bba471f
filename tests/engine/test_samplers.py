"""Every sampler gives exactly its budget and the same set twice; each against a result worked out by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ScoreInputError, SpecError
from engine.scores.rows import median_row
from engine.selection import coverage, samplers
from engine.selection.coverage import craig_weights
from engine.selection.samplers import all_samplers, sampler, select


def _inputs(n, seed, classes=3, copies=False):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 4, generator=generator) + 3
    hardness = torch.rand(n, generator=generator)
    if copies:  # ties everywhere
        features, hardness = features[:1].expand(n, 4).clone(), (hardness * 3).floor()
    return {
        "n": n,
        "labels": torch.randint(0, classes, (n,), generator=generator),
        "ranks": torch.argsort(torch.argsort(hardness, stable=True)),
        "hardness": hardness,
        "mislabeled": torch.rand(n, generator=generator) < 0.3,
        "features": features,
        "probs": torch.softmax(torch.randn(n, classes, generator=generator), 1),
        "generator": torch.Generator().manual_seed(seed),
    }


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("name", all_samplers())
def test_every_sampler_keeps_the_budget_and_repeats_itself(name, copies, balanced):
    n = 61
    for budget in (1, 7, 30, 60, 61):
        kept = [select(name, budget, _inputs(n, 5, copies=copies), class_balanced=balanced) for _ in range(2)]
        assert torch.equal(kept[0], kept[1])
        assert kept[0].dtype == torch.int64
        assert kept[0].tolist() == sorted(set(kept[0].tolist()))
        assert len(kept[0]) == budget
        assert 0 <= int(kept[0][0]) and int(kept[0][-1]) < n


@pytest.mark.parametrize("name", all_samplers())
def test_inputs_are_left_as_they_were(name):
    given_inputs, untouched = _inputs(40, 1), _inputs(40, 1)
    select(name, 11, given_inputs)
    for key, value in untouched.items():
        if key not in ("generator", "n"):
            assert torch.equal(value, given_inputs[key])


@settings(max_examples=300, deadline=None)
@given(
    hardness=st.lists(
        st.sampled_from([0.0, 0.1, 0.5, 1.0, 7.0, math.inf]) | st.floats(-1e6, 1e6), min_size=1, max_size=60
    ),
    share=st.floats(0.0, 1.0),
    beta=st.floats(0.0, 1.0),
    strata=st.integers(1, 80),
    seed=st.integers(0, 9),
)
def test_ccs_gives_exactly_the_budget(hardness, share, beta, strata, seed):
    values = torch.tensor(hardness)
    n = len(values)
    budget = max(1, round(share * n))
    inputs = {
        "hardness": values,
        "ranks": torch.argsort(torch.argsort(values, stable=True)),
        "generator": torch.Generator().manual_seed(seed),
    }
    kept = select("ccs", budget, inputs, beta=beta, strata=strata)
    assert len(kept) == len(set(kept.tolist())) == budget


def test_ccs_by_hand():
    # 12 samples, beta 1/6 drops the two hardest (10 and 11). What is left spans 0..9 in 3 strata of width 3:
    # {0..5} holds values 0 (six times), {6, 7} hold 4 and 5, {8, 9} hold 8 and 9.
    hardness = torch.tensor([0.0] * 6 + [4, 5, 8, 9, 50, 60])
    inputs = {"hardness": hardness, "ranks": torch.arange(12)}
    # Budget 7: the two strata of 2 get min(2, 7 // 3) = 2 and min(2, 5 // 2) = 2, the large one the other 3.
    kept = select("ccs", 7, {**inputs, "generator": torch.Generator().manual_seed(0)}, beta=1 / 6, strata=3)
    assert kept[-4:].tolist() == [6, 7, 8, 9]
    assert all(k < 6 for k in kept[:3])
    # Which of the large stratum stay is a draw.
    draws = {
        tuple(
            select("ccs", 7, {**inputs, "generator": torch.Generator().manual_seed(s)}, beta=1 / 6, strata=3).tolist()
        )
        for s in range(300)
    }
    assert len(draws) == math.comb(6, 3)


def test_ccs_drops_fewer_where_the_budget_needs_them():
    inputs = {"hardness": torch.arange(10.0), "ranks": torch.arange(10), "generator": torch.Generator()}
    assert select("ccs", 8, inputs, beta=0.9).tolist() == list(range(8))


def test_orders_by_hand():
    ranks = torch.tensor([3, 0, 2, 4, 1])
    assert select("ascending", 2, {"ranks": ranks}).tolist() == [0, 3]  # prune the easiest first: the hardest stay
    assert select("descending", 2, {"ranks": ranks}).tolist() == [1, 4]
    assert select("window", 2, {"ranks": ranks}, offset=0.4).tolist() == [0, 2]  # ranks 2 and 3
    with pytest.raises(SpecError, match=r"offset 0.8; allowed: 0 to 0.6"):
        select("window", 2, {"ranks": ranks}, offset=0.8)
    assert select("window", 4, {"ranks": torch.arange(7)}, offset=0.5).tolist() == [3, 4, 5, 6]  # 3.5 + 4 is within 7


def test_oracle_prunes_the_mislabeled_first():
    mislabeled = torch.tensor([True, False, True, False, False])
    kept = select("oracle", 3, {"mislabeled": mislabeled, "generator": torch.Generator()})
    assert kept.tolist() == [1, 3, 4]
    kept = select("oracle", 4, {"mislabeled": mislabeled, "generator": torch.Generator()})
    assert {1, 3, 4} < set(kept.tolist())


def test_class_balanced_keeps_the_same_share_of_each_class():
    # Classes of 6, 3 and 1: a budget of 5 is 3, 1.5 and 0.5; the one left over goes to the first of equal remainders.
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    kept = select("ascending", 5, {"ranks": torch.arange(10), "labels": labels}, class_balanced=True)
    assert kept.tolist() == [3, 4, 5, 7, 8]


def _moderate(distances, budget, seed=0):
    """Samples on a line, 2 of each distance around the median 0 of one class: positions are those of `distances`."""
    line = torch.tensor([*distances, *(-d for d in distances)], dtype=torch.float32)[:, None]
    inputs = {"features": line, "labels": torch.zeros(len(line)).long(), "generator": torch.Generator()}
    inputs["generator"].manual_seed(seed)
    return sorted(float(line[k].abs()) for k in select("moderate", budget, inputs))


def test_moderate_by_hand():
    # Class 0 has the median 2 and distances 2 1 0 1 2; class 1, of four, the mean of 9 and 11: 5 1 1 7.
    features = torch.tensor([0.0, 1, 2, 3, 4, 5, 9, 11, 17])[:, None]
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1])
    inputs = {"features": features, "labels": labels, "generator": torch.Generator()}
    # In order 0 1 1 1 1 2 2 5 7: the middle five are both at distance 2 and three of those at 1.
    kept = select("moderate", 5, inputs).tolist()
    assert {0, 4} < set(kept) < {0, 1, 3, 4, 6, 7}
    assert set(select("moderate", 7, inputs).tolist()) == {0, 1, 3, 4, 5, 6, 7}


def test_moderate_takes_as_many_on_both_sides_of_the_median():
    # Far more lie close above the median than below it; the nearest to the median would all be from above.
    distances = [1, 2, 3, 4, 10, 10.1, 10.2, 10.3]  # each twice: the median is that of 4 4 10 10 = 7
    assert _moderate(distances, 4) == pytest.approx([4, 4, 10, 10])
    assert _moderate(distances, 8) == pytest.approx([3, 3, 4, 4, 10, 10, 10.1, 10.1])
    # With an odd number the last one is the nearer of the two candidates: 3 is 4 below, 10.1 is 3.1 above.
    assert _moderate(distances, 5) == pytest.approx([4, 4, 10, 10, 10.1])
    assert _moderate([6, 7, 8, 100], 5) == pytest.approx([6, 7, 7, 8, 8])
    # Which of equal ones stay is a draw.
    assert len({tuple(_moderate([1, 1, 1, 1], 4, seed)) for seed in range(3)}) == 1


def test_the_median_is_that_of_numpy_everywhere():
    rows = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    for n in range(1, 8):
        assert median_row(rows[:n]).numpy() == pytest.approx(np.median(rows[:n].numpy(), axis=0))


def test_kcenter_is_the_greedy_cover_and_within_twice_the_optimum():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(14, 2, generator=generator)
    kept = select("kcenter", 3, {"features": features, "generator": torch.Generator().manual_seed(0)}).tolist()
    distance = torch.cdist(features, features)

    def radius(centers):
        return float(distance[:, list(centers)].amin(1).max())

    greedy = [int(torch.randint(14, (1,), generator=torch.Generator().manual_seed(0)))]
    while len(greedy) < 3:
        greedy.append(int(distance[:, greedy].amin(1).argmax()))
    assert kept == sorted(greedy)
    assert radius(kept) <= 2 * min(radius(c) for c in itertools.combinations(range(14), 3)) + 1e-6


@pytest.mark.parametrize("offset", [0.0, 3000.0])
def test_kcenter_does_not_lose_its_digits_to_an_offset(offset):
    # Products of features around 3,000 are around 10^8, whose float32 neighbors are 8 apart; the distances are below 1.
    points = torch.rand(200, 8, generator=torch.Generator().manual_seed(1)).mul(64).round() / 64
    far = points + offset
    assert torch.equal(far - offset, points)  # the offset itself takes nothing away
    kept = select("kcenter", 20, {"features": far, "generator": torch.Generator().manual_seed(0)})
    distance = torch.cdist(points.double(), points.double())
    greedy = [int(torch.randint(200, (1,), generator=torch.Generator().manual_seed(0)))]
    while len(greedy) < 20:
        nearest = distance[:, greedy].amin(1)
        greedy.append(int(nearest.argmax()))
    assert kept.tolist() == sorted(greedy)


@pytest.mark.parametrize(
    "n, budget, width, values", [(300, 300, 2, 4), (500, 200, 6, 3), (400, 399, 3, 50), (900, 700, 16, 9)]
)
def test_kcenter_looks_ahead_and_finds_what_one_pick_after_the_other_finds(n, budget, width, values):
    # Products of small whole numbers are exact in float32: so are ties and copies, of which the first one is picked.
    points = torch.randint(values, (n, width), generator=torch.Generator().manual_seed(n)).float()
    points = torch.cat([points, -points])  # their mean is zero
    kept = select("kcenter", budget, {"features": points, "generator": torch.Generator().manual_seed(1)})
    chosen = int(torch.randint(2 * n, (1,), generator=torch.Generator().manual_seed(1)))
    nearest, expected = torch.full((2 * n,), torch.inf), []
    for _ in range(budget):
        expected.append(chosen)
        nearest = torch.minimum(nearest, (points - points[chosen]).square().sum(1))
        nearest[expected] = -torch.inf
        chosen = int(nearest.argmax())
    assert kept.tolist() == sorted(expected)


class Apart:
    """Parts that are computed one after the other, the last first."""

    def ranges(self, n, multiple):
        return [(start, min(start + multiple, n)) for start in range(0, n, multiple)]

    def hold(self, value):
        return [value]

    def each(self, part, held, given):
        found = [part(value, item, lambda share: None) for (value,), item in zip(held[::-1], given[::-1], strict=True)]
        return found[::-1]


@pytest.mark.parametrize("class_balanced", [False, True])
def test_kcenter_in_parts_keeps_what_it_keeps_in_one(monkeypatch, class_balanced):
    monkeypatch.setattr(coverage, "ROWS", 64)
    generator = torch.Generator().manual_seed(5)
    points, labels = torch.randn(500, 24, generator=generator), torch.arange(500) % 3
    points[100:200] = points[:100]
    found = [
        select(
            "kcenter",
            220,
            {"features": points, "labels": labels, "generator": torch.Generator().manual_seed(0)},
            class_balanced=class_balanced,
            parts=parts,
        )
        for parts in (None, Apart())
    ]
    assert torch.equal(*found)


def _greedy_facility_location(similarity, budget):
    kept: list[int] = []
    for _ in range(budget):
        values = [-1.0 if j in kept else float(similarity[:, [*kept, j]].amax(1).sum()) for j in range(len(similarity))]
        kept.append(int(np.argmax(values)))
    return sorted(kept)


def test_craig_is_greedy_facility_location():
    inputs = _inputs(25, 11)
    gradients = inputs["probs"] - torch.nn.functional.one_hot(inputs["labels"], 3)
    distance = torch.cdist(gradients, gradients).double()
    expected = _greedy_facility_location(distance.max() - distance, 6)
    assert select("craig", 6, inputs, neighbors=25).tolist() == expected


def test_craig_weights_count_the_nearest():
    probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.15, 0.85]])
    weights = craig_weights(probs, torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 2]))
    # Gradients (-.1, .1) (-.2, .2) (.1, -.1) (.2, -.2) (.15, -.15): two nearest to the first, three to the second.
    assert weights.tolist() == [2.0, 3.0]


def test_pr4rel_is_the_plain_greedy():
    inputs = _inputs(30, 7)
    inputs["features"] = inputs["features"] - 3  # spread over all directions
    unit = torch.nn.functional.normalize(inputs["features"], dim=1).double()
    similarity = (unit @ unit.T).numpy()
    similarity[similarity < 0.6] = 0
    confidence = inputs["probs"].amax(1).double().numpy()
    kept, reached = [], np.zeros(30)
    for _ in range(8):
        gains = [
            -1.0 if j in kept else (np.tanh(reached + similarity[:, j] * confidence[j]) - np.tanh(reached)).sum()
            for j in range(30)
        ]
        kept.append(int(np.argmax(gains)))
        reached += similarity[:, kept[-1]] * confidence[kept[-1]]
    assert select("pr4rel", 8, inputs, threshold=0.6).tolist() == sorted(kept)


def plain_fdmat(features, labels, sharpness):
    """The authors' code in plain loops: one value for each sample, the smallest of which stay."""
    t = np.sqrt(features.numpy().astype(float) + 1e-6)
    x = (t - t.mean(0)) / np.linalg.norm(t, axis=1, keepdims=True)
    sizes = np.bincount(labels)
    means = np.stack([x[labels == k].mean(0) for k in range(len(sizes))])
    cost = ((x[:, None] - means) ** 2).sum(2)
    plan = np.exp(-sharpness * cost)
    for _ in range(10000):
        plan /= plan.sum(1, keepdims=True)
        plan *= sizes / plan.sum(0)
    return ((plan * cost) ** 2).sum(1)


@pytest.mark.parametrize("sharpness", [4.0, 10.0])
def test_fdmat_keeps_what_the_authors_keep(sharpness):
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 50 + [1] * 25 + [2] * 5)
    features = (torch.eye(3)[labels] + 0.8 * torch.randn(80, 3, generator=generator)).abs()
    value = plain_fdmat(features, labels, sharpness)
    for budget in (1, 10, 40, 79):
        kept = select("fdmat", budget, {"features": features, "labels": labels}, sharpness=sharpness)
        assert kept.tolist() == sorted(np.argsort(value)[:budget].tolist())
    # Class-balanced: the same transport of all samples, and of each class its share: of 80 by 16 are 10, 5 and 1.
    kept = select("fdmat", 16, {"features": features, "labels": labels}, class_balanced=True, sharpness=sharpness)
    expected = [
        first + np.argsort(value[first:last])[:share] for first, last, share in ((0, 50, 10), (50, 75, 5), (75, 80, 1))
    ]
    assert kept.tolist() == sorted(np.concatenate(expected).tolist())


def test_fdmat_by_hand():
    # Two classes of two. The first is its prototype, at cost 0, and so far from the other that nearly no mass goes
    # there; the second lies around its own.
    features = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0.2, 0.8]])
    inputs = {"features": features, "labels": torch.tensor([0, 0, 1, 1])}
    assert select("fdmat", 2, inputs).tolist() == [0, 1]
    # Three lie at (1, 0), but class 0 takes the mass of two alone, so a third of the mass of each goes to the other
    # class, which is dear; those at (0, 1) go there whole, which costs them little.
    inputs["labels"] = torch.tensor([0, 0, 1, 1, 1, 1])
    inputs["features"] = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1], [0, 1], [1, 0]])
    assert select("fdmat", 3, inputs).tolist() == [2, 3, 4]


def test_messages():
    inputs = _inputs(10, 0)
    with pytest.raises(SpecError, match="unknown sampler 'cs'; did you mean 'ccs'?"):
        select("cs", 3, inputs)
    with pytest.raises(SpecError, match="the budget is 11 of 10 samples; allowed: 1 to 10"):
        select("random", 11, inputs)
    with pytest.raises(SpecError, match="unknown option of ccs 'bta'; did you mean 'beta'?"):
        select("ccs", 3, inputs, bta=0.1)
    with pytest.raises(SpecError, match="ccs with beta 1.5 and 50 strata; allowed"):
        select("ccs", 3, inputs, beta=1.5)
    with pytest.raises(ScoreInputError, match="sampler 'ccs' needs hardness"):
        select("ccs", 3, {"n": 10, "ranks": torch.arange(10)})
    inputs["features"][4, 1] = math.nan
    with pytest.raises(ScoreInputError, match="the features of sample 4 are not finite"):
        select("kcenter", 3, inputs)
    inputs["features"][4] = 0
    with pytest.raises(ScoreInputError, match="the features of sample 4 have norm 0"):
        select("pr4rel", 3, inputs)


def test_a_sampler_is_declared_where_it_is_written(monkeypatch):
    monkeypatch.setattr(samplers, "_REGISTRY", dict(samplers._REGISTRY))

    @sampler()
    def every_other(budget: int, n: int, start: int = 0) -> torch.Tensor:
        """Keep every other sample."""
        return torch.arange(start, n, 2)[:budget]

    found = all_samplers()["every_other"]
    assert (found.inputs, dict(found.options), found.title) == (("n",), {"start": 0}, "Keep every other sample")
    assert not found.reads_score and not found.reads_network and found.weights is None
    assert select("every_other", 3, {"n": 10}, start=1).tolist() == [1, 3, 5]


def test_a_sampler_that_reads_what_is_not_there_is_refused():
    def lucky(budget: int, luck: torch.Tensor) -> torch.Tensor:
        """Keep the lucky."""

    def silent(budget: int, n: int) -> torch.Tensor: ...

    with pytest.raises(TypeError, match="sampler lucky reads .'luck'.; allowed: budget, n, labels, ranks"):
        sampler()(lucky)
    with pytest.raises(TypeError, match="sampler silent has no docstring"):
        sampler()(silent)


def test_the_samplers_that_ship_are_found_in_their_files():
    names = "craig fdmat kcenter pr4rel ascending ccs descending moderate oracle random window".split()
    assert set(names) <= set(all_samplers())
    assert all_samplers()["craig"].weights is craig_weights and all_samplers()["ccs"].weights is None
