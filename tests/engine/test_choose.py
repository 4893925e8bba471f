"""Samplers on what a run has published, and kernel velocities of the networks that it kept."""

import csv

import numpy as np
import pytest
import torch

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import NotFoundError, SpecError
from engine.queries.connection import connected, fetch_sql
from engine.queries.writers import export_samples
from engine.runs.choose import choose_samples
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.runs.velocity import velocity_by_decile
from engine.selection.names import parse_order, sampler_help
from engine.selection.samplers import all_samplers
from engine.spec import TrainingSpec, spec_hash
from engine.store.workspace import Workspace


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A workspace with `small`, whose scores nli and aum are there, and `bare`, without a run."""
    workspace = Workspace.open(tmp_path_factory.mktemp("choose") / "workspace", create=True)
    ingest(workspace, IngestSpec(name="small", source="digits", limit=200, noise="symmetric:0.2"))
    ingest(workspace, IngestSpec(name="bare", source="digits", limit=100))
    training = TrainingSpec(epochs=5, seeds=1, batch_size=64)
    compute(workspace, plan_run(workspace, "small", ["nli", "aum"], training, threshold_rounds=0), "cpu")
    return workspace


ORDERS = (
    "window(nli,offset=0.5)",
    "ccs(nli,beta=0.1)",
    *(row["form"].replace("SCORE", "nli") for row in sampler_help()),
)


def keep(workspace, order, share, **options):
    return choose_samples(workspace, "small", order, share, **options).sample_ids.tolist()


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_keeps_what_was_asked_and_the_same_again(scored, order):
    first, again = (keep(scored, order, 0.25) for _ in range(2))
    assert first == again == sorted(set(first)) and len(first) == 50


def test_every_sampler_is_among_the_orders():
    assert {parse_order(order).sampler for order in ORDERS} == set(all_samplers())
    assert {"nli", "nli*", "random", "oracle", "moderate", "kcenter"} < set(ORDERS)


def test_what_is_drawn_follows_from_the_seed_and_the_name_as_it_was_written(scored):
    for order in ("random", "random()"):
        generator = torch.Generator().manual_seed(int(spec_hash([7, "order", order]), 16))
        assert keep(scored, order, 0.3, seed=7) == sorted(torch.randperm(200, generator=generator)[140:].tolist())
    assert keep(scored, "random", 0.3, seed=7) != keep(scored, "random()", 0.3, seed=7)


def test_descending_keeps_the_lowest_nli_as_rop_does(scored):
    with connected(scored, "small") as connection:
        rows = fetch_sql(connection, "SELECT sample_id FROM scores WHERE score = 'nli' ORDER BY rank LIMIT 60")
    assert keep(scored, "nli*", 0.3) == sorted(rows["sample_id"])


def test_a_margin_of_easier_scores_is_turned_for_strata(scored):
    # aum is higher for easier samples: with beta the lowest aum go.
    with connected(scored, "small") as connection:
        rows = fetch_sql(connection, "SELECT sample_id FROM scores WHERE score = 'aum' ORDER BY rank DESC LIMIT 100")
    assert not set(keep(scored, "ccs(aum,beta=0.5)", 0.5)) & set(rows["sample_id"])


def test_craigs_weights_are_written_beside_the_samples(scored, tmp_path):
    chosen = choose_samples(scored, "small", "craig", 0.1)
    assert float(chosen.weights.sum()) == 200
    export_samples(scored, "small", chosen.sample_ids.tolist(), tmp_path / "kept.csv", "", chosen.weights.tolist())
    with open(tmp_path / "kept.csv", newline="") as file:
        rows = {int(row["sample_id"]): float(row["weight"]) for row in csv.DictReader(file)}
    assert rows == dict(zip(chosen.sample_ids.tolist(), chosen.weights.tolist(), strict=True))


def test_class_balance_is_kept(scored):
    kept = keep(scored, "kcenter", 0.5, class_balanced=True)
    with connected(scored, "small") as connection:
        labels = fetch_sql(connection, "SELECT label FROM samples WHERE split = 'train' ORDER BY sample_id")["label"]
    before, after = np.bincount(labels), np.bincount(labels[kept], minlength=10)
    assert np.abs(after - before / 2).max() <= 0.5


@pytest.mark.parametrize(
    ("order", "share", "said"),
    [
        ("random", 0.0, "--keep is 0"),
        ("random", 1.5, "--keep is 1.5"),
        ("ccs", 0.5, "names no score"),
        ("cg", 0.5, "winnow run small --scores cg"),
        ("ccs(cg)", 0.5, "winnow run small --scores cg"),
        ("ccs(nli,betta=1)", 0.5, "did you mean 'beta'"),
    ],
)
def test_what_cannot_be_chosen_is_said(scored, order, share, said):
    with pytest.raises(SpecError, match=said) as error:
        keep(scored, order, share)
    assert "\n" not in str(error.value)


def test_a_set_without_a_run_says_which_to_make(scored):
    for order in ("kcenter", "craig"):
        with pytest.raises(SpecError, match="winnow run bare"):
            choose_samples(scored, "bare", order, 0.5)


def test_kernel_velocity_is_told_for_every_decile_and_pair_of_networks(scored):
    found = velocity_by_decile(scored, "small", "aum", size=2)
    # Five epochs, of each of which TracIn keeps the network: four pairs.
    assert len(found) == 10 * 4
    assert found["velocity"].between(0, 1).all() and (found["velocity"] > 0).any()
    assert sorted(set(zip(found["epoch"], found["until"], strict=True))) == [(1, 2), (2, 3), (3, 4), (4, 5)]
    with pytest.raises(NotFoundError, match="winnow run small --scores cg"):
        velocity_by_decile(scored, "small", "cg")
