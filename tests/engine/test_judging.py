"""The verdict of whole runs: it judges every sample by networks that did not see it, reads no truth, and says when it
cannot tell."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import torch

from engine.data.ingest import ingest
from engine.data.loader import Samples, normalization
from engine.data.request import IngestSpec
from engine.queries.connection import connected, fetch_sql
from engine.runs.cluster import HERE, Report, Shared
from engine.runs.compute import compute
from engine.runs.crossval import (
    HEAD_FOLDS,
    HEAD_REPEATS,
    CrossValidation,
    Network,
    compute_heldout_probs,
    folds_of,
    refine_heldout_probs,
)
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec
from engine.store.progress import Reporter
from engine.store.workspace import Workspace
from engine.training.loop import Normalization

HEAD = TrainingSpec(model="linear", epochs=2, seeds=1, batch_size=32, lr=0.05, logit_seeds=0, trained_on="a file")


@dataclass
class Noted:
    """Tasks of this process, and the networks that they trained."""

    networks: list[Network] = field(default_factory=list)

    def share(self, value: Any) -> Shared[Any]:
        return HERE.share(value)

    def together(
        self, work: Sequence[Callable[[], Any]], workers: int, progress: Reporter, threads: int | None = 1
    ) -> list[Any]:
        return HERE.together(work, 1, progress, threads)

    def call(self, task: Any, shared: Shared[Any], item: Any, report: Report) -> Any:
        self.networks.append(item)
        return HERE.call(task, shared, item, report)


class Quiet:
    def step(self, done: float, total: float, detail: str = "") -> None: ...

    def heartbeat(self) -> None: ...

    def stop(self, stopped: bool = True) -> None: ...


def noisy_vectors(n: int, classes: int) -> Samples:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(n) % classes
    inputs = 5 * torch.nn.functional.one_hot(truth, classes).float() + torch.randn(n, classes, generator=generator)
    labels = torch.where(torch.arange(n) % 9 == 0, (truth + 1) % classes, truth)
    return Samples(inputs, labels, torch.arange(n), classes, truth)


def test_where_no_label_is_trusted_networks_learn_from_all(tmp_path: Path) -> None:
    samples, noted = noisy_vectors(120, 4), Noted()
    training = replace(HEAD, trained_on="a file")
    how = CrossValidation(samples, training, 2, Normalization(*normalization(samples)), tmp_path, Quiet(), noted)
    contradicted = torch.full((120, 4), 0.01).scatter_(1, (samples.labels[:, None] + 1) % 4, 0.97)
    probs = refine_heldout_probs(how, torch.Generator().manual_seed(0), contradicted)
    assert torch.allclose(probs.sum(1), torch.ones(120), atol=1e-5)
    assert len(noted.networks) == HEAD_FOLDS
    assert all(len(network.train) + len(network.test) == 120 for network in noted.networks)


@pytest.mark.parametrize("trained_on", ["", "a file"])
def test_each_sample_is_predicted_once_in_a_round_by_a_network_that_did_not_see_it(
    tmp_path: Path, trained_on: str
) -> None:
    samples, noted = noisy_vectors(120, 4), Noted()
    training = replace(HEAD, trained_on=trained_on)
    how = CrossValidation(
        samples, training, 2, Normalization(*normalization(samples)), tmp_path / "partial", Quiet(), noted
    )
    probs = compute_heldout_probs(how, torch.Generator().manual_seed(0))
    if trained_on:
        probs = refine_heldout_probs(how, torch.Generator().manual_seed(1), probs)
    assert torch.allclose(probs.sum(1), torch.ones(120), atol=1e-5)
    folds, repeats, rounds = folds_of(training, 120)
    assert (folds, repeats) == ((HEAD_FOLDS, HEAD_REPEATS) if trained_on else (5, 1))
    networks = sorted(noted.networks, key=lambda network: network.seed)
    assert len(networks) == folds * (repeats + rounds)
    assert len({network.seed for network in networks}) == len(networks)
    for done in range(repeats + rounds):
        of_round = networks[done * folds : (done + 1) * folds]
        assert sorted(torch.cat([network.test for network in of_round]).tolist()) == list(range(120))
        for network in of_round:
            train, test = set(network.train.tolist()), set(network.test.tolist())
            assert not train & test and len(train) == len(network.train)
            if done < repeats:  # the last round leaves suspects out
                assert train | test == set(range(120))
            # Each class is spread evenly.
            counts = torch.bincount(samples.labels[network.test], minlength=4)
            assert int(counts.max() - counts.min()) <= 2
    if trained_on:
        left_out = set(range(120)) - {i for network in networks[repeats * folds :] for i in network.train.tolist()}
        wrong = set((samples.labels != samples.true_labels).nonzero()[:, 0].tolist())
        assert left_out and len(left_out & wrong) / len(left_out) > 0.8


# Whole runs ------------------------------------------------------------------------------------------------------


TRAINING = TrainingSpec(epochs=6, seeds=1, batch_size=32, lr=2e-3)


def judge(workspace: Workspace, dataset: str, scores: Sequence[str] = ("aum", "confident_learning")) -> dict[str, Any]:
    """A run's verdict, its shortlist and its suggestions."""
    plan = plan_run(
        workspace, dataset, scores, TRAINING, threshold_rounds=0, neighbors=0, embedding="none", standardize=True
    )
    run, _ = compute(workspace, plan, "cpu")
    with connected(workspace, dataset) as connection:
        rows = {
            name: fetch_sql(connection, f"SELECT * EXCLUDE run_id FROM {name} WHERE run_id = '{run}' ORDER BY ALL")
            for name in ("verdict", "shortlist", "suggestions")
        }
    return {**rows, "verdict": rows["verdict"].to_dict("records")[0]}


