"""Curves of accuracy against the share pruned: their means, what stands out on them, and what is drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dashboard import psi_charts


def points(curves: dict[str, list[tuple[float, float]]], run_id: str = "a") -> pd.DataFrame:
    """Curves of 100 samples, 20 pruned a point; each point the accuracies of two seeds."""
    return pd.DataFrame(
        [
            {
                "run_id": run_id, "order": order, "seed": seed, "pruned": 20 * i, "kept_fraction": 1 - 0.2 * i,
                "accuracy": value,
            }
            for order, values in curves.items()
            for i, pair in enumerate(values)
            for seed, value in enumerate(pair)
        ]
    )  # fmt: skip


TWO = {"random": [(0.90, 0.80), (0.60, 0.50)], "oracle": [(0.90, 0.80), (0.95, 0.85)]}


def test_the_mean_is_a_dot_on_the_line_and_every_network_a_faint_one() -> None:
    two = points(TWO)
    means = psi_charts.curve_means(two)
    figure = psi_charts.psi_chart(two, means, psi_charts.curve_names(means, {"a": "x"}))
    lines = {t.name: t for t in figure.data if t.mode == "lines+markers"}
    assert np.allclose(lines["random"].x, [0, 20])
    assert np.allclose(lines["random"].y, [85, 55])
    assert np.allclose(lines["oracle"].y, [85, 90])
    assert [lines["oracle"].customdata[1][i] for i in range(3)] == pytest.approx([85, 95, 2])
    assert sum(len(t.x) for t in figure.data if t.mode == "markers") == 8
    assert {a.text for a in figure.layout.annotations} == {"random", "oracle"}


def test_a_cross_is_the_first_point_below_the_tolerance_and_a_star_the_best() -> None:
    accuracy = [0.90, 0.92, 0.895, 0.88, 0.91]  # falls by 2 points at 60 % pruned, and comes back
    one = points({"el2n": [(a, a) for a in accuracy]})
    means = psi_charts.curve_means(one)
    (mark,) = psi_charts.curve_marks(means, 1.0).itertuples()
    assert (mark.full, mark.best, mark.best_at) == pytest.approx((90, 92, 20))
    assert (mark.within, mark.drop, mark.drop_at) == pytest.approx((40, 88, 60))
    (mark,) = psi_charts.curve_marks(means, 0.2).itertuples()
    assert (mark.within, mark.drop_at) == pytest.approx((20, 40))
    (mark,) = psi_charts.curve_marks(means, 5.0).itertuples()
    assert mark.within == pytest.approx(80) and np.isnan(mark.drop_at)
    figure = psi_charts.psi_chart(
        one, means, psi_charts.curve_names(means, {"a": "x"}), psi_charts.curve_marks(means, 1.0), ("a", "el2n", 80)
    )
    drawn = {t.name: t for t in figure.data if t.name in ("star", "x", "chosen")}
    assert [(float(t.x[0]), float(t.y[0])) for t in map(drawn.get, ("star", "x", "chosen"))] == [
        pytest.approx(at) for at in ((20, 92), (60, 88), (80, 91))
    ]


def test_the_axes_stay_while_points_arrive() -> None:
    """0 to 100 % pruned from the first point on; accuracy from whole five to whole five, which only move apart."""
    curves = {
        "random": [(0.912, 0.904), (0.60, 0.58), (0.31, 0.30)],
        "oracle": [(0.912, 0.904), (0.97, 0.96), (0.9, 0.9)],
    }
    everything, ranges = points(curves), []
    for count in range(1, len(everything) + 1):
        some = everything.iloc[:count]
        means = psi_charts.curve_means(some)
        figure = psi_charts.psi_chart(some, means, psi_charts.curve_names(means, {"a": "x"}))
        low, high = figure.layout.xaxis.range
        assert -3 < low < 0 and 100 < high < 103
        ranges.append(figure.layout.yaxis.range)
    assert ranges[0] == (89, 96) and ranges[-1] == (29, 101)  # of 91.2 %, and of 30 to 97 %
    for before, after in zip(ranges, ranges[1:], strict=False):
        assert after[0] <= before[0] and after[1] >= before[1]
    assert len(set(ranges)) == 5  # of 12 networks


def test_every_point_that_can_be_clicked_says_which_it_is() -> None:
    two = points(TWO)
    means = psi_charts.curve_means(two)
    marks = psi_charts.curve_marks(means, 1.0)
    figure = psi_charts.psi_chart(two, means, psi_charts.curve_names(means, {"a": "x"}), marks)
    named = {tuple(one[-3:]) for t in figure.data if t.hoverinfo != "skip" for one in t.customdata}
    assert named == {("a", order, pruned) for order in TWO for pruned in (0, 20)}


def test_a_curve_whose_full_set_is_not_measured_yet_has_no_marks() -> None:
    means = psi_charts.curve_means(points(TWO))
    assert psi_charts.curve_marks(means[means["pruned"] > 0], 1.0).empty


def test_several_runs_have_names_and_dashes_of_their_own() -> None:
    both = pd.concat([points(TWO), points({"random": TWO["random"]}, "b")])
    means = psi_charts.curve_means(both)
    names = psi_charts.curve_names(means, {"a": "mnist", "b": "digits"})
    assert names["a", "random"] == "random · mnist" and names["b", "random"] == "random · digits"
    figure = psi_charts.psi_chart(both, means, names)
    dashes = {t.name: t.line.dash for t in figure.data if t.mode == "lines+markers"}
    assert dashes["random · mnist"] == dashes["oracle · mnist"] != dashes["random · digits"]


def test_a_score_that_knows_no_noise_shows_its_stability_alone() -> None:
    quality = pd.DataFrame({"epoch": [1, 2, 3], "roc_auc": np.nan, "stability": [0.5, 0.9, np.nan]})
    figure = psi_charts.epoch_chart(quality, "el2n", 2)
    assert [(t.name, list(t.x)) for t in figure.data] == [("rank stability", [1, 2])]
    assert figure.layout.shapes[0].x0 == 2
