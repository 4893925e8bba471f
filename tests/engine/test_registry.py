"""Every score of the catalog keeps the same promises: shape, dtype, range, and no favorite position."""

import math
import subprocess
import sys
from typing import Any

import pytest
import torch

import engine.runs.inputs  # noqa: F401  # declares what scores read
from engine.errors import ScoreInputError, SpecError
from engine.features.neighbors import compute_neighbors
from engine.scores import registry
from engine.scores.inputs import INPUTS, Input, declare_input, find_input
from engine.scores.registry import (
    EVIDENCE,
    all_scores,
    catalog_row,
    compute_score,
    find_score,
    resolve_scores,
    score,
)
from engine.scores.rules import why_unused
from engine.store.tables import PROPERTIES

N, C, T, D, K, M = 40, 5, 8, 6, 7, 12


def make_inputs(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(N, C, generator=generator)
    p_given = torch.rand(T, N, generator=generator)
    features = torch.randn(N, D, generator=generator)
    neighbor_ids, similarities = compute_neighbors(features, K)
    gaps = {
        "alpha": torch.randn(1, N, generator=generator).double(),
        "inverse_diagonal": 2 + torch.rand(1, N, generator=generator).double(),
        "kernel_labels": torch.randn(1, N, generator=generator).double(),
    }
    return {
        **gaps,
        "feature_alpha": gaps["alpha"] + 1,
        "feature_inverse_diagonal": gaps["inverse_diagonal"] + 1,
        "features": features,
        "neighbor_ids": neighbor_ids,
        "similarities": similarities,
        "head_weight": torch.randn(C, D, generator=generator),
        "head_bias": torch.randn(C, generator=generator),
        "validation_features": torch.randn(M, D, generator=generator),
        "validation_labels": torch.randint(C, (M,), generator=generator),
        "logits": logits,
        "probs": logits.softmax(1),
        "labels": torch.randint(C, (N,), generator=generator),
        "p_given": p_given,
        "margin": torch.randn(T, N, generator=generator),
        "loss": -p_given.log(),
        "correct": p_given > 0.5,
        "gradient_norms": torch.rand(N, generator=generator),
        "checkpoint_probs": torch.randn(4, N, C, generator=generator).softmax(2),
        "checkpoint_squares": torch.rand(4, N, generator=generator),
        "checkpoint_rates": torch.tensor([0.1, 0.1, 0.01, 0.0]),
        "validation_influence": torch.randn(N, generator=generator),
        "heldout_probs": torch.randn(N, C, generator=generator).softmax(1),
        "test_heldout_probs": torch.randn(M, C, generator=generator).softmax(1),
        "refined_probs": torch.randn(N + M, C, generator=generator).softmax(1),
        "incv_selected": torch.rand(N, generator=generator) < 0.5,
        "cscores": torch.rand(N, generator=generator),
        **{name: torch.rand(N, generator=generator).double() for name in PROPERTIES},
        "detector": None,
        "generator": torch.Generator().manual_seed(seed),
    }


def permuted(name: str, value: Any, order: torch.Tensor) -> Any:
    if isinstance(value, torch.Generator):
        return torch.Generator().manual_seed(0)
    axis = INPUTS[name].axis
    if axis is None:
        return value
    if name == "neighbor_ids":
        value = torch.argsort(order)[value]  # the neighbors, too, have moved
    return value.index_select(axis, order)


def test_there_is_an_input_here_for_every_input_of_the_catalog():
    assert set(make_inputs()) == set(INPUTS)


@pytest.mark.parametrize("name", all_scores())
def test_everything_a_score_reads_is_declared(name):
    assert set(all_scores()[name].all_inputs) <= set(INPUTS)


def test_the_axis_of_the_samples_is_that_of_the_shape():
    inputs = make_inputs()
    for name, declared in INPUTS.items():
        if isinstance(inputs[name], torch.Tensor):
            at = [axis for axis, size in enumerate(inputs[name].shape) if size == N]
            assert at == ([] if declared.axis is None else [declared.axis]), name


def test_an_input_is_declared_once_and_a_wrong_name_is_told_the_nearest():
    with pytest.raises(TypeError, match="input logits is declared twice"):
        declare_input(Input("logits", "(N, C) others", "training"))
    with pytest.raises(TypeError, match="input heat has cost 'warm'; allowed: free, inputs, training"):
        declare_input(Input("heat", "(N,) of a sample", "warm"))
    with pytest.raises(TypeError, match="unknown input 'logit'; did you mean 'logits'.*engine.runs.inputs"):
        find_input("logit")


def test_scores_can_be_called_without_the_pipeline():
    code = """
import sys, torch
from engine.scores.registry import compute_score, find_score
logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
print(compute_score(find_score("margin_last"), {"logits": logits, "labels": labels}).tolist())
print(compute_score(find_score("aum"), {"margin": torch.tensor([[1.0, 2.0, 6.0], [3.0, 4.0, 0.0]])}).tolist())
assert not [name for name in sys.modules if name.startswith(("engine.runs", "engine.training", "duckdb"))]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[2.0, -1.0]", "[2.0, 3.0, 3.0]"]


def test_a_score_has_a_version(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    assert find_score("aum").version == 1 and all(found.version >= 1 for found in all_scores().values())

    @score(higher_means="harder", source="this test", version=3)
    def twice_the_loss(logits: torch.Tensor) -> torch.Tensor:
        """Of a test."""
        return logits

    found = find_score("twice_the_loss")
    assert found.version == 3 and catalog_row(found)["version"] == 3
    with pytest.raises(TypeError, match="score twice_the_loss has version 0; allowed: 1 or more"):
        score(higher_means="harder", source="this test", version=0)(twice_the_loss)


def test_a_score_declares_what_it_is_evidence_of(monkeypatch):
    evidence = {name: found.evidence for name, found in all_scores().items()}
    assert set(evidence.values()) <= set(EVIDENCE) and evidence["random"] == "none"
    # How far a prediction wanders or is undecided, or a sample lies from the middle of its class: so do good labels.
    hardness = {
        "forgetting",
        "variability",
        "dyn_unc",
        "dual",
        "entropy",
        "top2_gap",
        "cg_fit",
        "class_median_distance",
    }
    assert {name for name, kind in evidence.items() if kind == "hardness"} == hardness
    for name in ("aum", "confident_learning", "heldout_margin", "el2n", "bmm", "gmm", "knn_vote", "cg_partial"):
        assert evidence[name] == "label"
    # Every rule flags labels as wrong, and its score is about labels; or it flags pictures, and has no vote on labels.
    rules = {found.evidence for found in all_scores().values() if found.flags_above is not None}
    assert rules == {"label", "picture"} and why_unused(0.1) == "" and why_unused(0.1, evidence="picture")
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    def undeclared(logits: torch.Tensor) -> torch.Tensor:
        """Of a test."""
        return logits

    score(higher_means="harder", source="this test")(undeclared)
    assert find_score("undeclared").evidence == "hardness" and catalog_row(find_score("aum"))["evidence"] == "label"
    with pytest.raises(TypeError, match="score undeclared is evidence of 'noise'; allowed: label, hardness, outlier"):
        score(higher_means="harder", source="this test", evidence="noise")(undeclared)


@pytest.mark.parametrize("name", all_scores())
def test_evidence_of_a_label_reads_what_knows_the_label(name):
    # The scores of one epoch's prediction alone, which never see the label, are never evidence of it.
    found = all_scores()[name]
    if found.evidence == "label":
        assert not set(found.inputs) <= {"probs", "features", "similarities"}


@pytest.mark.parametrize("name", all_scores())
def test_shape_dtype_and_range(name):
    found = all_scores()[name]
    value = compute_score(found, make_inputs())
    low, high = found.value_range
    assert value.shape == (N,)
    assert value.dtype == torch.float32
    assert float(value.min()) >= low - 1e-6 and float(value.max()) <= high + 1e-6


@pytest.mark.parametrize("name", [n for n, s in all_scores().items() if "generator" not in s.inputs])
def test_permuting_the_samples_permutes_the_score(name):
    found, inputs = all_scores()[name], make_inputs()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(9))
    shuffled = {key: permuted(key, value, order) for key, value in inputs.items()}
    assert torch.allclose(compute_score(found, shuffled), compute_score(found, inputs)[order], atol=1e-6)


@pytest.mark.parametrize("name", all_scores())
def test_inputs_are_left_as_they_were(name):
    found, inputs, same = all_scores()[name], make_inputs(), make_inputs()
    compute_score(found, inputs)
    assert all(torch.equal(inputs[key], same[key]) for key in found.inputs if isinstance(inputs[key], torch.Tensor))


def is_real(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


@pytest.mark.parametrize(
    "name, key", [(n, i) for n, s in all_scores().items() for i in s.inputs if is_real(make_inputs()[i])]
)
def test_a_bad_value_is_named(name, key):
    found, inputs, row = all_scores()[name], make_inputs(), 3
    inputs[key].select(INPUTS[key].axis or 0, row).fill_(math.nan)
    with pytest.raises(ScoreInputError, match=rf"^{key} of (sample|row) {row} is not finite"):
        compute_score(found, inputs)


def test_inputs_of_different_numbers_of_samples_are_refused():
    inputs = make_inputs()
    inputs["labels"] = inputs["labels"][:-1]
    with pytest.raises(ScoreInputError, match="different numbers of samples"):
        compute_score(find_score("el2n"), inputs)


@pytest.mark.parametrize("name", all_scores())
def test_a_score_says_what_it_is(name):
    found = all_scores()[name]
    text = found.function.__doc__ or ""
    row = catalog_row(found)
    assert "Args:" in text and "Returns:" in text
    assert row["higher_means"] in ("harder", "easier") and f"higher = {row['higher_means']}" in text or name == "random"
    assert row["title"] and row["source"] and row["value_min"] < row["value_max"]


def test_an_unknown_score_names_the_nearest():
    with pytest.raises(SpecError) as error:
        find_score("el2m")
    assert str(error.value) == "unknown score 'el2m'; did you mean 'el2n'? (winnow scores lists them)"


def test_an_epoch_can_be_chosen_for_scores_of_one_epoch():
    found = find_score("el2n@5")
    assert (found.name, found.epoch, found.at(20), found.at(3)) == ("el2n@5", 5, 5, 3)
    assert find_score("margin_last").at(20) == 20


@pytest.mark.parametrize("name", ["aum@3", "cg@3", "el2n@", "el2n@0", "el2n@-1"])
def test_a_wrong_epoch_is_refused(name):
    with pytest.raises(SpecError, match="score"):
        find_score(name)


def test_scores_are_resolved_once_each():
    names = [s.name for s in resolve_scores(["aum", "all", "aum"])]
    assert names[0] == "aum" and sorted(names) == sorted(all_scores())
    heavy = {
        "cg",
        "cg_partial",
        "cg_fit",
        "cg_forward",
        "cg_feature",
        "grand",
        "incv",
        "consistency",
    }
    assert set(all_scores()) - {s.name for s in resolve_scores(["standard"])} == heavy
    with pytest.raises(SpecError, match="no score was given"):
        resolve_scores([])


@pytest.mark.parametrize("name", [n for n, s in all_scores().items() if s.flags_by])
def test_a_rule_of_its_own_judges_every_sample(name):
    found, inputs = all_scores()[name], make_inputs()
    values = found.flags_by(*(inputs[key] for key in found.rule_inputs))
    assert values.shape == (N,) and bool(torch.isfinite(values).all())
    order = torch.randperm(N, generator=torch.Generator().manual_seed(9))
    shuffled = found.flags_by(*(permuted(key, inputs[key], order) for key in found.rule_inputs))
    assert torch.allclose(shuffled, values[order])


def test_ranges_are_numbers():
    assert all(not math.isnan(limit) for s in all_scores().values() for limit in s.value_range)
