"""What the papers' figures hold: panels, lines, areas, bars. That they are painted is looked at in a browser."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dashboard import charts
from dashboard.figures import aum_paper, cg_appendix, cg_paper, lstm_paper, prune_paper, rop_paper
from dashboard.figures.declare import all_figures, paper_figure
from dashboard.markup import chart_text


def curve(order: str, accuracies: list[float], seed: int = 0) -> pd.DataFrame:
    """One seed's points at 0, 20, 40 ... of 100 samples pruned."""
    steps = range(len(accuracies))
    return pd.DataFrame(
        {
            "run_id": "a", "order": order, "seed": seed, "pruned": [20 * i for i in steps],
            "kept_fraction": [1 - 0.2 * i for i in steps], "accuracy": accuracies,
        }
    )  # fmt: skip


def lines(figure: object, axis: str = "x") -> dict[str, list[float]]:
    """The heights of the named lines of one panel."""
    traces = figure.data  # type: ignore[attr-defined]
    return {
        t.name: np.asarray(t.y, float).round(6).tolist()
        for t in traces
        if t.name and t.type == "scatter" and str(t.mode).startswith("lines") and (t.xaxis or "x") == axis
    }


def test_prune_1_and_2_are_a_line_per_order() -> None:
    points = pd.concat([curve("random", [0.9, 0.8]), curve("el2n*", [0.9, 0.95])])
    assert lines(prune_paper.pruning_figure(points)) == {"random": [90, 80], "el2n*": [90, 95]}


def test_prune_3_colors_the_corrupted_and_fits_all() -> None:
    points = pd.DataFrame({"x": [0, 1, 2, 3], "y": [1, 3, 5, 7], "wrong": [False, True, False, False]})
    figure = prune_paper.rank_figure({"el2n": points, "forgetting": points})
    named = [(t.name, t.xaxis) for t in figure.data]
    assert named == [(n, x) for x in ("x", "x2") for n in ("not corrupted", "corrupted", "linear fit")]
    corrupted, fit = figure.data[1], figure.data[2]
    assert (list(corrupted.x), list(corrupted.y), corrupted.marker.color) == ([1], [3], charts.VERMILION)
    assert fit.y.tolist() == pytest.approx([1, 7]) and fit.line.dash == "dash"


def test_cg_1_colors_labels_and_crosses_the_wrong_ones_beside_the_inverse_kernel() -> None:
    table = pd.DataFrame(
        {"x": [-1.0, 0.5, 1.0, 0.0], "y": [1.0, 2.0, 3.0, 9.0], "second": [False, True, True, False], "wrong": [False] * 3 + [True]}
    )  # fmt: skip
    figure = cg_paper.place_figure(
        np.array([[2.0, -0.5], [-0.5, 2.0]]), {"<b>x": table, "y": table[:1]}, ("cat", "<i>")
    )
    assert [a.text for a in figure.layout.annotations] == ["(a) inverse of the kernel", chart_text("<b>x"), "y"]
    heat, *dots = figure.data
    assert heat.z.tolist() == [[2, -0.5], [-0.5, 2]] and heat.zmin == -heat.zmax
    assert [(t.name, t.xaxis, list(t.y), t.marker.symbol) for t in dots] == [
        ("labeled cat", "x2", [1], "circle"), (chart_text("labeled <i>"), "x2", [2, 3], "circle"),
        ("wrong label", "x2", [9], "cross"), ("labeled cat", "x3", [1], "circle"),
    ]  # fmt: skip
    assert [t.showlegend for t in dots] == [True, True, True, False]


def test_cg_5_is_the_correlation_by_the_number_of_subsets() -> None:
    table = pd.DataFrame(
        {"ratio": [1, 1, 2], "runs": [1, 2, 1], "spearman": [0.5, 0.6, 0.8], "pearson": [0.1, 0.2, 0.3]}
    )
    figure = cg_appendix.convergence_figure(table)
    assert lines(figure) == {"1 : 1": [0.5, 0.6], "1 : 2": [0.8]}
    assert lines(figure, "x2") == {"1 : 1": [0.1, 0.2], "1 : 2": [0.3]}


def test_cg_2_prunes_low_on_the_left_and_high_on_the_right_beside_random_and_the_full_set() -> None:
    points = pd.concat(
        [curve("cg", [0.9, 0.8], 0), curve("cg", [0.9, 0.6], 1), curve("cg*", [0.9, 0.4]), curve("random", [0.9, 0.7])]
    )
    figure = cg_paper.pruning_figure(points)
    assert lines(figure) == {"cg": [90, 70], "random": [90, 70], "full set": [90, 90]}
    assert lines(figure, "x2") == {"cg": [90, 40], "random": [90, 70], "full set": [90, 90]}
    band = next(t for t in figure.data if t.fill == "toself")
    spread = np.std([80, 60], ddof=1)
    assert np.allclose(band.y, [90, 70 + spread, 70 - spread, 90])


