"""Clouds and pairs, counted in SQL, against the same counts made by hand in numpy and with sets."""

from __future__ import annotations

import math
from collections.abc import Iterator

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import SpecError
from engine.queries import clouds, pairs
from engine.queries.clouds import BEFORE, Color, Plane, Window
from engine.queries.samples import Filter

N = 3_000
RUN, OTHER = "r1", "r2"


class Set:
    """The views of a set of random samples, and the numbers in them."""

    def __init__(self, n: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.x, self.y = rng.normal(size=(2, n)).astype(np.float32)
        self.label = rng.integers(0, 5, n)
        self.true = np.where(rng.random(n) < 0.2, (self.label + 1) % 5, self.label)
        self.scores = {"a": rng.normal(size=n).astype(np.float32), "b": rng.integers(0, 7, n).astype(np.float32)}
        self.other = {"a": (self.scores["a"] + rng.normal(size=n)).astype(np.float32)}
        self.suspicion, self.listed = rng.permutation(n), rng.permutation(n) < n // 10
        self.suspicion[np.argsort(~self.listed, kind="stable")] = np.arange(n)  # the listed come first
        self.connection = duckdb.connect()
        ids = np.arange(n)
        known = pd.array([None if i % 3 == 0 else int(t) for i, t in enumerate(self.true)], dtype="Int32")
        samples = pd.DataFrame({"sample_id": ids, "split": "train", "label": self.label, "true_label": known})
        self.known = known
        self.table("samples", samples)
        self.table("embedding", pd.DataFrame({"run_id": RUN, "sample_id": ids, "x": self.x, "y": self.y}))
        self.table("scores", pd.concat([self.ranked(RUN, s, v) for s, v in self.scores.items()]
                                       + [self.ranked(OTHER, s, v) for s, v in self.other.items()]))  # fmt: skip
        self.table("score_catalog", pd.DataFrame({"score": ["a", "b"], "higher_means": ["easier", "harder"]}))
        shortlist = pd.DataFrame({"sample_id": ids, "rank": self.suspicion, "listed": self.listed, "p_wrong": 0.5})
        self.table("shortlist", pd.concat([shortlist.assign(run_id=RUN), shortlist.assign(run_id=OTHER)]))
        self.table("decisions", pd.DataFrame({"sample_id": ids[:6], "action": (["keep", "drop", "unsure"] * 2)[:n]}))
        self.table("runs", pd.DataFrame({"run_id": [RUN, OTHER], "dynamics_run": [RUN, OTHER]}))
        words = ["red", "green", "blue"]
        self.words = [words[i % 3] for i in ids]
        self.table("metadata", pd.DataFrame({"sample_id": ids, "name": "hue", "value": self.words, "number": np.nan}))

    def ranked(self, run: str, score: str, values: np.ndarray) -> pd.DataFrame:
        hard = -values if score == "a" else values
        rank = np.empty(len(values), int)
        rank[np.argsort(hard, kind="stable")] = np.arange(len(values))
        return pd.DataFrame(
            {"run_id": run, "score": score, "sample_id": np.arange(len(values)), "value": values, "rank": rank}
        )

    def table(self, name: str, rows: pd.DataFrame) -> None:
        self.connection.register("given", rows)
        self.connection.execute(f'CREATE OR REPLACE TABLE "{name}" AS SELECT * FROM given')
        self.connection.unregister("given")

    def rank(self, score: str, run: str = RUN) -> np.ndarray:
        sql = "SELECT rank FROM scores WHERE run_id = ? AND score = ? ORDER BY sample_id"
        return self.connection.execute(sql, [run, score]).fetchnumpy()["rank"]


@pytest.fixture(scope="module")
def some() -> Iterator[Set]:
    found = Set(N)
    yield found
    found.connection.close()


MAP = Plane(RUN)
PART = Window(-1.3, 2.1, -0.7, 1.9, 17, 11)


def inside(some: Set, window: Window = PART) -> np.ndarray:
    return (
        (some.x >= window.left) & (some.x <= window.right) & (some.y >= window.bottom) & (some.y <= window.top)
    )  # fmt: skip


def dense(found: pd.DataFrame, window: Window, column: str = "n") -> np.ndarray:
    made = np.zeros(window.across * window.up)
    made[found["bin"]] = found[column]
    return made.reshape(window.up, window.across)


def test_a_density_is_the_histogram_of_numpy(some: Set) -> None:
    found = dense(clouds.fetch_density(some.connection, MAP, Filter(), PART), PART)
    ends = [[PART.left, PART.right], [PART.bottom, PART.top]]
    expected, _, _ = np.histogram2d(some.x, some.y, bins=[PART.across, PART.up], range=ends)
    assert (found == expected.T).all() and 0 < found.sum() < N


def test_a_filter_keeps_a_part_of_the_density(some: Set) -> None:
    wanted = Filter(labels=(1, 3))
    found = dense(clouds.fetch_density(some.connection, MAP, wanted, PART), PART)
    kept = np.isin(some.label, (1, 3))
    ends = [[PART.left, PART.right], [PART.bottom, PART.top]]
    expected, _, _ = np.histogram2d(some.x[kept], some.y[kept], bins=[PART.across, PART.up], range=ends)
    assert (found == expected.T).all()


def test_the_color_of_a_bin_is_its_largest_class_or_its_mean(some: Set) -> None:
    window = Window(-2, 2, -2, 2, 3, 3)
    column = np.clip(np.floor((some.x.astype(float) + 2) / 4 * 3), 0, 2).astype(int)
    row = np.clip(np.floor((some.y.astype(float) + 2) / 4 * 3), 0, 2).astype(int)
    within = inside(some, window)
    wrong = np.array(
        [math.nan if pd.isna(t) else float(t != label) for t, label in zip(some.known, some.label, strict=True)]
    )
    cases = {
        Color("given"): some.label,
        Color("value", "hue", ("blue", "red")): np.array([{"blue": 0, "red": 1}.get(word, -1) for word in some.words]),
        Color("decided"): np.array([[0, 1, 3][i % 3] if i < 6 else -1 for i in range(N)]),
        Color("true"): np.array([-1 if pd.isna(t) else int(t) for t in some.known]),
        Color("score", "a"): some.scores["a"],
        Color("flagged"): some.listed.astype(float),
        Color("wrong"): wrong,
    }
    for color, values in cases.items():
        found = clouds.fetch_density(some.connection, MAP, Filter(), window, color).set_index("bin")["c"]
        for r in range(3):
            for c in range(3):
                here = values[within & (row == r) & (column == c)]
                if color.categories:
                    codes, counts = np.unique(here, return_counts=True)
                    assert found[3 * r + c] == codes[np.argmax(counts)], color  # the smallest of equals
                else:
                    assert found[3 * r + c] == pytest.approx(np.nanmean(here), abs=1e-5), color


def test_points_are_those_of_the_window_mixed_with_their_colors(some: Set) -> None:
    found = clouds.fetch_points(some.connection, MAP, Filter(), PART, Color("given"))
    assert sorted(found["sample_id"]) == np.flatnonzero(inside(some)).tolist()
    at = found["sample_id"].to_numpy()
    assert (found["x"] == some.x[at]).all() and (found["c"] == some.label[at]).all()
    assert (found["flagged"] == some.listed[at]).all()
    assert 0.4 < (at[:-1] < at[1:]).mean() < 0.6
    assert len(clouds.fetch_points(some.connection, MAP, Filter(), PART, most=7)) == 7


def test_the_marked_are_the_most_suspicious_of_the_window(some: Set) -> None:
    found = clouds.fetch_marked(some.connection, MAP, Filter(), PART, 20)["sample_id"]
    listed = np.flatnonzero(inside(some) & some.listed)
    assert found.tolist() == listed[np.argsort(some.suspicion[listed])][:20].tolist()


def test_names_stand_at_the_median_of_a_class_the_largest_first(some: Set) -> None:
    found = clouds.fetch_middles(some.connection, MAP, Filter(), Color("given"), 3)
    counts = np.bincount(some.label)
    assert found["n"].tolist() == sorted(counts, reverse=True)[:3]
    for row in found.itertuples():
        assert row.x == pytest.approx(np.median(some.x[some.label == row.code]), abs=1e-6)


def test_the_nearest_is_the_nearest_in_units_of_the_reach(some: Set) -> None:
    reach = (0.4, 0.1)
    found = clouds.fetch_nearest(some.connection, MAP, Filter(), 0.2, -0.3, reach)
    away = ((some.x - 0.2) / reach[0]) ** 2 + ((some.y + 0.3) / reach[1]) ** 2
    assert found == away.argmin()
    assert clouds.fetch_nearest(some.connection, MAP, Filter(), 99, 99, reach) is None
    assert clouds.fetch_place(some.connection, MAP, 5) == (some.x[5], some.y[5])
    assert clouds.fetch_place(some.connection, MAP, N) is None


def crosses(x: float, y: float, outline: list[tuple[float, float]]) -> bool:
    """Whether a point is inside an outline, a side at a time."""
    found = False
    for (x1, y1), (x2, y2) in zip(outline, [*outline[1:], outline[0]], strict=True):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            found = not found
    return found


corner = st.tuples(*[st.floats(-3, 3).map(lambda v: round(v, 3))] * 2)


@settings(max_examples=25, deadline=None)
@given(outline=st.lists(corner, min_size=3, max_size=12))
def test_an_outline_keeps_what_a_ray_counted_by_hand_says(some: Set, outline: list[tuple[float, float]]) -> None:
    found = clouds.fetch_outlined(some.connection, MAP, Filter(), tuple(outline))
    few = [i for i in range(300) if crosses(float(some.x[i]), float(some.y[i]), outline)]
    assert [i for i in found if i < 300] == few


def test_an_outline_over_two_scores_is_a_filter(some: Set) -> None:
    from engine.queries.listing import fetch_ids

    corners = ((-1.0, -0.5), (1.5, -0.5), (0.0, 4.2))
    found = fetch_ids(some.connection, RUN, Filter(plane=("a", "b"), outline=corners))
    expected = [i for i in range(N) if crosses(float(some.scores["a"][i]), float(some.scores["b"][i]), list(corners))]
    assert found.tolist() == expected and 0 < len(expected) < N
    with pytest.raises(SpecError, match="no such"):
        fetch_ids(some.connection, RUN, Filter(plane=("a", "no such"), outline=corners))


def test_a_score_between_two_values_is_a_filter(some: Set) -> None:
    from engine.queries.listing import fetch_ids

    low = float(some.scores["a"][17])
    kept = fetch_ids(some.connection, RUN, Filter(measure="a", above=low, below=1.0))
    assert kept.tolist() == np.flatnonzero((some.scores["a"] >= low) & (some.scores["a"] <= 1.0)).tolist()
    assert 17 in kept


# Degenerate clouds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "n", "missing"),
    [
        ([2.0, 2.0, 2.0], 3, 0),
        ([1.0], 1, 0),
        ([math.nan, math.inf, -math.inf], 0, 3),
        ([math.nan, 1.0, math.inf], 1, 2),
    ],
)
def test_equal_missing_and_infinite_numbers_are_drawn_or_counted(x: list[float], n: int, missing: int) -> None:
    one = Set(len(x))
    values = np.array(x, np.float32)
    one.table("scores", pd.concat([one.ranked(RUN, "a", values), one.ranked(RUN, "b", np.zeros(len(x), np.float32))]))
    plane = Plane(RUN, "a", "b")
    (row,) = clouds.fetch_extent(one.connection, plane).to_dict("records")
    assert (row["n"], row["missing"]) == (n, missing)
    if n:
        found = clouds.fetch_density(one.connection, plane, Filter(), Window(row["left"] - 1, row["right"] + 1, -1, 1))
        assert found["n"].sum() == n
    assert math.isnan(pairs.fetch_pair_spearman(one.connection, plane))
    assert math.isnan(clouds.fetch_line(one.connection, plane)[0])
    assert len(pairs.fetch_thresholds(one.connection, RUN, "a")) == (400 if n else 0)


