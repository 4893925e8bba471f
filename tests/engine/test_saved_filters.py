"""Filters with names, beside the decisions."""

from __future__ import annotations

import duckdb
import pytest

from engine.errors import NotFoundError, SpecError
from engine.store.decisions import decide, fetch_decisions_log
from engine.store.saved_filters import MOST_NAME, MOST_QUERY, fetch_filters, remove_filter, save_filter
from engine.store.workspace import Workspace

HOSTILE = "<b>![x](http://a)</b> '; DROP TABLE log; -- \u202e\n\0"


def saved(workspace: Workspace) -> dict[str, tuple[str, str]]:
    return {row.name: (row.query, row.author) for row in fetch_filters(workspace, "small").itertuples(index=False)}


def test_the_latest_filter_of_a_name_counts_until_it_is_removed(small_workspace: Workspace) -> None:
    assert saved(small_workspace) == {}
    save_filter(small_workspace, "small", "blurred", "rule=aum", "ann")
    save_filter(small_workspace, "small", "threes", "label=3")
    save_filter(small_workspace, "small", " blurred ", "rule=aum&label=1", "bob")
    assert saved(small_workspace) == {"blurred": ("rule=aum&label=1", "bob"), "threes": ("label=3", "")}
    remove_filter(small_workspace, "small", "blurred", "ann")
    assert list(saved(small_workspace)) == ["threes"]
    with pytest.raises(NotFoundError, match="unknown filter 'blurred'"):
        remove_filter(small_workspace, "small", "blurred")
    save_filter(small_workspace, "small", "blurred", "rule=el2n")
    assert saved(small_workspace)["blurred"] == ("rule=el2n", "")


def test_a_filter_of_hostile_text_is_kept_as_it_is_and_one_too_long_is_refused(small_workspace: Workspace) -> None:
    save_filter(small_workspace, "small", HOSTILE, f"value={HOSTILE}", HOSTILE)
    assert saved(small_workspace) == {HOSTILE.strip(): (f"value={HOSTILE}", HOSTILE)}
    for name, query, message in (
        ("n" * (MOST_NAME + 1), "a=b", "81 characters; allowed: up to 80"),
        ("n", "q" * (MOST_QUERY + 1), "20,001 characters; allowed: up to 20,000"),
        (" ", "a=b", "the name of the filter is empty"),
        ("n", "", "the filter is empty"),
        ("\ud800", "a=b", "half of a character"),
    ):
        with pytest.raises(SpecError, match=message):
            save_filter(small_workspace, "small", name, query)
    assert len(saved(small_workspace)) == 1


def test_filters_and_decisions_lie_in_one_file_and_leave_each_other_alone(small_workspace: Workspace) -> None:
    """A file that has only decisions, as those of before, gets its table of filters with the first filter."""
    decide(small_workspace, "small", [1], "drop")
    with duckdb.connect(str(small_workspace.root / "decisions.duckdb")) as connection:
        connection.execute("DROP TABLE filters")
    assert saved(small_workspace) == {}
    save_filter(small_workspace, "small", "a", "label=1")
    assert fetch_decisions_log(small_workspace, "small")["sample_id"].tolist() == [1]
    with duckdb.connect(str(small_workspace.root / "decisions.duckdb")) as connection:
        # As somebody else may have made it: a name and a query that no page could take, and nothing at all.
        connection.execute(
            "INSERT INTO filters VALUES (90, 'small', repeat('x', 1000), 'a=b', '', now()), "
            "(91, 'small', 'big', repeat('x', 1000000), '', now()), (NULL, 'small', NULL, NULL, NULL, NULL)"
        )
    assert list(saved(small_workspace)) == ["a"]
