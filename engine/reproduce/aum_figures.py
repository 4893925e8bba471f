"""AUM's figures as numbers: threshold samples, what rules find, removing by rank, the margin and its running mean."""

from __future__ import annotations

import numpy as np
import torch

from engine.queries.connection import connected, source_run
from engine.reproduce.aum import flags, retraining, rows_of, scored
from engine.reproduce.bench import Bench, Job
from engine.reproduce.checks import at_least, highest, larger_at
from engine.reproduce.declared import Finding, figure
from engine.reproduce.rules import wrong_labels
from engine.reproduce.values import Holds, Values, decide, less, more
from engine.scores.evaluation import evaluate_detection, evaluate_rule
from engine.text import percent

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)

REMOVED = (0.0, 0.1, 0.2, 0.3, 0.5)
"""Shares removed in figure 5, beside the share that the threshold removes."""

THRESHOLD = "at the threshold"
RANKED, RANDOM = "lowest AUM first", "at random"
WRONG = ", 20 % wrong"
"""Ends the rows of figure 5 that have wrong labels."""

EPOCHS = 10
"""Epochs that figure 6 looks at, evenly spaced."""


@figure(
    "aum",
    3,
    unit="area under the margin, and the share of the samples that is at most the threshold",
    percent=False,
    line="percentile of the samples",
    findings=(
        Finding(
            "Mislabeled samples have smaller areas than correctly labeled ones", less("mislabeled", "correctly labeled")
        ),
        Finding("So have threshold samples", less("threshold samples", "correctly labeled")),
        Finding(
            "The threshold separates the two: 90 % of the mislabeled samples are at most the threshold",
            at_least("mislabeled", 0.9, (THRESHOLD,)),
        ),
        Finding(
            "The threshold separates the two: 90 % of the correctly labeled samples are above",
            at_least("correctly labeled, above", 0.9, (THRESHOLD,)),
        ),
    ),
)
def threshold_samples(bench: Bench) -> None:
    """Areas under the margin of samples and of threshold samples, 40 % of the labels wrong.

    The paper draws histograms; here: their percentiles, in the training with threshold samples, each other sample in the round
    in which it is not one of them.
    """
    dataset = bench.noisy("symmetric:0.4")
    for seed in bench.seeds:
        run = scored(bench, dataset, seed)
        wrong = wrong_labels(bench.workspace, dataset).numpy()
        rounds = rows_of(
            bench, run, "SELECT sample_id, threshold_sample, aum FROM threshold_rounds WHERE run_id = $run"
        )
        at = rounds["sample_id"].to_numpy()
        own, areas = rounds["threshold_sample"].to_numpy(bool), rounds["aum"].to_numpy(np.float64)
        groups = {
            "correctly labeled": areas[~own & ~wrong[at]],
            "mislabeled": areas[~own & wrong[at]],
            "threshold samples": areas[own],
        }
        for row, values in groups.items():
            for percentile in PERCENTILES if len(values) else ():
                bench.put(row, f"{percentile}", float(np.percentile(values, percentile)), seed)
        flagged = flags(bench, run, seed)["AUM"]
        bench.put("mislabeled", THRESHOLD, float(flagged[wrong].mean()), seed)
        bench.put("correctly labeled, above", THRESHOLD, float((~flagged[~wrong]).mean()), seed)


@figure(
    "aum",
    4,
    unit="precision and recall, %",
    line="share of wrong labels",
    findings=(
        Finding("AUM tends to have the highest precision", highest("AUM precision", among="precision")),
        Finding("AUM tends to have the highest recall", highest("AUM recall", among="recall")),
        Finding(
            "Precision of AUM is 90 % or more where much is wrong (40 to 80 %)",
            at_least("AUM precision", 0.9, ("0.4", "0.6", "0.8")),
        ),
        Finding(
            "Recall of AUM is 90 % or more where much is wrong (40 to 80 %)",
            at_least("AUM recall", 0.9, ("0.4", "0.6", "0.8")),
        ),
        Finding(
            "Little noise is the most challenging: precision of AUM is lower", larger_at("AUM precision", "0.4", "0.2")
        ),
    ),
)
def found_by_rules(bench: Bench) -> None:
    """Precision and recall of rules under uniform noise."""
    for rate in bench.size.rates:
        _put_found(bench, f"symmetric:{rate:g}", f"{rate:g}")


@figure(
    "aum",
    5,
    unit="test error, %",
    line="share of the training samples removed",
    findings=(
        Finding("Discarding at random increases the error", larger_at(RANDOM, "0.5", "0")),
        Finding("Discarding by the lowest AUM has less error than at random", less(RANKED, RANDOM)),
        Finding("Discarding up to the threshold is best (within a point)", lambda values: _best(values, RANKED)),
        Finding(
            "Where 20 % are wrong, discarding up to the threshold is best (within a point)",
            lambda values: _best(values, RANKED + WRONG),
        ),
        Finding(
            "Where 20 % are wrong, by the lowest AUM is better than at random", less(RANKED + WRONG, RANDOM + WRONG)
        ),
    ),
)
def removing_by_rank(bench: Bench) -> None:
    """Test error when samples are removed by their area under the margin, or at random.

    On the dataset as it is, as in the paper; in the small size, whose digits are clean, with 20 % wrong labels as well.
    """
    _put_removed(bench, bench.dataset, "")
    if bench.small:
        _put_removed(bench, bench.noisy("symmetric:0.2"), WRONG)