def test_a_run_without_a_map_has_no_cloud(some: Set) -> None:
    (row,) = clouds.fetch_extent(some.connection, Plane("no such run")).to_dict("records")
    assert row["n"] == 0 and math.isnan(row["left"])


def test_a_first_look_leaves_out_the_few_that_would_squeeze_the_others(some: Set) -> None:
    far = Set(2_000)
    values = far.scores["a"].copy()
    values[7] = 1e6
    far.table("scores", pd.concat([far.ranked(RUN, "a", values), far.ranked(RUN, "b", far.scores["b"])]))
    (row,) = clouds.fetch_extent(far.connection, Plane(RUN, "a", "b")).to_dict("records")
    assert row["right"] == 1e6 and row["home_right"] < 5
    assert (row["home_bottom"], row["home_top"]) == (0, 6)


@pytest.mark.parametrize("ends", [(math.nan, 1, 0, 1), (0, math.inf, 0, 1), (1, 0, 0, 1)])
def test_a_window_has_finite_ends_in_order(ends: tuple[float, float, float, float]) -> None:
    with pytest.raises(SpecError):
        Window(*ends)


# Pairs -------------------------------------------------------------------------------------------------------------


def mean_ranks(values: np.ndarray) -> np.ndarray:
    return pd.Series(values).rank().to_numpy()


