"""What a report is made of, read from the views: one frame or record per section."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import pandas as pd

from engine.errors import NotFoundError, SpecError
from engine.fields import options_of
from engine.queries.classes import fetch_class_quality, fetch_confusions
from engine.queries.connection import best_run, connected, fetch_sql
from engine.queries.pruned import fetch_psi
from engine.queries.samples import Filter, fetch_cards
from engine.queries.summaries import (
    fetch_catalog,
    fetch_classes,
    fetch_dataset,
    fetch_epochs,
    fetch_histogram,
    fetch_runs,
)
from engine.queries.verdicts import Verdict, fetch_suspicion, fetch_verdict, fetch_worst
from engine.spec import PsiSpec, RunSpec, TrainingSpec
from engine.store.versions import Version, stored_versions
from engine.store.workspace import Workspace
from engine.text import shown

DRAWN = ("aum", "el2n", "heldout_margin", "forgetting", "knn_disagreement", "cg")
"""Scores whose histograms are drawn, of those that the run has; without any of them its first."""


@dataclass(frozen=True)
class Facts:
    """What is known of a dataset by one of its runs. names: of the classes; commands: that make the same again."""

    dataset: dict[str, Any]
    run: dict[str, Any]
    names: list[str]
    verdict: Verdict | None
    quality: pd.DataFrame
    pairs: pd.DataFrame
    suspicion: pd.DataFrame
    histograms: dict[str, pd.DataFrame]
    epochs: pd.DataFrame
    psi: pd.DataFrame
    worst: pd.DataFrame
    cards: pd.DataFrame
    decisions: pd.DataFrame
    versions: list[Version]
    commands: list[str]


def read_facts(workspace: Workspace, dataset: str, run: str | None = None, most: int = 48) -> Facts:
    """Read everything that a report shows.

    Args:   run: a run's id or its first digits, None = the one to be trusted most; most: images at most
    Raises: NotFoundError for an unknown dataset or run, and where no run has scores; SpecError for a run of another
            dataset
    """
    with connected(workspace, dataset) as connection:
        runs = fetch_runs(connection).set_index("run_id", drop=False)
        chosen = workspace.require_run(run) if run else best_run(connection, "verdict") or best_run(connection)
        if not chosen:
            raise NotFoundError(f"no run of '{dataset}' has scores; winnow run {dataset} makes one")
        if chosen not in runs.index or runs["kind"][chosen] in ("psi", "prove", "relabel"):
            raise SpecError(f"run {chosen} is no published run with scores of '{dataset}'; winnow runs lists them")
        facts, worst = fetch_dataset(connection), fetch_worst(connection, chosen, most)
        scores = list(fetch_catalog(connection, chosen)["score"])
        drawn = [name for name in DRAWN if name in scores] or scores[:1]
        psi_runs = [str(run_id) for run_id in runs.index[runs["kind"] == "psi"]][:3]
        ids = worst["sample_id"].tolist()
        return Facts(
            dataset=facts,
            run={str(name): value for name, value in runs.loc[chosen].items()},
            names=[str(name) for name in fetch_classes(connection)["class_name"]],
            verdict=fetch_verdict(connection, chosen),
            quality=fetch_class_quality(connection, chosen),
            pairs=fetch_confusions(connection, chosen, Filter(split="all")),
            suspicion=fetch_suspicion(connection, chosen),
            histograms={name: fetch_histogram(connection, chosen, name, 40) for name in drawn},
            epochs=fetch_epochs(connection, chosen),
            psi=fetch_psi(connection, psi_runs),
            worst=worst,
            cards=fetch_cards(connection, chosen, ids) if ids else pd.DataFrame(columns=["sample_id", "thumbnail"]),
            decisions=_decisions(connection),
            versions=stored_versions(workspace, dataset),
            commands=_commands(workspace, facts, [chosen, *psi_runs]),
        )


def _decisions(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """author, action, n: the latest decisions, counted."""
    sql = "SELECT author, action, count(*) AS n FROM decisions GROUP BY ALL ORDER BY author, action"
    return fetch_sql(connection, sql)


def _commands(workspace: Workspace, facts: Mapping[str, Any], run_ids: list[str]) -> list[str]:
    """The commands that ingest the dataset and compute the runs again."""
    name, spec = str(facts["name"]), json.loads(str(facts["spec"] or "{}"))
    spec = spec if isinstance(spec, dict) else {}
    words = ["ingest", name, "--from", str(spec.get("source"))]
    for key in ("test", "test_fraction", "labels", "noise", "superclasses", "limit", "columns", "image_size"):
        words += [_flag(key), str(spec[key])] if spec.get(key) else []
    words += ["--seed", str(spec["seed"])] if spec.get("seed") else []
    found = [words]
    for run_id in run_ids:
        record = workspace.read_record(run_id)
        given = record.spec
        if record.kind == "psi":
            words = ["psi", name, "--orders", ",".join(map(str, given.get("orders", [])))]
            words += _options(PsiSpec, given)
        elif record.kind == "run":
            words = ["run", name, "--scores", ",".join(map(str, given.get("scores", []))), *_options(RunSpec, given)]
        else:
            continue  # recorded by somebody's own training
        found.append(words + _options(TrainingSpec, given.get("training") or {}))
    return [shown(shlex.join(["winnow", *words]), 10_000) for words in found]


def _options(spec: type[Any], given: Mapping[str, Any]) -> list[str]:
    """The options whose value is another than the default, as words."""
    words = []
    for name, (field, _) in options_of(spec).items():
        value = given.get(name)
        if isinstance(value, bool):
            words += [_flag(name)] if value and not field.default else []
        elif isinstance(value, str | int | float) and value != field.default and value != "":
            words += [_flag(name), str(value)]
    return words


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
