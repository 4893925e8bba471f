"""What a curve trains: the points coarse to fine, and exactly the samples that an order keeps."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.data.loader import load_split
from engine.errors import SpecError
from engine.queries.connection import connected
from engine.runs.choose import Selection, find_scores_run
from engine.runs.points import coarse_to_fine, network_id, plan_networks, plan_stacks, training_of
from engine.runs.psi import plan_psi
from engine.selection.names import parse_order
from engine.selection.samplers import select
from engine.spec import PsiSpec, TrainingSpec
from engine.store.tensors import load_tensors


@pytest.fixture
def scored(scored_workspace):
    return scored_workspace


def selection_of(workspace, *orders, class_balanced=False):
    scores_run = find_scores_run(workspace, "small", orders)
    samples = load_split(workspace, "small", "train")
    return Selection(workspace, "small", samples, orders, scores_run, class_balanced=class_balanced)


def score_of(workspace, name):
    with connected(workspace, "small") as connection:
        rows = connection.execute("SELECT value, rank FROM scores WHERE score = ? ORDER BY sample_id", [name])
        return rows.fetchnumpy()


def test_points_halve_the_gaps():
    assert coarse_to_fine(8) == [[0, 4], [2, 6], [1, 3, 5, 7]]
    assert coarse_to_fine(2) == [[0, 1]] and coarse_to_fine(3) == [[0, 1], [2]]
    for points in (5, 20, 97, 100):
        levels = coarse_to_fine(points)
        assert sorted(i for level in levels for i in level) == list(range(points))
        done = [points]
        for level in levels:  # after every level no gap is more than one longer than half of the longest before it
            longest = max(np.diff(sorted(done))) if len(done) > 1 else points
            done += level
            assert max(np.diff(sorted(done))) <= longest // 2 + 1


def make_spec(**changes):
    training = TrainingSpec(seeds=2, batch_size=64)
    return PsiSpec(**{
        "dataset": "d", "fingerprint": "f", "orders": ("random", "aum"), "points": 4, "training": training,
        "scores_run": None, **changes,
    })  # fmt: skip


def test_all_orders_and_seeds_of_a_point_come_together_and_the_full_set_once():
    first, second = plan_networks(make_spec(), 200)
    assert [network.key for network in first] == [("", 0, 0), ("", 0, 1)] + [
        (order, 100, seed) for order in ("random", "aum") for seed in (0, 1)
    ]
    assert [network.pruned for network in second] == [50] * 4 + [150] * 4
    levels = plan_networks(make_spec(points=100, orders=("a", "b", "c", "d", "e")), 10_000)
    assert sum(map(len, levels)) == 2 + 99 * 5 * 2


def test_a_curve_may_end_early():
    plan = make_spec(until=0.2)
    assert [n.pruned for level in plan_networks(plan, 200) for n in level if n.key[::2] == ("aum", 0)] == [20, 10, 30]


def test_a_window_keeps_half_at_every_offset():
    plan = make_spec(orders=("aum", "random"), window=True, points=10)
    names = [n.order for level in plan_networks(plan, 201) for n in level if n.seed == 0]
    offsets = ["0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3", "0.35", "0.4", "0.45", "0.5"]
    assert sorted(names) == ["random", *(f"window(aum,offset={x})" for x in offsets)]
    assert {n.pruned for level in plan_networks(plan, 201) for n in level} == {101}


def test_stacks_are_of_one_level_and_one_width():
    plan = make_spec(points=8)
    stacks = plan_stacks(plan, 1032, 5)  # 129 more at each point; 516 kept are 8 * 64 + 4, 129 are 2 * 64 + 1
    assert [network for stack in stacks for network in stack if network.pruned != 903] == [
        network for level in plan_networks(plan, 1032) for network in level if network.pruned != 903
    ]
    assert max(map(len, stacks)) == 5
    levels = [{n.pruned // 129 for n in stack} for stack in stacks]
    assert levels[0] <= {0, 4} and all({n.pruned for n in stack} == {903} for stack in stacks[-1:])
    assert [len(stack) for stack in plan_stacks(plan, 1032, 1)] == [1] * (2 + 7 * 4)


def test_fixed_steps_train_longer_on_less():
    plan = make_spec(steps="fixed", training=TrainingSpec(epochs=3, batch_size=64))
    # 200 samples, batch 64: 4 steps an epoch, 12 in all; 50 samples are one step an epoch, so 12 epochs.
    assert training_of(plan, 200, 50).epochs == 12 and training_of(plan, 200, 200).epochs == 3


def test_networks_are_the_same_when_samples_training_and_seed_are():
    plan, kept = make_spec(), torch.arange(5)
    training = plan.training
    same = network_id(plan, training, kept, 0)
    assert same == network_id(replace(plan, orders=("x",), points=9), replace(training, seeds=7), kept.int(), 0)
    others = [
        network_id(plan, training, kept, 1),
        network_id(plan, training, torch.arange(6), 0),
        network_id(plan, replace(training, epochs=3), kept, 0),
        network_id(replace(plan, fingerprint="g"), training, kept, 0),
    ]
    assert len({same, *others}) == 5


def test_orders_keep_what_they_say(scored):
    aum, el2n = score_of(scored, "aum"), score_of(scored, "el2n@2")
    orders = ("aum", "aum*", "el2n@2", "oracle", "random", "ccs(aum,beta=0.1)")
    chosen = selection_of(scored, *orders)
    assert set(chosen.kept("aum", 50).tolist()) == set(np.flatnonzero(aum["rank"] >= 50))
    assert set(chosen.kept("aum*", 50).tolist()) == set(np.flatnonzero(aum["rank"] < 150))
    assert aum["value"][chosen.kept("aum", 150)].max() <= np.sort(aum["value"])[49]  # a high AUM is easy
    assert el2n["value"][chosen.kept("el2n@2", 150)].min() >= np.sort(el2n["value"])[150]
    wrong = (chosen.samples.labels != chosen.samples.true_labels).numpy()
    assert wrong.sum() == 40 and not wrong[chosen.kept("oracle", 40)].any() and wrong[chosen.kept("oracle", 39)].any()
    assert set(chosen.kept("random", 80).tolist()) < set(chosen.kept("random", 30).tolist())
    ccs = chosen.kept("ccs(aum,beta=0.1)", 100)
    assert len(ccs) == 100 and not set(ccs.tolist()) & set(np.flatnonzero(aum["rank"] >= 180))
    assert chosen.kept("", 0).tolist() == list(range(200))
    for order in orders:
        kept = chosen.kept(order, 77)
        assert len(kept) == 123 and (kept.diff() > 0).all()
        again = selection_of(scored, order)
        assert torch.equal(again.kept(order, 77), kept)


def test_class_balance_prunes_every_class_alike(scored):
    orders = ("aum", "aum*", "random", "oracle")
    chosen = selection_of(scored, *orders, class_balanced=True)
    labels, sizes = chosen.samples.labels, torch.bincount(chosen.samples.labels)
    aum = torch.from_numpy(score_of(scored, "aum")["rank"].astype("int64"))
    for order in orders:
        kept = chosen.kept(order, 60)
        assert len(kept) == 140
        assert (torch.bincount(labels[kept]) - sizes * 0.7).abs().max() < 1
    for label in range(10):  # within a class the hardest stay
        members = (labels == label).nonzero()[:, 0]
        stays = torch.isin(members, chosen.kept("aum", 60))
        assert aum[members[stays]].min() > aum[members[~stays]].max()


def test_samplers_read_the_networks_of_the_scores_run(scored):
    orders = ("kcenter", "moderate", "fdmat", "craig", "pr4rel")
    chosen = selection_of(scored, *orders)
    folder = scored.published_dir(chosen.scores_run)
    features = torch.from_numpy(load_tensors(folder / "features.safetensors")[0]["features"])
    weights = load_tensors(folder / "weights.safetensors", "seed0.")[0]
    head = [torch.from_numpy(weights[f"seed0.7.{name}"]) for name in ("weight", "bias")]
    probs = torch.nn.functional.linear(features, *head).softmax(1)
    assert torch.allclose(chosen._input("probs", parse_order("craig")), probs, atol=1e-5)
    labels = chosen.samples.labels
    assert torch.equal(chosen.kept("fdmat", 120), select("fdmat", 80, {"features": features, "labels": labels}))
    assert len({tuple(chosen.kept(order, 120).tolist()) for order in orders}) == len(orders)
    assert all(len(chosen.kept(order, 120)) == 80 for order in orders)


def test_windows_keep_ranks_in_a_row(scored):
    chosen = selection_of(scored, "window(aum)")
    ranks = score_of(scored, "aum")["rank"]
    for offset in (0, 0.15, 0.5):
        kept = chosen.kept(f"window(aum,offset={offset:g})", 100)
        assert sorted(ranks[kept]) == list(range(round(200 * offset), round(200 * offset) + 100))


def test_what_cannot_be_planned_is_said(scored):
    said = {
        ("kcentre",): "did you mean 'kcenter'",
        ("aun",): "did you mean 'aum'",
        ("ccs(entropy)",): "winnow run small --scores entropy",
        ("ccs",): r"write ccs\(SCORE\)",
    }
    for orders, words in said.items():
        with pytest.raises(SpecError, match=words):
            plan_psi(scored, "small", orders, points=4, seeds=1)
    with pytest.raises(SpecError, match="a window takes scores"):
        plan_psi(scored, "small", ["aum*"], points=4, seeds=1, window=True)
    with pytest.raises(SpecError, match="did you mean 'aum_threshold'"):
        plan_psi(scored, "small", ["aum*"], points=4, seeds=1, around="aum_treshold")


def test_a_sampler_without_a_trained_network_names_the_command(small_workspace):
    with pytest.raises(SpecError, match="has a trained network; make one: winnow run small"):
        plan_psi(small_workspace, "small", ["kcenter"], points=4, seeds=1)


def test_a_curve_around_a_rule_has_it_in_the_middle(scored):
    plan = plan_psi(scored, "small", ["aum*"], points=10, seeds=1, around="aum_threshold")
    with connected(scored, "small") as connection:
        [(flagged,)] = connection.execute("SELECT count(*) FROM flags WHERE flagged").fetchall()
    pruned = sorted(n.pruned for level in plan_networks(plan, 200) for n in level)
    assert json.dumps(pruned) == json.dumps([i * (2 * flagged // 10) for i in range(10)])
    assert abs(pruned[5] - flagged) < 5
