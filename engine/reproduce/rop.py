"""ROP: subsets with few wrong labels by the neighbors' predictions, and correction of the labels that are left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from engine.errors import SpecError
from engine.relabel.learner_settings import LEARNER_PRESETS
from engine.reproduce.bench import Bench
from engine.reproduce.declared import Finding, declare_paper, table
from engine.reproduce.rop_selection import METHODS, Subsets, noisy_sets, put_accuracies
from engine.reproduce.size import Size
from engine.reproduce.values import Holds, Values, decide, less, more
from engine.runs.relabel_units import PLAIN

SHARES = (0.2, 0.4, 0.6, 0.8)
TINY_SHARES = (0.05, 0.1, 0.2, 0.4)
"""Shares that are kept; of ImageNet-N in table 4."""

_TRAINED = ("model", "epochs", "batch_size", "lr", "optimizer", "schedule", "weight_decay", "augment")

declare_paper(
    "rop",
    "Noisy Data Pruning by Label Distribution Discrimination",
    small=Size(
        "digits",
        {
            "model": "lenet", "epochs": 30, "batch_size": 64, "lr": 0.02, "optimizer": "sgd", "schedule": "cosine",
            "weight_decay": 5e-4, "augment": "none",
        },
        3,
        (0.4,),
    ),
    paper=Size(
        "", {name: getattr(LEARNER_PRESETS["sop+-cifar10"].training, name) for name in _TRAINED}, 3, (0.2, 0.4)
    ),
)  # fmt: skip


def at(share: float) -> Callable[[Values], Sequence[str]]:
    """The columns of a share that is kept, over all rates of noise."""
    return lambda values: [column for column in values.columns if column.startswith(f"{share:g},")]


def above_others(row: str, share: float | None = None) -> Callable[[Values], Holds]:
    """The check that a row is above the best other selection where a share is kept; None = in the mean over all."""

    def check(values: Values) -> Holds:
        columns = values.columns if share is None else at(share)(values)
        others = [other for other in values.rows if other in METHODS and not other.startswith("RoP")]
        means = {other: sum(values.mean(other, column) for column in columns) for other in others}
        best = max(means, key=lambda other: means[other], default="the best other")
        found = values.differences(row, best, columns) if columns else []
        return decide(found, f"{row} - {best}", values.percent)

    return check


def fades(first: str, second: str) -> Callable[[Values], Holds]:
    """The check that a row's lead over another is larger where the smallest share is kept than where the largest is."""

    def check(values: Values) -> Holds:
        shares = sorted({float(column.split(",")[0]) for column in values.columns}) or [0.0]
        few, many = (values.differences(first, second, at(share)(values)) for share in (shares[0], shares[-1]))
        found = [a - b for a, b in zip(few, many, strict=False)]
        return decide(found, f"lead of {first} over {second} at the smallest share less that at the largest", True)

    return check


def costly_shares(bench: Bench) -> tuple[float, ...]:
    """The shares of tables with a learner for every selection: two of the four in the small size."""
    return (0.2, 0.6) if bench.small else SHARES


COLUMNS = "test accuracy, %; columns: share kept, wrong labels"


