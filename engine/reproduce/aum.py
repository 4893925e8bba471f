"""AUM: wrong labels by the area under the margin and threshold samples; training without them, and robust training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import SpecError
from engine.queries.connection import connected, fetch_sql
from engine.queries.frames import Run
from engine.reproduce.bench import Bench, Job, Outcome
from engine.reproduce.checks import lowest
from engine.reproduce.declared import Finding, declare_paper, table
from engine.reproduce.rules import wrong_labels
from engine.reproduce.size import Size
from engine.reproduce.values import Holds, Values, less, more
from engine.runs.relabel_units import PLAIN
from engine.spec import TrainingSpec

Array = np.ndarray[Any, np.dtype[Any]]

LEARNERS = {
    "Standard": PLAIN,
    "Random": "random-weights",
    "Bootstrap hard": "bootstrap-hard",
    "Bootstrap soft": "bootstrap-soft",
    "MentorNet": "mentornet",
    "Co-Teaching": "co-teaching",
    "D2L": "d2l",
    "L_DMI": "dmi",
    "Data Param": "data-parameters",
    "DY-Bootstrap": "dy-bootstrap",
}
"""The rows that learn from all samples, each by a learner."""

RULES = {"BMM": "bmm", "GMM": "gmm", "INCV": "discarded_by_incv", "AUM": "aum_threshold"}
"""The rows that learn plainly from what a rule does not flag. The paper has no rows of the mixtures alone."""

ORACLE = "Oracle"
"""Learns plainly from the samples whose given label is the true one: the only row that reads the truth."""

IDENTIFYING = ("Standard", "Random", "Data Param", "DY-Bootstrap", *RULES, ORACLE)
"""The rows of table 2."""

NOT_COMPARED = (ORACLE, "BMM", "GMM")
"""Rows that are none of the methods which the paper's tables compare."""

SECOND, SECOND_SAMPLES = "synthetic", 2_000
"""The second dataset of the small size: some of PRUNE's Gaussians, which overlap where digits do not."""

declare_paper(
    "aum",
    "Identifying Mislabeled Data using the Area Under the Margin Ranking (Pleiss et al.)",
    small=Size("digits", {"model": "mlp", "epochs": 5, "batch_size": 64, "lr": 0.002}, 3, (0.2, 0.4)),
    paper=Size("", {"preset": "aum-cifar10"}, 3, (0.2, 0.4, 0.6, 0.8)),
)

RECOVERED = ("0.2", "0.4")
NEAR = 0.03
"""What counts as reaching the oracle: in the paper's table 1, AUM is 0.8 and 2.8 points from it at 20 and 40 % on CIFAR-10."""


