"""Scores, samplers and neighbors on each device, against plain forms in float64 on the processor."""

import numpy as np
import pytest
import torch

from engine.features.neighbors import compute_neighbors
from engine.scores.gap import find_copies, solve_gap
from engine.scores.geometry import class_median_distance, knn_shapley, knn_vote, nli, prototype_distance
from engine.scores.gradient import compute_gradient_norms
from engine.scores.kernel import compute_ntk
from engine.selection.coverage import craig_weights
from engine.selection.samplers import select
from engine.training.models import build_model

N, D, C = 300, 24, 4


def clouds(n=N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % C
    return 2 * torch.randn(C, D, generator=torch.Generator().manual_seed(9))[labels] + torch.randn(
        n, D, generator=generator
    ), labels


def unit(rows):
    return torch.nn.functional.normalize(rows.double(), dim=1)


def test_neighbors_are_the_largest_cosines(device):
    features, _ = clouds()
    ids, similarities = compute_neighbors(features.to(device), 7)
    cosine = (unit(features) @ unit(features).T).fill_diagonal_(-2)
    expected = cosine.topk(7)
    assert torch.equal(ids.cpu(), expected.indices)
    assert torch.allclose(similarities.cpu().double(), expected.values, atol=1e-5)


def test_scores_of_neighborhoods(device):
    (features, labels), (asked, truth) = clouds(), clouds(40, seed=1)
    labels = labels.clone()
    labels[:30] = (labels[:30] + 1) % C
    ids = (unit(features) @ unit(features).T).fill_diagonal_(-2).topk(9).indices
    there = [values.to(device) for values in (features, ids, labels)]
    votes = torch.nn.functional.one_hot(labels[ids], C).sum(1)
    own = votes.gather(1, labels[:, None])[:, 0]
    others = votes.scatter(1, labels[:, None], -1).amax(1)
    assert torch.allclose(knn_vote(there[1], there[2]).cpu(), (others - own) / 9)

    weight, bias = torch.randn(C, D, generator=torch.Generator().manual_seed(2)), torch.arange(C) / 10
    found = nli(there[0], there[1], there[2], weight.to(device), bias.to(device)).cpu()
    for i in (0, 17, 299):  # sample by sample, as the paper has it
        near = features[ids[i]].double()
        similarity = (unit(near) @ unit(near).T).clamp_min(0).fill_diagonal_(0)
        root = similarity.sum(1).rsqrt().diag()
        smoothed = (torch.eye(9).double() + root @ similarity @ root) @ near
        p = (smoothed @ weight.T.double() + bias).softmax(1)[:, labels[i]]
        divergence = 0.5 * (2 * np.log(2) + p * p.log() - (1 + p) * (1 + p).log())
        assert float(found[i]) == pytest.approx(float(divergence.mean()), abs=1e-5)

    values = knn_shapley(there[0], there[2], asked.to(device), truth.to(device), k=5).cpu()
    expected = torch.zeros(N, dtype=torch.float64)
    for row, y in zip(unit(asked) @ unit(features).T, truth, strict=True):
        order, value = row.argsort(descending=True), 0.0
        match = (labels[order] == y).double().tolist() + [0.0]
        for place in range(N, 0, -1):
            value += (match[place - 1] - match[place]) * min(5, place) / (5 * place)
            expected[order[place - 1]] += value / len(truth)
    assert torch.allclose(values.double(), expected, atol=1e-6)

    medians = torch.stack([features[labels == c].quantile(0.5, dim=0) for c in range(C)])
    distance = (features - medians[labels]).norm(dim=1)
    assert torch.allclose(class_median_distance(there[0], there[2]).cpu(), distance, atol=1e-4)
    seeded = [torch.Generator().manual_seed(3) for _ in range(2)]
    centers = [
        prototype_distance(f, y, g)
        for (f, y), g in zip(((there[0], there[2]), (features, labels)), seeded, strict=True)
    ]
    assert torch.allclose(centers[0].cpu(), centers[1], atol=1e-4)


def test_kcenter_is_one_pick_after_the_other(device):
    points = torch.randint(6, (400, 5), generator=torch.Generator().manual_seed(0)).float()
    points = torch.cat([points, -points])  # of mean zero: all distances are whole numbers, with ties and copies
    inputs = {"features": points.to(device), "generator": torch.Generator().manual_seed(1)}
    chosen = int(torch.randint(800, (1,), generator=torch.Generator().manual_seed(1)))
    nearest, expected = torch.full((800,), torch.inf), []
    for _ in range(500):
        expected.append(chosen)
        nearest = torch.minimum(nearest, (points - points[chosen]).square().sum(1))
        nearest[expected] = -torch.inf
        chosen = int(nearest.argmax())
    assert select("kcenter", 500, inputs).tolist() == sorted(expected)


@pytest.mark.parametrize("name", ["kcenter", "craig", "pr4rel", "fdmat"])
@pytest.mark.parametrize("balanced", [False, True])
def test_samplers_keep_the_same_samples(device, name, balanced):
    features, labels = clouds()
    probs = (features @ torch.randn(D, C, generator=torch.Generator().manual_seed(4))).softmax(1)

    def kept(where):
        inputs = {"features": features.to(where), "probs": probs.to(where), "labels": labels}
        inputs["generator"] = torch.Generator().manual_seed(0)
        return select(name, 60, inputs, class_balanced=balanced)

    found = kept(device)
    assert found.device.type == "cpu" and len(set(found.tolist()) & set(kept("cpu").tolist())) >= 58


def test_weights_count_the_nearest(device):
    probs = torch.rand(N, C, generator=torch.Generator().manual_seed(4)).softmax(1)
    labels, kept = torch.arange(N) % C, torch.arange(5, N, 9)
    gradients = probs.double() - torch.nn.functional.one_hot(labels, C)
    nearest = torch.cdist(gradients, gradients[kept]).argmin(1)
    weights = craig_weights(probs.to(device), labels, kept)
    assert weights.device.type == "cpu" and torch.equal(weights, torch.bincount(nearest, minlength=len(kept)).float())


def test_the_complexity_gap_is_the_inverse_of_its_kernel(device):
    features, labels = clouds(120)
    features = torch.cat([features, features[:5]])  # exact copies
    labels = torch.cat([labels, labels[:5]])
    gap = solve_gap(features.to(device), labels)
    g = (unit(features[:120]) @ unit(features[:120]).T).clamp(-1, 1)
    kernel = (g * (torch.pi - g.acos()) / (2 * torch.pi)).fill_diagonal_(0.5)
    inverse = torch.linalg.inv(kernel)
    signs = 2 * torch.nn.functional.one_hot(labels[:120], C).double() - 1
    alpha = (inverse @ signs).gather(1, labels[:120, None])[:, 0]
    assert gap.copies == 5 and gap.alpha.device.type == "cpu"
    assert torch.allclose(gap.alpha[0, :120], alpha, rtol=1e-6)
    assert torch.allclose(gap.inverse_diagonal[0, 120:], inverse.diagonal()[:5], rtol=1e-6)
    single = solve_gap(features.to(device), labels, dtype=torch.float32)
    assert torch.allclose(single.alpha, gap.alpha, rtol=1e-3, atol=1e-3)


def test_copies_are_found_where_rows_are_equal(device):
    rows, _ = clouds(50)
    rows = unit(torch.cat([rows, rows[[3, 3, 7]], rows[:1]]))
    assert find_copies(rows.to(device)).tolist() == [*range(50), 3, 3, 7, 0]


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_gradients_are_autograds_one_sample_at_a_time(device, name):
    network = build_model(name, (1, 8, 8), C, 0).eval()
    inputs = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels, jacobian, norms = torch.arange(5) % C, [], []
    trained = [p for p in network.parameters() if p.requires_grad]
    for one, label in zip(inputs, labels, strict=True):
        logits = network(one[None])[0]
        for logit in logits:
            rows = torch.autograd.grad(logit, trained, retain_graph=True, allow_unused=True, materialize_grads=True)
            jacobian.append(torch.cat([row.flatten() for row in rows]).double())
        loss = torch.nn.functional.cross_entropy(logits[None], label[None])
        norms.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)]).norm())
    network, inputs, labels = network.to(device), inputs.to(device), labels.to(device)
    expected = torch.stack(jacobian) @ torch.stack(jacobian).T
    for block_values in (1, 1 << 26):
        assert torch.allclose(compute_ntk(network, inputs, block_values).cpu(), expected, rtol=1e-3, atol=1e-4)
    assert torch.allclose(compute_gradient_norms(network, inputs, labels).cpu(), torch.stack(norms), rtol=1e-3)
