"""Export: which samples, in which formats, and the same bytes for the command line and the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from engine.errors import NotFoundError, SpecError, WinnowError
from engine.queries.connection import connected, fetch_sql
from engine.queries.writers import (
    csv_of,
    export,
    export_samples,
    fetch_selected,
)
from engine.store.tables import PROPERTIES
from engine.store.workspace import Workspace

FRAME = pd.DataFrame(
    {
        "sample_id": np.array([2, 5], np.int32),
        "label": [1, 0],
        "true_label": pd.array([1, None], "Int64"),
        "class_name": ["ü", 'a"b'],
    }
)

COLUMNS = [
    "sample_id",
    "split",
    "label",
    "true_label",
    "class_name",
    "true_class_name",
    "source",
    "p_wrong",
    "flagged",
    "suspicion_rank",
    "given_label",
    "given_class",
    "decision",
]
"""Of an export, before those of the metadata."""


def columns(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The columns of an export of everything."""
    names = connection.execute("SELECT DISTINCT name FROM metadata ORDER BY 1").fetchall()
    return COLUMNS + [name for (name,) in names if name not in PROPERTIES]


@pytest.fixture(scope="module")
def opened(noisy: tuple[Path, str]) -> Iterator[tuple[Workspace, str, duckdb.DuckDBPyConnection]]:
    root, dataset = noisy
    with connected(Workspace.open(root), dataset) as connection:
        yield Workspace.open(root), dataset, connection


def test_a_table_is_written_as_a_csv() -> None:
    assert csv_of(FRAME) == 'sample_id,label,true_label,class_name\n2,1,1,ü\n5,0,,"a""b"\n'
    assert csv_of(FRAME.assign(class_name=["a\rb", "c\r\nd"]), header=False) == '2,1,1,"a\rb"\n5,0,,"c\r\nd"\n'


def test_what_is_selected_is_what_its_sql_says(opened: tuple[Workspace, str, duckdb.DuckDBPyConnection]) -> None:
    workspace, dataset, connection = opened
    run = (
        "(SELECT run_id FROM runs WHERE run_id IN (SELECT run_id FROM scores) ORDER BY created_at DESC, run_id LIMIT 1)"
    )
    cases = {
        "": "true",
        "aum > 0 AND label <> 1": f"sample_id IN (SELECT sample_id FROM scores WHERE run_id = {run} AND score = 'aum' "
        "AND value > 0) AND label <> 1",
        "action = 'drop'": "sample_id IN (SELECT sample_id FROM decisions WHERE action = 'drop')",
        "COLUMNS('^(el2n|aum)$') > 0": f"sample_id IN (SELECT sample_id FROM scores WHERE run_id = {run} AND score IN "
        "('el2n', 'aum') GROUP BY sample_id HAVING min(value) > 0)",
    }
    for where, meant in cases.items():
        found = fetch_selected(connection, where)
        expected = connection.execute(
            f"SELECT sample_id FROM samples WHERE split = 'train' AND {meant} ORDER BY sample_id"
        ).fetchall()
        assert found["sample_id"].tolist() == [i for (i,) in expected], where
        assert list(found.columns) == (columns(connection) if len(found) else COLUMNS)
        assert found["true_label"].dtype == "Int64"


def test_what_the_verdict_says_is_in_an_export(judged_workspace: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(judged_workspace)
    with connected(workspace, "digits-noisy") as connection:
        shortlist = fetch_sql(connection, "SELECT * FROM shortlist ORDER BY sample_id")
        everything, names = fetch_selected(connection, "", split="all"), columns(connection)
    assert everything["sample_id"].tolist() == list(range(1797))
    assert everything["p_wrong"].tolist() == shortlist["p_wrong"].tolist()
    assert everything["flagged"].tolist() == shortlist["listed"].tolist()
    assert everything["suspicion_rank"].tolist() == shortlist["rank"].tolist()

    sizes = {}
    for split in ("train", "test", "all"):
        sizes[split] = export(workspace, "digits-noisy", "flagged", tmp_path / f"{split}.csv", split=split)
    assert sizes == {"train": (250, 1438), "test": (100, 359), "all": (350, 1797)}
    written = pd.read_csv(tmp_path / "all.csv")
    assert list(written) == names and written["flagged"].all()
    assert sorted(written["suspicion_rank"]) == list(range(350))
    assert export(workspace, "digits-noisy", "NOT flagged AND p_wrong < 0.3", tmp_path / "kept.parquet")[0] == 539
    told = pd.read_parquet(tmp_path / "kept.parquet").attrs["verdict"]
    assert (told["noise"], told["listed"], told["judged"]) == (0.2, 350, 1797)
    with pytest.raises(SpecError, match="unknown split 'valid'; allowed: all, test, train"):
        export(workspace, "digits-noisy", "", tmp_path / "no.csv", split="valid")


@pytest.mark.parametrize("where", ["flagged", "NOT flagged", "label = 1 AND p_wrong > 0.5", "suspicion_rank < 10"])
def test_a_run_without_a_verdict_flags_nothing_and_says_so(old_workspace: Path, tmp_path: Path, where: str) -> None:
    workspace = Workspace.open(old_workspace)
    with pytest.raises(NotFoundError, match="has no verdict, so none of its samples is flagged") as error:
        export(workspace, "noisy", where, tmp_path / "kept.csv")
    assert "winnow run noisy" in str(error.value) and list(tmp_path.iterdir()) == []
    # A rule has a column of that name as well, and can be meant.
    by_rule = "sample_id IN (SELECT sample_id FROM flags WHERE rule = 'aum_threshold' AND flagged)"
    kept, total = export(workspace, "noisy", by_rule, tmp_path / "kept.csv")
    assert 0 < kept < total and pd.read_csv(tmp_path / "kept.csv")["flagged"].isna().all()


def test_an_export_is_the_bytes_of_what_is_selected(
    opened: tuple[Workspace, str, duckdb.DuckDBPyConnection], tmp_path: Path
) -> None:
    workspace, dataset, connection = opened
    kept, total = export(workspace, dataset, "aum > 0", tmp_path / "kept.csv")
    frame = fetch_selected(connection, "aum > 0")
    assert 0 < kept == len(frame) < total
    assert (tmp_path / "kept.csv").read_bytes() == csv_of(frame).encode()
    ids = frame["sample_id"].tolist()[:4]
    assert export_samples(workspace, dataset, ids, tmp_path / "some.csv", weights=[1, 2, 3, 0.5]) == (4, total)
    written = pd.read_csv(tmp_path / "some.csv")
    assert written["sample_id"].tolist() == ids and written["weight"].tolist() == [1, 2, 3, 0.5]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("1) UNION SELECT sample_id, split, label, 1, 'x', 'y' FROM samples; --", "not one SQL expression"),
        ("true; DROP VIEW scores", "not one SQL expression"),
        ("no_such_score > 0", "no_such_score"),
        ("label = (SELECT 1 FROM read_csv('/etc/passwd'))", "disabled"),
    ],
)
def test_a_wrong_condition_is_one_line_and_writes_nothing(
    opened: tuple[Workspace, str, duckdb.DuckDBPyConnection], tmp_path: Path, where: str, said: str
) -> None:
    with pytest.raises(WinnowError, match=said) as error:
        export(opened[0], opened[1], where, tmp_path / "kept.csv")
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_named_with_the_nearest(opened: tuple[Workspace, str, object], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="unknown format 'parkuet'; did you mean 'parquet'"):
        export(opened[0], opened[1], "true", tmp_path / "kept.csv", "parkuet")