@table(
    "aum",
    1,
    unit="test error, %, by the share of wrong labels (uniform noise)",
    published={
        "CIFAR-10": """
                        0.2           0.4           0.6           0.8
        Standard        25.0 ± 0.3    43.3 ± 0.4    63.3 ± 0.4    83.4 ± 0.2
        Random          16.5 ± 0.3    22.8 ± 0.8    35.8 ± 1.4    55.6 ± 2.8
        Bootstrap       22.4 ± 0.2    37.4 ± 0.4    52.0 ± 0.2    68.8 ± 0.5
        MentorNet       13.3 ± 0.1    18.1 ± 0.2    -             66.0 ± 2.5
        Co-Teaching     11.2 ± 0.1    13.5 ± 0.1    19.3 ± 0.1    80.7 ± 0.6
        D2L             12.3 ± 0.2    15.6 ± 0.3    27.3 ± 0.6    Diverged
        L_DMI           14.1 ± 0.1    20.4 ± 0.8    34.9 ± 1.2    67.2 ± 1.4
        Data Param      17.9 ± 0.2    29.2 ± 0.9    50.7 ± 0.7    81.1 ± 0.3
        DY-Bootstrap    20.6 ± 0.1    31.2 ± 1.4    43.6 ± 1.7    Diverged
        INCV            10.5 ± 0.1    13.2 ± 0.1    18.9 ± 0.3    46.7 ± 1.9
        AUM             9.8 ± 0.0     12.5 ± 0.1    17.9 ± 0.0    45.6 ± 1.6
        Oracle          9.0 ± 0.1     9.7 ± 0.4     10.8 ± 0.9    12.6 ± 1.7
        """,
        "CIFAR-100": """
                        0.2           0.4           0.6           0.8
        Standard        50.4 ± 0.2    62.5 ± 0.2    76.2 ± 0.4    91.8 ± 0.3
        Random          43.0 ± 0.1    51.2 ± 0.2    63.5 ± 0.5    83.7 ± 0.9
        Bootstrap       48.6 ± 0.2    58.9 ± 0.2    70.3 ± 0.2    89.8 ± 0.8
        MentorNet       35.8 ± 0.3    42.5 ± 0.2    -             75.7 ± 0.7
        Co-Teaching     35.9 ± 0.1    39.8 ± 0.2    52.0 ± 0.3    89.1 ± 0.7
        D2L             46.0 ± 1.0    70.3 ± 1.8    Diverged      Diverged
        L_DMI           Diverged      Diverged      Diverged      Diverged
        Data Param      43.7 ± 1.4    53.9 ± 0.4    67.2 ± 2.3    88.1 ± 1.2
        DY-Bootstrap    47.0 ± 0.4    57.0 ± 0.3    63.4 ± 0.5    87.2 ± 0.5
        INCV            41.4 ± 0.5    44.6 ± 0.2    56.3 ± 0.3    76.3 ± 0.6
        AUM             34.5 ± 0.2    38.7 ± 0.1    47.0 ± 0.5    68.3 ± 0.7
        Oracle          35.5 ± 0.1    39.0 ± 0.2    44.8 ± 0.5    55.1 ± 0.4
        """,
    },
    findings=(
        Finding("There is a large discrepancy between Standard and Oracle", less(ORACLE, "Standard")),
        Finding("Most methods reduce the gap to the oracle significantly", lambda values: _most_gain(values)),
        Finding("AUM has the lowest error of all methods", lowest("AUM", but=NOT_COMPARED)),
        Finding(
            "Without what AUM flags the error is lower than without what the beta mixture flags", less("AUM", "BMM")
        ),
        Finding("Without what AUM flags the error is lower than without what the Gaussians flag", less("AUM", "GMM")),
        Finding("At 20 and 40 % AUM recovers the oracle (within 3 points)", more(ORACLE, "AUM", RECOVERED, -NEAR)),
    ),
)
def uniform_noise(bench: Bench) -> None:
    """Test error with synthetic mislabeled samples (uniform noise).

    Departs from the paper: INCV's row learns plainly from what INCV keeps, where the paper's goes on with co-teaching;
    MentorNet's curriculum is the predefined one.
    """
    for rate in bench.size.rates:
        _put_errors(bench, bench.noisy(f"symmetric:{rate:g}"), (*LEARNERS, *RULES, ORACLE), f"{rate:g}")


@table(
    "aum",
    2,
    unit="test error, %, by the share of wrong labels (uniform noise)",
    published={
        "Tiny ImageNet": """
                        0.2           0.4           0.6           0.8
        Standard        58.6 ± 0.1    66.3 ± 0.2    77.6 ± 0.1    92.4 ± 0.1
        Random          54.3 ± 0.1    60.8 ± 0.1    70.7 ± 0.2    87.1 ± 1.0
        Data Param      54.2 ± 0.1    68.4 ± 0.1    84.3 ± 0.3    96.5 ± 0.1
        DY-Bootstrap    58.2 ± 0.1    63.7 ± 0.2    76.8 ± 0.0    93.2 ± 0.4
        INCV            54.8 ± 0.1    57.4 ± 0.1    63.8 ± 0.2    82.6 ± 0.7
        AUM             51.1 ± 0.2    55.3 ± 0.1    62.7 ± 0.3    79.2 ± 0.2
        Oracle          52.7 ± 0.3    56.5 ± 0.2    63.0 ± 0.3    71.2 ± 0.1
        """,
    },
    findings=(
        Finding("AUM has the lowest error of all methods", lowest("AUM", but=NOT_COMPARED)),
        Finding("AUM matches or surpasses the oracle (within 3 points)", more(ORACLE, "AUM", (), -NEAR)),
    ),
)
def second_dataset(bench: Bench) -> None:
    """Test error with synthetic mislabeled samples on a second, harder dataset (uniform noise).

    The paper's is Tiny ImageNet. Here: the dataset that is given; where none is, 2,000 samples of PRUNE's synthetic set.
    """
    for rate in bench.size.rates:
        noise = f"symmetric:{rate:g}"
        if own_data(bench):
            dataset = f"{SECOND}-symmetric-{rate:g}"
            ingest(bench.workspace, IngestSpec(name=dataset, source=SECOND, limit=SECOND_SAMPLES, noise=noise))
        else:
            dataset = bench.noisy(noise)
        _put_errors(bench, dataset, IDENTIFYING, f"{rate:g}")


