"""The pictures of the overview: what is drawn is what the verdict, the set and its runs say."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from given_verdicts import JUDGED, TOO_WEAK

from dashboard.data import Verdict
from dashboard.detail import suspicion
from dashboard.overview_charts import (
    accuracy_bar,
    accuracy_lines,
    detection_bars,
    disk_bar,
    noise_bar,
    noise_table,
    panels,
    rules_list,
    suspicion_bars,
    table,
)
from dashboard.verdict import noise_words

VERDICT = Verdict(run_id="abc", judged=1000, listed=200, **JUDGED)  # type: ignore[arg-type]
NAMES = ("cat", "dog", "emu")
CANNOT = Verdict(run_id="abc", judged=1000, listed=0, **TOO_WEAK)  # type: ignore[arg-type]


class Elements(HTMLParser):
    """The elements of a piece of HTML: tag, its attributes, its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[dict[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append({"tag": tag, "text": ""} | {name: value or "" for name, value in attrs})

    def handle_data(self, data: str) -> None:
        if self.found:
            self.found[-1]["text"] += data


def elements(html: str, kind: str) -> list[dict[str, str]]:
    """Those of a class or tag, with left and width in percent as they are drawn."""
    return [
        found | dict(re.findall(r"(left|width|height|--much):([-\d.]+)%", found.get("style", "")))
        for found in Elements(html).found
        if kind in (*found.get("class", "").split(), found["tag"])
    ]


def test_the_accuracy_is_a_bar_with_a_mark_at_a_guess() -> None:
    html = accuracy_bar(VERDICT)
    (bar,), (guess,) = elements(html, "band"), elements(html, "mark")
    assert (bar["left"], bar["width"]) == ("0.00", "87.50") and guess["left"] == "12.50"
    assert "agree with 87.5 % of the labels" in elements(html, "line")[0]["aria-label"]
    nothing = accuracy_bar(replace(VERDICT, accuracy=None, chance=None))
    assert not elements(nothing, "band") and not elements(nothing, "mark")


def test_the_interval_is_a_bar_and_every_estimate_a_mark() -> None:
    html = noise_bar(VERDICT, known=0.25)
    most = 1.3 * 25  # percent at the right end
    (interval,), (estimate,) = elements(html, "band"), elements(html, "dot")
    assert [float(interval[name]) for name in ("left", "width")] == pytest.approx(
        [100 * 18 / most, 100 * 4 / most], abs=0.01
    )
    assert [float(mark["left"]) for mark in elements(html, "mark")] == pytest.approx(
        [100 * share / most for share in (21, 19, 25)], abs=0.01
    )
    assert float(estimate["left"]) == pytest.approx(100 * 20 / most, abs=0.01)
    assert [word["text"] for word in elements(html, "b")] == ["known"]
    apart = noise_bar(replace(VERDICT, noise_joint=0.4))
    assert [word["text"] for word in elements(apart, "b")] == ["predictions", "distribution"]
    nothing = noise_bar(CANNOT, known=0.1)  # nothing that looks like a number
    assert not any(elements(nothing, kind) for kind in ("band", "mark", "dot"))


def test_the_histogram_shows_the_shortlist_apart() -> None:
    bins = pd.DataFrame({"left": [0, 0.5], "right": [0.5, 1], "rest": [900, 3], "listed": [0, 97]})
    html = suspicion_bars(bins)
    bars = [bar for bar in elements(html, "i") if bar.get("title")]
    assert [(bar["class"], bar["left"], bar["title"]) for bar in bars] == [
        ("given", "0.00", "0 to 50 %: 900 not flagged"),
        ("given", "50.00", "50 to 100 %: 3 not flagged"),
        ("wrong", "50.00", "50 to 100 %: 97 on the shortlist"),
    ]
    heights = [float(bar["height"]) for bar in bars]
    assert heights[0] > heights[2] > heights[1] > 0  # logarithmic: 3 of 900 are seen
    assert "not flagged&ensp;903" in html and "on the shortlist&ensp;97" in html


def test_the_diagonal_of_the_transition_matrix_has_no_color() -> None:
    matrix = pd.DataFrame(
        {"true_label": [0, 0, 1, 2], "label": [0, 1, 1, 2], "count": [8, 2, 5, 5], "share": [0.8, 0.2, 1, 1]}
    )
    cells = elements(noise_table(matrix, NAMES), "td")
    assert [(cell["text"], cell.get("class", ""), cell.get("--much")) for cell in cells[:3]] == [
        ("80", "same", None), ("20", "", "70"), ("", "", None),
    ]  # fmt: skip
    assert cells[1]["title"] == "true cat, given dog: 20 % of the class, 2 samples"


def test_of_many_classes_the_pairs_confused_most_are_listed() -> None:
    names = [f"class {i}" for i in range(40)]
    matrix = pd.DataFrame({"true_label": range(40), "label": [(i + 1) % 40 for i in range(40)], "count": range(1, 41)})
    rows = elements(noise_table(matrix.assign(share=matrix["count"] / 100), names), "li")
    assert len(rows) == 12
    assert rows[0]["title"] == "class 39 → class 0: 40 % of the true class" and "class 28 →" in rows[-1]["title"]


def test_scores_that_find_nothing_out_are_left_out_and_the_best_comes_first() -> None:
    catalog = pd.DataFrame(
        {
            "score": ["a", "b", "c", "d"],
            "roc_auc": [0.6, np.nan, 0.9, 0.4],
            "average_precision": [0.5, np.nan, 0.8, 0.1],
        }
    )
    html = detection_bars(catalog)
    assert [name["text"] for name in elements(html, "name")] == ["c", "a", "d"]
    ends = [(float(bar["left"]), float(bar["left"]) + float(bar["width"])) for bar in elements(html, "band")]
    assert ends[0][0] == ends[1][0] == pytest.approx(ends[2][1], abs=0.02)  # chance: one is worse
    assert ends[0][1] == pytest.approx(100 * (0.9 - 0.37) / 0.63, abs=0.02)


def test_accuracy_is_drawn_over_the_epochs_that_have_one() -> None:
    epochs = pd.DataFrame(
        {"seed": [0, 1, 0, 1], "epoch": [1, 1, 2, 2], "train_accuracy": [0.5, 0.7, 0.9, 1], "test_accuracy": np.nan}
    )
    html = accuracy_lines(epochs)
    drawn = unquote(elements(html, "img")[0]["src"])
    assert "test" not in html and "train 95.0 % after epoch 2" in html
    # from 50 to 100 %: the mean rises from 60 to 95 %, the band from 50..70 to 90..100
    assert "polyline points='0.00,80.00 100.00,10.00'" in drawn
    assert "polygon points='0.00,60.00 100.00,0.00 100.00,20.00 0.00,100.00'" in drawn
    assert [tip["title"] for tip in elements(html, "i") if "title" in tip] == [
        "epoch 1: train 60.0 %",
        "epoch 2: train 95.0 %",
    ]
    assert accuracy_lines(epochs.assign(train_accuracy=np.nan)) == ""


def test_a_rule_that_flags_nothing_has_no_precision() -> None:
    rules = pd.DataFrame(
        {"rule": ["aum", "dark"], "flagged": [1200, 0], "judged": 5000, "precision": [0.9, np.nan], "recall": [0.8, 0.0],
         "why_unused": ["", "no evidence"]}
    )  # fmt: skip
    html = rules_list(rules)
    assert "<b>aum</b> flags 1,200 of 5,000 · precision 90.0 % · recall 80.0 %</li>" in html
    assert "<b>dark</b> flags 0 of 5,000 · recall 0.0 %" in html and "left out of the vote: no evidence" in html
    assert "precision" not in rules_list(rules.assign(recall=np.nan))  # no truth is known


def test_the_disk_is_one_bar_whose_parts_add_up() -> None:
    kinds = {"datasets": 5_000, "results": 3_000, "weights": 1_500, "features": 499, "checkpoints": 1, "other": 0}
    html = disk_bar(kinds, [f"{count} MB" for count in kinds.values()])
    assert [float(part["width"]) for part in elements(html, "part")] == [50, 30, 15, 4.99, 0.01]
    assert re.findall(r"</i>([^<]+)</span>", html) == [
        "datasets 5000 MB", "results 3000 MB", "weights 1500 MB", "features 499 MB",
    ]  # fmt: skip


def test_a_name_is_text_in_every_picture() -> None:
    name = """<img src=x onerror="a()">' & $x$"""
    catalog = pd.DataFrame({"score": [name], "roc_auc": [0.9], "average_precision": [0.5]})
    matrix = pd.DataFrame({"true_label": [0, 1], "label": [1, 1], "count": [1, 1], "share": [1.0, 1.0]})
    rules = pd.DataFrame(
        {"rule": [name], "flagged": 1, "judged": 1, "precision": 1.0, "recall": 1.0, "why_unused": [name]}
    )
    for html in (
        detection_bars(catalog), noise_table(matrix, [name, "b"]), noise_table(matrix, [name] * 20), rules_list(rules),
        table([(name, name)], [[name]], name), panels([(name, name, "x")]), disk_bar({name: 1}, [name]),
    ):  # fmt: skip
        assert not elements(html, "img") and "onerror=&quot;a()&quot;" in html


def test_the_words_under_the_interval() -> None:
    assert (
        noise_words(VERDICT, None)
        == "95 % interval 18 to 22 %; about 200 of 1,000 samples; a second estimate, the unlabeled tick, is 19 %."
    )
    assert noise_words(VERDICT, 0.203).endswith("; of the training labels 20.3 % are known to be wrong.")


def test_a_sample_is_told_its_place_on_the_shortlist() -> None:
    row = pd.DataFrame({"rank": [2], "p_wrong": [0.874], "listed": [True]})
    told = suspicion(row, VERDICT)
    assert told == "Its label is wrong with a probability of **87 %**: number 3 of 1,000, on the shortlist. "
    assert "not on the shortlist" in suspicion(row.assign(listed=False), VERDICT)
    assert suspicion(row.iloc[:0], VERDICT) == "This sample was not judged. "
    assert "cannot tell" in suspicion(row, CANNOT) and "%" not in suspicion(row, CANNOT)
    assert suspicion(row, None) == ""
