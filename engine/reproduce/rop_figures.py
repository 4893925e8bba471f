"""The figures of ROP."""

from __future__ import annotations

import time
from collections.abc import Callable

from engine.errors import SpecError
from engine.queries.connection import connected, fetch_sql
from engine.reproduce.bench import Bench
from engine.reproduce.checks import all_of, highest
from engine.reproduce.declared import Finding, figure
from engine.reproduce.rop import SHARES, costly_shares
from engine.reproduce.rop_selection import METHODS, NEIGHBORS, WARM_UP, Subsets, noisy_sets
from engine.reproduce.values import Holds, Values, decide, more
from engine.runs.relabel_results import BINS
from engine.runs.relabel_units import PLAIN, budget
from engine.selection.names import parse_order

ALONG = "share kept"
CLEAN, WRONG = ", clean labels", ", wrong labels"
COMPARED = ("Random", "KCenter", "GraNd")
"""The selections of figure 1."""

NAMED = ("Random", "Small", "KCenter", "GraNd", "Pr4ReL", "RoP", "RoP_B")
"""The selections that the text of figure 4 names; the figure's values cannot be read from it."""


def _loses_more(first: str, second: str) -> Callable[[Values], Holds]:
    """The check that a selection loses more accuracy by wrong labels than another."""

    def check(values: Values) -> Holds:
        lost = [
            values.differences(row + CLEAN, row + WRONG, [column for column in values.columns if column != "1"])
            for row in (first, second)
        ]
        found = [one - other for one, other in zip(*lost, strict=False)]
        return decide(found, f"what {first} loses less what {second} loses", values.percent)

    return check


@figure(
    "rop",
    1,
    unit="test accuracy, %",
    line=ALONG,
    findings=(
        Finding(
            "GraNd loses more by wrong labels than KCenter, which reads the neighbors", _loses_more("GraNd", "KCenter")
        ),
        Finding("GraNd loses more by wrong labels than random selection", _loses_more("GraNd", "Random")),
        Finding(
            "With wrong labels every selection is worse than with clean ones",
            all_of(*(more(row + CLEAN, row + WRONG) for row in COMPARED)),
        ),
    ),
)
def clean_and_wrong(bench: Bench) -> None:
    """Selections followed by plain cross-entropy, with clean labels and with wrong ones.

    Full (1 kept) is the whole set with the wrong labels.
    """
    noisy = noisy_sets(bench, bench.size.rates[-1:])[0]
    if noisy.dataset == bench.dataset:
        raise SpecError(f"labels of '{bench.dataset}' are wrong already, so that it cannot be compared with clean ones")
    for dataset, suffix in ((bench.dataset, CLEAN), (noisy.dataset, WRONG)):
        subsets = Subsets(bench, dataset)
        subsets.put(PLAIN, {row + suffix: METHODS[row] for row in COMPARED}, SHARES, "{:g}".format)
        if suffix == WRONG:
            for seed, found in enumerate(subsets.train(PLAIN, ((None, seed, "all") for seed in bench.seeds))):
                bench.put("Full" + WRONG, "1", found.accuracy, seed)


def _falls(values: Values) -> Holds:
    """Whether labels of the lower half of NLI are corrected better than those of the upper half."""
    halves: tuple[dict[int, list[float]], dict[int, list[float]]] = ({}, {})
    for column in values.columns:
        for seed, share in values.of("by SOP+", column).items():
            halves[float(column) > BINS / 2].setdefault(seed, []).append(share)
    low, high = ({seed: sum(shares) / len(shares) for seed, shares in half.items()} for half in halves)
    found = [low[seed] - high[seed] for seed in sorted(set(low) & set(high))]
    return decide(found, "right in the lower half of the bins less right in the upper half", values.percent)


@figure(
    "rop",
    3,
    unit="right labels, %; columns: bins of NLI, 14 of equal width",
    line="bin of NLI",
    findings=(Finding("The larger NLI, the fewer labels are corrected", _falls),),
)
def corrected_by_nli(bench: Bench) -> None:
    """Right labels by NLI, as given and as SOP+ corrects them after it learned from 20 % drawn at random.

    The bins are of the samples that SOP+ learned from, where the paper's are of all training samples. The 20 % are drawn of
    each class.
    """
    noisy = noisy_sets(bench, bench.size.rates[-1:])[0]
    subsets = Subsets(bench, noisy.dataset)
    named = ("epochs", "batch_size", "lr", "optimizer", "schedule", "weight_decay", "augment")
    options = {name: getattr(subsets.training, name) for name in named}
    warm_up = min(subsets.training.epochs, WARM_UP)
    run = bench.relabel(
        noisy.dataset, "rop", learner="sop+", keep="0.2", run=subsets.run.id, nli_epochs=warm_up, neighbors=NEIGHBORS, **options
    )  # fmt: skip
    with connected(bench.workspace, noisy.dataset, [run.id]) as connection:
        sql = "SELECT seed, bin, right_given, right_corrected FROM relabel_bins WHERE subset = 'random' ORDER BY bin, seed"
        rows = fetch_sql(connection, sql).values.tolist()
    if not rows:
        raise SpecError(f"the true labels of '{noisy.dataset}' are not known, so nobody can count the right ones")
    for seed, at, given, corrected in rows:
        bench.put("as given", f"{int(at) + 1}", given, int(seed))
        bench.put("by SOP+", f"{int(at) + 1}", corrected, int(seed))


