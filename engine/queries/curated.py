"""The curated set: which training samples stay, and with which labels, as decisions, a condition or a shortlist say. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np

from engine.errors import NotFoundError, SpecError
from engine.queries.connection import best_run, connected, fetch_sql
from engine.queries.verdicts import no_verdict
from engine.queries.versions import fetch_version_set
from engine.queries.writers import fetch_matching
from engine.store.versions import set_hash
from engine.store.workspace import Workspace

Numbers = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True, eq=False)
class CuratedSet:
    """Training samples that stay, with the labels to train on.

    sample_ids: (K,) int32, ascending, each once; labels: (K,) int32
    """

    sample_ids: Numbers
    labels: Numbers

    def __post_init__(self) -> None:
        ids, labels = self.sample_ids, self.labels
        if ids.ndim != 1 or ids.shape != labels.shape or {ids.dtype, labels.dtype} != {np.dtype(np.int32)}:
            raise SpecError("a curated set takes sample ids and as many labels, whole numbers of 32 bits")
        if (np.diff(ids) <= 0).any():
            raise SpecError("the sample ids of a curated set must ascend, each once")

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def hash(self) -> str:
        """SHA-256 of the ids and the labels: two sets have the same exactly when they are the same."""
        return set_hash(self.sample_ids, self.labels)


def curate(
    workspace: Workspace,
    dataset: str,
    *,
    version: str = "",
    where: str = "",
    drop_shortlist: bool = False,
    run: str | None = None,
) -> tuple[CuratedSet, str]:
    """The curated set of a dataset: a named version, or what stays as it stands now.

    What people decided: drop leaves a sample out, relabel gives it the new label; kept, unsure and undecided samples
    stay with the given label.

    Args:    version: the name of a version, whose samples and labels are taken as they were
             where: a condition as of `winnow export --where`; it alone says what stays, and decisions correct the labels
             drop_shortlist: also leave out what is on the shortlist, but for what people kept or relabeled
             run: whose scores and shortlist are read, None = the one to trust most
    Returns: the set, and in words where it came from
    Raises:  SpecError when several are given, or nothing is dropped or relabeled; NotFoundError without a shortlist,
             or a version of that name
    """
    if bool(version) + bool(where) + drop_shortlist > 1:
        raise SpecError("--version, --where and --drop-shortlist exclude each other; allowed: one of them, or none")
    if version:
        return CuratedSet(*fetch_version_set(workspace, dataset, version)), f"version {version}"
    with connected(workspace, dataset) as connection:
        if where:
            kept = fetch_matching(connection, where, run)
            everyone = _decided(connection, "true")
            stays = np.isin(everyone.sample_ids, kept)
            return CuratedSet(everyone.sample_ids[stays], everyone.labels[stays]), f"where {where}"
        if drop_shortlist:
            return _without_shortlist(connection, dataset, run), "decisions, shortlist dropped"
        found = _decided(connection, "action IS DISTINCT FROM 'drop'")
        (size,), same = connection.execute("SELECT count(*) FROM samples WHERE split = 'train'").fetchall()[0], False
        same = len(found) == size and not relabeled(connection, found)
    if same:
        raise SpecError(
            f"no training sample of '{dataset}' is decided to be dropped or relabeled, so there is nothing to prove; decide "
            "about some, or say what stays: --where, --drop-shortlist or --version"
        )
    return found, "decisions"


def _without_shortlist(connection: duckdb.DuckDBPyConnection, dataset: str, run: str | None) -> CuratedSet:
    chosen = run or best_run(connection, "verdict")
    listed = fetch_sql(connection, "SELECT sample_id FROM shortlist WHERE run_id = ? AND listed", [chosen])
    if chosen is None:
        raise NotFoundError(f"no run of '{dataset}' has a shortlist; winnow run {dataset} makes one")
    if listed.empty and not fetch_sql(connection, "SELECT 1 FROM shortlist WHERE run_id = ? LIMIT 1", [chosen]).size:
        raise NotFoundError(no_verdict(dataset, chosen))
    return _decided(
        connection,
        "action IS DISTINCT FROM 'drop' AND (coalesce(action IN ('keep', 'relabel'), false) OR sample_id NOT IN "
        "(SELECT sample_id FROM shortlist WHERE run_id = $run AND listed))",
        {"run": chosen},
    )


def _decided(connection: duckdb.DuckDBPyConnection, condition: str, given: dict[str, Any] | None = None) -> CuratedSet:
    """The training samples that meet a condition over samples and decisions, with corrected labels."""
    rows = connection.execute(
        "SELECT sample_id, CASE WHEN action = 'relabel' THEN coalesce(new_label, label) ELSE label END AS label "
        f"FROM samples LEFT JOIN decisions USING (sample_id) WHERE split = 'train' AND {condition} ORDER BY sample_id",
        given or {},
    ).fetchnumpy()
    return CuratedSet(np.asarray(rows["sample_id"], np.int32), np.asarray(rows["label"], np.int32))


def relabeled(connection: duckdb.DuckDBPyConnection, curated: CuratedSet) -> int:
    """How many samples of a set have another label than the given one."""
    rows = connection.execute(
        "SELECT sample_id, label FROM samples WHERE split = 'train' ORDER BY sample_id"
    ).fetchnumpy()
    given = np.asarray(rows["label"], np.int32)[np.searchsorted(rows["sample_id"], curated.sample_ids)]
    return int((given != curated.labels).sum())
