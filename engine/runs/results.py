"""Writing a run's results: the tables of one results file, and the scores computed from its dynamics."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import duckdb
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

import engine.runs.inputs  # noqa: F401  # declares what scores read
from engine.features.duplicates import Duplicates
from engine.scores.evaluation import evaluate_rule, evaluate_score
from engine.scores.registry import Score, catalog_row, compute_score
from engine.scores.rules import why_unused
from engine.selection.names import parse_order
from engine.selection.orders import compute_ranks
from engine.spec import spec_hash
from engine.store.attached import RESULTS, reading
from engine.store.progress import Parts
from engine.store.tables import RESULT_TABLES, create_sql
from engine.training.recording import BLOCK_BYTES, create_trajectories, read_trajectories

Array = np.ndarray[Any, Any]

DYNAMICS = "dynamics"
"""The part of scoring that reads the recorded dynamics, for all scores of them together."""


class Given(Protocol):
    """Where the inputs of scores come from, but for the recorded dynamics: `engine.runs.inputs.Inputs`, for one."""

    def of_score(self, found: Score, seed: int = 0) -> Mapping[str, Any]:
        """The inputs of a score and its rule in one seed."""

    def seconds_of(self, found: Score, seed: int = 0) -> float:
        """What they took."""


class Results:
    """One results file while it is being written. Its dynamics are its own, or those of an attached run.

    values: (N,) of the scores that are written, by name
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, seed: int) -> None:
        self.connection = connection
        self.seed = seed
        self.notes: list[str] = []
        self.values: dict[str, Tensor] = {}
        self._open = contextlib.ExitStack()
        self._trained: duckdb.DuckDBPyConnection | None = None  # to the file with the dynamics: its own, or another's
        self._rules: dict[str, tuple[str, Array]] = {}
        connection.execute(create_sql(RESULT_TABLES))

    def make_trajectories(self) -> None:
        """Make the table for dynamics of the run's own."""
        self._trained = self.connection
        create_trajectories(self.connection)

    def close(self) -> None:
        """Close what is read of other runs."""
        self._open.close()

    def attach_trained(self, path: Path) -> None:
        """Read dynamics from another run's results."""
        self._trained = self._open.enter_context(reading(path, RESULTS, "remove that run and compute it again"))

    def write_run(self, **row: Any) -> None:
        """The one row that describes this file."""
        self.write_row("run", **row, created_at=datetime.now(UTC).replace(tzinfo=None))

    def write_epochs(self, rows: Sequence[Mapping[str, Any]]) -> None:
        names = ("seed", "epoch", "train_loss", "train_accuracy", "test_accuracy", "lr", "seconds")
        kept = [row for row in rows if "lr" in row]
        self.insert("epochs", **{name: [row[name] for row in kept] for name in names})

    def write_psi(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Points of psi-curves: order, seed, pruned, kept_fraction, accuracy, seconds."""
        orders = [parse_order(row["order"]) for row in rows]
        measured = {name: [row[name] for row in rows] for name in rows[0]}
        self.insert(
            "psi",
            **measured,
            score=[order.score or None for order in orders],
            reversed=[order.sampler == "descending" for order in orders],
            sampler=[order.sampler for order in orders],
            options=[json.dumps(dict(order.options)) for order in orders],
        )

    def write_rows(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows of a table, such as the networks of a proof, with all of its columns."""
        if rows:
            self.insert(table, **{name: [row[name] for row in rows] for name in RESULT_TABLES[table]})

    def write_neighbors(self, ids: Tensor, similarities: Tensor) -> None:
        n, k = ids.shape
        offsets = pa.array(np.arange(n + 1, dtype=np.int32) * k)
        self.insert(
            "neighbor_lists",
            sample_id=np.arange(n, dtype=np.int32),
            neighbor_ids=pa.ListArray.from_arrays(offsets, pa.array(ids.numpy().astype(np.int32).reshape(-1))),
            similarities=pa.ListArray.from_arrays(offsets, pa.array(similarities.numpy().reshape(-1))),
        )

    def write_duplicates(self, found: Duplicates, train: int) -> None:
        """The groups of duplicates; the first `train` samples are the training split."""
        self.insert(
            "duplicates",
            group_id=found.group.astype(np.int32),
            sample_id=found.sample.astype(np.int32),
            split=pa.array(np.where(found.sample < train, "train", "test").tolist(), pa.string()),
            similarity=found.similarity.astype(np.float32),
            exact=found.exact,
            leak=found.leak,
        )

    def write_embedding(self, method: str, coordinates: Tensor) -> None:
        n = len(coordinates)
        self.insert(
            "embedding",
            method=_repeat(method, n),
            sample_id=np.arange(n, dtype=np.int32),
            x=coordinates[:, 0].numpy(),
            y=coordinates[:, 1].numpy(),
        )

    def write_shortlist(self, suspicion: Tensor, p_wrong: Tensor, listed: int) -> None:
        """Every judged sample by its suspicion (N + M,), higher = more suspicious; the first `listed` are flagged."""
        n = len(suspicion)
        rank = torch.empty(n, dtype=torch.int64)
        rank[torch.argsort(suspicion, descending=True, stable=True)] = torch.arange(n)
        self.insert(
            "shortlist",
            sample_id=np.arange(n, dtype=np.int32),
            rank=rank.numpy().astype(np.int32),
            p_wrong=p_wrong.numpy(),
            listed=(rank < listed).numpy(),
        )

    def write_suggestions(self, method: str, sample_ids: Tensor, proposed: Tensor, confidence: Tensor) -> None:
        """Other labels that a method proposes for some samples, all (B,)."""
        self.insert(
            "suggestions",
            sample_id=sample_ids.numpy().astype(np.int32),
            suggested_label=proposed.numpy().astype(np.int32),
            confidence=confidence.numpy(),
            method=_repeat(method, len(sample_ids)),
        )

    def write_rule(self, rule: str, score: str, flagged: Array, threshold: Array, value: Array) -> None:
        """A rule's verdict on every sample: flagged (N,) bool, and the value (N,) of a score held against the
        threshold (N,)."""
        n = len(flagged)
        self._rules[rule] = score, flagged
        self.insert(
            "flags",
            rule=_repeat(rule, n),
            score=_repeat(score, n),
            sample_id=np.arange(n, dtype=np.int32),
            flagged=flagged,
            threshold=threshold,
            value=value,
        )

    def write_scores(
        self,
        scores: Sequence[Score],
        labels: Tensor,
        classes: int,
        mislabeled: Array | None,
        progress: Parts,
        inputs: Given | None = None,
    ) -> None:
        """Compute, rank, evaluate and write the scores; from dynamics also the labels the networks voted for.

        inputs: of the scores, but for the recorded dynamics; without them a score gets the labels, a generator and
        the shipped detector.
        """
        n = len(labels)
        values = self.values
        seconds = dict.fromkeys((s.name for s in scores), 0.0)
        given = inputs or _Free(self, labels)
        # Without recorded dynamics the scores of one epoch read probabilities that somebody gave.
        over_dynamics = [s for s in scores if s.over_dynamics and self._trained]
        if over_dynamics:
            progress.enter(DYNAMICS)
            self._score_dynamics(over_dynamics, n, classes, values, seconds, progress, given)
        rule_values: dict[str, Tensor] = {}
        for found in scores:
            if found not in over_dynamics:
                progress.enter(found.name)
                values[found.name] = self._score_whole(found, given, seconds)
                if found.flags_by:
                    read = given.of_score(found, 0)
                    rule_values[found.name] = found.flags_by(*(read[name] for name in found.rule_inputs)).float()
        self.connection.begin()  # one transaction: a hundred rows of metrics would each wait for the disk
        for found in scores:
            started = time.perf_counter()
            ranks = compute_ranks(values[found.name], found.higher_means, self.generator(f"rank {found.name}")).numpy()
            seconds[found.name] += time.perf_counter() - started
            self.insert(
                "scores",
                score=_repeat(found.name, n),
                sample_id=np.arange(n, dtype=np.int32),
                value=values[found.name].numpy(),
                rank=ranks.astype(np.int32),
            )
            self.write_row("score_catalog", **catalog_row(found), seconds=seconds[found.name])
            if mislabeled is not None:
                self._write_metrics(
                    found.name, evaluate_score(values[found.name].numpy(), found.higher_means, mislabeled)
                )
            if found.flags_above is not None:
                judged = rule_values.get(found.name, values[found.name])
                threshold = np.full(n, found.flags_above, np.float32)
                self.write_rule(found.rule, found.name, (judged > found.flags_above).numpy(), threshold, judged.numpy())
        self._write_rules(scores, labels, mislabeled)
        self.connection.commit()

    def _write_rules(self, scores: Sequence[Score], labels: Tensor, mislabeled: Array | None) -> None:
        """One row for each rule, with the reason why it is left out of the vote; its metrics; a note of those left out."""
        accuracy = self._test_accuracy()
        chance = float(torch.bincount(labels).max()) / len(labels)
        untrained = {found.rule for found in scores if not found.needs_training}
        about = {found.name: found.evidence for found in scores}
        for rule, (score, flagged) in self._rules.items():
            evidence = about.get(score, "label")
            reason = why_unused(float(flagged.mean()), None if rule in untrained else accuracy, chance, evidence)
            self.write_row("rules", rule=rule, score=score, flagged=int(flagged.sum()), why_unused=reason)
            if reason and evidence == "label":
                self.notes.append(f"the rule {rule} is left out of the vote: {reason}")
            if mislabeled is not None:
                self._write_metrics(rule, evaluate_rule(flagged, mislabeled))

    def _test_accuracy(self) -> float | None:
        """Mean accuracy of the networks on the test split after their last epoch; None where there is none."""
        sql = "SELECT avg(test_accuracy) FROM epochs WHERE epoch = (SELECT max(epoch) FROM epochs)"
        row = (self._trained or self.connection).execute(sql).fetchone()
        return None if row is None or row[0] is None else float(row[0])

    def _score_dynamics(
        self,
        scores: Sequence[Score],
        n: int,
        classes: int,
        values: dict[str, Tensor],
        seconds: dict[str, float],
        progress: Parts,
        inputs: Given,
    ) -> None:
        columns = {"label", "predicted"}
        for found in scores:
            columns |= {found.recorded} if found.recorded else set(found.dynamics)
        seeds, epochs = self._shape()
        per_seed = {found.name: torch.empty(seeds, n) for found in scores}
        others = {found.name: inputs.of_score(found, 0) for found in scores if not found.recorded}
        step = max(1, BLOCK_BYTES // (4 * len(columns) * seeds * epochs))
        for start in range(0, n, step):
            stop = min(start + step, n)
            block = read_trajectories(self._dynamics, "trajectories", sorted(columns), start, stop)
            for found in scores:
                started = time.perf_counter()
                for s in range(seeds):
                    if found.recorded:
                        value = block[found.recorded][s, found.at(epochs) - 1]
                    else:
                        own = {i: block[i][s] for i in found.dynamics}
                        value = compute_score(found, {**others[found.name], **own})
                    per_seed[found.name][s, start:stop] = value
                seconds[found.name] += time.perf_counter() - started
            self._write_votes(block["predicted"].long(), block["label"], classes, start)
            progress.step(stop, n)
        for found in scores:
            values[found.name] = self._write_seed_scores(found, per_seed[found.name])
            self._note_epoch(found, epochs)

    def _score_whole(self, found: Score, given: Given, seconds: dict[str, float]) -> Tensor:
        """A score over all samples at once, of the first seed's network or as the mean over all."""
        seeds, epochs = self._shape() if found.needs_training and self._trained else (1, 0)
        per_seed = []
        for seed in range(seeds if found.every_seed else 1):
            inputs = given.of_score(found, seed)
            started = time.perf_counter()
            per_seed.append(compute_score(found, inputs).cpu())
            seconds[found.name] += time.perf_counter() - started + given.seconds_of(found, seed)
        self._note_epoch(found, epochs)
        return self._write_seed_scores(found, torch.stack(per_seed)) if found.every_seed else per_seed[0]

    def _write_seed_scores(self, found: Score, per_seed: Tensor) -> Tensor:
        """Write the values (S, N) of the seeds and return their mean."""
        seeds, n = per_seed.shape
        self.insert(
            "seed_scores",
            score=_repeat(found.name, n * seeds),
            seed=np.repeat(np.arange(seeds, dtype=np.int32), n),
            sample_id=np.tile(np.arange(n, dtype=np.int32), seeds),
            value=per_seed.reshape(-1).numpy(),
        )
        return per_seed.double().mean(0).float()

    def _note_epoch(self, found: Score, epochs: int) -> None:
        if epochs and found.epoch and found.at(epochs) < found.epoch:
            self.notes.append(f"{found.name} is taken after epoch {epochs}, the last one (its epoch is {found.epoch})")

    def _write_votes(self, predicted: Tensor, labels: Tensor, classes: int, first_id: int) -> None:
        """Suggest the class predicted most often over all seeds and epochs, where it is not the given one."""
        seeds, epochs, n = predicted.shape
        votes = torch.zeros(n, classes)
        votes.scatter_add_(1, predicted.reshape(-1, n).T, torch.ones(n, seeds * epochs))
        votes[torch.arange(n), labels] += 0.5  # a tie with the given label is no suggestion
        count, winner = votes.max(1)
        differs = winner != labels
        found = differs.nonzero()[:, 0] + first_id
        self.write_suggestions("prediction_vote", found, winner[differs], count[differs] / (seeds * epochs))

    def _shape(self) -> tuple[int, int]:
        row = self._dynamics.execute(
            "SELECT count(*), any_value(len(margin)) FROM trajectories WHERE sample_id = 0"
        ).fetchall()[0]
        return int(row[0]), int(row[1])

    @property
    def _dynamics(self) -> duckdb.DuckDBPyConnection:
        assert self._trained is not None
        return self._trained

    def generator(self, purpose: str) -> torch.Generator:
        """A generator of its own for every purpose, from the run's seed."""
        return torch.Generator().manual_seed(int(spec_hash([self.seed, purpose]), 16))

    def _write_metrics(self, name: str, metrics: Mapping[str, float]) -> None:
        for metric, value in metrics.items():
            self.write_row("metrics", score=name, metric=metric, value=value)

    def write_row(self, table: str, **row: Any) -> None:
        names, marks = ", ".join(row), ", ".join("?" for _ in row)
        self.connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))

    def insert(self, table: str, **columns: Any) -> None:
        """Rows of a table, by column."""
        block = pa.table({name: pa.array(values) for name, values in columns.items()})
        self.connection.register("block", block)
        self.connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM block")
        self.connection.unregister("block")


class _Free:
    """Inputs that need nothing: what the scores of a recorded run can have."""

    def __init__(self, results: Results, labels: Tensor) -> None:
        self.results, self.labels = results, labels

    def of_score(self, found: Score, seed: int = 0) -> dict[str, Any]:
        known = {"labels": self.labels, "generator": self.results.generator(found.name), "detector": None}
        return {name: known[name] for name in found.inputs if name not in found.dynamics}

    def seconds_of(self, found: Score, seed: int = 0) -> float:
        return 0.0


def _repeat(text: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([text]))