_REAL = {
    "CIFAR-10": """
                    error        removed
    Standard        8.1 ± 0.1    -
    Data Param      8.1 ± 0.0    -
    DY-Bootstrap    10.0 ± 0.0   15.5 ± 0.2
    INCV            9.1 ± 0.0    8.5 ± 0.1
    AUM             7.9 ± 0.0    3.0 ± 0.1
    """,
    "CIFAR-100": """
                    error        removed
    Standard        33.0 ± 0.3   -
    Data Param      36.4 ± 1.4   -
    DY-Bootstrap    34.9 ± 0.1   7.3 ± 0.1
    INCV            38.2 ± 0.1   27.4 ± 0.1
    AUM             31.8 ± 0.1   13.0 ± 0.9
    """,
    "Tiny ImageNet": """
                    error        removed
    Standard        49.3 ± 0.1   -
    Data Param      48.4 ± 0.2   -
    DY-Bootstrap    51.6 ± 0.0   12.5 ± 0.0
    INCV            56.1 ± 0.1   27.6 ± 1.4
    AUM             48.6 ± 0.1   19.9 ± 0.1
    """,
    "ImageNet": """
                    error        removed
    Standard        24.2         -
    Data Param      24.1         -
    DY-Bootstrap    32.0         10.7
    INCV            29.5         7.4
    AUM             24.4         2.7
    """,
    "WebVision50": """
                    error        removed
    Standard        21.4         -
    Data Param      21.5         -
    DY-Bootstrap    25.8         4.6
    INCV            22.1         26.2
    AUM             19.8         17.8
    """,
    "Clothing100K": """
                    error        removed
    Standard        35.8         -
    Data Param      35.5         -
    DY-Bootstrap    38.4         12.1
    INCV            33.3         25.2
    AUM             33.5         16.7
    """,
}


@table(
    "aum",
    3,
    unit="test error, and share of the training samples removed, %",
    published=_REAL,
    findings=(
        Finding("Training without what AUM flags reduces the error", less("AUM", "Standard", ("error",))),
        Finding("DY-Bootstrap is worse than standard training", more("DY-Bootstrap", "Standard", ("error",))),
        Finding("INCV is worse than standard training", more("INCV", "Standard", ("error",))),
        Finding("INCV removes more than AUM", more("INCV", "AUM", ("removed",))),
    ),
)
def as_it_is(bench: Bench) -> None:
    """Test error on datasets without injected label noise, and how much is removed.

    DY-Bootstrap removes nothing: its share is that of the samples which its beta mixture counts as wrong after training.
    """
    rows = ("Standard", "Data Param", "DY-Bootstrap", *RULES)
    found = _put_errors(bench, bench.dataset, rows, "error")
    for seed in bench.seeds:
        bench.put("DY-Bootstrap", "removed", found["DY-Bootstrap", seed].doubted, seed)
        for row, flagged in flags(bench, scored(bench, bench.dataset, seed), seed).items():
            bench.put(row, "removed", float(flagged.mean()), seed)


@table(
    "aum",
    4,
    unit="test error, %, by the share of wrong labels (asymmetric noise: each class turns into the next)",
    published={
        "CIFAR-10": """
                        0.2           0.4
        Standard        23.7 ± 0.1    43.7 ± 0.0
        Random          16.1 ± 0.2    34.8 ± 1.3
        Bootstrap       23.8 ± 0.2    45.0 ± 0.6
        D2L             11.4 ± 0.2    23.6 ± 1.5
        L_DMI           13.3 ± 0.8    16.0 ± 2.1
        Data Param      17.9 ± 0.2    44.5 ± 0.7
        DY-Bootstrap    22.1 ± 0.1    40.6 ± 0.6
        INCV            11.7 ± 0.1    20.2 ± 0.4
        AUM             10.3 ± 0.1    41.3 ± 0.2
        Oracle          9.2 ± 0.1     10.8 ± 0.1
        """,
        "CIFAR-100": """
                        0.2           0.4
        Standard        47.1 ± 0.2    61.8 ± 0.0
        Random          42.3 ± 0.2    57.1 ± 0.2
        Bootstrap       46.6 ± 0.3    61.3 ± 0.3
        D2L             56.4 ± 0.7    83.1 ± 1.2
        L_DMI           Diverged      Diverged
        Data Param      43.8 ± 0.5    61.0 ± 0.4
        DY-Bootstrap    46.8 ± 0.0    62.1 ± 0.0
        INCV            43.2 ± 0.1    55.6 ± 0.7
        AUM             40.3 ± 0.2    59.8 ± 0.1
        Oracle          35.3 ± 0.2    38.8 ± 0.2
        """,
    },
    findings=(
        Finding("At 20 % AUM is better than the others", lowest("AUM", ("0.2",), but=NOT_COMPARED)),
        Finding("At 40 % AUM is not competitive: another method has less error", lambda values: _beaten(values, "0.4")),
    ),
)
def asymmetric_noise(bench: Bench) -> None:
    """Test error with asymmetric noise.

    As in the paper, without the methods that have to know the share of wrong labels or come with a trained curriculum.
    """
    left_out = ("Co-Teaching", "MentorNet")
    rows = (*(row for row in LEARNERS if row not in left_out), *RULES, ORACLE)
    for rate in (0.2, 0.4):
        _put_errors(bench, bench.noisy(f"asymmetric:{rate:g}"), rows, f"{rate:g}")