def test_cg_3_has_densities_of_area_one_and_every_score_between_chance_and_oracle() -> None:
    bins = pd.DataFrame({"left": [0.0, 0.5], "right": [0.5, 1.0], "clean": [3, 1], "mislabeled": [0, 2]})
    found = pd.DataFrame({"looked_at": [0.0, 0.5, 1.0], "found": [0.0, 0.9, 1.0]})
    figure = cg_paper.detection_figure(bins, {"cg": found, "el2n": found}, 0.25)
    for bar in (t for t in figure.data if t.type == "bar"):
        assert sum(np.asarray(bar.y) * np.asarray(bar.width)) == pytest.approx(1)
    drawn = lines(figure, "x2")
    assert drawn["cg"] == [0, 90, 100] and drawn["oracle"] == [0, 100, 100] and drawn["random"] == [0, 100]


def test_cg_4_draws_ten_groups_from_blue_to_red_and_velocity_where_there_is_some() -> None:
    curves = pd.DataFrame(
        [{"decile": d, "epoch": t, "loss": d / t, "accuracy": 1 - d / 20} for d in range(10) for t in (1, 2)]
    )
    bare = cg_paper.decile_figure(curves, pd.DataFrame(columns=["decile", "until", "velocity"]), "cg")
    assert len(bare.data) == 20 and lines(bare)["decile 10 by cg"] == [9, 4.5]
    assert lines(bare, "x2")["decile 5 by cg"] == [80, 80]
    velocity = pd.DataFrame({"decile": range(10), "until": 2, "velocity": 0.1})
    whole = cg_paper.decile_figure(curves, velocity, "cg")
    assert len(whole.data) == 30 and lines(whole, "x3")["decile 1 by cg"] == [0.1]
    first, last = whole.data[0].line.color, whole.data[-1].line.color
    assert (first, last) == ("rgb(33, 102, 172)", "rgb(178, 24, 43)")


def test_cg_6_draws_the_panels_there_is_something_for() -> None:
    windows = pd.DataFrame(
        {"score": "cg", "offset": [0, 0, 0.5, 0.5], "seed": [0, 1, 0, 1], "accuracy": [0.5, 0.7, 0.8, 0.8]}
    )
    scatter = pd.DataFrame({"x": [-1.0, 2.0], "y": [0.0, 3.0], "wrong": [False, True]})
    both = cg_paper.window_figure(windows, scatter)
    assert lines(both) == {"cg": [60, 80]}
    assert [(t.name, t.xaxis) for t in both.data[-2:]] == [("clean", "x2"), ("mislabeled", "x2")]
    assert [t.name for t in cg_paper.window_figure(pd.DataFrame(), scatter).data] == ["clean", "mislabeled"]
    assert lines(cg_paper.window_figure(windows, pd.DataFrame())) == {"cg": [60, 80]}


def test_aum_2_is_green_where_the_given_label_leads_and_vermilion_where_it_does_not() -> None:
    rows = [
        {"part": part, "given": 0, "other": 1, "n": 50, "epoch": t, "label": label, "logit": logit}
        for part, given, other in (("easy", 3.0, 1.0), ("mislabeled", 1.0, 3.0))
        for t in (1, 2)
        for label, logit in ((0, given), (1, other), (2, 0.0))
    ]
    figure = aum_paper.logit_figure(pd.DataFrame(rows), ["dog", "bird", "cat"])
    areas = {(t.name, t.xaxis): list(t.y) for t in figure.data if t.fill == "tonexty"}
    assert areas["ahead", "x"] == [3, 3] and areas["behind", "x"] == [1, 1]
    assert areas["ahead", "x2"] == [3, 3] and areas["behind", "x2"] == [1, 1]
    assert [a.text for a in figure.layout.annotations] == ["dog, easy to learn", "bird, mislabeled as dog"]


def test_aum_3_marks_every_threshold() -> None:
    bins = pd.DataFrame({"left": [0.0], "right": [1.0], "clean": [3], "mislabeled": [1], "unknown": [0]})
    bare = aum_paper.threshold_figure(bins, [0.4, 0.6])
    assert [s.x0 for s in bare.layout.shapes] == [0.4, 0.6]
    figure = aum_paper.threshold_figure(bins, [0.4], [0.1, 0.3], 90)
    assert len(figure.data) == len(bare.data) + 1 and list(figure.data[-1].x) == [0.1, 0.3]
    assert any(chart_text("90 % of the threshold samples") in str(a.text) for a in figure.layout.annotations)