def test_spearman_of_a_pair_averages_ties_and_turns_both_to_harder(some: Set) -> None:
    expected = np.corrcoef(mean_ranks(-some.scores["a"]), mean_ranks(some.scores["b"]))[0, 1]
    assert pairs.fetch_pair_spearman(some.connection, Plane(RUN, "a", "b")) == pytest.approx(expected, abs=1e-9)
    table = pairs.fetch_spearman(some.connection, RUN)
    assert table.loc["a", "b"] == pytest.approx(expected, abs=1e-9) and table.loc["a", "a"] == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.sampled_from([0.0, 1.0, 2.5, -3.0, math.inf]), min_size=0, max_size=30))
def test_mean_ranks_are_those_of_pandas(values: list[float]) -> None:
    found = pairs.mean_ranks(np.array(values, np.float32))
    assert found.tolist() == (pd.Series(values, dtype=float).rank() - 1).tolist()


def test_spearman_passes_over_samples_that_lack_a_score(some: Set) -> None:
    less = Set(200)
    part = less.ranked(RUN, "b", less.scores["b"])[::2]
    less.table("scores", pd.concat([less.ranked(RUN, "a", less.scores["a"]), part]))
    expected = np.corrcoef(mean_ranks(-less.scores["a"][::2]), mean_ranks(less.scores["b"][::2]))[0, 1]
    assert pairs.fetch_pair_spearman(less.connection, Plane(RUN, "a", "b")) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("top", [1, 30, N // 2, N])
def test_jaccard_is_that_of_the_sets_of_the_hardest(some: Set, top: int) -> None:
    one = set(np.argsort(some.rank("a"))[N - top :])
    other = set(np.argsort(some.rank("b"))[N - top :])
    assert pairs.fetch_jaccard(some.connection, Plane(RUN, "a", "b"), top) == (len(one & other), len(one | other))


def test_the_samples_two_scores_disagree_on_most(some: Set) -> None:
    gap = some.rank("a") - some.rank("b")
    for harder, order in (("x", -gap), ("y", gap), ("either", -abs(gap))):
        found = pairs.fetch_apart(some.connection, Plane(RUN, "a", "b"), Filter(), harder, 9)  # type: ignore[arg-type]
        assert found.tolist() == np.lexsort([np.arange(N), order])[:9].tolist()
    only = pairs.fetch_apart(some.connection, Plane(RUN, "a", "b"), Filter(labels=(2,)), "x", 5)
    assert (some.label[only] == 2).all()


@pytest.mark.parametrize("score", ["a", "b"])
def test_what_a_threshold_flags_is_what_a_loop_counts(some: Set, score: str) -> None:
    bins = pairs.fetch_thresholds(some.connection, RUN, score, 40)
    hard = (-some.scores[score] if score == "a" else some.scores[score]).astype(float)
    truth = [None if pd.isna(t) else bool(t != label) for t, label in zip(some.known, some.label, strict=True)]
    for i, edge in enumerate(bins["edge"]):
        flagged = [j for j in range(N) if hard[j] >= edge] if i else range(N)
        beyond = bins.iloc[i:]
        assert beyond["n"].sum() == len(flagged)
        assert beyond["wrong"].sum() == sum(truth[j] is True for j in flagged)
        assert beyond["known"].sum() == sum(truth[j] is not None for j in flagged)


def test_two_runs_share_scores_and_flags(some: Set) -> None:
    assert pairs.fetch_shared_scores(some.connection, OTHER, RUN) == ["a"]
    (row,) = pairs.fetch_shared_spearman(some.connection, OTHER, RUN).to_dict("records")
    expected = np.corrcoef(mean_ranks(some.other["a"]), mean_ranks(some.scores["a"]))[0, 1]
    assert row["score"] == "a" and row["spearman"] == pytest.approx(expected, abs=1e-9)
    flags = pairs.fetch_shared_flags(some.connection, OTHER, RUN, 4).set_index("side")
    assert flags["n"].to_dict() == {"both": some.listed.sum(), "first": 0, "second": 0}
    assert flags.loc["both", "ids"] == np.argsort(some.suspicion)[:4].tolist()
    assert flags.loc["first", "ids"] == []


def test_ranks_of_another_dataset_are_held_against_those_of_a_run(some: Set) -> None:
    old = pd.DataFrame({"sample_id": np.arange(N), "rank": np.arange(N)[::-1]})
    some.connection.register(BEFORE, old)
    plane = Plane(RUN, "a", "a", "rank", BEFORE)
    slope, intercept = clouds.fetch_line(some.connection, plane)
    expected = np.polyfit(old["rank"], some.rank("a"), 1)
    assert (slope, intercept) == pytest.approx(tuple(expected), rel=1e-4)
    found = pairs.fetch_apart(some.connection, plane, Filter(), "either", 3)
    assert found.tolist() == np.argsort(-abs(old["rank"] - some.rank("a")), kind="stable")[:3].tolist()
    wrong = np.array([not pd.isna(t) and t != label for t, label in zip(some.known, some.label, strict=True)])
    expected_move = (old["rank"][wrong].mean() / (N - 1), some.rank("a")[wrong].mean() / (N - 1))
    assert pairs.fetch_moved(some.connection, plane) == pytest.approx(expected_move)
    some.connection.unregister(BEFORE)
