"""PRUNE: data pruning by EL2N and sample forgetting, without and with label noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.data.loader import dataset_shape
from engine.queries.frames import Run
from engine.queries.proofs import interval
from engine.reproduce.bench import Bench
from engine.reproduce.declared import Finding, declare_paper, figure, table
from engine.reproduce.size import Size
from engine.reproduce.values import Holds, Values, less, more

Array = np.ndarray[Any, np.dtype[Any]]

ORDERS = ("random", "forgetting", "forgetting*", "el2n", "el2n*")
"""The curves of figures 1 and 2; * is the reversed ranking, which prunes the hardest samples first. The second has the
oracle as well: it prunes wrong labels first."""

MODERATE = ("0.1 pruned", "0.2 pruned", "0.3 pruned", "0.4 pruned")
EXTREME = ("0.8 pruned", "0.9 pruned")
"""What the conclusions call moderate and extreme pruning. The paper gives no numbers; read off its figures."""

declare_paper(
    "prune",
    "Data Pruning: Redundant, Problematic, and Interdependent Samples (Freese and Theunissen)",
    small=Size("digits", {"model": "mlp", "epochs": 20, "batch_size": 64, "lr": 0.002}, 3, (0.3,)),
    paper=Size("", {"preset": "prune-cifar10"}, 3, (0.3,)),
)


@table(
    "prune",
    1,
    unit="as named",
    percent=False,
    published={
        "CIFAR-10": """
                      training    test      r       batch size    learning rate
        synthetic     10000       5000      100     100           0.01
        MNIST         55000       10000     550     64            0.01
        CIFAR-10      45000       10000     2250    64            0.001
        """,
    },
)
def sizes(bench: Bench) -> None:
    """Dataset sizes and model configurations.

    The models of the paper: a perceptron of two layers for the synthetic set and MNIST, VGG-16 for CIFAR-10.
    """
    shape = dataset_shape(bench.workspace, bench.dataset)
    training = bench.training_of(_scored(bench, bench.dataset))
    row = f"{bench.dataset} ({training.model})"
    facts = {
        "training": shape.train,
        "test": shape.test,
        "r": shape.train // _points(bench),
        "batch size": training.batch_size,
        "learning rate": training.lr,
    }
    for column, value in facts.items():
        bench.put(row, column, value)


@figure(
    "prune",
    1,
    unit="test accuracy, %",
    line="share pruned",
    findings=(
        Finding("Under moderate pruning EL2N is a little better than random", more("el2n", "random", MODERATE)),
        Finding(
            "Under moderate pruning forgetting is a little better than random", more("forgetting", "random", MODERATE)
        ),
        Finding("Under extreme pruning random is better than EL2N", more("random", "el2n", EXTREME)),
        Finding("Under extreme pruning random is better than forgetting", more("random", "forgetting", EXTREME)),
        Finding("Under extreme pruning reversed EL2N is better than EL2N", more("el2n*", "el2n", EXTREME)),
        Finding(
            "Under extreme pruning reversed forgetting is better than forgetting",
            more("forgetting*", "forgetting", EXTREME),
        ),
    ),
)
def clean_curves(bench: Bench) -> None:
    """Test accuracy by the share pruned, without injected label noise."""
    _curves(bench, bench.dataset, ORDERS)


@figure(
    "prune",
    2,
    unit="test accuracy, %",
    line="share pruned",
    findings=(
        Finding("Under label noise EL2N fails: it is worse than random", less("el2n", "random")),
        Finding("Under label noise forgetting fails: it is worse than random", less("forgetting", "random")),
        Finding("Reversed EL2N is better than EL2N", more("el2n*", "el2n")),
        Finding("Reversed forgetting is better than forgetting", more("forgetting*", "forgetting")),
        Finding("Pruning by reversed EL2N improves on no pruning at first", lambda values: _improves(values, "el2n*")),
        Finding("Reversed EL2N comes within 2 points of the oracle", more("el2n*", "oracle", by=-0.02)),
    ),
)
def noisy_curves(bench: Bench) -> None:
    """Test accuracy by the share pruned, 30 % of the labels wrong (symmetric)."""
    _curves(bench, bench.noisy(f"symmetric:{bench.size.rates[0]:g}"), (*ORDERS, "oracle"))


@figure(
    "prune",
    3,
    unit="Spearman rank correlation, and mean rank 0..1 (1 = pruned last)",
    percent=False,
    findings=(
        Finding("Wrong labels tend to be ranked last by EL2N", lambda values: _above(values, "el2n")),
        Finding("Wrong labels tend to be ranked last by forgetting", lambda values: _above(values, "forgetting")),
        Finding("Samples whose label stays right keep their place by EL2N", lambda values: _keeps(values, "el2n")),
        Finding(
            "Samples whose label stays right keep their place by forgetting",
            lambda values: _keeps(values, "forgetting"),
        ),
    ),
)
def ranks_before_and_after(bench: Bench) -> None:
    """Ranks of the samples before and after labels are made wrong.

    The paper draws every sample; here: the rank correlation of the samples whose label stays, and the mean rank of those
    whose label is made wrong, before and after.
    """
    noisy = bench.noisy(f"symmetric:{bench.size.rates[0]:g}")
    before, after = _scored(bench, bench.dataset), _scored(bench, noisy)
    truth = bench.samples(noisy)
    if truth.true_labels is None:
        return
    wrong = (truth.labels != truth.true_labels).cpu().numpy()
    for score in ("el2n", "forgetting"):
        ranks = [_ranks(run, bench.score_name(score)) for run in (before, after)]
        clean = [r[~wrong] for r in ranks]
        bench.put(score, "correlation of clean samples", _correlation(clean[0], clean[1]))
        for name, r in zip(("before", "after"), ranks, strict=True):
            bench.put(score, f"mean rank of wrong labels {name}", float(r[wrong].mean()))


def _points(bench: Bench) -> int:
    return 10 if bench.small else 20


def _scored(bench: Bench, dataset: str) -> Run:
    return bench.run(dataset, f"{bench.score_name('el2n')},forgetting", embedding="none", neighbors=0)


def _curves(bench: Bench, dataset: str, orders: Sequence[str]) -> None:
    """Put the accuracy of every order at every share pruned."""
    points = _points(bench)
    named = {order.replace("el2n", bench.score_name("el2n")): order for order in orders}
    curve = bench.psi(_scored(bench, dataset), list(named), points=points).psi()
    for order, kept, seed, accuracy in curve[["order", "kept_fraction", "seed", "accuracy"]].values.tolist():
        bench.put(named[order], f"{round(points * (1 - kept)) / points:g} pruned", accuracy, seed)


def _ranks(run: Run, score: str) -> Array:
    """The ranks 0..1 of a score's samples (N,), by sample id; 1 = the hardest."""
    found = run.scores(long=True)
    ranks = found[found["score"] == score].sort_values("sample_id")["rank"].to_numpy(dtype=np.float64)
    return ranks / max(1, len(ranks) - 1)


def _correlation(first: Array, second: Array) -> float:
    """The rank correlation of ranks without ties."""
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def _improves(values: Values, order: str) -> Holds:
    """Whether an order's best mean accuracy with up to 40 % pruned is above that of the unpruned set."""
    best = max(MODERATE, key=lambda column: values.mean(order, column))
    gain = [
        values.of(order, best)[s] - v for s, v in values.of(order, "0 pruned").items() if s in values.of(order, best)
    ]
    low, high = interval(gain)
    text = f"{100 * sum(gain) / max(1, len(gain)):+.1f} points at {best}"
    if low is None or high is None:
        return Holds(None, f"{text}, one seed")
    return Holds(True if low > 0 else False if high < 0 else None, f"{text} ({100 * low:+.1f} to {100 * high:+.1f})")


def _above(values: Values, score: str) -> Holds:
    found = values.mean(score, "mean rank of wrong labels after")
    return Holds(found > 0.75, f"mean rank {found:.2f}; above 0.75, the last quarter, is taken as last")


def _keeps(values: Values, score: str) -> Holds:
    found = values.mean(score, "correlation of clean samples")
    return Holds(found > 0.5, f"rank correlation {found:.2f}; above 0.5 is taken as keeping the place")
