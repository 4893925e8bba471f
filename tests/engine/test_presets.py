"""Presets hold the papers' settings, and their fast forms say everything they change."""

import pytest

from engine.data.noise import parse_noise
from engine.errors import SpecError
from engine.presets import PRESETS, curve_settings, find_preset
from engine.selection.names import parse_order
from engine.spec import PsiSpec
from engine.training.models import MODELS


def test_prune_is_table_1():
    settings = {
        name: (p.model, p.batch_size, p.lr, p.optimizer, p.seeds, p.epochs)
        for name in ("prune-synthetic", "prune-mnist", "prune-cifar10")
        for p in [find_preset(name).training]
    }
    assert settings == {
        "prune-synthetic": ("mlp", 100, 0.01, "adam", 10, 200),
        "prune-mnist": ("mlp", 64, 0.01, "adam", 10, 200),
        "prune-cifar10": ("vgg16", 64, 0.001, "adam", 10, 200),
    }
    # r = 100 of 10,000, 550 of 55,000 and 2,250 of 45,000 samples a step.
    assert [find_preset(n).psi["points"] for n in settings] == [10_000 // 100, 55_000 // 550, 45_000 // 2_250]


def test_settings_of_the_other_papers():
    aum, lstm = find_preset("aum-cifar10").training, find_preset("lstm-cifar100").training
    assert (aum.model, aum.epochs, aum.schedule, aum.observe, aum.batch_size) == (
        "resnet32",
        150,
        "constant",
        "train",
        64,
    )
    assert (lstm.model, lstm.epochs, lstm.schedule, lstm.lr, lstm.batch_size) == ("resnet32", 200, "step", 0.1, 128)
    assert lstm.observe == "train" and lstm.weight_decay == aum.weight_decay == 1e-4
    cg, rop = find_preset("cg-cifar10").training, find_preset("rop-cifar10n").training
    assert (cg.model, cg.epochs, cg.lr, cg.weight_decay, cg.schedule) == ("resnet18", 200, 0.05, 5e-4, "cosine")
    assert (rop.model, rop.epochs, rop.lr, rop.weight_decay) == ("preact_resnet18", 10, 0.02, 5e-4)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_what_exists(name):
    preset = PRESETS[name]
    assert preset.source and preset.training.model in MODELS
    if preset.noise:
        parse_noise(preset.noise)
    if preset.psi:
        psi = {k: v for k, v in preset.psi.items() if k != "seeds"}
        PsiSpec(dataset="d", fingerprint="f", training=preset.training, scores_run=None, **psi)
        for order in preset.psi["orders"]:
            asked = parse_order(order)
            assert asked.score in preset.scores if asked.score else asked.sampler in ("random", "oracle")


@pytest.mark.parametrize("name", [n for n in PRESETS if n.endswith("-fast")])
def test_a_fast_form_says_what_it_changes(name):
    fast, paper = PRESETS[name], PRESETS[name.removesuffix("-fast")]
    assert f"{fast.training.epochs} epochs instead of {paper.training.epochs}" in fast.changes
    if fast.training.seeds != paper.training.seeds:
        assert f"{fast.training.seeds} seeds instead of {paper.training.seeds}" in fast.changes
    if fast.training.model != paper.training.model:
        assert fast.training.model in fast.changes and paper.training.model in fast.changes
    else:
        unchanged = ("batch_size", "lr", "optimizer", "schedule", "augment", "observe", "weight_decay")
        assert all(getattr(fast.training, f) == getattr(paper.training, f) for f in unchanged)
    assert fast.training.observe == paper.training.observe and fast.scores == paper.scores


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(SpecError, match="unknown preset 'prune-minst'; did you mean 'prune-mnist'?"):
        find_preset("prune-minst")


def test_a_curve_takes_what_is_given_then_the_presets():
    paper = find_preset("prune-synthetic")
    asked = curve_settings("prune-synthetic", orders=None, points=7, seeds=None, steps=None)
    assert asked == {**paper.psi, "points": 7, "training": paper.training}
    plain = curve_settings(None, orders=None, points=None, seeds=None, steps=None)
    assert (plain["points"], plain["seeds"], plain["training"]) == (20, 3, None)
    sliding = curve_settings("prune-synthetic", window=True, orders=None)
    assert (sliding["orders"], sliding["points"]) == (("random", "forgetting", "el2n"), 10)
    with pytest.raises(SpecError, match="preset 'aum-cifar10' holds no psi-curve; allowed: prune-synthetic"):
        curve_settings("aum-cifar10")
