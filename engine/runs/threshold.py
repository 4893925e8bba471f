"""The rule of AUM's threshold samples in a run's results, with what it was drawn from, so that it can be drawn elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.runs.results import Results
from engine.store.attached import RESULTS, reading

RULE, SCORE = "aum_threshold", "aum"


def write_threshold_rule(results: Results, member: Tensor, aum: Tensor, flagged: Tensor, alpha: Tensor) -> None:
    """The rule `aum_threshold`: each sample with the round that decided, where it lies highest above alpha; and the AUM of
    every sample in every round, those of the threshold samples among them.

    Args: as `engine.scores.dynamics.threshold_flags` takes and gives them
    """
    decided = (aum - alpha[:, None]).masked_fill(member, -torch.inf).argmax(0)
    value = aum.gather(0, decided[None])[0]
    results.write_rule(RULE, SCORE, flagged.numpy(), alpha[decided].numpy(), value.numpy())
    rounds, n = aum.shape
    results.insert(
        "threshold_rounds",
        round=np.repeat(np.arange(1, rounds + 1, dtype=np.int32), n),
        sample_id=np.tile(np.arange(n, dtype=np.int32), rounds),
        threshold_sample=member.numpy().reshape(-1),
        aum=aum.float().numpy().reshape(-1),
    )
    for r, threshold in enumerate(alpha.tolist()):
        results.notes.append(
            f"AUM threshold of round {r + 1}: {threshold:.3f}, the 99th percentile of {int(member[r].sum())} threshold samples"
        )


def copy_threshold_rule(results: Results, path: Path) -> None:
    """Take the rule over from another run's results; of an older version they lack the rounds."""
    with reading(path, RESULTS, "remove that run and compute it again") as judged:
        rows = judged.execute(
            "SELECT flagged, threshold, value FROM flags WHERE rule = ? ORDER BY sample_id", [RULE]
        ).fetchnumpy()
        kept = judged.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'threshold_rounds'").fetchall()
        rounds = judged.execute("FROM threshold_rounds ORDER BY round, sample_id").fetchnumpy() if kept else {}
    if len(rows["flagged"]):
        numbers = (np.asarray(rows[name], np.float32) for name in ("threshold", "value"))
        results.write_rule(RULE, SCORE, np.asarray(rows["flagged"], bool), *numbers)
        if rounds:
            results.insert("threshold_rounds", **{name: np.asarray(values) for name, values in rounds.items()})
