import subprocess
import sys

import pandas as pd
import pytest

from engine.errors import SpecError
from engine.queries.connection import connected
from engine.store.decisions import decide, fetch_decisions_log, undo


def now(workspace):
    log = fetch_decisions_log(workspace, "small")
    return {int(r.sample_id): (r.action, None if pd.isna(r.new_label) else r.new_label) for r in log.itertuples()}


def test_the_latest_decision_of_a_sample_counts(small_workspace):
    assert now(small_workspace) == {}
    decide(small_workspace, "small", [1, 2], "drop")
    decide(small_workspace, "small", [2], "relabel", new_label=7, note="a seven")
    assert now(small_workspace) == {1: ("drop", None), 2: ("relabel", 7)}
    with connected(small_workspace, "small") as connection:
        rows = connection.execute("SELECT sample_id, action, new_label, note FROM decisions ORDER BY 1").fetchall()
    assert rows == [(1, "drop", None, ""), (2, "relabel", 7, "a seven")]


def test_undo_takes_back_batch_by_batch(small_workspace):
    decide(small_workspace, "small", [1, 2, 3], "keep")
    decide(small_workspace, "small", [2, 3], "drop")
    assert undo(small_workspace, "small") is not None
    assert now(small_workspace) == {i: ("keep", None) for i in (1, 2, 3)}
    undo(small_workspace, "small")
    assert now(small_workspace) == {} and undo(small_workspace, "small") is None
    decide(small_workspace, "small", [5], "drop")
    assert now(small_workspace) == {5: ("drop", None)}


@pytest.mark.parametrize(
    ("ids", "action", "label", "said"),
    [
        ([1], "delete", None, "unknown action"),
        ([1], "relabel", None, "takes a new label"),
        ([1], "keep", 3, "takes a new label"),
        ([1], "relabel", 10, "allowed: 0 to 9"),
        ([10_000], "keep", None, "sample 10000; allowed: 0 to"),
    ],
)
def test_a_wrong_decision_is_refused_and_nothing_written(small_workspace, ids, action, label, said):
    with pytest.raises(SpecError, match=said):
        decide(small_workspace, "small", ids, action, new_label=label)
    assert now(small_workspace) == {}


def test_two_people_at_once_lose_nothing(small_workspace):
    code = (
        "import sys\nfrom pathlib import Path\nfrom engine.store.decisions import decide\n"
        "from engine.store.workspace import Workspace\n"
        "w = Workspace.open(Path(sys.argv[1]))\n"
        "for i in range(15):\n    decide(w, 'small', [int(sys.argv[2]) + i], 'drop')\n"
    )
    people = [
        subprocess.Popen([sys.executable, "-c", code, str(small_workspace.root), str(first)]) for first in (0, 50)
    ]
    assert [person.wait(timeout=120) for person in people] == [0, 0]
    assert sorted(now(small_workspace)) == [*range(15), *range(50, 65)]