def test_aum_5_is_the_error_and_the_share_the_threshold_flags() -> None:
    points = pd.concat([curve("random", [0.9, 0.8]), curve("aum*", [0.9, 0.95])])
    figure = aum_paper.removal_figure(points, 0.2)
    assert lines(figure) == {"at random": [10, 20], "lowest AUM first": [10, 5]}
    assert figure.layout.shapes[0].x0 == pytest.approx(20)
    assert not aum_paper.removal_figure(points, None).layout.shapes


def test_aum_6_is_the_margin_and_beside_it_its_running_mean() -> None:
    pair = pd.DataFrame(
        {
            "sample_id": [4, 4, 7, 7], "wrong": [False, False, True, True], "epoch": [1, 2, 1, 2],
            "margin": [1.0, 3.0, -1.0, 1.0], "aum": [1.0, 2.0, -1.0, 0.0],
        }
    )  # fmt: skip
    figure = aum_paper.margin_figure(pair)
    assert lines(figure) == {"clean, sample 4": [1, 3], "mislabeled, sample 7": [-1, 1]}
    assert lines(figure, "x2") == {"clean, sample 4": [1, 2], "mislabeled, sample 7": [-1, 0]}


def test_rop_3_is_a_bar_per_bin_in_front_of_the_labels_as_they_are() -> None:
    bins = pd.DataFrame(
        {"left": [0.0, 0.1], "right": [0.1, 0.2], "n": [5, 2], "accuracy": [1.0, 0.5], "given": [0.8, 0.0]}
    )
    before, after = rop_paper.relabeling_figure(bins).data
    assert list(before.y) == [80, 0] and list(after.y) == [100, 50]
    assert list(after.customdata[1]) == [0.1, 0.2, 2]


def test_aum_4_and_7_are_precision_and_recall_by_the_share_of_wrong_labels() -> None:
    rules = pd.DataFrame(
        {
            "rule": ["aum_threshold", "gmm", "aum_threshold"], "rate": [0.4, 0.4, 0.2],
            "precision": [0.9, 0.5, 0.8], "recall": [0.7, np.nan, 0.6],
        }
    )  # fmt: skip
    figure = aum_paper.rules_figure(rules)
    assert lines(figure)["aum_threshold"] == [80, 90] and lines(figure, "x2")["aum_threshold"] == [60, 70]
    assert lines(figure)["gmm"] == [50] and [t.x.tolist() for t in figure.data if t.name == "gmm"] == [[40], [40]]


def test_rop_1_is_accuracy_by_the_share_kept_on_clean_and_on_noisy_labels() -> None:
    clean = pd.concat([curve("grand@5", [0.9, 0.8], 0), curve("grand@5", [0.9, 0.6], 1), curve("random", [0.9, 0.7])])
    noisy = pd.concat([curve("nli*", [0.5, 0.6]), curve("el2n", [0.5, 0.1])])
    figure = rop_paper.selection_figure({"digits": clean, "<i>x": noisy})
    assert [a.text for a in figure.layout.annotations] == ["digits", chart_text("<i>x")]
    assert lines(figure) == {"largest gradients": [70, 90], "random": [70, 90], "full set": [90, 90]}
    assert lines(figure, "x2") == {"agreeing neighbors (NLI)": [60, 50], "full set": [50, 50]}
    assert next(t for t in figure.data if t.fill == "toself").y == (80, 90, 90, 60)


def relabeled(subset: str, learner: str, kept: float, accuracies: list[float], neighbors: int = 15) -> pd.DataFrame:
    """The networks of one selection, a seed for each accuracy."""
    columns = {"name": subset, "learner": learner, "kept_fraction": kept, "neighbors": neighbors}
    return pd.DataFrame({**columns, "seed": range(len(accuracies)), "accuracy": accuracies})


