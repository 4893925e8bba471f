"""CG: the complexity gap, a score that trains nothing, against scores that do; its tables. Figures: engine.reproduce.cg_figures."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from engine.queries.connection import connected, fetch_sql, source_run
from engine.queries.frames import Run
from engine.reproduce.bench import EARLY, Bench
from engine.reproduce.declared import Finding, declare_paper, table
from engine.reproduce.rules import wrong_labels
from engine.reproduce.size import Size
from engine.reproduce.values import Holds, Values, decide, less, more
from engine.scores.complexity import cg, cg_fit, cg_partial
from engine.scores.gap import solve_stochastic_gap
from engine.scores.registry import find_score
from engine.selection.samplers import select

Array = np.ndarray[Any, np.dtype[Any]]

RATIOS = (1, 2, 3, 4)
"""Samples of other classes for each one of a class, in the stochastic form."""

RUNS = 10
"""Draws that the stochastic form is averaged over (appendix A.2)."""

OTHER_SCORES = {"C-score": "consistency", "Forgetting": "forgetting", "EL2N": "el2n"}
"""The scores of table 1, by the paper's name."""

TERMS = ("first term", "second term", "third term")
"""Of equation 6: the fit of the others, the partial score, and the diagonal of the inverse kernel."""

CRAIG_EVERY = 10
"""Epochs after which CRAIG selects again (appendix F.2)."""

declare_paper(
    "cg",
    "Data Valuation Without Training of a Model (Ki, Choi and Chung 2023)",
    small=Size("digits", {"model": "mlp", "epochs": 20, "batch_size": 64, "lr": 0.002, "observe": "eval"}, 3, (0.2,)),
    paper=Size("", {"preset": "cg-cifar10"}, 5, (0.2,)),
)


@table(
    "cg",
    1,
    unit="Spearman rank correlation",
    percent=False,
    published={
        "CIFAR-10": """
                        C-score     Forgetting      EL2N
        CG-score        0.557       0.432           0.365
        CG'-score       0.115       0.110           0.136
        """,
        "CIFAR-100": """
                        C-score     Forgetting      EL2N
        CG-score        0.529       0.289           0.356
        CG'-score       0.243       0.090           0.177
        """,
    },
    findings=tuple(
        Finding(f"CG-score correlates more with {name} than CG'-score does", more("CG-score", "CG'-score", (name,)))
        for name in OTHER_SCORES
    ),
)
def correlations(bench: Bench) -> None:
    """Rank correlation between CG-score (CG'-score) and other data valuation scores.

    All scores are turned so that a high value means a hard sample. Forgetting and EL2N are those of one network each; C-scores
    are estimated from ten networks on halves of the set, in the small size again for every seed.
    """
    own = bench.run(bench.dataset, "cg,cg_forward", embedding="none", neighbors=0)
    scored = trained(bench, bench.dataset)
    rows = {"CG-score": hardness(own, "cg"), "CG'-score": hardness(own, "cg_forward")}
    others = [
        (name, seed, values)
        for name in ("Forgetting", "EL2N")
        for seed, values in enumerate(seed_hardness(bench, scored, bench.score_name(OTHER_SCORES[name])))
    ]
    for seed in bench.seeds if bench.small else range(1):
        estimated = bench.run(bench.dataset, "consistency", embedding="none", neighbors=0, seed=seed)
        others.append(("C-score", seed, hardness(estimated, "consistency")))
    for column, seed, values in others:
        for row, gap in rows.items():
            bench.put(row, column, correlation(gap, values), seed)


@table(
    "cg",
    2,
    unit="samples",
    percent=False,
    published={
        "FMNIST": """
                        positive    negative    high 20%
        mislabeled      11796       204         10776
        clean           3462        44538       1224
        """,
        "CIFAR-10": """
                        positive    negative    high 20%
        mislabeled      7146        2854        5619
        clean           8331        31669       4381
        """,
    },
    findings=(
        Finding(
            "The sign tells: a larger share of the mislabeled than of the clean has a positive partial CG-score",
            lambda values: _told_apart(values),
        ),
        Finding(
            "Most of the highest 20 % are mislabeled",
            more("mislabeled", "clean", ("high 20%",)),
        ),
    ),
)
def signs(bench: Bench) -> None:
    """Mislabeled and clean samples by the sign of the partial CG-score, and in its highest 20 %, 20 % of the labels wrong.

    Each value is of another draw of the wrong labels, as many as there are seeds. Zero counts as negative: it flags nothing.
    """
    for draw in bench.seeds:
        dataset = bench.noisy(f"symmetric:{bench.size.rates[0]:g}", draw=draw)
        run = bench.run(dataset, "cg,cg_partial", embedding="none", neighbors=0)
        found = run.scores(long=True)
        found = found[found["score"] == "cg_partial"].sort_values("sample_id")
        positive = found["value"].to_numpy() > 0
        high = found["rank"].to_numpy() >= len(found) - round(0.2 * len(found))
        wrong = wrong_labels(bench.workspace, dataset).numpy()
        for column, chosen in (("positive", positive), ("negative", ~positive), ("high 20%", high)):
            bench.put("mislabeled", column, int((chosen & wrong).sum()), draw)
            bench.put("clean", column, int((chosen & ~wrong).sum()), draw)


