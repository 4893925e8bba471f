"""Given against suggested and true labels: counts worked out here, and every cell's filter chooses just its samples."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from given_verdicts import TOO_WEAK, give_verdict, scored_run

from engine.queries.classes import Against, cell, fetch_class_quality, fetch_confusions, suggests
from engine.queries.connection import connected
from engine.queries.listing import fetch_ids
from engine.queries.samples import Filter
from engine.store.decisions import decide
from engine.store.workspace import Workspace

FILTERS = (
    Filter(split="all"),
    Filter(split="train", rule="aum_threshold", others=(3,), labels=(1, 2), truth="wrong"),  # labels are not looked at
    Filter(split="test"),
    Filter(split="all", flagged=True, least=0.9),
)


@pytest.mark.parametrize("against", ["suggested", "true"])
def test_a_cell_chooses_the_samples_that_it_counts(judged_workspace: Path, against: Against) -> None:
    run = scored_run(judged_workspace, "digits-noisy")
    with connected(Workspace.open(judged_workspace), "digits-noisy") as connection:
        assert suggests(connection, run)
        for wanted in FILTERS:
            pairs = fetch_confusions(connection, run, wanted, against)
            free = replace(wanted, labels=(), others=(), truth="")
            assert pairs["n"].sum() == len(fetch_ids(connection, run, free)) > 0
            for label, other, n in pairs.itertuples(index=False):
                chosen = fetch_ids(connection, run, cell(wanted, against, int(label), int(other)))
                assert len(chosen) == n, (wanted, label, other)


def test_where_nothing_is_suggested_the_given_label_stands(judged_workspace: Path) -> None:
    run = scored_run(judged_workspace, "digits-noisy")
    with connected(Workspace.open(judged_workspace), "digits-noisy") as connection:
        labels = dict(connection.execute("SELECT sample_id, label FROM samples WHERE split = 'train'").fetchall())
        rows = connection.execute(
            "SELECT sample_id, suggested_label, method, confidence FROM suggestions WHERE run_id = ?", [run]
        ).fetchall()
        ranked = sorted((m == "heldout_prediction", c, i, s) for i, s, m, c in rows)
        suggested = {i: s for _, _, i, s in ranked}  # the last: of networks that did not see it, the surest
        expected = Counter((label, suggested.get(i, label)) for i, label in labels.items())
        found = fetch_confusions(connection, run, Filter())
    assert {(row.label, row.other): row.n for row in found.itertuples()} == expected
    assert len({other for label, other in expected if label != other}) > 5


def test_what_is_known_of_each_class(judged_workspace: Path, tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    shutil.copytree(judged_workspace, root)
    workspace, run = Workspace.open(root), scored_run(root, "digits-noisy")
    with connected(workspace, "digits-noisy") as connection:
        rows = connection.execute(
            "SELECT label, true_label, p_wrong, listed, sample_id FROM samples JOIN shortlist USING (sample_id)"
        ).fetchall()
    listed = [row for row in rows if row[3] and row[0] == 4]
    decide(workspace, "digits-noisy", [row[4] for row in listed[:2]], "drop")
    decide(workspace, "digits-noisy", [listed[2][4]], "relabel", new_label=int(listed[2][1]))
    with connected(workspace, "digits-noisy") as connection:
        found = fetch_class_quality(connection, run)
    assert list(found["wrong"]) == sorted(found["wrong"], reverse=True)
    assert found["n"].sum() == len(rows) == 1797
    four = found.set_index("label").loc[4]
    own = [row for row in rows if row[0] == 4]
    assert four["wrong"] == pytest.approx(sum(row[2] for row in own), abs=1e-3)
    assert four["noise"] == pytest.approx(four["wrong"] / len(own))
    assert four["share"] == pytest.approx(len(own) / 1797)
    assert (four["flagged"], four["dropped"], four["relabeled"], four["kept"]) == (len(listed), 2, 1, 0)
    assert four["undecided"] == len(listed) - 3
    assert four["known_wrong"] == sum(row[0] != row[1] for row in own)
    assert four["precision"] == pytest.approx(sum(row[0] != row[1] for row in listed) / len(listed))


def test_networks_that_cannot_tell_give_no_estimate(judged_workspace: Path, tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    shutil.copytree(judged_workspace, root)
    run = scored_run(root, "digits-noisy")
    give_verdict(root, run, range(1797), 0, TOO_WEAK)
    with connected(Workspace.open(root), "digits-noisy") as connection:
        found = fetch_class_quality(connection, run)
    assert found["wrong"].isna().all() and found["noise"].isna().all() and not found["flagged"].any()
    assert found["n"].sum() == 1797 and found["known_wrong"].notna().all()