def test_the_verdict_does_not_read_the_truth(small_workspace: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "without truth"
    shutil.copytree(small_workspace.root, root)
    without = Workspace.open(root)
    with duckdb.connect(str(without.require_dataset("small"))) as connection:
        connection.execute("UPDATE samples SET true_label = NULL")
    first, second = judge(small_workspace, "small"), judge(without, "small")
    assert first["verdict"] == second["verdict"]
    for name in ("shortlist", "suggestions"):
        pd.testing.assert_frame_equal(first[name], second[name])
    # It judged both parts, each sample once, and what is on the shortlist is its top.
    shortlist = first["shortlist"].sort_values("rank")
    assert sorted(shortlist["sample_id"]) == list(range(250)) and first["verdict"]["judged"] == 250
    assert shortlist["rank"].tolist() == list(range(250)) and shortlist["p_wrong"].is_monotonic_decreasing
    assert shortlist["listed"].tolist() == [True] * first["verdict"]["listed"] + [False] * (
        250 - first["verdict"]["listed"]
    )


def cannot_tell(found: dict[str, Any]) -> dict[str, Any]:
    """The verdict, where it says that it cannot tell, flags nothing, and advises."""
    verdict = found["verdict"]
    assert pd.isna(verdict["noise"]) and pd.isna(verdict["noise_low"]) and pd.isna(verdict["noise_high"])
    assert verdict["listed"] == 0 and not found["shortlist"]["listed"].any()
    assert len(found["shortlist"]) == verdict["judged"]
    assert "do not tell" in verdict["reason"] or "does not tell" in verdict["reason"]
    assert verdict["advice"].endswith(".")
    return verdict


def test_random_labels_cannot_be_told(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w", create=True)
    ingest(workspace, IngestSpec(name="random", source="digits", limit=400, noise="symmetric:0.9"))
    verdict = cannot_tell(judge(workspace, "random"))
    assert verdict["accuracy"] < 0.25 and "a larger model" in verdict["advice"]


def test_blank_images_cannot_be_told(tmp_path: Path) -> None:
    from PIL import Image

    for i in range(90):
        folder = tmp_path / "photos" / "abc"[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 12, 3), 127, np.uint8)).save(folder / f"{i}.png")
    workspace = Workspace.open(tmp_path / "w", create=True)
    ingest(workspace, IngestSpec(name="blank", source=str(tmp_path / "photos")))
    assert cannot_tell(judge(workspace, "blank"))["accuracy"] < 0.5


def test_too_few_samples_are_said_to_be_too_few(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w", create=True)
    ingest(workspace, IngestSpec(name="few", source="digits", limit=60, noise="symmetric:0.9"))
    verdict = cannot_tell(judge(workspace, "few"))
    assert verdict["advice"].startswith("Add images: 60 of 10 classes are too few")


def test_a_run_without_held_out_predictions_has_no_verdict(small_workspace: Workspace) -> None:
    plan = plan_run(small_workspace, "small", ["aum"], TRAINING, threshold_rounds=0, neighbors=0, embedding="none")
    compute(small_workspace, plan, "cpu")
    with connected(small_workspace, "small") as connection:
        assert not len(fetch_sql(connection, "SELECT * FROM verdict"))
        assert not len(fetch_sql(connection, "SELECT * FROM shortlist"))