@table(
    "rop",
    1,
    unit=COLUMNS,
    published={
        "CIFAR-10": """
                  0.2, 20 %   0.4, 20 %   0.6, 20 %   0.8, 20 %   0.2, 40 %   0.4, 40 %   0.6, 40 %   0.8, 40 %
        Random    87.5 ± 0.3  91.5 ± 0.1  93.4 ± 0.0  94.8 ± 0.2  81.9 ± 0.1  87.5 ± 0.1  90.8 ± 0.1  91.8 ± 0.1
        Small     77.6 ± 2.5  86.2 ± 0.1  90.7 ± 0.6  94.3 ± 0.2  78.8 ± 0.2  84.1 ± 0.1  89.3 ± 0.1  92.3 ± 0.2
        Margin    52.1 ± 5.0  79.6        92.6 ± 3.9  95.1 ± 1.3  45.7 ± 1.1  61.8 ± 0.7  84.6        92.5 ± 0.0
        KCenter   86.3 ± 0.4  92.2 ± 0.3  94.1 ± 0.2  95.3 ± 0.1  81.9 ± 0.0  88.0 ± 0.0  91.3 ± 0.1  92.3 ± 0.0
        Forget    82.4 ± 1.0  93.0 ± 0.2  94.2 ± 0.3  95.0 ± 0.1  71.1 ± 0.4  87.7 ± 0.1  90.6 ± 0.3  92.2 ± 0.0
        GraNd     24.2 ± 5.5  51.6 ± 3.2  85.9 ± 1.2  94.9 ± 0.2  15.4 ± 1.6  25.7 ± 0.8  51.0 ± 0.5  86.8 ± 0.5
        SSP       80.5 ± 2.6  91.7 ± 1.5  93.8 ± 1.0  95.0 ± 0.2  70.8 ± 2.7  86.6 ± 1.9  89.2 ± 0.9  92.3 ± 0.4
        Moderate  87.8 ± 1.0  92.8 ± 0.5  94.0 ± 0.3  94.9 ± 0.2  75.2 ± 1.5  81.9 ± 1.2  87.7 ± 0.7  91.8 ± 0.3
        Pr4ReL    88.5 ± 0.3  93.1 ± 0.2  94.4 ± 0.1  95.3 ± 0.1  84.9 ± 0.6  89.2 ± 0.6  91.3 ± 0.3  92.9 ± 0.1
        FDMat     85.7 ± 2.1  92.3 ± 0.5  94.1 ± 0.4  94.6 ± 0.3  85.0 ± 0.3  86.7 ± 1.2  90.2        92.9 ± 0.2
        RoP       87.9        92.0 ± 0.4  94.0 ± 0.5  94.8 ± 0.4  86.4 ± 0.4  90.8 ± 0.1  92.4 ± 0.1  93.3 ± 0.2
        RoP_B     89.2 ± 2.1  93.3 ± 0.5  94.6 ± 0.4  95.3 ± 0.3  85.4 ± 0.4  89.6 ± 0.4  91.7 ± 0.1  93.3 ± 0.2
        """,
        "CIFAR-100": """
                  0.2, 40 %   0.4, 40 %   0.6, 40 %   0.8, 40 %
        Random    46.5 ± 0.0  55.7 ± 0.2  60.8 ± 0.3  64.4 ± 0.2
        Small     48.5 ± 0.8  59.8 ± 0.4  63.9 ± 0.2  66.1 ± 0.6
        Margin    20.0 ± 1.2  34.4 ± 0.3  50.4 ± 0.6  63.3 ± 0.1
        KCenter   44.8 ± 0.6  55.9 ± 0.3  61.6 ± 0.3  65.2 ± 0.6
        Forget    38.0 ± 0.5  55.3 ± 0.2  63.2 ± 0.1  65.8 ± 0.4
        GraNd     11.0 ± 0.1  19.0 ± 0.6  38.7 ± 0.5  62.1 ± 0.5
        SSP       39.2 ± 2.2  54.9 ± 1.5  62.7 ± 0.7  65.0 ± 0.3
        Moderate  46.4 ± 1.8  54.6 ± 1.7  60.2 ± 0.4  64.6 ± 0.4
        Pr4ReL    52.9 ± 0.8  -           64.1 ± 0.4  66.2 ± 0.3
        FDMat     38.7 ± 0.2  53.8 ± 0.2  61.3 ± 0.2  65.4 ± 0.2
        RoP       54.9 ± 0.2  -           64.1 ± 0.1  66.2 ± 0.2
        RoP_B     53.3 ± 0.2  -           64.3 ± 0.1  66.3 ± 0.2
        """,
    },
    findings=(
        Finding("RoP is better than random selection", more("RoP", "Random")),
        Finding("RoP_B is better than random selection", more("RoP_B", "Random")),
        Finding("RoP is better than the best other selection where 0.2 is kept", above_others("RoP", 0.2)),
        Finding("RoP_B is better than the best other selection where 0.2 is kept", above_others("RoP_B", 0.2)),
        Finding("GraNd, which prefers hard samples, is worse than random", less("GraNd", "Random")),
        Finding("Margin, which prefers hard samples, is worse than random", less("Margin", "Random")),
        Finding(
            "Where 0.2 is kept, Small, which covers easy samples, is better than GraNd", more("Small", "GraNd", at(0.2))
        ),
        Finding("Where 0.2 is kept, Moderate is better than GraNd", more("Moderate", "GraNd", at(0.2))),
    ),
)
def with_sop(bench: Bench) -> None:
    """Selections followed by SOP+.

    The wrong labels are symmetric, where the paper's are those of people; a dataset some of whose labels are known to be
    wrong is taken as it is. All selections read one network, trained for some epochs by cross-entropy, where the paper's
    warm-up is SOP+. Where a selection over all classes loses a class, the same share of every class is selected instead:
    table 3 says how many classes each loses. RoP_B first leaves out as many of the largest NLI as there are samples outvoted
    by their neighbors; the paper does not print its cutoff. Forget counts a sample never learned as the most forgotten.
    """
    put_accuracies(bench, METHODS, costly_shares(bench), "sop+", noisy_sets(bench, bench.size.rates))


