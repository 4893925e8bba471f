"""Which training samples stay: a sampler applied to what a dataset's runs have published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import torch
from torch import Tensor

from engine.errors import NotFoundError, SpecError, unknown_name
from engine.queries import connected, fetch_sql, latest_run, source_run
from engine.selection.samplers import find_sampler, select
from engine.spec import check_range, spec_hash
from engine.workspace import Workspace, load_tensors


def choose_samples(
    workspace: Workspace,
    dataset: str,
    sampler: str,
    keep: float,
    *,
    score: str = "",
    run_id: str | None = None,
    class_balanced: bool = False,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Tensor:
    """The sample ids that a sampler keeps of the training split.

    Args:    keep: share that stays, above 0 to 1; score: whose ranks it reads; run_id: whose scores and features;
             None = the newest run that has them; options: of the sampler
    Returns: (round(keep N),) int64, ascending
    Raises:  SpecError for an unknown sampler or option, a share outside 0..1, or a missing score or truth;
             NotFoundError where no run has what the sampler reads
    """
    check_range("--keep", keep, 1e-9, 1, "share of the training samples that stays")
    reads = set(find_sampler(sampler).inputs)
    with connected(workspace, dataset) as connection:
        frame = fetch_sql(
            connection,
            "SELECT sample_id, label, coalesce(true_label, -1) AS truth FROM samples WHERE split = 'train' ORDER BY 1",
        )
        labels, truth = (torch.from_numpy(frame[name].to_numpy(np.int64)) for name in ("label", "truth"))
        inputs: dict[str, Any] = {
            "labels": labels,
            "generator": torch.Generator().manual_seed(int(spec_hash([seed, sampler]), 16)),
        }
        if "mislabelled" in reads:
            if bool((truth < 0).any()):
                raise SpecError(f"sampler '{sampler}' needs the truth, which dataset '{dataset}' does not know")
            inputs["mislabelled"] = truth != labels
        if reads & {"ranks", "hardness"}:
            inputs |= _read_score(connection, dataset, sampler, score, run_id)
        if "features" in reads:
            inputs["features"] = _read_features(workspace, connection, dataset, run_id)
        if "probs" in reads:
            inputs["probs"] = _read_probs(connection, dataset, run_id)
    budget = max(1, round(keep * len(labels)))
    positions = select(sampler, budget, inputs, class_balanced=class_balanced, **(options or {}))
    return torch.from_numpy(frame["sample_id"].to_numpy(np.int64))[positions]


def parse_options(sampler: str, texts: Sequence[str]) -> dict[str, float | int]:
    """A sampler's options from NAME=NUMBER; SpecError for anything else."""
    known, out = find_sampler(sampler).options, {}
    for text in texts:
        name, equals, number = text.partition("=")
        if name not in known:
            raise SpecError(unknown_name(f"option of {sampler}", name, known))
        try:
            out[name] = type(known[name])(number)
        except ValueError as error:
            raise SpecError(f"--option {text}; write it like {name}={known[name]}") from error
    return out


def _read_score(
    connection: duckdb.DuckDBPyConnection, dataset: str, sampler: str, score: str, run_id: str | None
) -> dict[str, Tensor]:
    if not score:
        raise SpecError(f"sampler '{sampler}' reads a score; name one with --score (winnow scores lists them)")
    found = run_id or latest_run(connection, "scores", score)
    rows = fetch_sql(
        connection,
        "SELECT value, rank, higher_means FROM scores JOIN score_catalog USING (score) WHERE run_id = ? AND score = ? "
        "ORDER BY sample_id",
        [found, score],
    )
    if not len(rows):
        raise NotFoundError(
            f"no run of '{dataset}' has the score '{score}'; make one: winnow run {dataset} --scores {score}"
        )
    values = torch.from_numpy(rows["value"].to_numpy(np.float32).copy())
    hardness = values if rows["higher_means"][0] == "harder" else -values
    return {"ranks": torch.from_numpy(rows["rank"].to_numpy(np.int64).copy()), "hardness": hardness}


def _read_features(
    workspace: Workspace, connection: duckdb.DuckDBPyConnection, dataset: str, run_id: str | None
) -> Tensor:
    trained = source_run(connection, "epochs", run_id) if run_id else latest_run(connection, "epochs")
    path = workspace.published_dir(trained or "") / "features.safetensors"
    found = load_tensors(path) if trained and Path(path).exists() else None
    if found is None:
        raise NotFoundError(f"no run of '{dataset}' has kept features; make one: winnow run {dataset}")
    return torch.from_numpy(found[0]["features"])


def _read_probs(connection: duckdb.DuckDBPyConnection, dataset: str, run_id: str | None) -> Tensor:
    """Softmax of the first seed's logits after the last epoch."""
    trained = source_run(connection, "logits", run_id) if run_id else latest_run(connection, "logits")
    rows = fetch_sql(
        connection,
        "SELECT logits FROM logits WHERE run_id = ? AND seed = 0 AND epoch = (SELECT max(epoch) FROM epochs "
        "WHERE run_id = logits.run_id) ORDER BY sample_id",
        [trained],
    )
    if not len(rows):
        raise NotFoundError(f"no run of '{dataset}' has kept logits; make one: winnow run {dataset}")
    return torch.softmax(torch.from_numpy(np.stack(rows["logits"].to_list()).astype(np.float32)), 1)
