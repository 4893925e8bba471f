"""Named versions of the curated set: making one, opening one on the dataset as it is now, and comparing two. No torch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import duckdb
import numpy as np
import pandas as pd

from engine.errors import NotFoundError, SpecError, WinnowError
from engine.queries.connection import connected, fetch_sql
from engine.queries.proofs import Gain, compute_gain, fetch_proof
from engine.queries.recipes import evaluate, make_recipe
from engine.queries.version_words import version_line
from engine.queries.writers import Choice
from engine.store.contents import fetch_joined_contents
from engine.store.records import dataset_facts
from engine.store.versions import (
    DROPPED,
    Labels,
    Recipe,
    Version,
    add_version,
    kept_set,
    load_contents,
    load_version,
    require_free_name,
    set_hash,
    stored_version,
)
from engine.store.workspace import Workspace


def create_version(
    workspace: Workspace,
    dataset: str,
    name: str,
    *,
    drop: Sequence[str] = (),
    drop_shortlist: bool = False,
    relabel_above: float | None = None,
    decisions: bool = True,
    unsure: str = "",
    run: str | None = None,
    note: str = "",
    author: str = "",
) -> Version:
    """Name the set that a recipe gives now (see `make_recipe`), and keep it.

    Raises: SpecError when the dataset has a version of that name, or the set is empty; what `make_recipe` raises
    """
    require_free_name(workspace, dataset, name)
    recipe = make_recipe(
        workspace,
        dataset,
        drop=drop,
        drop_shortlist=drop_shortlist,
        relabel_above=relabel_above,
        decisions=decisions,
        unsure=unsure,
        run=run,
    )
    return store_version(workspace, recipe, name, note=note, author=author)


def store_version(workspace: Workspace, recipe: Recipe, name: str, *, note: str = "", author: str = "") -> Version:
    """Evaluate a recipe, and keep the set under a name; SpecError when nothing is left of the dataset."""
    made = evaluate(workspace, recipe)
    if not made.facts["kept"]:
        raise SpecError(f"the recipe drops every training sample of '{recipe.dataset}'; loosen its rules")
    path = workspace.require_dataset(recipe.dataset)
    return add_version(
        workspace,
        recipe,
        name,
        made.labels,
        made.reasons,
        contents=fetch_joined_contents(path, len(made.labels)),
        facts=made.facts,
        classes=dataset_facts(path).classes,
        note=note,
        author=author,
    )


def fetch_version_set(workspace: Workspace, dataset: str, name: str) -> tuple[Labels, Labels]:
    """The samples of a version under the ids that they have in the dataset now, ascending, and their labels: (n,) int32.

    They are read as they were stored, whatever was decided or removed since. When the dataset was ingested anew, every
    sample is found by its image, and its label by the name of its class.

    Raises: NotFoundError for an unknown dataset or version, or when images or classes of it are not in the dataset now
    """
    version = stored_version(workspace, dataset, name)
    now = open_on_dataset(workspace, version)
    if now.gone or now.classes_gone:
        raise NotFoundError(f"version '{name}' is not whole: {now.words(version)}")
    return now.kept


def choose_version(workspace: Workspace, dataset: str, name: str, choice: Choice) -> Choice:
    """A choice of an export, of no other training samples than those of a version, under its labels.

    Samples of the test split, of which a version says nothing, are as they were chosen.
    """
    ids, labels = fetch_version_set(workspace, dataset, name)
    return replace(choice, ids=ids, labels=labels, set_name=name)


@dataclass(frozen=True)
class OnDataset:
    """A version on the dataset as it is now. labels: of every training sample there is now, DROPPED where it is not in the
    version; how: same, grown (samples were added since) or anew (ingested again: found by the images); found, gone: images
    of the version that are and are not among its training samples; classes_gone: names that its labels need."""

    labels: Labels
    how: Literal["same", "grown", "anew"]
    gone: int = 0
    classes_gone: tuple[str, ...] = ()

    @property
    def kept(self) -> tuple[Labels, Labels]:
        """The sample ids that stay, ascending, and their labels."""
        return kept_set(self.labels)

    def words(self, version: Version) -> str:
        """How the dataset differs from the one the version was made of, and what that means for it; "" where it does not."""
        if self.how == "same":
            return ""
        if self.how == "grown":
            return (
                f"samples were added to the dataset since: {len(self.labels) - version.samples:,} training samples are not in "
                "the version"
            )
        kept = int(version.facts.get("kept", 0))
        text = f"the dataset was ingested anew since; of its {kept:,} samples {kept - self.gone:,} are found by their images"
        if self.gone:
            text += f", {self.gone:,} are not in it now; ingest their images again, or make a new version"
        if self.classes_gone:
            text += f"; the dataset has no class '{self.classes_gone[0][:80]}' now"
        return text


def open_on_dataset(workspace: Workspace, version: Version) -> OnDataset:
    """A version on the dataset as it is now; NotFoundError when the dataset is gone."""
    path = workspace.require_dataset(version.dataset)
    facts, labels = dataset_facts(path), load_version(workspace, version)[0]
    n = _training_samples(workspace, version.dataset)
    if version.fingerprint == facts.fingerprint:
        return OnDataset(labels, "same")
    if version.fingerprint in facts.earlier and n >= len(labels):  # samples that are added follow those that were there
        return OnDataset(np.concatenate([labels, np.full(n - len(labels), DROPPED, np.int32)]), "grown")
    before = _keys(load_contents(workspace, version)).assign(label=labels)
    kept = before[before["label"] != DROPPED]
    now = _keys(fetch_joined_contents(path, n)).reset_index(names="sample_id")
    found = now.merge(kept, on=["a", "b", "copy"])
    number = {name: label for label, name in enumerate(facts.classes)}
    known = np.array([number.get(name, DROPPED) for name in version.classes], np.int32)
    carried = np.full(n, DROPPED, np.int32)
    carried[found["sample_id"]] = known[found["label"]]
    used = sorted({version.classes[label] for label in found["label"].unique() if known[label] == DROPPED})
    return OnDataset(carried, "anew", len(kept) - len(found), tuple(used))


def _keys(contents: bytes) -> pd.DataFrame:
    """The contents as two numbers each, and how many of the same came before."""
    halves = np.frombuffer(contents, "<u8").reshape(-1, 2)
    keys = pd.DataFrame({"a": halves[:, 0], "b": halves[:, 1]})
    return keys.assign(copy=keys.groupby(["a", "b"]).cumcount())


def _training_samples(workspace: Workspace, dataset: str) -> int:
    with connected(workspace, dataset, [], 0) as connection:
        return int(fetch_sql(connection, "SELECT count(*) AS n FROM samples WHERE split = 'train'")["n"][0])


@dataclass(frozen=True)
class Reproduced:
    """What evaluating the recipe of a version again gave. same: the set of the version, byte for byte; words: which it
    is, and what changed since the version was made, in a sentence."""

    same: bool
    words: str


def reproduce(workspace: Workspace, version: Version) -> Reproduced:
    """Evaluate the recipe of a version again, and compare. The version itself is as it was stored, whatever comes out."""
    now = open_on_dataset(workspace, version)
    if now.how != "same":
        return Reproduced(False, f"Cannot be computed again: {now.words(version)}. The set is the stored one.")
    try:
        again = evaluate(workspace, version.recipe)
    except WinnowError as error:
        return Reproduced(False, f"Cannot be computed again: {error}. The set is the stored one.")
    if set_hash(*again.kept) == version.hash:
        return Reproduced(True, "Computed again, it is the same set, byte for byte.")
    differ = int((again.labels != now.labels).sum())
    decided, before = again.facts["decisions"], version.facts.get("decisions")
    why = f"; {before:,} decisions counted then, {decided:,} are in the log now" if decided != before else ""
    return Reproduced(False, f"Computed again, {differ:,} samples differ{why}. The set is the stored one.")


def fetch_gains(connection: duckdb.DuckDBPyConnection) -> dict[str, Gain]:
    """What was gained, by the hash of the set: of the latest proof (`winnow prove`) of each set that has one."""
    rows = connection.execute(
        "SELECT run_id, spec->>'curated' FROM runs WHERE kind = 'prove' AND run_id IN (SELECT run_id FROM proofs) "
        "ORDER BY created_at, run_id"
    ).fetchall()
    found = {str(curated): compute_gain(fetch_proof(connection, str(run_id))) for run_id, curated in rows}
    return {curated: gain for curated, gain in found.items() if gain}


@dataclass(frozen=True)
class Difference:
    """What changed between two versions, under the ids of the dataset as it is now.

    same: samples that both keep under one label; only_first, only_second: ids of those that one of them keeps;
    relabeled: sample_id, first, second (labels) of those that both keep under different labels
    """

    same: int
    only_first: Labels
    only_second: Labels
    relabeled: pd.DataFrame


def fetch_difference(workspace: Workspace, dataset: str, first: str, second: str) -> Difference:
    """What changed from one version to another; NotFoundError when there is no such version, or one is not whole."""
    n = _training_samples(workspace, dataset)
    labels = np.full((2, n), DROPPED, np.int32)
    for row, name in zip(labels, (first, second), strict=True):
        ids, of_ids = fetch_version_set(workspace, dataset, name)
        row[ids] = of_ids
    return difference(*labels)


def difference(first: Labels, second: Labels) -> Difference:
    """What changed from one set to another, each the label of every training sample, DROPPED where it does not stay."""
    here, there = first != DROPPED, second != DROPPED
    at = np.flatnonzero(here & there & (first != second)).astype(np.int32)
    relabeled = pd.DataFrame({"sample_id": at, "first": first[at], "second": second[at]})
    return Difference(
        int((here & there).sum()) - len(at),
        np.flatnonzero(here & ~there).astype(np.int32),
        np.flatnonzero(there & ~here).astype(np.int32),
        relabeled,
    )


class NamedVersion:
    """A version in Python: the set as it was stored, its recipe and its numbers.

    Attributes:
        name, note, author, created_at (UTC): of the version; recipe: what gave the set; facts: its numbers (see the guide);
        hash: SHA-256 of the set
    """

    def __init__(self, workspace: Workspace, version: Version) -> None:
        self._workspace, self._version = workspace, version
        self.name, self.note, self.author, self.created_at = (
            version.name,
            version.note,
            version.author,
            version.created_at,
        )
        self.recipe, self.facts, self.hash = version.recipe, dict(version.facts), version.hash

    @functools.cached_property
    def _set(self) -> tuple[Labels, Labels]:
        return fetch_version_set(self._workspace, self._version.dataset, self.name)

    @property
    def ids(self) -> Labels:
        """The ids of the samples that stay, ascending: (n,) int32."""
        return self._set[0]

    @property
    def labels(self) -> Labels:
        """Their labels: (n,) int32."""
        return self._set[1]

    def diff(self, other: NamedVersion | str) -> Difference:
        """What changed from this version to another of the same dataset."""
        name = other if isinstance(other, str) else other.name
        return fetch_difference(self._workspace, self._version.dataset, self.name, name)

    def reproduce(self) -> Reproduced:
        """Evaluate its recipe again, and compare."""
        return reproduce(self._workspace, self._version)

    def __len__(self) -> int:
        return int(self.facts["kept"])

    def __repr__(self) -> str:
        return f"<Version {self.name} of {self._version.dataset}: {version_line(self._version)}>"
