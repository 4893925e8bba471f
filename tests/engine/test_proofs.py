"""What a curated set gains: hand-worked means, intervals and sentences."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from engine.queries.proofs import compute_gain, interval

T_2 = 4.30265272974946
"""The 97.5th percentile of Student's t with 2 degrees of freedom, from a table."""


def proof(full, curated, *, held_out=False, trained=80, tested=20, true=None):
    rows = []
    for name, accuracies in (("full", full), ("curated", curated)):
        for seed, accuracy in enumerate(accuracies):
            row = {"seed": seed, "set": name, "accuracy": accuracy, "accuracy_true": true, "samples": trained}
            rows.append({**row, "tested": tested, "held_out": held_out})
    return pd.DataFrame(rows)


def test_the_interval_is_students():
    low, high = interval([0.01, 0.02, 0.03])  # mean 0.02, standard deviation 0.01
    half = T_2 * 0.01 / math.sqrt(3)
    assert (low, high) == pytest.approx((0.02 - half, 0.02 + half), abs=1e-12)
    assert half == pytest.approx(0.024841, abs=1e-6)


def test_shared_samples_widen_the_interval():
    """20 tested of 80 trained: 1 / 3 + 1 / 4 in place of 1 / 3."""
    gain = compute_gain(proof([0.5, 0.5, 0.5], [0.51, 0.52, 0.53], held_out=True))
    assert gain.high - gain.difference == pytest.approx(T_2 * 0.01 * math.sqrt(7 / 12), abs=1e-12)
    plain = compute_gain(proof([0.5, 0.5, 0.5], [0.51, 0.52, 0.53]))
    assert plain.high - plain.difference == pytest.approx(T_2 * 0.01 * math.sqrt(1 / 3), abs=1e-12)


def test_seeds_are_paired():
    """Seeds that differ by far more than the sets do show the gain all the same: 0.10 apart, each 0.02 better or 0.03."""
    gain = compute_gain(proof([0.6, 0.7, 0.8], [0.62, 0.73, 0.82]))
    assert gain.difference == pytest.approx(0.07 / 3) and gain.better is True
    assert (gain.full, gain.curated) == pytest.approx((0.7, 0.7 + 0.07 / 3))
    mixed = compute_gain(proof([0.6, 0.7, 0.8], [0.82, 0.62, 0.73]))  # the same accuracies, of other seeds
    assert mixed.difference == pytest.approx(gain.difference) and mixed.better is None


def test_a_pair_whose_second_network_is_not_trained_yet_does_not_count():
    rows = proof([0.6, 0.7], [0.65, 0.9])
    gain = compute_gain(rows[~((rows["seed"] == 1) & (rows["set"] == "curated"))])
    assert (gain.pairs, gain.difference) == (1, pytest.approx(0.05))
    assert compute_gain(rows[rows["set"] == "full"]) is None


@pytest.mark.parametrize(
    ("full", "curated", "sentence"),
    [
        ([0.9, 0.9, 0.9], [0.92, 0.921, 0.922], "+2.1 points (1.9 to 2.3): the curated set is better"),
        ([0.92, 0.921, 0.922], [0.9, 0.9, 0.9], "-2.1 points (-2.3 to -1.9): the full set is better"),
        ([0.9, 0.9, 0.9], [0.91, 0.92, 0.90], "+1.0 points (-1.5 to 3.5): no difference shown"),
        ([0.9, 0.8], [0.9, 0.8], "0.0 points (0.0 to 0.0): no difference shown"),
        ([0.9], [0.95], "+5.0 points with one seed: no interval, so nothing is shown; --seeds 5 gives one"),
    ],
)
def test_the_verdict_is_a_sentence(full, curated, sentence):
    assert compute_gain(proof(full, curated)).sentence == sentence


def test_without_true_labels_there_is_no_gain_by_them():
    assert compute_gain(proof([0.9], [0.95]), "accuracy_true") is None
    assert compute_gain(proof([0.9], [0.9], true=0.8), "accuracy_true").full == 0.8