def test_rop_4_is_accuracy_by_the_share_kept_a_line_for_each_selection_and_a_panel_for_each_learner() -> None:
    found = pd.concat(
        [
            relabeled("rop", "sop+", 0.4, [0.9]), relabeled("rop", "sop+", 0.2, [0.6, 0.8]),
            relabeled("random", "sop+", 0.2, [0.5]), relabeled("rop, <i>", "cross-entropy", 0.2, [0.3]),
        ]
    )  # fmt: skip
    figure = rop_paper.compared_figure(found)
    assert [a.text for a in figure.layout.annotations] == ["labels as they are", "corrected by sop+"]
    assert lines(figure) == {chart_text("ROP, <i>"): [30]}
    assert lines(figure, "x2") == {"ROP": [70, 90], "random": [50]}
    ropes = [t for t in figure.data if t.name == "ROP"]
    assert ropes[0].x.tolist() == [20, 40] and ropes[0].line.color != charts.GRAY
    assert np.round([t.y for t in figure.data if t.fill == "toself" and len(t.y) == 4], 6).tolist() == [
        [80, 90, 90, 60]
    ]


def test_rop_5_is_a_bar_for_each_selection_the_slowest_at_the_top() -> None:
    nan = float("nan")
    figure = rop_paper.time_figure([("ROP", nan, 3.0), ("GraNd", 2.0, 0.5), ("random", nan, 0.0)])
    training, score, both = figure.data
    assert list(training.y) == ["random", "GraNd", "ROP"]  # the last is drawn at the top
    assert np.array_equal(training.x, [nan, 2, nan], equal_nan=True)
    assert np.array_equal(score.x, [nan, 0.5, nan], equal_nan=True) and np.array_equal(
        both.x, [0, nan, 3], equal_nan=True
    )
    assert [(a.x, a.text) for a in figure.layout.annotations] == [(0, "0 s"), (2.5, "2.5 s"), (3, "3 s")]
    assert [part.name for part in rop_paper.time_figure([("GraNd", 2.0, 0.5)]).data] == [
        "training one network",
        "the score",
    ]


def test_rop_6_is_a_line_for_each_number_of_neighbors() -> None:
    found = pd.concat(
        [relabeled("rop", "sop+", 0.2, [0.5, 0.7], 20), relabeled("rop", "sop+", 0.4, [0.8], 20),
         relabeled("rop", "sop+", 0.2, [0.9], 5)]
    )  # fmt: skip
    assert lines(rop_paper.neighbors_figure(found)) == {"K = 5": [90], "K = 20": [60, 80]}


def test_lstm_1_is_the_mean_of_both_groups_with_a_band_that_stays_a_probability() -> None:
    table = pd.DataFrame(
        {
            "wrong": [False, False, True, True],
            "epoch": [1, 2] * 2,
            "mean": [0.5, 0.9, 0.1, 0.2],
            "spread": [0.1, 0.3] * 2,
        }
    )
    figure = lstm_paper.dynamics_figure({"a: symmetric:0.2": table, "b": table}, True)
    assert lines(figure) == lines(figure, "x2") == {"right label": [0.5, 0.9], "wrong label": [0.1, 0.2]}
    bands = [np.round(t.y, 6).tolist() for t in figure.data if t.fill == "toself"]
    assert bands[:2] == [[0.6, 1.0, 0.6, 0.4], [0.2, 0.5, 0.0, 0.0]]
    assert set(lines(lstm_paper.dynamics_figure({"a": table}, False))) == {"on the shortlist", "not on the shortlist"}


def test_lstm_5_is_a_cell_for_every_detector_on_every_dataset() -> None:
    found = pd.DataFrame(
        {"detector": ["a", "a", "b"], "dataset": ["<b>x", "y", "y"], "average_precision": [0.5, 1.0, 0.25]}
    )
    figure = lstm_paper.transfer_figure(found)
    cells = figure.data[0]
    assert (list(cells.x), list(cells.y)) == ([chart_text("<b>x"), "y"], ["a", "b"])
    assert np.array_equal(cells.z, [[0.5, 1.0], [np.nan, 0.25]], equal_nan=True)
    numbers = {(a.x, a.y): a.text for a in figure.layout.annotations if a.text}
    assert numbers == {(0, 0): "0.500", (1, 0): "1.000", (1, 1): "0.250"}


def test_lstm_8_colors_what_speaks_for_a_wrong_label() -> None:
    figure = lstm_paper.attention_figure({"one": ([0.2, -0.1], [0.3, 0.9]), "two": ([-0.3, 0.0], [0.8, 0.9])})
    bars = [(t.name, t.xaxis, list(t.y), t.marker.color) for t in figure.data if t.type == "bar"]
    assert bars == [
        ("speaks for a wrong label", "x", [0.2, 0], charts.VERMILION),
        ("speaks against it", "x", [0, -0.1], charts.BLUE),
        ("speaks for a wrong label", "x2", [0, 0], charts.VERMILION),
        ("speaks against it", "x2", [-0.3, 0], charts.BLUE),
    ]
    assert lines(figure, "x2") == {"probability of the given label": [0.8, 0.9]}


