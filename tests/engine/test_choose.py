"""Samplers on what a run has published, and kernel velocities of the networks that it kept."""

import numpy as np
import pytest

from engine.choose import choose_samples, parse_options
from engine.compute import compute
from engine.data.ingest import IngestSpec, ingest
from engine.errors import NotFoundError, SpecError
from engine.pipeline import plan_run
from engine.queries import connected, fetch_sql
from engine.selection.samplers import SAMPLERS
from engine.spec import TrainingSpec
from engine.velocity import velocity_by_decile
from engine.workspace import Workspace


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A workspace with `small`, whose scores nli and aum are there, and `bare`, without a run."""
    workspace = Workspace.open(tmp_path_factory.mktemp("choose") / "workspace", create=True)
    ingest(workspace, IngestSpec(name="small", source="digits", limit=200, noise="symmetric:0.2"))
    ingest(workspace, IngestSpec(name="bare", source="digits", limit=100))
    training = TrainingSpec(epochs=5, seeds=1, batch_size=64)
    compute(workspace, plan_run(workspace, "small", ["nli", "aum"], training, threshold_rounds=0), "cpu")
    return workspace


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_keeps_what_was_asked_and_the_same_again(scored, sampler):
    first, again = (choose_samples(scored, "small", sampler, 0.25, score="nli") for _ in range(2))
    assert first.tolist() == again.tolist()
    assert len(first) == 50 and len(set(first.tolist())) == 50


def test_descending_keeps_the_lowest_nli_as_rop_does(scored):
    kept = choose_samples(scored, "small", "descending", 0.3, score="nli").tolist()
    with connected(scored, "small") as connection:
        rows = fetch_sql(connection, "SELECT sample_id FROM scores WHERE score = 'nli' ORDER BY rank LIMIT 60")
    assert kept == sorted(rows["sample_id"])


def test_a_margin_of_easier_scores_is_turned_for_strata(scored):
    # aum is higher for easier samples: with beta the lowest aum go.
    kept = set(choose_samples(scored, "small", "ccs", 0.5, score="aum", options={"beta": 0.5}).tolist())
    with connected(scored, "small") as connection:
        rows = fetch_sql(connection, "SELECT sample_id FROM scores WHERE score = 'aum' ORDER BY rank DESC LIMIT 100")
    assert not kept & set(rows["sample_id"])


def test_class_balance_is_kept(scored):
    kept = choose_samples(scored, "small", "kcenter", 0.5, class_balanced=True).tolist()
    with connected(scored, "small") as connection:
        labels = fetch_sql(connection, "SELECT label FROM samples WHERE split = 'train' ORDER BY sample_id")["label"]
    before, after = np.bincount(labels), np.bincount(labels[kept], minlength=10)
    assert np.abs(after - before / 2).max() <= 0.5


@pytest.mark.parametrize(
    ("sampler", "keep", "given", "said"),
    [
        ("kcentre", 0.5, {}, "did you mean 'kcenter'"),
        ("random", 0.0, {}, "--keep is 0"),
        ("random", 1.5, {}, "--keep is 1.5"),
        ("ccs", 0.5, {}, "name one with --score"),
        ("ccs", 0.5, {"score": "cg"}, "winnow run small --scores cg"),
        ("ccs", 0.5, {"score": "nli", "options": {"betta": 1}}, "did you mean 'beta'"),
    ],
)
def test_what_cannot_be_chosen_is_said(scored, sampler, keep, given, said):
    with pytest.raises((SpecError, NotFoundError), match=said) as error:
        choose_samples(scored, "small", sampler, keep, **given)
    assert "\n" not in str(error.value)


def test_a_set_without_a_run_says_which_to_make(scored):
    for sampler in ("kcenter", "craig"):
        with pytest.raises(NotFoundError, match="winnow run bare"):
            choose_samples(scored, "bare", sampler, 0.5)


def test_options_are_numbers_of_the_samplers_own():
    assert parse_options("ccs", ["beta=0.2", "strata=20"]) == {"beta": 0.2, "strata": 20}
    with pytest.raises(SpecError, match="write it like beta=0.0"):
        parse_options("ccs", ["beta=much"])
    with pytest.raises(SpecError, match="unknown option of random 'beta'"):
        parse_options("random", ["beta=1"])


def test_kernel_velocity_is_told_for_every_decile_and_pair_of_networks(scored):
    found = velocity_by_decile(scored, "small", "aum", size=2)
    # Five epochs, of each of which TracIn keeps the network: four pairs.
    assert len(found) == 10 * 4
    assert found["velocity"].between(0, 1).all() and (found["velocity"] > 0).any()
    assert sorted(set(zip(found["epoch"], found["until"], strict=True))) == [(1, 2), (2, 3), (3, 4), (4, 5)]
    with pytest.raises(NotFoundError, match="winnow run small --scores cg"):
        velocity_by_decile(scored, "small", "cg")