@table(
    "rop",
    2,
    unit=COLUMNS,
    published={
        "CIFAR-10": """
                  0.2, 20 %   0.4, 20 %   0.6, 20 %   0.8, 20 %   0.2, 40 %   0.4, 40 %   0.6, 40 %   0.8, 40 %
        Random    75.5 ± 1.1  81.0 ± 0.9  83.8 ± 0.4  84.9 ± 0.3  58.3 ± 0.6  70.1 ± 0.4  74.2 ± 0.4  77.1 ± 0.3
        GraNd     29.1 ± 3.2  51.5 ± 1.3  74.6 ± 0.7  85.3 ± 0.7  14.2 ± 1.2  25.5 ± 0.6  41.6 ± 0.5  68.6 ± 0.7
        KCenter   75.6 ± 0.5  82.7 ± 0.5  84.8 ± 0.7  85.2 ± 0.4  57.3 ± 0.9  70.9 ± 0.7  76.1 ± 0.7  78.0 ± 0.4
        Pr4ReL    76.2 ± 0.9  77.2        83.5 ± 0.5  85.4 ± 0.5  62.1 ± 0.4  72.2 ± 0.6  75.3        77.9 ± 0.5
        FDMat     76.3 ± 0.5  82.0 ± 0.7  84.0 ± 0.7  85.3 ± 0.5  59.7 ± 1.1  70.8 ± 0.5  74.2 ± 0.5  77.4 ± 0.4
        RoP       83.1 ± 0.9  87.3 ± 0.4  88.0 ± 0.4  86.9 ± 0.3  81.8 ± 0.6  83.4 ± 0.4  79.5 ± 0.3  78.5 ± 0.3
        """,
        "CIFAR-100": """
                  0.2, 40 %   0.4, 40 %   0.6, 40 %   0.8, 40 %
        Random    37.6 ± 1.2  46.5 ± 0.8  50.0 ± 0.5  52.0 ± 0.4
        GraNd     12.9 ± 0.5  24.8 ± 0.5  37.2 ± 1.4  48.2 ± 0.7
        KCenter   40.8 ± 0.4  48.6 ± 0.6  53.1 ± 1.0  54.7 ± 0.7
        Pr4ReL    20.9 ± 0.7  39.0 ± 1.3  48.0 ± 0.7  52.7 ± 0.5
        FDMat     34.4 ± 1.3  47.1 ± 0.4  50.8 ± 0.7  53.6 ± 0.5
        RoP       46.6 ± 0.9  52.7 ± 0.6  55.1 ± 0.4  55.2 ± 0.4
        """,
    },
    findings=(
        *(
            Finding(f"RoP is better than random where {share:g} is kept", more("RoP", "Random", at(share)))
            for share in SHARES
        ),
        Finding("RoP is better than the best other selection", above_others("RoP")),
        Finding("Where 0.2 is kept, RoP is 10 points and more above random", more("RoP", "Random", at(0.2), by=0.1)),
        Finding("GraNd is worse than random", less("GraNd", "Random")),
    ),
)
def without_correction(bench: Bench) -> None:
    """Selections followed by plain cross-entropy.

    Wrong labels and selections are those of table 1.
    """
    rows = ("Random", "GraNd", "KCenter", "Pr4ReL", "FDMat", "RoP")
    put_accuracies(bench, rows, SHARES, PLAIN, noisy_sets(bench, bench.size.rates))


