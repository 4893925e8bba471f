"""Named versions of the curated set: what there is, what one would hold, and making one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from dashboard.data.core import Snapshot, few, many, require_writable
from dashboard.data.decisions import author
from engine.queries.proofs import Gain, points
from engine.queries.recipes import evaluate, make_recipe
from engine.queries.version_words import command_words, recipe_sentences
from engine.queries.versions import (
    Difference,
    OnDataset,
    Reproduced,
    difference,
    open_on_dataset,
    reproduce,
    store_version,
)
from engine.store.decisions import last_batch
from engine.store.records import dataset_facts
from engine.store.versions import Labels, Recipe, Version, remove_version, require_free_name, stored_versions
from engine.store.workspace import Workspace

__all__ = [
    "Difference", "OnDataset", "Planned", "Recipe", "Reproduced", "Version", "command_words", "difference",
    "everything", "gains", "on_dataset", "plan", "points", "recipe_sentences", "remove", "save", "versions", "check",
]  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """A set before it has a name: its recipe, its numbers, and the label of every training sample."""

    recipe: Recipe
    facts: dict[str, Any]
    labels: Labels


def versions(at: Snapshot) -> list[Version]:
    """The versions of a dataset, the oldest first; not cached."""
    return stored_versions(_workspace(at), at.dataset)


def gains(at: Snapshot) -> dict[str, Gain]:
    """What was gained, by the hash of a set, where `winnow prove` has compared it with the full one."""
    found: dict[str, Gain] = few(at, "fetch_gains")
    return found


def plan(
    at: Snapshot,
    run_id: str,
    drop: Sequence[str],
    drop_shortlist: bool,
    relabel_above: float | None,
    decisions: bool,
    unsure: str,
) -> Planned:
    """What a recipe gives with the decisions that stand now. Raises WinnowError for a mistake in a condition."""
    given = (at, run_id, tuple(drop), drop_shortlist, relabel_above, decisions, unsure)
    return _plan(*given, last_batch(_workspace(at)))


@st.cache_data(max_entries=12, show_spinner="Counting what stays …")
def _plan(
    at: Snapshot,
    run_id: str,
    drop: tuple[str, ...],
    drop_shortlist: bool,
    relabel_above: float | None,
    decisions: bool,
    unsure: str,
    batch: int,
) -> Planned:
    recipe = make_recipe(
        _workspace(at),
        at.dataset,
        drop=drop,
        drop_shortlist=drop_shortlist,
        relabel_above=relabel_above,
        decisions=decisions,
        unsure=unsure,
        run=run_id or None,
    )
    made = evaluate(_workspace(at), recipe)
    return Planned(recipe, made.facts, made.labels)


def save(at: Snapshot, recipe: Recipe, name: str, note: str) -> Version:
    """Keep the set of a recipe under a name, for the person of this session. Raises WinnowError for a name that is taken."""
    require_writable()
    require_free_name(_workspace(at), at.dataset, name)
    return store_version(_workspace(at), recipe, name, note=note, author=author())


def remove(at: Snapshot, name: str) -> None:
    """Take a version out of the list. Raises WinnowError when there is none of that name."""
    require_writable()
    remove_version(_workspace(at), at.dataset, name, author())


def on_dataset(at: Snapshot, version: Version) -> OnDataset:
    """A version on the dataset as it is now."""
    return _on_dataset(at.root, dataset_facts(_workspace(at).require_dataset(at.dataset)).fingerprint, version)


@st.cache_data(
    max_entries=12, show_spinner=False, hash_funcs={Version: lambda v: (v.dataset, v.entry, v.hash, v.fingerprint)}
)
def _on_dataset(root: str, fingerprint: str, version: Version) -> OnDataset:
    return open_on_dataset(Workspace(Path(root)), version)


def everything(at: Snapshot) -> Labels:
    """The given label of every training sample, by id."""
    labels: Labels = many(at, "fetch_labels")["label"].to_numpy(np.int32)
    return labels


def check(at: Snapshot, version: Version) -> Reproduced:
    """Evaluate the recipe of a version again, and compare."""
    return reproduce(_workspace(at), version)


def _workspace(at: Snapshot) -> Workspace:
    return Workspace(Path(at.root))