@figure(
    "aum",
    6,
    unit="ROC AUC of finding the wrong labels",
    percent=False,
    line="epoch",
    findings=(
        Finding("The running mean separates better than the margin of an epoch", more("running mean", "margin")),
    ),
)
def margin_and_running_mean(bench: Bench) -> None:
    """The margin of an epoch and its running mean, 40 % of the labels wrong.

    The paper draws two samples; here: how well they separate wrong labels from right ones, of all samples.
    """
    dataset = bench.noisy("symmetric:0.4")
    run = scored(bench, dataset, 0)
    wrong = wrong_labels(bench.workspace, dataset).numpy()
    with connected(bench.workspace, run.dataset) as connection:
        trained = source_run(connection, "epochs", run.id)
    epochs = bench.training_of(run).epochs
    chosen = sorted({round(epochs * (i + 1) / EPOCHS) for i in range(EPOCHS)} - {0})
    for seed in bench.seeds:
        margins = rows_of(
            bench,
            run,
            f"""SELECT * FROM (SELECT sample_id, epoch, margin, $run AS run, avg(margin) OVER
            (PARTITION BY sample_id ORDER BY epoch) AS mean FROM dynamics WHERE run_id = $trained AND seed = $seed)
            WHERE epoch IN ({", ".join(map(str, chosen))}) ORDER BY epoch, sample_id""",
            trained=trained,
            seed=seed,
        )
        for epoch, found in margins.groupby("epoch"):
            for row, name in (("margin", "margin"), ("running mean", "mean")):
                quality = evaluate_detection(-found[name].to_numpy(np.float64), wrong)
                if quality:
                    bench.put(row, f"{epoch}", quality["roc_auc"], seed)


@figure(
    "aum",
    7,
    unit="precision and recall, %",
    line="share of wrong labels",
    findings=(
        Finding("At 20 % precision of AUM is high (80 % or more)", at_least("AUM precision", 0.8, ("0.2",))),
        Finding("At 20 % recall of AUM is high (80 % or more)", at_least("AUM recall", 0.8, ("0.2",))),
        Finding("At 40 % AUM finds less than at 20 %", larger_at("AUM recall", "0.2", "0.4")),
        Finding("So does the beta mixture", larger_at("BMM recall", "0.2", "0.4")),
        Finding("So do the Gaussians", larger_at("GMM recall", "0.2", "0.4")),
    ),
)
def found_by_rules_asymmetric(bench: Bench) -> None:
    """Precision and recall of rules under asymmetric noise."""
    for rate in (0.2, 0.4) if bench.small else (0.2, 0.3, 0.4):
        _put_found(bench, f"asymmetric:{rate:g}", f"{rate:g}")


def _put_found(bench: Bench, noise: str, column: str) -> None:
    dataset = bench.noisy(noise)
    for seed in bench.seeds:
        run = scored(bench, dataset, seed)
        wrong = wrong_labels(bench.workspace, dataset).numpy()
        for row, flagged in flags(bench, run, seed).items():
            measured = evaluate_rule(flagged, wrong)
            for name in ("precision", "recall"):
                if name in measured:
                    bench.put(f"{row} {name}", column, measured[name], seed)


def _put_removed(bench: Bench, dataset: str, suffix: str) -> None:
    """Put the error without the samples of the lowest area, and without as many at random, for every share removed.

    Args: suffix: of the rows
    """
    jobs: dict[tuple[str, str, int], Job] = {}
    for seed in bench.seeds:
        run = scored(bench, dataset, seed)
        sql = "SELECT value FROM seed_scores WHERE run_id = $run AND seed = $seed AND score = 'aum' ORDER BY sample_id"
        areas = rows_of(bench, run, sql, seed=seed)["value"].to_numpy(np.float64)
        orders = {
            RANKED: np.argsort(areas, kind="stable"),
            RANDOM: np.random.default_rng([seed, len(areas)]).permutation(len(areas)),
        }
        shares = {f"{share:g}": share for share in REMOVED} | {THRESHOLD: float(flags(bench, run, seed)["AUM"].mean())}
        for row, order in orders.items():
            for column, share in shares.items():
                kept = np.sort(order[round(share * len(order)) :])
                what = f"what is left when {percent(share)} are removed"
                jobs[row, column, seed] = Job(seed, kept=torch.from_numpy(kept.astype(np.int64)), what=what)
    outcomes = bench.train(dataset, retraining(bench, run), list(jobs.values()))
    for (row, column, seed), outcome in zip(jobs, outcomes, strict=True):
        bench.put(row + suffix, column, 1 - outcome.accuracy, seed)


def _best(values: Values, row: str) -> Holds:
    """Whether the error at the threshold is no larger than at the best of the other shares that are removed, by a point."""
    others = [column for column in values.columns if column != THRESHOLD and values.of(row, column)]
    best = min(others, key=lambda column: values.mean(row, column), default="")
    there, other = values.of(row, THRESHOLD), values.of(row, best)
    found = [other[seed] - there[seed] for seed in sorted(there.keys() & other.keys())]
    return decide(found, f"{row}: {best or 'any'} removed - {THRESHOLD}", values.percent, -0.01)
