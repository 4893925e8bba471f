"""Filters and per-sample queries, against the same answers worked out in pandas from the raw tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from engine.errors import SpecError
from engine.queries.connection import connect
from engine.queries.listing import fetch_facets, fetch_first, fetch_ids, fetch_order
from engine.queries.samples import (
    SUSPICION,
    Filter,
    condition,
    fetch_cards,
    fetch_labels,
    fetch_neighbors,
    fetch_sample,
    fetch_sample_flags,
    fetch_sample_logits,
    fetch_sample_scores,
    fetch_trajectory,
)
from engine.queries.writers import csv_of, export, fetch_selected
from engine.store.workspace import Workspace


class Raw:
    """The tables as they lie in the files, read without the views."""

    def __init__(self, root: Path, dataset: str) -> None:
        self.workspace, self.dataset = Workspace.open(root), dataset
        self.connection = connect(self.workspace, dataset)
        rows = self.connection.execute(
            "SELECT run_id FROM runs WHERE run_id IN (SELECT run_id FROM embedding)"
        ).fetchall()
        self.run = str(rows[0][0])
        self.dataset_file = self.workspace.dataset_path(dataset)
        self.results_file = self.workspace.published_dir(self.run) / "results.duckdb"

    def read(self, sql: str, results: bool = True) -> pd.DataFrame:
        with duckdb.connect(str(self.results_file if results else self.dataset_file), read_only=True) as connection:
            return connection.execute(sql).df()

    def samples(self) -> pd.DataFrame:
        """The training samples with aum, margin_last, their ranks, the flag, the map and the suggestion."""
        frame = self.read("SELECT * FROM samples WHERE split = 'train'", results=False).set_index("sample_id")
        for score in ("aum", "margin_last"):
            found = self.read(f"SELECT * FROM scores WHERE score = '{score}'").set_index("sample_id")
            frame[score], frame[f"{score}_rank"] = found["value"], found["rank"]
        flags = self.read("SELECT * FROM flags").pivot(index="sample_id", columns="rule", values="flagged")
        tables = self.read("SELECT table_name FROM duckdb_tables()")["table_name"].to_list()
        listed = self.read("SELECT sample_id FROM shortlist WHERE listed")["sample_id"] if "shortlist" in tables else []
        frame["flagged"] = frame.index.isin(listed)
        frame["by_threshold"] = flags["aum_threshold"]
        frame[["x", "y"]] = self.read("SELECT * FROM embedding").set_index("sample_id")[["x", "y"]]
        return frame


@pytest.fixture(scope="module")
def raw(noisy: tuple[Path, str]) -> Raw:
    return Raw(*noisy)


@pytest.fixture(scope="module")
def frame(raw: Raw) -> pd.DataFrame:
    return raw.samples()


def ids(frame: pd.DataFrame, keep: pd.Series) -> list[int]:
    return sorted(frame.index[keep].tolist())


def test_the_empty_filter_keeps_every_training_sample_in_the_order_of_the_rank(raw: Raw, frame: pd.DataFrame) -> None:
    assert condition(raw.connection, raw.run, Filter()) == ""
    hardest = fetch_ids(raw.connection, raw.run, Filter(), "aum")
    assert hardest.tolist() == frame.sort_values("aum_rank", ascending=False).index.tolist()
    assert hardest.dtype == np.int32
    easiest = fetch_ids(raw.connection, raw.run, Filter(), "aum", False)
    assert easiest.tolist() == hardest.tolist()[::-1]
    assert fetch_ids(raw.connection, raw.run, Filter()).tolist() == sorted(frame.index)
    # A low AUM is hard: the first are those with the smallest values.
    assert frame.loc[hardest[:50], "aum"].max() <= frame.loc[hardest[50:], "aum"].min()


def test_each_condition_keeps_what_pandas_keeps(raw: Raw, frame: pd.DataFrame) -> None:
    n = len(frame)
    cases = {
        Filter(labels=(3, 7)): frame["label"].isin([3, 7]),
        Filter(others=(0,)): frame["true_label"] == 0,
        Filter(truth="wrong"): frame["label"] != frame["true_label"],
        Filter(truth="right"): frame["label"] == frame["true_label"],
        Filter(rule="aum_threshold"): frame["by_threshold"],
        Filter(agreement="agrees"): frame["margin_last"] > 0,
        Filter(agreement="disagrees"): frame["margin_last"] <= 0,
        Filter(score="aum", low=90): frame["aum_rank"] >= round(n * 0.9),
        Filter(score="aum", high=25): frame["aum_rank"] < round(n * 0.25),
        Filter(labels=(1,), truth="wrong", score="aum", low=50): (
            (frame["label"] == 1) & (frame["true_label"] != 1) & (frame["aum_rank"] >= round(n * 0.5))
        ),
    }
    for wanted, keep in cases.items():
        assert sorted(fetch_ids(raw.connection, raw.run, wanted).tolist()) == ids(frame, keep), wanted
        assert 0 < keep.sum() < n, wanted  # or the case would say nothing


@pytest.mark.parametrize("named", ["7", "DIGITS:1", "%", "_", "' OR true --", "digits:99"])
def test_a_name_is_looked_for_as_it_is_written(raw: Raw, named: str) -> None:
    sources = raw.read("SELECT sample_id, source FROM samples WHERE split = 'train'", results=False).set_index(
        "sample_id"
    )["source"]
    keep = sources.str.lower().str.contains(named.lower(), regex=False)
    assert fetch_ids(raw.connection, raw.run, Filter(named=named)).tolist() == sorted(sources.index[keep])
    assert keep.any() == (named[0] in "7Dd")


def test_an_outline_on_the_map_keeps_the_points_inside_it(raw: Raw, frame: pd.DataFrame) -> None:
    x0, x1 = frame["x"].quantile([0.1, 0.8]).round(2)
    y0, y1 = frame["y"].quantile([0.2, 0.9]).round(2)
    xm, ym = round((x0 + x1) / 2, 2), round((y0 + y1) / 2, 2)
    # An L: the rectangle without its upper right quarter, so that a convex hull would give another answer.
    outline = ((x0, y0), (x1, y0), (x1, ym), (xm, ym), (xm, y1), (x0, y1))
    in_x, in_y = frame["x"].between(x0, x1), frame["y"].between(y0, y1)
    keep = in_x & in_y & ~((frame["x"] > xm) & (frame["y"] > ym))
    found = fetch_ids(raw.connection, raw.run, Filter(region=outline))
    assert sorted(found.tolist()) == ids(frame, keep)
    assert 0 < keep.sum() < (in_x & in_y).sum()


def test_a_suggested_label_stands_in_where_the_truth_is_unknown(tmp_path: Path, raw: Raw) -> None:
    wanted = condition(raw.connection, raw.run, Filter(others=(4,)))
    rows = raw.read("SELECT * FROM suggestions ORDER BY method = 'heldout_prediction' DESC, confidence DESC")
    shown = rows.drop_duplicates("sample_id")  # of networks that did not train on the sample, where there are some
    suggested = shown[shown["suggested_label"] == 4]["sample_id"]
    sql = (
        f"SELECT sample_id FROM (SELECT * REPLACE (NULL::INTEGER AS true_label) FROM samples) AS samples WHERE {wanted}"
    )
    found = raw.connection.execute(sql).df()["sample_id"]
    assert len(suggested) > 0
    assert sorted(found) == sorted(suggested)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "aum_treshold"}, "unknown rule 'aum_treshold'; did you mean 'aum_threshold'?"),
        ({"score": "aun", "low": 50}, "unknown score 'aun'; did you mean 'aum'?"),
    ],
)
def test_a_name_that_the_run_does_not_have_is_said(raw: Raw, changes: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match="unknown") as error:
        fetch_ids(raw.connection, raw.run, replace(Filter(), **changes))  # type: ignore[arg-type]
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "changes",
    [
        {"low": -1},
        {"low": 60, "high": 40},
        {"high": 101},
        {"region": ((0.0, 0.0), (1.0, 1.0))},
        {"region": ((0, 0), (1, 1), (float("nan"), 1))},
    ],
)
def test_a_filter_refuses_what_makes_no_sense(changes: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        Filter(**changes)  # type: ignore[arg-type]


def test_a_label_with_quotes_cannot_leave_its_literal(raw: Raw) -> None:
    with pytest.raises(SpecError, match="unknown rule"):
        fetch_ids(raw.connection, raw.run, Filter(rule="x' OR true --"))


def test_facets_count_what_passes_of_each_class(raw: Raw, frame: pd.DataFrame) -> None:
    facets = fetch_facets(raw.connection, raw.run, Filter(truth="wrong")).set_index("label")
    assert facets["total"].to_dict() == frame.groupby("label").size().to_dict()
    wrong = frame[frame["label"] != frame["true_label"]].groupby("label").size()
    assert facets["n"].to_dict() == {label: int(wrong.get(label, 0)) for label in facets.index}
    assert facets["class_name"].tolist() == [str(i) for i in range(10)]


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([2, 0, 3, 1], [11, 13, 10, 12]),  # places, as winnow writes them
        ([5, 0, 9, 2], [11, 13, 10, 12]),  # with gaps
        ([1, 0, 1, 3], [11, 10, 12, 13]),  # one twice and one missing, from 0 to 3 all the same
        ([-1, 0, 3, 2], [10, 11, 13, 12]),
        ([], []),
    ],
)
def test_an_order_is_that_of_the_ranks_whatever_they_are(ranks: list[int], expected: list[int]) -> None:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE samples AS SELECT range::INTEGER AS sample_id FROM range(0, 14)")
    connection.execute("CREATE TABLE shortlist (run_id VARCHAR, sample_id INTEGER, rank INTEGER, listed BOOLEAN)")
    connection.execute("CREATE TABLE scores (run_id VARCHAR, score VARCHAR, sample_id INTEGER, rank INTEGER)")
    for sample_id, rank in enumerate(ranks, 10):
        connection.execute("INSERT INTO shortlist VALUES ('r', ?, ?, ?)", [sample_id, rank, sample_id != 13])
        connection.execute("INSERT INTO scores VALUES ('r', 's', ?, ?)", [sample_id, rank])
    rest = [i for i in range(14) if i not in expected]
    assert fetch_order(connection, "r", SUSPICION).tolist() == [*expected, *rest]
    if ranks:
        assert fetch_order(connection, "r", "s").tolist() == [*expected[::-1], *rest]
        with pytest.raises(SpecError, match="unknown score 'S'; allowed: s"):
            fetch_order(connection, "r", "S")
    assert fetch_first(connection, "r", SUSPICION, 2).tolist() == [i for i in expected if i != 13][:2]
    if len(set(ranks)) == 4:
        assert fetch_first(connection, "r", "s", 3).tolist() == expected[::-1][:3]


def test_cards_come_in_the_order_asked_for(raw: Raw, frame: pd.DataFrame) -> None:
    asked = fetch_ids(raw.connection, raw.run, Filter(), "aum")[[5, 0, 100, 3]].tolist()
    cards = fetch_cards(raw.connection, raw.run, asked, "aum")
    assert cards["sample_id"].tolist() == asked
    assert np.allclose(cards["value"], frame.loc[asked, "aum"])
    assert cards["flagged"].tolist() == frame.loc[asked, "flagged"].tolist()
    # The shortlist decides, no rule does; version 0.1 has no shortlist, and flags nothing.
    alone = frame.index[frame["flagged"] != frame["by_threshold"]].tolist()
    assert (
        alone
        and fetch_cards(raw.connection, raw.run, alone)["flagged"].tolist() == frame.loc[alone, "flagged"].tolist()
    )
    assert all(bytes(t)[8:12] == b"WEBP" for t in cards["thumbnail"])
    assert fetch_cards(raw.connection, raw.run, asked)["value"].isna().all()


def test_labels_are_numbers_only(raw: Raw, frame: pd.DataFrame) -> None:
    labels = fetch_labels(raw.connection)
    assert labels["label"].tolist() == frame.sort_index()["label"].tolist()
    assert labels["true_label"].dtype == np.int16


def test_one_sample_by_its_id(raw: Raw, frame: pd.DataFrame) -> None:
    sample = fetch_sample(raw.connection, 17)
    assert sample is not None
    assert (sample["label"], sample["true_label"]) == (frame.loc[17, "label"], frame.loc[17, "true_label"])
    assert fetch_sample(raw.connection, 10**7) is None


def test_percentiles_run_from_the_easiest_to_the_hardest(raw: Raw, frame: pd.DataFrame) -> None:
    hardest, easiest = frame["aum_rank"].idxmax(), frame["aum_rank"].idxmin()
    for sample_id, percentile in ((hardest, 100.0), (easiest, 0.0)):
        scores = fetch_sample_scores(raw.connection, raw.run, sample_id).set_index("score")
        assert scores.loc["aum", "percentile"] == percentile
        assert scores.loc["aum", "value"] == pytest.approx(frame.loc[sample_id, "aum"])
    flags = fetch_sample_flags(raw.connection, raw.run, hardest)
    assert flags.set_index("rule").loc["aum_threshold", "flagged"]


def test_a_trajectory_is_what_the_file_holds(raw: Raw) -> None:
    stored = raw.read("SELECT * FROM trajectories WHERE sample_id = 42 ORDER BY seed")
    found = fetch_trajectory(raw.connection, raw.run, 42)
    epochs = len(stored["margin"].iloc[0])
    assert found["epoch"].tolist() == list(range(1, epochs + 1)) * len(stored)
    for column in ("margin", "p_given", "logit_given", "predicted"):
        assert np.allclose(found[column], np.concatenate(stored[column].to_list()))
    assert found["correct"].tolist() == (found["predicted"] == stored["label"].iloc[0]).tolist()


def test_logits_agree_with_the_margin_recorded_beside_them(raw: Raw, frame: pd.DataFrame) -> None:
    logits = fetch_sample_logits(raw.connection, raw.run, 42)
    dynamics = fetch_trajectory(raw.connection, raw.run, 42).set_index(["seed", "epoch"])
    values = logits.drop(columns=["seed", "epoch"]).to_numpy()
    label = int(frame.loc[42, "label"])
    others = np.delete(values, label, axis=1).max(axis=1)
    recorded = dynamics.loc[list(zip(logits["seed"], logits["epoch"], strict=True)), "margin"]
    assert values.shape[1] == 10
    assert np.allclose(values[:, label] - others, recorded, atol=1e-4)


def test_neighbors_come_nearest_first_without_the_sample_itself(raw: Raw) -> None:
    near = fetch_neighbors(raw.connection, raw.run, 42)
    assert near["rank"].tolist() == list(range(len(near)))
    assert near["similarity"].is_monotonic_decreasing
    assert 42 not in near["neighbor_id"].to_list()


def test_what_a_page_keeps_is_what_the_command_line_writes(raw: Raw, tmp_path: Path) -> None:
    wanted = Filter(
        labels=(1, 2, 3), rule="aum_threshold", score="aum", low=50, region=((-99, -99), (99, -99), (0, 99))
    )
    where = condition(raw.connection, raw.run, wanted)
    for text in (where, f"NOT ({where})"):
        kept = fetch_selected(raw.connection, text)
        export(raw.workspace, raw.dataset, text, tmp_path / "kept.csv")
        assert (tmp_path / "kept.csv").read_bytes() == csv_of(kept).encode()
        assert kept["sample_id"].tolist() == sorted(fetch_ids(raw.connection, raw.run, wanted)) or text != where
        assert len(kept) > 0
