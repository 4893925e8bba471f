"""What ROP's figures of selections read: which runs can be compared, and how long choosing takes."""

from __future__ import annotations

import json
import math

import duckdb
import pytest

from engine.queries.connection import connected
from engine.queries.paper_selection import fetch_selecting_seconds, fetch_selections
from engine.runs.compute import compute
from engine.runs.options import plan_relabel_from
from engine.store.workspace import Workspace


def test_relabelings_are_alike_where_they_differ_in_how_they_choose_alone(scored_workspace: Workspace) -> None:
    options = {"learner": "cross-entropy", "keep": "0.5", "epochs": 1, "nli_epochs": 1}
    runs = []
    for more in ({"neighbors": 3}, {"neighbors": 5}, {"neighbors": 5, "select": "ccs", "beta": 0.1}, {"epochs": 2}):
        plan = plan_relabel_from(scored_workspace, "small", "rop", options | more)
        runs.append(compute(scored_workspace, plan, "cpu")[0])
    with connected(scored_workspace, "small") as connection:
        found = fetch_selections(connection)
    assert found["run_id"].unique().tolist() == runs[::-1]  # the newest first
    facts = found.drop_duplicates("run_id").set_index("run_id")
    assert facts["alike"].nunique() == 2 and facts.loc[runs[:3], "alike"].nunique() == 1
    assert facts.loc[runs, "neighbors"].tolist() == [3, 5, 5, 15]
    assert facts.loc[runs, "sampler"].tolist() == ["descending", "descending", "ccs", "descending"]
    assert sorted(found["subset"].unique()) == ["random", "rop"]
    assert (found.loc[found["subset"] == "random", "select_seconds"] == 0).all()
    assert (found.loc[found["subset"] == "rop", "select_seconds"] > 0).all()


def test_a_spec_that_no_version_writes_is_of_no_sampler() -> None:
    connection = duckdb.connect()
    for spec in ("[1]", json.dumps({"select": "ccs", "neighbors": "x", "keep": [1]})):
        connection.execute(
            """CREATE OR REPLACE TABLE relabelings AS SELECT 'r' AS run_id, 'rop' AS subset, 0.5 AS kept_fraction,
            'a' AS learner, 0 AS seed, 0.5 AS accuracy, NULL::DOUBLE AS noise, 1.0 AS select_seconds"""
        )
        connection.execute(
            "CREATE OR REPLACE TABLE runs AS SELECT 'r' AS run_id, 1 AS created_at, ?::JSON AS spec", [spec]
        )
        found = fetch_selections(connection)
        assert found["neighbors"].tolist() == [0] and found["sampler"][0] in ("", "ccs")


def test_choosing_takes_the_training_of_one_network_up_to_the_epoch_of_the_score() -> None:
    connection = duckdb.connect()
    connection.execute(
        """CREATE TABLE runs AS SELECT * FROM (VALUES ('old', 1, 'old'), ('new', 2, 'new'), ('gone', 3, 'lost'))
            AS t(run_id, created_at, dynamics_run);
        CREATE TABLE epochs AS SELECT run_id, seed, epoch, if(seed = 2, 1.0, 100.0) AS seconds
            FROM (VALUES ('new'), ('old')) AS r(run_id), (VALUES (2), (3)) AS s(seed), range(1, 11) AS e(epoch);
        CREATE TABLE score_catalog AS SELECT * FROM (VALUES ('aum', 'training'), ('grand', 'training (heavy)'),
            ('el2n@4', 'training'), ('cg', 'inputs (heavy)'), ('nli', 'training')) AS t(score, cost);
        CREATE TABLE score_costs AS SELECT * FROM (VALUES ('old', 'aum', 7.0), ('new', 'aum', 0.5), ('new', 'grand', 3.0),
            ('new', 'el2n@4', 0.25), ('new', 'cg', 2.0), ('gone', 'nli', 1.0)) AS t(run_id, score, seconds)"""
    )
    found = fetch_selecting_seconds(connection).set_index("score")
    assert found.loc["aum"].tolist() == ["new", 10.0, 0.5] and found.loc["grand"].tolist() == ["new", 10.0, 3.0]
    assert found.loc["el2n@4"].tolist() == ["new", 4.0, 0.25] and found.loc["cg"].tolist() == ["new", 0.0, 2.0]
    assert math.isnan(found.loc["nli", "training"]) and found.loc["nli", "scoring"] == pytest.approx(1)