@table(
    "rop",
    3,
    unit="%; test accuracy by SOP+; wrong labels in the subset; classes that a selection over all classes loses",
    published={
        "CIFAR-10": """
                  0.2, test accuracy    0.2, wrong labels
        Random    87.5                  17.8
        KCenter   86.3                  17.0
        Forget    82.4                  17.0
        Pr4ReL    88.1                  17.0
        RoP       89.2                  4.8
        """,
    },
    findings=tuple(
        Finding(
            f"Where {share:g} is kept, RoP has fewer wrong labels than {other}",
            less("RoP", other, [f"{share:g}, wrong labels"]),
        )
        for share, other in [(0.2, "KCenter"), (0.2, "Forget"), (0.2, "Pr4ReL"), *((s, "Random") for s in SHARES)]
    ),
)
def wrong_labels_kept(bench: Bench) -> None:
    """Wrong labels in the selected subset, and the test accuracy by SOP+.

    The accuracy that the paper prints for RoP here is that of RoP_B in its table 1; Random is called Uniform.
    """
    noisy = noisy_sets(bench, bench.size.rates[:1])[0]
    subsets = Subsets(bench, noisy.dataset)
    if subsets.wrong is None:
        raise SpecError(f"the true labels of '{noisy.dataset}' are not known, so nobody can count the wrong ones")
    classes = len(torch.unique(subsets.labels))
    subsets.put("sop+", {row: subsets.order(row) for row in METHODS}, [0.2], "{:g}, test accuracy".format)
    for row in METHODS:
        for seed in bench.seeds:
            for share in SHARES:
                kept = subsets.kept(subsets.order(row), share, seed)
                bench.put(row, f"{share:g}, wrong labels", float(subsets.wrong[kept].double().mean()), seed)
            lost = subsets.lost(subsets.over_all(subsets.order(row), 0.2, seed))
            bench.put(row, "0.2, classes lost", lost / classes, seed)


@table(
    "rop",
    4,
    unit=COLUMNS,
    published={
        "ImageNet": """
                  0.05, 20 %  0.1, 20 %  0.2, 20 %  0.4, 20 %
        Random    27.8        42.5       52.7       59.2
        Small     22.8        31.4       42.7       54.4
        Forget    4.1         8.3        50.6       57.2
        Pr4ReL    30.2        44.3       53.5       60.0
        RoP       31.0        44.7       55.6       63.4
        """,
    },
    findings=(
        Finding("RoP is better than random selection", more("RoP", "Random")),
        Finding("RoP is better than the best other selection", above_others("RoP")),
        Finding("The lead of RoP over random is largest where little is kept", fades("RoP", "Random")),
        Finding("Small is worse than random", less("Small", "Random")),
    ),
)
def next_class(bench: Bench) -> None:
    """Small shares of a dataset of whose labels 20 % name the next class, followed by SOP+."""
    rows = ("Random", "Small", "Forget", "Pr4ReL", "RoP")
    put_accuracies(bench, rows, TINY_SHARES, "sop+", noisy_sets(bench, [0.2], "asymmetric"))