@table(
    "cg",
    3,
    unit="as named",
    percent=False,
    published={
        "CIFAR-10": """
                                batch size      epochs      learning rate   weight decay
        FMNIST (ResNet18)       128             100         0.02            5e-4
        CIFAR10 (ResNet18)      128             200         0.05            5e-4
        CIFAR100 (ResNet50)     128             200         0.1             5e-4
        """,
    },
)
def settings(bench: Bench) -> None:
    """Details of the training.

    The paper's: SGD with momentum 0.9, cosine schedule, crops and flips.
    """
    training = bench.training_of(trained(bench, bench.dataset))
    row = f"{bench.dataset} ({training.model})"
    bench.put(row, "batch size", training.batch_size)
    bench.put(row, "epochs", training.epochs)
    bench.put(row, "learning rate", training.lr)
    bench.put(row, "weight decay", training.weight_decay)


@table(
    "cg",
    4,
    unit="seconds of a single run",
    percent=False,
    published={
        "CIFAR-10": """
                        FMNIST      CIFAR-10    CIFAR-100
        CG-score 1:1    1063        608         37.9
        CG-score 1:2    2610        1497        40.3
        CG-score 1:3    4834        2773        49.0
        CG-score 1:4    -           4388        61.1
        Forgetting      1879        3322        6675
        EL2N            370         323         662
        TracIn          1856        3425        8400
        CRAIG           3023        5263        10472
        """,
    },
    findings=(
        Finding("The time of CG grows with the sampling ratio", more("CG-score 1:4", "CG-score 1:1")),
        Finding("Forgetting takes longer than EL2N, which reads an early epoch", more("Forgetting", "EL2N")),
        Finding(
            "Where a class has few samples, CG at 1:4 takes less time than forgetting",
            less("CG-score 1:4", "Forgetting"),
        ),
    ),
)
def times(bench: Bench) -> None:
    """Time to compute the scores of the dataset.

    CG: one draw of the stochastic form. EL2N and forgetting: one network, up to the epoch that is read. TracIn and CRAIG: that
    network, and the score of the checkpoints or a selection of half of the samples every ten epochs; CRAIG where the logits of
    the network were kept.
    """
    column, samples = bench.dataset, bench.samples(bench.dataset)
    for seed in bench.seeds:
        for ratio in RATIOS:
            started = time.perf_counter()
            solve_stochastic_gap(samples.inputs.flatten(1), samples.labels, ratio, 1, _generator(seed))
            bench.put(f"CG-score 1:{ratio}", column, time.perf_counter() - started, seed)
    run = trained(bench, bench.dataset, ",tracin_validation")
    epochs, early = run.epochs(), EARLY if bench.small else 20
    traced = _seconds_of_score(bench, run, "tracin_validation")
    selecting = _seconds_of_craig(bench, run)
    for seed in sorted(set(epochs["seed"].tolist())):
        found = epochs[epochs["seed"] == seed]
        whole = float(found["seconds"].sum())
        bench.put("Forgetting", column, whole, seed)
        bench.put("EL2N", column, float(found.loc[found["epoch"] <= early, "seconds"].sum()), seed)
        bench.put("TracIn", column, whole + traced, seed)
        if not math.isnan(selecting):
            bench.put("CRAIG", column, whole + selecting * max(1, len(found) // CRAIG_EVERY), seed)


@table(
    "cg",
    5,
    unit="Spearman rank correlation with the CG-score",
    percent=False,
    published={
        "CIFAR-10": """
                        1:1         1:2         1:3         1:4
        first term      -0.759      -0.461      -0.136      0.132
        second term     0.912       0.948       0.962       0.970
        third term      -0.015      0.066       0.121       0.163
        """,
        "CIFAR-100": """
                        1:1         1:2         1:3         1:4
        first term      -0.671      -0.296      0.035       0.264
        second term     0.902       0.939       0.955       0.964
        third term      -0.069      0.018       0.087       0.136
        """,
    },
    findings=(
        Finding("The second term correlates more with the score than the first", more("second term", "first term")),
        Finding("The second term correlates more with the score than the third", more("second term", "third term")),
    ),
)
def partial_terms(bench: Bench) -> None:
    """Rank correlation between the CG-score and its three terms, by the sampling ratio.

    d^-1 (y'h)^2, 2 y (y'h) and y^2 d, each the mean over ten draws of the stochastic form; the seeds draw other subsets.
    """
    samples = bench.samples(bench.dataset)
    rows = samples.inputs.flatten(1)
    for seed in bench.seeds:
        for ratio in RATIOS:
            bench.listener("complexity gap", (seed + ratio / len(RATIOS)) / len(bench.seeds), None)
            gap = solve_stochastic_gap(rows, samples.labels, ratio, RUNS, _generator(seed))
            whole = cg(gap.alpha, gap.inverse_diagonal)
            terms = (
                cg_fit(gap.alpha, gap.inverse_diagonal),
                cg_partial(gap.alpha, gap.inverse_diagonal),
                gap.inverse_diagonal.mean(0),
            )
            for name, term in zip(TERMS, terms, strict=True):
                bench.put(name, f"1:{ratio}", correlation(whole.numpy(), term.numpy()), seed)


# What the parts share ---------------------------------------------------------------------------------------------------


def trained(bench: Bench, dataset: str, more_scores: str = "") -> Run:
    """A run with forgetting and EL2N."""
    return bench.run(dataset, f"forgetting,{bench.score_name('el2n')}{more_scores}", embedding="none", neighbors=0)


def hardness(run: Run, score: str) -> Array:
    """The values of a score by sample id (N,), turned so that higher means harder."""
    found = run.scores(long=True)
    values = found[found["score"] == score].sort_values("sample_id")["value"].to_numpy(np.float64)
    return values if find_score(score).higher_means == "harder" else -values


def seed_hardness(bench: Bench, run: Run, score: str) -> Array:
    """The same of every network on its own, (S, N)."""
    with connected(bench.workspace, run.dataset, [run.id]) as connection:
        found = fetch_sql(
            connection,
            "SELECT value FROM seed_scores WHERE run_id = ? AND score = ? ORDER BY seed, sample_id",
            [run.id, score],
        )
        seeds = len(fetch_sql(connection, "SELECT DISTINCT seed FROM seed_scores WHERE score = ?", [score]))
    values = found["value"].to_numpy(np.float64).reshape(seeds, -1)
    return values if find_score(score).higher_means == "harder" else -values


def correlation(first: Sequence[float] | Array, second: Sequence[float] | Array) -> float:
    """Spearman's rank correlation; 0 where one of the two is constant, which says nothing about the other."""
    if len(set(np.asarray(first).tolist())) < 2 or len(set(np.asarray(second).tolist())) < 2:
        return 0.0
    return float(spearmanr(first, second).statistic)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _told_apart(values: Values) -> Holds:
    """Whether the share of the mislabeled with a positive score is larger than that of the clean, paired by draw."""
    found = []
    for draw in values.of("mislabeled", "positive"):
        shares = []
        for row in ("mislabeled", "clean"):
            positive, negative = (values.of(row, column)[draw] for column in ("positive", "negative"))
            shares.append(positive / max(1, positive + negative))
        found.append(shares[0] - shares[1])
    return decide(found, "mislabeled - clean", percent=True)


def _seconds_of_score(bench: Bench, run: Run, score: str) -> float:
    with connected(bench.workspace, run.dataset, [run.id]) as connection:
        found = fetch_sql(connection, "SELECT seconds FROM score_costs WHERE run_id = ? AND score = ?", [run.id, score])
    return float(found["seconds"].sum())


def _seconds_of_craig(bench: Bench, run: Run) -> float:
    """What selecting half of the samples takes, by the last probabilities of the first network; nan where none are kept."""
    with connected(bench.workspace, run.dataset) as connection:
        found = fetch_sql(
            connection,
            "SELECT logits FROM logits WHERE run_id = $run AND seed = 0 AND epoch = (SELECT max(epoch) FROM epochs WHERE "
            "run_id = $run) ORDER BY sample_id",
            {"run": source_run(connection, "dynamics", run.id)},
        )
    if found.empty:
        return math.nan
    probs = torch.softmax(torch.from_numpy(np.stack(found["logits"].to_list()).astype(np.float32)), 1)
    labels: Tensor = bench.samples(bench.dataset).labels.cpu()
    started = time.perf_counter()
    select("craig", max(1, len(labels) // 2), {"probs": probs, "labels": labels, "generator": _generator(0)})
    return time.perf_counter() - started