# What tables and figures share -------------------------------------------------------------------------------------


def own_data(bench: Bench) -> bool:
    """Whether the small size is computed on the data that ships with Winnow, for which its options are."""
    return bench.small and bench.dataset == bench.size.dataset


def scored(bench: Bench, dataset: str, seed: int) -> Run:
    """The run whose threshold samples and halves are drawn by a seed; its networks are those of every other seed's run."""
    return bench.run(dataset, "aum,bmm,gmm,incv", embedding="none", neighbors=0, seed=seed)


def retraining(bench: Bench, run: Run) -> TrainingSpec:
    """How networks are trained whose error is measured: longer than those of the scores, with the rate falling.

    As the paper's: 300 epochs in batches of 256, a tenth of the rate at 150 and 225, where areas are measured over 150
    epochs of batches of 64 without a drop. In the small size six times as long in the same batches: the areas are measured
    before a network memorizes wrong labels, which on few samples takes some fifteen epochs, the errors after it has.
    """
    trained = bench.training_of(run)
    times, batch = (6, trained.batch_size) if bench.small else (2, 4 * trained.batch_size)
    return replace(trained, epochs=min(10_000, times * trained.epochs), schedule="step", batch_size=batch)


def rows_of(bench: Bench, run: Run, sql: str, **given: object) -> pd.DataFrame:
    """What a query reads of a run, whose id is $run in it."""
    with connected(bench.workspace, run.dataset) as connection:
        return fetch_sql(connection, sql, {"run": run.id, **given})


def flags(bench: Bench, run: Run, seed: int) -> dict[str, Array]:
    """What each rule flags of the training samples, (N,) bool by row: the mixtures by the losses of that seed's network."""
    sql = "SELECT rule, sample_id, flagged FROM flags WHERE run_id = $run ORDER BY sample_id"
    ruled = rows_of(bench, run, sql)
    sql = (
        "SELECT score AS rule, sample_id, value > 0.5 AS flagged FROM seed_scores WHERE run_id = $run AND seed = $seed"
    )
    own = rows_of(bench, run, f"{sql} AND score IN ('bmm', 'gmm') ORDER BY sample_id", seed=seed)
    found = {}
    for row, rule in RULES.items():
        where = own if rule in ("bmm", "gmm") else ruled
        found[row] = where.loc[where["rule"] == rule, "flagged"].to_numpy(bool)
        if not len(found[row]):
            raise SpecError(
                f"run {run.id} of '{run.dataset}' has no samples judged by {rule}; remove it to compute it again"
            )
    return found


def _put_errors(bench: Bench, dataset: str, rows: Sequence[str], column: str) -> dict[tuple[str, int], Outcome]:
    """Put the test error of each row, and return what was measured by row and seed."""
    jobs: dict[tuple[str, int], Job] = {}
    for seed in bench.seeds:
        run = scored(bench, dataset, seed)
        kept = {row: ~flagged for row, flagged in flags(bench, run, seed).items()}
        for row in rows:
            if row in LEARNERS:
                jobs[row, seed] = Job(seed, learner=LEARNERS[row])
            elif row in kept:
                jobs[row, seed] = Job(seed, kept=places(kept[row]), what=f"what {row} does not flag")
            else:
                right = ~wrong_labels(bench.workspace, dataset).numpy()
                jobs[row, seed] = Job(seed, kept=places(right), what="the samples with right labels")
    found = dict(zip(jobs, bench.train(dataset, retraining(bench, run), list(jobs.values())), strict=True))
    for (row, seed), outcome in found.items():
        bench.put(row, column, 1 - outcome.accuracy, seed)
    return found


def places(kept: Array) -> torch.Tensor:
    """The positions (K,) int64 of what is kept (N,) bool."""
    return torch.from_numpy(np.flatnonzero(kept).astype(np.int64))


def _most_gain(values: Values) -> Holds:
    """Whether more than half of the methods surely have less error than standard training."""
    held = [less(row, "Standard")(values).holds for row in values.rows if row not in ("Standard", *NOT_COMPARED)]
    gained, half = held.count(True), len(held) / 2
    text = f"{gained} of {len(held)} methods surely have less error than Standard, {held.count(False)} surely more"
    return Holds(True if gained > half else False if held and held.count(False) >= half else None, text)


def _beaten(values: Values, column: str) -> Holds:
    """Whether the best of the other methods of the paper has less error than AUM."""
    others = [row for row in values.rows if row not in ("AUM", *NOT_COMPARED) and values.of(row, column)]
    if not others:
        return Holds(None, "no other method was computed")
    best = min(others, key=lambda row: values.mean(row, column))
    return less(best, "AUM", (column,))(values)