def test_cg_8_has_every_class_and_pictures_of_the_chosen_from_both_ends() -> None:
    means = pd.DataFrame(
        {"label": [1, 0], "class_name": ["<b>cat", "dog"], "n": [3, 2], "mean": [0.5, 2.0], "spread": [0.1, 0.0]}
    )
    bins = pd.DataFrame({"label": [1, 1], "left": [0.0, 1.0], "right": [1.0, 2.0], "n": [2, 1]})
    ends = pd.DataFrame(
        {"label": [1, 1, 0], "highest": [True, False, True], "place": [0, 6, 1], "thumbnail": [b"a", b"b", b"c"]}
    )
    figure = cg_appendix.class_figure("cg", means, bins, ends, [1])
    every, shown = figure.data
    assert (list(every.x), list(every.y), list(every.error_y.array)) == (
        [chart_text("<b>cat"), "dog"],
        [0.5, 2.0],
        [0.1, 0.0],
    )
    assert list(every.marker.color) == [charts.VERMILION, charts.BLUE]
    assert (list(shown.x), list(shown.y), list(shown.width)) == ([0.5, 1.5], [2, 1], [1, 1])
    pictures = [(i.source, round(i.x, 2), round(i.y, 2)) for i in figure.layout.images]
    # ten a class: the first of the highest stands left above, the seventh of the lowest second in the second line
    assert pictures == [("data:image/webp;base64,YQ==", 0.04, 5.0), ("data:image/webp;base64,Yg==", 1.04, 1.2)]


def test_cg_10_is_of_the_newest_curves_of_another_network_than_the_first() -> None:
    networks = pd.DataFrame({"run_id": ["d", "c", "b", "a"], "model": ["cnn", "mlp", "linear", "mlp"]})
    first, others = cg_appendix.other_networks(networks)
    assert first == "mlp" and others["run_id"].tolist() == ["d", "b"]
    assert cg_appendix.other_networks(networks[:0])[0] == ""


def test_cg_14_has_densities_of_area_one_and_no_mislabeled_before_noise() -> None:
    clean = pd.DataFrame({"left": [0.0, 0.5], "right": [0.5, 1.0], "clean": [3, 1], "mislabeled": 0, "unknown": 0})
    noisy = clean.assign(clean=[2, 0], mislabeled=[1, 1])
    figure = cg_appendix.density_figure({"digits": clean.assign(clean=0, unknown=[3, 1]), "noisy": noisy})
    drawn = {(t.name, t.xaxis): list(t.y) for t in figure.data}
    assert drawn == {("clean", "x"): [1.5, 0.5], ("clean", "x2"): [2, 0], ("mislabeled", "x2"): [1, 1]}


def test_cg_18_correlates_the_features_of_each_epoch_with_the_other_scores() -> None:
    names = ["aum", "cg", "cg_feature@10", "cg_feature@2", "el2n@5"]
    values = np.arange(25.0).reshape(5, 5) / 100
    figure = cg_appendix.epoch_figure(pd.DataFrame((values + values.T) / 2, names, names), ("cg", "el2n", "forgetting"))
    # epoch 2 is the fourth name, epoch 10 the third; cg is the second: (1 3) -> (8 + 16) / 2, (1 2) -> (7 + 11) / 2
    assert lines(figure) == {"cg": [0.12, 0.09], "el2n@5": [0.21, 0.18]}
    assert [t.x.tolist() for t in figure.data] == [[2, 10], [2, 10]]


def test_every_figure_is_declared_beside_its_drawing() -> None:
    figures = all_figures()
    numbers = [(name.partition("-")[0], int(name.partition("-")[2])) for name in figures]
    assert numbers == sorted(numbers) and len(figures) == 28
    for name, figure in figures.items():
        assert figure.name == name and figure.source == name.upper().replace("-", " ")
        paper = name.split("-")[0]
        assert figure.draw.__module__ in (f"dashboard.figures.{paper}_paper", f"dashboard.figures.{paper}_appendix")
        assert figure.title and figure.caption.endswith(".") and figure.draw.__doc__


def test_two_figures_of_one_name_are_refused() -> None:
    declare = paper_figure("aum-2", title="Another", caption="Another.")
    with pytest.raises(ValueError, match="two figures are called 'aum-2'; give one of them another name"):
        declare(lambda needs: None)
    assert all_figures()["aum-2"].title != "Another"