@table(
    "rop",
    5,
    unit=COLUMNS,
    published={
        "CIFAR-10": """
                  0.2, 40 %   0.4, 40 %   0.6, 40 %   0.8, 40 %
        Random    83.2 ± 0.2  88.5 ± 0.1  90.2 ± 0.0  91.4 ± 0.0
        Small     70.3 ± 0.6  80.3 ± 0.2  89.1 ± 0.0  92.1 ± 0.1
        Margin    61.3 ± 0.8  75.1 ± 0.7  85.3 ± 0.2  90.2 ± 0.1
        KCenter   82.7 ± 0.8  88.4 ± 0.1  90.6 ± 0.1  92.2 ± 0.0
        Forget    78.3 ± 0.6  88.3 ± 0.2  90.4 ± 0.1  92.0 ± 0.2
        GraNd     18.5 ± 1.7  25.5 ± 0.9  49.3 ± 0.9  88.0 ± 0.5
        SSP       81.4 ± 2.5  86.5 ± 1.9  89.6 ± 1.2  91.9 ± 0.4
        Moderate  81.4 ± 1.2  86.5 ± 0.6  90.0 ± 0.6  91.6 ± 0.2
        Pr4ReL    83.7 ± 0.4  88.6 ± 0.4  90.8 ± 0.2  92.4 ± 0.2
        FDMat     82.3 ± 1.7  88.1 ± 0.4  91.2 ± 0.3  92.3 ± 0.2
        RoP       83.4 ± 0.3  89.3 ± 0.3  91.6 ± 0.3  92.4 ± 0.2
        RoP_B     84.4 ± 0.1  88.6 ± 0.2  92.4 ± 0.3  93.2 ± 0.2
        """,
    },
    findings=(
        Finding("RoP is better than random selection", more("RoP", "Random")),
        Finding("RoP_B is better than random selection", more("RoP_B", "Random")),
        Finding("RoP_B is better than the best other selection", above_others("RoP_B")),
        Finding("DivideMix is worse than SOP+ after RoP", less("RoP", "RoP, SOP+")),
        Finding("DivideMix is worse than SOP+ after RoP_B", less("RoP_B", "RoP_B, SOP+")),
    ),
)
def with_dividemix(bench: Bench) -> None:
    """Selections followed by DivideMix; beside it three by SOP+, from table 1."""
    sets = noisy_sets(bench, bench.size.rates[-1:])
    put_accuracies(bench, METHODS, costly_shares(bench), "dividemix", sets)
    put_accuracies(bench, ("Random", "RoP", "RoP_B"), costly_shares(bench), "sop+", sets, suffix=", SOP+")


@table(
    "rop",
    6,
    unit=COLUMNS,
    published={
        "CIFAR-10": """
                             0.2, 40 %  0.4, 40 %  0.6, 40 %
        No-Rec               80.5       82.1       77.8
        Rec                  81.8       83.4       78.5
        No-Rec, relabeled    85.4       90.2       92.0
        Rec, relabeled       86.4       90.8       92.4
        """,
    },
    findings=(
        Finding("Propagation improves the selection without relabeling", more("Rec", "No-Rec")),
        Finding("Propagation improves the selection with relabeling", more("Rec, relabeled", "No-Rec, relabeled")),
        Finding("Relabeling improves the accuracy", more("Rec, relabeled", "Rec")),
    ),
)
def ablation(bench: Bench) -> None:
    """RoP without propagation (No-Rec) and with it (Rec), without and with relabeling by SOP+.

    Without propagation of features and labels what is left of NLI is the share of neighbors with another given label.
    """
    noisy = noisy_sets(bench, bench.size.rates[-1:])[0]
    subsets = Subsets(bench, noisy.dataset)
    orders = {"No-Rec": "knn_disagreement*", "Rec": METHODS["RoP"]}
    subsets.put(PLAIN, orders, SHARES, noisy.column)
    relabeled = {f"{row}, relabeled": order for row, order in orders.items()}
    subsets.put("sop+", relabeled, costly_shares(bench), noisy.column)
