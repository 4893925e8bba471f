"""What the recipe of a version gives: which training samples stay, with which label and why, and its numbers. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from engine.errors import NotFoundError, SpecError
from engine.queries.connection import best_run, connected, fetch_sql, runs_of, source_run
from engine.queries.verdicts import fetch_verdict, no_verdict
from engine.queries.writers import fetch_matching
from engine.store.decisions import last_batch
from engine.store.records import dataset_facts
from engine.store.sql import check_condition
from engine.store.versions import DROPPED, Labels, Reasons, Recipe, kept_set
from engine.store.workspace import Workspace

UNSURE = ("", "keep", "drop")
MOST_CONDITIONS = 100

SUGGESTED_LABEL, SHORTLIST, KEEP, DROP, RELABEL, UNSURE_KEEP, UNSURE_DROP = range(101, 108)
"""Why a sample is in the set or not: 0 = nothing says otherwise; 1 .. 100 = the condition of that place drops it; a rule
by the run's suggestion or its shortlist; a person's decision."""

_NOT_SQL = re.compile(r"'[^']*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
_CHANGING = re.compile(r"\b(current_(date|time|timestamp)|localtime(stamp)?|(using|table)\s*sample)\b", re.IGNORECASE)
_MEANS = re.compile(r"(?<!\w)\"?(\w+)\"?\s*\(")


@dataclass(frozen=True)
class Outcome:
    """What a recipe makes of every training sample: its label, DROPPED where it does not stay, and why. facts: its numbers."""

    recipe: Recipe
    labels: Labels
    reasons: Reasons
    facts: dict[str, Any]

    @property
    def kept(self) -> tuple[Labels, Labels]:
        """The sample ids that stay, ascending, and their labels."""
        return kept_set(self.labels)


def make_recipe(
    workspace: Workspace,
    dataset: str,
    *,
    drop: Sequence[str] = (),
    drop_shortlist: bool = False,
    relabel_above: float | None = None,
    decisions: bool = True,
    unsure: str = "",
    run: str | None = None,
) -> Recipe:
    """A recipe on the dataset as it is, with the decisions that stand now (see `Recipe` for what each part does).

    Args:   drop: SQL conditions as `winnow export --where` takes them; run: None = the run to be trusted most. Of a
            relabeling, which has no shortlist, the suggestions are taken, and the shortlist is that of the run to be trusted
            most
    Raises: SpecError for an option that is not allowed; NotFoundError when a rule needs a run and there is none
    """
    facts = dataset_facts(workspace.require_dataset(dataset))
    if unsure not in UNSURE:
        raise SpecError(f"--unsure is '{unsure[:80]}'; allowed: keep, drop")
    if relabel_above is not None and not 0 < relabel_above <= 1:
        raise SpecError(f"--relabel-above is {relabel_above:g}; allowed: above 0 to 1")
    if len(drop) > MOST_CONDITIONS:
        raise SpecError(f"{len(drop)} conditions; allowed: up to {MOST_CONDITIONS}, and one may hold several with OR")
    with connected(workspace, dataset, decisions_until=0) as connection:
        for condition in drop:
            _check(connection, condition)
        every = runs_of(workspace, dataset)
        if run and run not in every:
            raise NotFoundError(
                f"run {run} is not a published run of dataset '{dataset}' as it is; winnow runs lists them"
            )
        suggests = ""
        if run and drop_shortlist and relabel_above is not None and _is_relabeling(connection, run):
            suggests, run = run, None
        chosen = run or best_run(connection, "verdict") or best_run(connection) or ""
        if drop_shortlist:
            _require_shortlist(connection, dataset, chosen)
        if relabel_above is not None and not chosen:
            raise NotFoundError(f"no run of '{dataset}' suggests labels; winnow run {dataset} makes one")
        needed = [chosen] if chosen and (drop or drop_shortlist or relabel_above is not None) else []
        needed += [suggests] if suggests else []
        needed += [name for name in every if any(name in condition for condition in drop)]
        needed += [source_run(connection, view, name) for name in needed for view in ("suggestions", "embedding")]
    return Recipe(
        dataset=dataset,
        fingerprint=facts.fingerprint,
        run=chosen,
        suggests=suggests,
        runs=tuple(dict.fromkeys(name for name in needed if name in every)),
        drop=tuple(drop),
        relabel_above=relabel_above,
        drop_shortlist=drop_shortlist,
        decisions=last_batch(workspace) if decisions else None,
        unsure=unsure,
    )


def evaluate(workspace: Workspace, recipe: Recipe) -> Outcome:
    """What a recipe gives on the dataset that it was made of; the same whenever it is evaluated.

    Rules read the runs of the recipe and no others, and decisions count as they stood at its batch.

    Raises: NotFoundError when a run that the rules read is gone; WinnowError for a mistake in a condition
    """
    published = runs_of(workspace, recipe.dataset)
    for name in recipe.runs:
        if name not in published:
            raise NotFoundError(f"run {name}, which its rules read, is gone")
    runs = [name for name in dict.fromkeys((*recipe.runs, recipe.run)) if name in published]
    with connected(workspace, recipe.dataset, runs, recipe.decisions or 0) as connection:
        base = _fetch_base(connection, recipe)
        given = base["label"].to_numpy(np.int32)
        labels, reasons = given.copy(), np.zeros(len(given), np.uint8)
        for place, condition in enumerate(recipe.drop, 1):
            matched = fetch_matching(connection, condition, recipe.run or None)
            _apply(labels, reasons, matched, place, DROPPED)
        if recipe.relabel_above is not None:
            proposed = (base["confidence"] >= recipe.relabel_above).to_numpy(bool, na_value=False)
            at = np.flatnonzero(proposed)
            _apply(labels, reasons, at, SUGGESTED_LABEL, base["suggested"].to_numpy(float, na_value=np.nan)[at])
        if recipe.drop_shortlist:
            _require_shortlist(connection, recipe.dataset, recipe.run)
            at = np.flatnonzero(base["listed"].to_numpy(bool, na_value=False))
            _apply(labels, reasons, at, SHORTLIST, DROPPED)
        decided = fetch_sql(connection, "SELECT sample_id, action, new_label FROM decisions ORDER BY sample_id")
        _decide(labels, reasons, given, decided[decided["sample_id"] < len(given)], recipe.unsure)
        tells = bool(recipe.run and (found := fetch_verdict(connection, recipe.run)) and found.tells)
    facts = _facts(recipe, base, labels, reasons, tells, len(decided))
    return Outcome(recipe, labels, reasons, facts)


def _fetch_base(connection: duckdb.DuckDBPyConnection, recipe: Recipe) -> pd.DataFrame:
    """A row per training sample by id: label, true_label, suggested, confidence (of the run's best suggestion), p_wrong,
    listed; NA where unknown."""
    source = recipe.suggests or (source_run(connection, "suggestions", recipe.run) if recipe.run else "")
    return fetch_sql(
        connection,
        """SELECT label, true_label, suggested, confidence, p_wrong, listed FROM samples
        LEFT JOIN (SELECT sample_id, suggested_label AS suggested, confidence FROM suggestions WHERE run_id = $source
            QUALIFY row_number() OVER (PARTITION BY sample_id ORDER BY method = 'heldout_prediction' DESC,
                confidence DESC NULLS LAST, suggested_label, method) = 1) USING (sample_id)
        LEFT JOIN (SELECT sample_id, p_wrong, listed FROM shortlist WHERE run_id = $run) USING (sample_id)
        WHERE split = 'train' ORDER BY sample_id""",
        {"source": source, "run": recipe.run},
    )


def _apply(labels: Labels, reasons: Reasons, at: Any, reason: int, label: Any) -> None:
    """Let a rule decide about those of some samples that no rule before it decided about."""
    open_ = reasons[at] == 0
    now = at[open_]
    labels[now] = label[open_].astype(np.int32) if isinstance(label, np.ndarray) else label
    reasons[now] = reason


def _decide(labels: Labels, reasons: Reasons, given: Labels, decided: pd.DataFrame, unsure: str) -> None:
    """Let a person's decisions win over every rule."""
    ids = {action: part["sample_id"].to_numpy(np.int64) for action, part in decided.groupby("action")}
    for action, reason in (("keep", KEEP), ("drop", DROP), ("relabel", RELABEL), ("unsure", UNSURE_KEEP)):
        at = ids.get(action, np.empty(0, np.int64))
        if action == "unsure" and not unsure:
            continue
        if action == "drop" or (action == "unsure" and unsure == "drop"):
            labels[at], reasons[at] = DROPPED, UNSURE_DROP if action == "unsure" else DROP
        elif action == "relabel":
            labels[at] = decided.loc[decided["action"] == "relabel", "new_label"].to_numpy(np.int32)
            reasons[at] = RELABEL
        else:
            labels[at], reasons[at] = given[at], reason


def _facts(
    recipe: Recipe, base: pd.DataFrame, labels: Labels, reasons: Reasons, tells: bool, decisions: int
) -> dict[str, Any]:
    """The numbers of a version, as plain values.

    noise: what is left of wrong labels by the run's own estimate (see `_expected_wrong`), None where it cannot tell; wrong:
    counted, where the truth is known.
    """
    given, kept = base["label"].to_numpy(np.int32), labels != DROPPED
    counts = np.bincount(reasons, minlength=UNSURE_DROP + 1)
    classes = int(max(given.max(initial=0), labels.max(initial=0))) + 1
    facts: dict[str, Any] = {
        "samples": len(given),
        "kept": int(kept.sum()),
        "dropped_by_condition": [int(counts[place]) for place in range(1, len(recipe.drop) + 1)],
        "dropped_by_shortlist": int(counts[SHORTLIST]),
        "dropped_by_person": int(counts[DROP] + counts[UNSURE_DROP]),
        "relabeled": int((kept & (labels != given)).sum()),
        "relabeled_by_suggestion": int(counts[SUGGESTED_LABEL]),
        "relabeled_by_person": int(((reasons == RELABEL) & (labels != given)).sum()),
        "kept_by_person": int(counts[KEEP]),
        "unsure": int(counts[UNSURE_KEEP] + counts[UNSURE_DROP]),
        "decisions": decisions,
        "before": np.bincount(given, minlength=classes).tolist(),
        "after": np.bincount(labels[kept], minlength=classes).tolist(),
        "noise_before": None,
        "noise_left": None,
        "judged": 0,
    }
    p_wrong = base["p_wrong"].to_numpy(float, na_value=np.nan)
    if tells and np.isfinite(p_wrong).any():
        expected = _expected_wrong(base, p_wrong, reasons)[kept]
        left = np.isfinite(expected)
        facts |= {"noise_before": float(np.nanmean(p_wrong)), "judged": int(left.sum())}
        facts |= {"noise_left": float(expected[left].mean())} if left.any() else {}
    true = base["true_label"].to_numpy(float, na_value=np.nan)
    known = np.isfinite(true)
    if known.any():
        facts |= {
            "known": int(known.sum()),
            "wrong_before": int((given != true)[known].sum()),
            "known_kept": int((known & kept).sum()),
            "wrong_left": int((labels != true)[known & kept].sum()),
        }
    return facts


def _expected_wrong(base: pd.DataFrame, p_wrong: Any, reasons: Reasons) -> Any:
    """The probability that the label of each sample, as the version has it, is wrong; NaN where it was not judged.

    As it was given: its p_wrong. Relabeled by a suggestion: 1 - its confidence. Kept or relabeled by a person: 0, for
    somebody looked; that is an assumption, and the estimate is no better than the people.
    """
    expected = p_wrong.copy()
    by_rule = reasons == SUGGESTED_LABEL
    expected[by_rule] = 1 - base["confidence"].to_numpy(float, na_value=np.nan)[by_rule]
    expected[(reasons == KEEP) | (reasons == RELABEL)] = 0
    return expected


def _check(connection: duckdb.DuckDBPyConnection, condition: str) -> None:
    """SpecError for a condition that is not one expression, or that means something else every time."""
    check_condition(condition)
    text = _NOT_SQL.sub("''", condition)
    rows = connection.execute("SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'")
    changing = {str(name) for (name,) in rows.fetchall()}
    named = [name for name in _MEANS.findall(text) if name.lower() in changing] or [
        found[0] for found in _CHANGING.finditer(text)
    ]
    if named:
        raise SpecError(
            f"a condition with '{named[0]}' gives another set every time; a version is to give the same, so name samples by "
            "what is stored, such as scores and metadata"
        )


def _is_relabeling(connection: duckdb.DuckDBPyConnection, run: str) -> bool:
    rows = connection.execute("SELECT 1 FROM runs WHERE run_id = ? AND kind = 'relabel'", [run]).fetchall()
    return bool(rows)


def _require_shortlist(connection: duckdb.DuckDBPyConnection, dataset: str, run: str) -> None:
    if not run:
        raise NotFoundError(f"no run of '{dataset}' has a shortlist; winnow run {dataset} makes one")
    if fetch_verdict(connection, run) is None:
        raise NotFoundError(no_verdict(dataset, run))
