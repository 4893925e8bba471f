"""Scores of the neighborhood, by hand and by plain loops over their definitions."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.errors import ScoreInputError
from engine.features.neighbors import compute_neighbors
from engine.scores.geometry import (
    class_median_distance,
    knn_disagreement,
    knn_shapley,
    knn_vote,
    near_duplicate,
    nli,
    prototype_distance,
)
from engine.scores.rows import unit_rows


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def kullback_leibler(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def plain_nli(features, ids, labels, weight, bias, propagate):
    """Equations 3 to 8 of the paper, as they stand."""
    out = []
    for i, neighbors in enumerate(ids):
        v = features[neighbors]
        k = len(v)
        s = np.zeros((k, k))
        for a, b in itertools.permutations(range(k), 2):
            s[a, b] = max(0.0, v[a] @ v[b] / np.linalg.norm(v[a]) / np.linalg.norm(v[b]))
        d = np.diag([1 / math.sqrt(row.sum()) if row.sum() else 0.0 for row in s])
        new = (np.eye(k) + d @ s @ d) @ v if propagate else v
        onehot = np.eye(len(weight))[labels[i]]
        total = 0.0
        for row in new:
            p = softmax(row @ weight.T + bias)
            middle = (p + onehot) / 2
            total += kullback_leibler(p, middle) / 2 + kullback_leibler(onehot, middle) / 2
        out.append(total / k)
    return out


def neighborhood(n=60, d=7, c=4, k=5, relu=True):
    generator = torch.Generator().manual_seed(n + k)
    features = torch.randn(n, d, generator=generator)
    features = features.relu() + 0.01 if relu else features
    ids, _ = compute_neighbors(features, k)
    labels = torch.arange(n) % c
    return features, ids, labels, torch.randn(c, d, generator=generator), torch.randn(c, generator=generator)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("propagate", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_nli_is_the_plain_loop(relu, propagate, bias):
    given = neighborhood(relu=relu)
    features, ids, labels, weight, offset = (t.double().numpy() if t.is_floating_point() else t.numpy() for t in given)
    expected = plain_nli(features, ids, labels, weight, offset * bias, propagate)
    found = nli(*given, propagate_features=propagate, bias=bias)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert bool(((found >= 0) & (found <= math.log(2))).all())


def test_nli_without_label_propagation_counts_the_given_labels():
    given = neighborhood()
    found = nli(*given, propagate_features=False, propagate_labels=False)
    assert torch.allclose(found, math.log(2) * knn_disagreement(given[1], given[2]))


def test_nli_at_its_ends():
    features, ids = torch.ones(4, 1), torch.tensor([[1], [0], [3], [2]])
    sure = torch.tensor([[100.0], [0.0]])  # every neighbor is class 0 with probability 1
    found = nli(features, ids, torch.tensor([0, 0, 1, 1]), sure, torch.zeros(2))
    assert found.tolist() == pytest.approx([0, 0, math.log(2), math.log(2)], abs=1e-6)


IDS = torch.tensor([[1, 2, 3], [0, 2, 4], [0, 1, 5], [4, 5, 0], [3, 5, 1], [3, 4, 2]])
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def test_disagreement_by_hand():
    assert knn_disagreement(IDS, LABELS).tolist() == pytest.approx([2 / 3, 2 / 3, 1, 1, 2 / 3, 2 / 3])


def test_vote_by_hand():
    # Neighbors' labels: 011, 012, 002, 220, 120, 121. Largest other share minus the given share.
    assert knn_vote(IDS, LABELS).tolist() == pytest.approx([1 / 3, 0, 2 / 3, 2 / 3, 0, 1 / 3])


def test_median_distance_by_hand():
    features = torch.tensor([[0.0, 0], [1, 0], [5, 3], [2, 2], [4, 6]])
    # Class 0: median (1, 0). Class 1: two samples, median (3, 4).
    found = class_median_distance(features, torch.tensor([0, 0, 0, 1, 1]))
    assert found.tolist() == pytest.approx([1, 0, 5, math.sqrt(5), math.sqrt(5)])


def test_prototypes_are_found_where_clusters_are():
    generator = torch.Generator().manual_seed(0)
    centers = torch.eye(3).repeat_interleave(20, 0)
    features = centers + 0.05 * torch.randn(60, 3, generator=generator)
    features[7] = torch.tensor([1.0, 0.8, 0.8])  # between all of them, nearest to its own
    found = prototype_distance(features, torch.arange(60) % 3, generator)
    assert int(found.argmax()) == 7
    unit = features / features.norm(dim=1, keepdim=True)
    nearest = torch.stack([torch.nn.functional.normalize(unit[i : i + 20].sum(0), dim=0) for i in (0, 20, 40)])
    assert torch.allclose(found, 1 - (unit @ nearest.T).amax(1), atol=1e-5)


@pytest.mark.parametrize("k", [1, 3, 10, 12])
def test_shapley_is_the_mean_over_all_subsets(k):
    generator = torch.Generator().manual_seed(k)
    features, asked = torch.randn(10, 4, generator=generator), torch.randn(3, 4, generator=generator)
    labels, truth = torch.tensor([0, 1] * 5), torch.tensor([0, 1, 0])
    cosine = torch.nn.functional.cosine_similarity(asked[:, None], features[None], dim=2)

    def utility(subset: tuple[int, ...]) -> float:
        """Mean over the asked of the share of the k nearest in the subset with the right label."""
        total = 0.0
        for row, y in zip(cosine, truth, strict=True):
            nearest = sorted(subset, key=lambda i: -float(row[i]))[:k]
            total += sum(int(labels[i] == y) for i in nearest) / k
        return total / len(truth)

    value = {s: utility(s) for size in range(11) for s in itertools.combinations(range(10), size)}
    expected = [
        sum((value[tuple(sorted((*s, i)))] - value[s]) / (10 * math.comb(9, len(s))) for s in value if i not in s)
        for i in range(10)
    ]
    found = knn_shapley(features, labels, asked, truth, k=k)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert float(found.sum()) == pytest.approx(value[tuple(range(10))], abs=1e-6)


def test_shapley_is_the_recursion_with_ties_in_the_order_of_the_samples():
    # Copies with other labels, similarities of both signs and zeros of both: the values depend on which of a tie comes first.
    generator = torch.Generator().manual_seed(0)
    features = torch.randint(-1, 2, (60, 3), generator=generator).float() + torch.tensor([0.0, 0, 2])
    asked = torch.randint(-1, 2, (9, 3), generator=generator).float() - torch.tensor([0.0, 2, 0])
    labels, truth = torch.arange(60) % 3, torch.arange(9) % 3
    unit, tested = unit_rows(features), unit_rows(asked)
    expected = np.zeros(60)
    for row, y in zip((tested @ unit.T).tolist(), truth.tolist(), strict=True):
        order = sorted(range(60), key=lambda i: (-row[i], i))
        value = 0.0
        for place in range(60, 0, -1):
            now, after = (int(labels[order[p]]) == y if p < 60 else 0 for p in (place - 1, place))
            value += (now - after) * min(4, place) / (4 * place)
            expected[order[place - 1]] += value / 9
    assert len({tuple(row) for row in features.tolist()}) < 30  # many copies
    assert knn_shapley(features, labels, asked, truth, k=4).tolist() == pytest.approx(expected.tolist(), abs=1e-7)


def test_contradicting_copies_are_each_judged_against_their_own_label():
    # Two clusters of 20; of each the first sample is there twice more, once with the label of the other cluster.
    generator = torch.Generator().manual_seed(0)
    features = torch.eye(4)[:2].repeat_interleave(20, 0) + 0.1 * torch.randn(40, 4, generator=generator)
    labels = torch.arange(2).repeat_interleave(20)
    features = torch.cat([features, features[[0, 0, 20, 20]]])
    labels = torch.cat([labels, torch.tensor([0, 1, 1, 0])])
    ids, similarities = compute_neighbors(features, 5)
    assert similarities[40:, :2].tolist() == [[pytest.approx(1.0)] * 2] * 4  # copies are neighbors of each other
    weight = torch.tensor([[9.0, 0, 0, 0], [0, 9, 0, 0]])
    for found in (nli(features, ids, labels, weight, torch.zeros(2)), knn_vote(ids, labels)):
        assert sorted(found.argsort(descending=True)[:2].tolist()) == [41, 43]
        assert float(found[[41, 43]].min()) > float(found[[0, 20, 40, 42]].max())


def test_near_duplicate_is_the_first_similarity():
    assert near_duplicate(torch.tensor([[0.9, 0.2], [0.5, 0.1]])).tolist() == pytest.approx([0.9, 0.5])


ONE, SINGLE = torch.zeros(6, dtype=torch.int64), torch.tensor([0, 0, 0, 1, 1, 2])


@pytest.mark.parametrize("labels, message", [(ONE, "all 6 samples have the label 0"), (SINGLE, "class 2 has a single")])
@pytest.mark.parametrize("name", ["nli", "knn_disagreement", "knn_vote", "class_median_distance", "knn_shapley"])
def test_classes_of_one_are_named(name, labels, message):
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))

    def call() -> Tensor:
        return {
            "nli": lambda: nli(features, IDS, labels, torch.ones(3, 3), torch.zeros(3)),
            "knn_disagreement": lambda: knn_disagreement(IDS, labels),
            "knn_vote": lambda: knn_vote(IDS, labels),
            "class_median_distance": lambda: class_median_distance(features, labels),
            "knn_shapley": lambda: knn_shapley(features, labels, features, labels),
        }[name]()

    with pytest.raises(ScoreInputError, match=message):
        call()


def test_bad_features_and_an_empty_validation_set_are_named():
    features = torch.eye(6)
    with pytest.raises(ScoreInputError, match="the validation set is empty"):
        knn_shapley(features, LABELS, torch.empty(0, 6), torch.empty(0, dtype=torch.int64))
    with pytest.raises(ScoreInputError, match="the validation features of sample 1 have norm 0"):
        knn_shapley(features, LABELS, torch.eye(6)[:2] * torch.tensor([[1.0], [0]]), LABELS[:2])
    with pytest.raises(ScoreInputError, match="centers is 9 for 6 samples"):
        prototype_distance(features, LABELS, torch.Generator(), centers=9)
