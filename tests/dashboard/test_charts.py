"""What the figures hold: traces, colors, areas, fits. That they are painted is looked at in a browser."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dashboard import charts, curves

NAMES = [str(i) for i in range(3)]


def dynamics(margins: dict[int, list[float]]) -> pd.DataFrame:
    """A sample with label 0, whose given logit is 1 throughout, in one seed per entry."""
    rows = [
        {
            "seed": seed,
            "epoch": t,
            "margin": m,
            "logit_given": 1.0,
            "p_given": 0.5,
            "other": 2,
            "predicted": 0,
            "correct": m > 0,
        }
        for seed, values in margins.items()
        for t, m in enumerate(values, start=1)
    ]
    return pd.DataFrame(rows)


def test_lines_get_a_point_exactly_where_they_cross() -> None:
    x, a, b = curves.crossing_points(np.array([1, 2, 3]), np.array([0.0, 4.0, 4.0]), np.array([2.0, 2.0, 6.0]))
    # a - b runs -2, 2, -2: zero halfway between the first two, and halfway between the last two
    assert x.tolist() == [1, 1.5, 2, 2.5, 3]
    assert a.tolist() == [0, 2, 4, 4, 4]
    assert b.tolist() == [2, 2, 2, 4, 6]


def test_lines_that_touch_or_never_cross_stay_as_they_are() -> None:
    for b in ([1.0, 1.0, 1.0], [0.0, 2.0, 0.0]):
        x, _, _ = curves.crossing_points(np.array([1, 2, 3]), np.array([2.0, 2.0, 2.0]), np.array(b))
        assert x.tolist() == [1, 2, 3]


def test_the_area_is_green_ahead_and_hatched_vermilion_behind() -> None:
    figure = curves.trajectory_chart(dynamics({0: [-1.0, 1.0]}), pd.DataFrame(columns=["seed", "epoch"]), 0, 0, NAMES)
    areas = {t.name: t for t in figure.data if t.name in ("ahead", "behind")}
    # the given logit is 1, the other 2 then 0: they cross in the middle, at 1
    assert areas["ahead"].y.tolist() == [2, 1, 1]
    assert areas["behind"].y.tolist() == [1, 1, 0]
    assert areas["ahead"].fillcolor == charts.with_alpha(charts.GREEN, 0.30)
    assert areas["behind"].fillcolor == charts.with_alpha(charts.VERMILION, 0.30)
    assert (areas["ahead"].fillpattern.shape, areas["behind"].fillpattern.shape) == ("", "/")
    assert all(t.fill == "tonexty" for t in areas.values())


def test_the_running_aum_is_the_mean_margin_so_far() -> None:
    figure = curves.trajectory_chart(dynamics({0: [3.0, -1.0, 1.0], 1: [0.0, 0.0, 0.0]}), pd.DataFrame(), 0, 0, NAMES)
    lines = {t.name: t.y for t in figure.data if t.y is not None}
    assert list(lines["running AUM"]) == [3, 1, 1]
    assert list(lines["margin"]) == [3, -1, 1]
    assert list(lines["margin, seed 1"]) == [0, 0, 0]
    assert any("AUM 1.00" in a.text for a in figure.layout.annotations)


def test_what_a_detector_makes_of_an_epoch_is_a_band_behind_what_it_reads() -> None:
    """Vermilion speaks for a wrong label, green for a right one; the strongest epoch has the strongest color."""
    one, adds = dynamics({0: [-1.0, 1.0, 2.0], 1: [0.0, 0.0, 0.0]}), np.array([0.2, -0.1, 0.0])
    figure = curves.trajectory_chart(one, pd.DataFrame(), 0, 0, NAMES, adds=adds)
    (bands,) = (t for t in figure.data if t.type == "bar")
    assert list(bands.x) == [1, 2, 3] and list(bands.customdata) == [0.2, -0.1, 0.0] and bands.yaxis == "y3"
    strong, half, none = charts.with_alpha(charts.VERMILION, 0.7), charts.with_alpha(charts.GREEN, 0.35), 0.0
    assert list(bands.marker.color) == [strong, half, charts.with_alpha(charts.GREEN, none)]
    named = {a.text for a in figure.layout.annotations}
    assert {"+0.20 at most", "\N{MINUS SIGN}0.10 at most", "of seed 0"} <= named
    assert not any(t.type == "bar" for t in curves.trajectory_chart(one, pd.DataFrame(), 0, 0, NAMES).data)


def test_full_logits_are_drawn_when_they_were_kept_and_the_rival_otherwise() -> None:
    one = dynamics({0: [-1.0, 1.0]})
    logits = pd.DataFrame({"seed": [0, 0], "epoch": [1, 2], 0: [1.0, 1.0], 1: [0.1, 0.2], 2: [2.0, 0.0]})
    drawn = {t.name for t in curves.trajectory_chart(one, logits, 0, 0, NAMES).data}
    assert {"0 (given)", "1", "2"} <= drawn
    without = {t.name for t in curves.trajectory_chart(one, logits[:0], 0, 0, NAMES).data}
    assert "largest other" in without
    assert "1" not in without


def test_the_histogram_keeps_the_mislabeled_apart_and_marks_thresholds_once_a_rule() -> None:
    bins = pd.DataFrame({"left": [0.0, 1.0], "right": [1.0, 2.0], "clean": [3, 4], "mislabeled": [2, 0], "unknown": 0})
    figure = charts.histogram_chart(bins, "aum", "easier", [("aum_threshold", 0.5), ("aum_threshold", 0.7)])
    assert {t.name: list(t.y) for t in figure.data} == {"clean  7": [3, 4], "mislabeled  2": [2, 0]}
    assert [s.x0 for s in figure.layout.shapes] == [0.5, 0.7]
    assert [a.text for a in figure.layout.annotations] == ["aum_threshold<br>0.50 and 0.70"]
    assert "harder" in figure.layout.xaxis.title.text.split("<b>")[0]


def test_bars_show_kept_over_total() -> None:
    classes = pd.DataFrame({"class_name": ["cat", "dog"], "n": [3, 0], "total": [4, 5]})
    figure = charts.balance_chart(classes)
    assert [list(t.x) for t in figure.data] == [[4, 5], [3, 0]]
    assert [a.text for a in figure.layout.annotations] == ["75 %", "0 %"]


def test_of_many_classes_the_bars_are_those_that_lose_most() -> None:
    kept = np.arange(1000)
    classes = pd.DataFrame({"class_name": [f"c{i}" for i in kept], "n": kept, "total": 1000})
    figure = charts.balance_chart(classes)
    assert list(figure.data[1].x) == list(range(charts.MOST_BARS)) == [int(i) for i in kept[: charts.MOST_BARS]]
    assert figure.layout.yaxis.ticktext[0] == "c0"


def test_percentiles_are_ordered_with_the_value_beside_the_bar() -> None:
    scores = pd.DataFrame({"score": ["a", "b"], "title": ["A", "B"], "value": [0.5, 2.0], "percentile": [90.0, 10.0]})
    figure = charts.percentile_chart(scores)
    assert list(figure.data[1].y) == ["b", "a"]
    assert {a.y: a.text for a in figure.layout.annotations} == {"a": "0.5", "b": "2"}


def test_no_chart_offers_to_send_itself_elsewhere() -> None:
    assert charts.NO_BAR == {"displayModeBar": False}


def test_spearman_cells_without_a_value_stay_empty() -> None:
    matrix = pd.DataFrame([[1, np.nan], [np.nan, np.nan]], index=["a", "b"], columns=["a", "b"])
    (heat,) = charts.spearman_chart(matrix).data
    assert heat.text.tolist() == [["1.00", ""], ["", ""]]


def test_scores_that_agree_stand_together_in_the_spearman_chart() -> None:
    # b and d agree with each other and c half with both; a agrees with none.
    names = ["a", "b", "c", "d"]
    matrix = pd.DataFrame(
        [[1, 0, 0, 0], [0, 1, 0.5, 0.9], [0, 0.5, 1, 0.5], [0, 0.9, 0.5, 1]], index=names, columns=names, dtype=float
    )
    figure = charts.spearman_chart(matrix)
    (heat,) = figure.data
    assert set(heat.x[:2]) == {"b", "d"} and list(heat.x[2:]) == ["c", "a"] and list(heat.y) == list(heat.x)
    assert heat.z[2].tolist() == [0.5, 0.5, 1, 0] and heat.texttemplate == "%{text}"
    many = pd.DataFrame(np.eye(30))
    assert charts.spearman_chart(many).data[0].texttemplate is None  # nobody could read the numbers


def test_a_long_name_leaves_the_bars_their_width_and_is_whole_under_the_pointer() -> None:
    name = "white toad, adult in winter plumage or coat, seen from the side"
    figure = charts.balance_chart(pd.DataFrame({"class_name": [name], "n": [3], "total": [4]}))
    assert figure.layout.yaxis.ticktext == ("white toad, adult in winter…",)
    assert figure.data[1].text[0] == name
    assert charts.cut("white toad, adult", 13) == "white toad…" and charts.cut("cat", 3) == "cat"


def test_names_of_thresholds_stand_above_the_highest_bar() -> None:
    bins = pd.DataFrame({"left": [0.0], "right": [1.0], "clean": [50], "mislabeled": [100], "unknown": [0]})
    assert charts.histogram_chart(bins, "aum", "easier", [("rule", 0.4)]).layout.yaxis.range[1] > 115
    assert charts.histogram_chart(bins, "aum", "easier", []).layout.yaxis.range is None


def test_the_detection_curve_lies_between_chance_and_the_oracle() -> None:
    curve = pd.DataFrame({"looked_at": [0.0, 0.5, 1.0], "found": [0.0, 0.9, 1.0]})
    chance, oracle, found = charts.detection_curve_chart(curve, "aum", 0.2).data
    assert list(chance.x) == list(chance.y) == [0, 50, 100]
    assert (list(oracle.x), list(oracle.y)) == ([0, 20, 100], [0, 100, 100])
    assert list(found.y) == [0, 90, 100]