@figure(
    "rop",
    4,
    unit="test accuracy, %",
    line=ALONG,
    findings=(
        Finding("RoP is better than random selection", more("RoP", "Random")),
        *(Finding(f"RoP is better than {row}", more("RoP", row)) for row in ("Small", "KCenter", "GraNd", "Pr4ReL")),
        Finding("Small, which reads single samples alone, is worse than random", more("Random", "Small")),
        Finding("GraNd, which reads single samples alone, is worse than random", more("Random", "GraNd")),
    ),
)
def wrong_where_confusing(bench: Bench) -> None:
    """Selections followed by SOP+, where the labels are wrong of samples that look like another class.

    They are wrong of 20 % of the samples. In place of WebVision, whose labels come from the pages around an image.
    """
    noisy = noisy_sets(bench, [0.2], "instance")[0]
    subsets = Subsets(bench, noisy.dataset)
    subsets.put("sop+", {row: subsets.order(row) for row in NAMED}, costly_shares(bench), "{:g}".format)


def _close(values: Values) -> Holds:
    """Whether RoP and GraNd, warm-up included, are within a factor of 1.5 of each other."""
    rop, grand = (values.mean(row, "with warm-up") for row in ("RoP", "GraNd"))
    if not (rop > 0 and grand > 0):
        return Holds(None, "RoP or GraNd was not computed")
    return Holds(
        max(rop, grand) < 1.5 * min(rop, grand), f"RoP {rop:.3g} s, GraNd {grand:.3g} s; taken as close within half"
    )


@figure(
    "rop",
    5,
    unit="seconds, 0.2 kept",
    percent=False,
    findings=(
        Finding("KCenter is the slowest selection", highest("KCenter", ("selection",))),
        Finding("RoP takes about as long as GraNd", _close),
    ),
)
def seconds_of_selection(bench: Bench) -> None:
    """Seconds of selecting 20 %, without and with the warm-up, which all but random selection read.

    Counted are the score with its inputs (such as neighbors and features), or for samplers that read no score their features
    and probabilities; and the choice.
    """
    subsets = Subsets(bench, noisy_sets(bench, [0.2], "asymmetric")[0].dataset)
    with connected(bench.workspace, subsets.dataset, [subsets.run.id]) as connection:
        costs = dict(fetch_sql(connection, "SELECT score, seconds FROM score_costs").values.tolist())
    trained = float(subsets.run.epochs()["seconds"].sum())
    left_out = len(subsets.labels) - budget(len(subsets.labels), 0.2)
    for row in METHODS:
        order = subsets.order(row)
        for seed in bench.seeds:
            selection = subsets.fresh(order, seed)
            started = time.perf_counter()
            selection.kept(order, len(subsets.labels) - 1)
            read, started = time.perf_counter() - started, time.perf_counter()
            selection.kept(order, left_out)
            seconds = time.perf_counter() - started
            score = parse_order(order).score
            seconds += costs[score] if score else read if row != "Random" else 0.0
            bench.put(row, "selection", seconds, seed)
            bench.put(row, "with warm-up", seconds + (0.0 if row == "Random" else trained), seed)


@figure(
    "rop",
    6,
    unit="test accuracy, %",
    line=ALONG,
    findings=(
        Finding(
            "Where little is kept, K = 5 is worse than K = 15",
            more("K = 15", "K = 5", lambda values: values.columns[:1]),
        ),
        Finding(
            "Where much is kept, K hardly matters: K = 5 is within a point of K = 15",
            more("K = 5", "K = 15", lambda values: values.columns[-1:], by=-0.01),
        ),
        Finding("K = 10 is within a point of K = 15", more("K = 10", "K = 15", by=-0.01)),
    ),
)
def number_of_neighbors(bench: Bench) -> None:
    """RoP by 5, 10, 15 and 20 neighbors, followed by SOP+."""
    subsets = Subsets(bench, noisy_sets(bench, bench.size.rates[-1:])[0].dataset)
    for k in (5, 10, 15, 20):
        run = subsets.run if k == NEIGHBORS else subsets.scored("nli", k)
        subsets.put("sop+", {f"K = {k}": METHODS["RoP"]}, costly_shares(bench), "{:g}".format, run)
