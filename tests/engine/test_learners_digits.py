"""What the robust learners gain on digits of which 40 % are labeled at random: over plain cross-entropy, at its last epoch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from engine.data.ingest import ingest
from engine.data.loader import load_split, normalization
from engine.data.request import IngestSpec
from engine.relabel.dividemix import learn_dividemix
from engine.relabel.learner_settings import LEARNER_PRESETS, DivideMixSettings, SopSettings
from engine.relabel.plain import cross_entropy
from engine.relabel.problem import Learned, Problem
from engine.relabel.sop import learn_sop
from engine.store.workspace import Workspace
from engine.training.loop import Normalization

IMAGES = LEARNER_PRESETS["sop+-images"].training


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """(seed, training) -> the problem of digits whose noise, not whose split, has that seed."""
    workspace = Workspace.open(tmp_path_factory.mktemp("learners") / "workspace", create=True)
    ingest(workspace, IngestSpec(name="digits", source="digits"))

    def problem(seed, training):
        name = f"noisy{seed}"
        if not workspace.dataset_path(name).exists():
            ingest(workspace, IngestSpec(name=name, source="dataset:digits", noise="symmetric:0.4", seed=seed))
        train, test = (load_split(workspace, name, split) for split in ("train", "test"))
        assert torch.equal(test.labels, test.true_labels)
        return Problem(train, test, Normalization(*normalization(train)), training)

    return problem


def accuracy(problem: Problem, learned: Learned) -> float:
    return float((learned.test.argmax(1) == problem.test.labels).float().mean())


def corrected(problem: Problem, learned: Learned) -> float:
    """The share of the wrong labels for which the true one is suggested."""
    samples = problem.samples
    wrong = samples.labels != samples.true_labels
    assert abs(float(wrong.float().mean()) - 0.4) < 0.001
    return float((learned.probabilities.argmax(1) == samples.true_labels)[wrong].float().mean())


def test_both_learners_beat_cross_entropy_and_correct_the_labels(digits):
    problem = digits(0, replace(IMAGES, epochs=20, augment="none"))
    before = accuracy(problem, cross_entropy(problem, 0, lambda share: None))
    by_sop = learn_sop(problem, 0, lambda share: None, SopSettings())
    by_dividemix = learn_dividemix(problem, 0, lambda share: None, DivideMixSettings(warm_up=5))
    for learned in (by_sop, by_dividemix):
        assert accuracy(problem, learned) >= before + 0.05
        assert corrected(problem, learned) >= 0.85


@pytest.mark.slow
def test_the_gain_of_the_presets_over_three_seeds(digits):
    gains: dict[str, list[float]] = {"sop+": [], "dividemix": []}
    for seed in range(3):
        problem = digits(seed, IMAGES)
        before = accuracy(problem, cross_entropy(problem, seed, lambda share: None))
        for name, learn in (("sop+", learn_sop), ("dividemix", learn_dividemix)):
            preset = LEARNER_PRESETS[f"{name}-images"]
            assert preset.training == IMAGES
            learned = learn(problem, seed, lambda share: None, preset.settings)
            gains[name].append(accuracy(problem, learned) - before)
            assert corrected(problem, learned) >= 0.85
    for name, values in gains.items():
        margin = student.ppf(0.95, 2) * np.std(values, ddof=1) / 3**0.5
        assert np.mean(values) - margin >= 0.05, (name, values)


@pytest.mark.parametrize("name", LEARNER_PRESETS)
def test_presets_fit_together(name):
    preset = LEARNER_PRESETS[name]
    learner, _, _ = name.partition("-")
    assert isinstance(preset.settings, {"sop+": SopSettings, "dividemix": DivideMixSettings}[learner])
    if isinstance(preset.settings, DivideMixSettings):
        assert preset.settings.warm_up < preset.training.epochs
