"""Decisions that are sent until they are acknowledged: each is written once, in its order, and taken back by its name."""

from __future__ import annotations

import duckdb
import pytest

from engine.errors import SpecError
from engine.store.decisions import decide, fetch_decisions_log, undo
from engine.store.requests import Request, write_requests
from engine.store.workspace import Workspace


def stands(workspace: Workspace) -> list[tuple[int, str, int | None, str]]:
    found = fetch_decisions_log(workspace, "small")
    rows = zip(found["sample_id"], found["action"], found["new_label"].astype(float), found["author"], strict=True)
    return [(int(i), action, None if label != label else int(label), author) for i, action, label, author in rows]


def logged(workspace: Workspace) -> list[str]:
    with duckdb.connect(str(workspace.root / "decisions.duckdb"), read_only=True) as log:
        return [action for (action,) in log.execute("SELECT action FROM log ORDER BY batch").fetchall()]


SENT = [Request("a-1", "keep", 5), Request("a-2", "relabel", 6, 3), Request("a-3", "drop", 5)]


def test_what_is_sent_twice_is_written_once(small_workspace: Workspace) -> None:
    for _ in range(2):
        assert write_requests(small_workspace, "small", SENT, "ann") == {}
    assert stands(small_workspace) == [(5, "drop", None, "ann"), (6, "relabel", 3, "ann")]
    assert logged(small_workspace) == ["keep", "relabel", "drop"]
    write_requests(
        small_workspace, "small", [*SENT, Request("a-4", "unsure", 7)], "ann"
    )  # the rest of a larger message
    assert logged(small_workspace) == ["keep", "relabel", "drop", "unsure"]


def test_an_undo_takes_back_what_it_names_and_nothing_else_when_it_is_sent_again(small_workspace: Workspace) -> None:
    write_requests(small_workspace, "small", SENT)
    decide(small_workspace, "small", [8], "keep", author="somebody else")
    back = [Request("a-4", "undo", 5, of="a-3")]
    for _ in range(3):
        assert write_requests(small_workspace, "small", [*SENT, *back]) == {}
    assert [row[:2] for row in stands(small_workspace)] == [(5, "keep"), (6, "relabel"), (8, "keep")]
    assert logged(small_workspace).count("undo") == 1
    # A decision and its undo that arrive together, after a time without a server.
    both = [Request("b-1", "drop", 9), Request("b-2", "undo", 9, of="b-1")]
    write_requests(small_workspace, "small", both)
    assert 9 not in {row[0] for row in stands(small_workspace)}


def test_an_undo_of_what_somebody_took_back_meanwhile_changes_nothing(small_workspace: Workspace) -> None:
    write_requests(small_workspace, "small", SENT)
    assert undo(small_workspace, "small") == 3
    write_requests(
        small_workspace, "small", [Request("a-4", "undo", 5, of="a-3"), Request("a-5", "undo", 5, of="never")]
    )
    assert [row[:2] for row in stands(small_workspace)] == [(5, "keep"), (6, "relabel")]
    assert logged(small_workspace).count("undo") == 1


def test_what_can_never_be_written_is_refused_and_the_rest_is_written(small_workspace: Workspace) -> None:
    wrong = {
        "c-1": Request("c-1", "keep", 100_000), "c-2": Request("c-2", "keep", -1), "c-3": Request("c-3", "relabel", 1, 99),
        "c-4": Request("c-4", "relabel", 1), "c-5": Request("c-5", "keep", 1, 2), "c-6": Request("c-6", "kep", 1),
        "c-7": Request("c-7", "undo", 1),
    }  # fmt: skip
    refused = write_requests(small_workspace, "small", [*wrong.values(), Request("c-8", "keep", 1)])
    assert refused.keys() == wrong.keys()
    assert "allowed: 0 to" in refused["c-1"] and "did you mean 'keep'" in refused["c-6"]
    assert [row[:2] for row in stands(small_workspace)] == [(1, "keep")]


def test_an_author_that_no_file_holds_is_refused(small_workspace: Workspace) -> None:
    with pytest.raises(SpecError, match="author has 90 characters"):
        write_requests(small_workspace, "small", SENT, "x" * 90)
