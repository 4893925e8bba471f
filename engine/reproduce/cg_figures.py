"""CG: the figures whose values are numbers. Where the paper draws a cloud or a density, a number that says the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from engine.reproduce.bench import Bench
from engine.reproduce.cg import RATIOS, correlation, hardness, trained
from engine.reproduce.checks import at_least, at_most, larger_at
from engine.reproduce.declared import Finding, figure
from engine.reproduce.rules import wrong_labels
from engine.reproduce.values import Holds, Values, less, more
from engine.runs.detectors import read_sequences
from engine.scores.complexity import cg
from engine.scores.evaluation import evaluate_detection, find_shares
from engine.scores.gap import solve_gap, solve_stochastic_gap
from engine.selection.names import parse_order

EXAMINED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of the samples that the detection curves look at."""

DRAWS = (1, 2, 5, 10, 20)
"""Draws of the stochastic form in figure 5."""

GROUPS = 10
"""Of figure 4, by the score."""

FEATURED = (1, 3, 5, 7, 9, 11, 20, 50, 200)
"""Epochs of figure 18."""

INVERSE = "(a) diagonal of the inverse kernel, largest deviation from 2"
NEAR = "(b) correlation with the distance from the boundary"
WRONG = "(c) ROC AUC for the wrong labels"
"""The rows of figure 1."""


@figure(
    "cg",
    1,
    unit="as named",
    percent=False,
    findings=(
        Finding(
            "Samples near the boundary of the two classes have higher scores",
            at_most(NEAR, 0, ("value",)),
        ),
        Finding(
            "Samples with a wrong label have higher scores",
            at_least(WRONG, 0.5, ("value",)),
        ),
    ),
)
def two_gaussians(bench: Bench) -> None:
    """Two classes of 1,000 Gaussian vectors each, whose means differ in the first of 3,000 dimensions.

    This set is the paper's own, whichever dataset is given. Its heat map says that the inverse of the kernel is nearly 2 I;
    here the largest deviation of its diagonal. (b) as the rank correlation of the score and the distance from the boundary;
    (c) as the ROC AUC of the score for 10 % of labels that are turned.
    """
    for seed in bench.seeds:
        bench.listener("complexity gap", seed / len(bench.seeds), None)
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(2).repeat_interleave(1000)
        rows = 0.5 * torch.randn(2000, 3000, dtype=torch.float64, generator=generator)
        rows[:, 0] += 1 - 2 * labels
        wrong = torch.zeros(2000, dtype=torch.bool)
        wrong[torch.randperm(2000, generator=generator)[:200]] = True
        gap = solve_gap(rows, torch.stack([labels, torch.where(wrong, 1 - labels, labels)]))
        clean, noisy = (gap.alpha.square() / gap.inverse_diagonal).numpy()
        distance = rows[:, 0].abs().numpy()
        bench.put(INVERSE, "value", float((gap.inverse_diagonal[0] - 2).abs().max()), seed)
        bench.put(NEAR, "value", correlation(clean, distance), seed)
        bench.put(WRONG, "value", evaluate_detection(noisy, wrong.numpy())["roc_auc"], seed)


PRUNED = ("cg", "forgetting", "el2n", "consistency")
"""The scores of figure 2."""


@figure(
    "cg",
    2,
    unit="test accuracy, %",
    line="share pruned",
    findings=(
        Finding("Low scores pruned first: CG is better than random", more("cg", "random")),
        Finding(
            "40 % of the low scores pruned cost less than 1 point",
            larger_at("cg", "0.4 pruned", "0 pruned", by=-0.01),
        ),
        *(
            Finding(f"High scores pruned first: the accuracy drops faster with CG than with {name}", less("cg*", order))
            for name, order in (
                ("random", "random"),
                ("forgetting", "forgetting*"),
                ("EL2N", "el2n*"),
                ("C-score", "consistency*"),
            )
        ),
    ),
)
def pruning(bench: Bench) -> None:
    """Test accuracy by the share pruned: the low scores first, and (with a *) the high ones.

    As many steps at every point as on the full set, and the same share of every class.
    """
    _prune(bench, PRUNED)


@figure(
    "cg",
    3,
    unit="share of the wrong labels found, %",
    line="share examined",
    findings=(
        Finding("CG finds more of the wrong labels than forgetting", more("cg", "forgetting")),
        Finding("CG finds more of the wrong labels than EL2N", more("cg", "el2n")),
        Finding("The partial score does as well as the score, to 5 points", more("cg_partial", "cg", by=-0.05)),
    ),
)
def detection(bench: Bench) -> None:
    """Share of the wrong labels among the highest scores, 20 % of the labels wrong (symmetric).

    Each value is of another draw of the wrong labels, as many as there are seeds.
    """
    _detect(bench, ("cg", "cg_partial", "forgetting", "el2n"), bench.size.rates)


@figure(
    "cg",
    4,
    unit="mean loss (nats), and share predicted as labeled",
    percent=False,
    line="epoch",
    findings=(
        Finding("The loss falls faster where the score is low", less("loss, group 1", "loss, group 10")),
        Finding("The accuracy rises faster where the score is low", more("accuracy, group 1", "accuracy, group 10")),
    ),
)
def learning_speed(bench: Bench) -> None:
    """Mean loss and training accuracy over the epochs of ten groups by the CG-score, group 1 the lowest."""
    run = bench.run(bench.dataset, "cg,forgetting", embedding="none", neighbors=0)
    order = np.argsort(hardness(run, "cg"), kind="stable")
    losses, _ = read_sequences(bench.workspace, run.dataset, run.id, "loss")
    right = read_sequences(bench.workspace, run.dataset, run.id, "margin")[0] > 0
    for number, members in enumerate(np.array_split(order, GROUPS), 1):
        chosen = torch.from_numpy(members)
        for what, values in (("loss", losses), ("accuracy", right.double())):
            for seed, curve in enumerate(values[:, :, chosen].double().mean(2).tolist()):
                for epoch, value in enumerate(curve, 1):
                    bench.put(f"{what}, group {number}", str(epoch), value, seed)


@figure(
    "cg",
    5,
    unit="rank correlation with the exact score",
    percent=False,
    line="draws",
    published={
        "CIFAR-10": """
                        20 draws
        Spearman, 1:1   0.829
        Spearman, 1:2   0.914
        Spearman, 1:3   0.953
        Spearman, 1:4   0.973
        Pearson, 1:1    0.796
        Pearson, 1:2    0.898
        Pearson, 1:3    0.943
        Pearson, 1:4    0.967
        """,
    },
    findings=tuple(
        Finding(
            f"With 1:{ratio + 1} it is closer than with 1:{ratio}",
            more(f"Spearman, 1:{ratio + 1}", f"Spearman, 1:{ratio}"),
        )
        for ratio in RATIOS[:-1]
    ),
)
def stochastic(bench: Bench) -> None:
    """How close the stochastic form comes to the exact score, by its draws and its sampling ratio."""
    samples = bench.samples(bench.dataset)
    rows = samples.inputs.flatten(1)
    exact = solve_gap(rows, samples.labels)
    true = cg(exact.alpha, exact.inverse_diagonal).numpy()
    for seed in bench.seeds:
        for ratio in RATIOS:
            bench.listener("complexity gap", (seed + ratio / len(RATIOS)) / len(bench.seeds), None)
            gap = solve_stochastic_gap(rows, samples.labels, ratio, DRAWS[-1], torch.Generator().manual_seed(seed))
            for draws in DRAWS:
                found = cg(gap.alpha[:draws], gap.inverse_diagonal[:draws]).numpy()
                bench.put(f"Spearman, 1:{ratio}", f"{draws} draws", correlation(true, found), seed)
                bench.put(f"Pearson, 1:{ratio}", f"{draws} draws", float(np.corrcoef(true, found)[0, 1]), seed)


@figure(
    "cg",
    6,
    unit="test accuracy, %",
    line="offset",
    findings=(
        Finding(
            "The accuracy rises until the offset is 30 %",
            larger_at("cg", "0.3 offset", "0 offset"),
        ),
        Finding(
            "Then it drops, for the window reaches the wrong labels",
            larger_at("cg", "0.3 offset", "0.5 offset"),
        ),
    ),
)
def windows(bench: Bench) -> None:
    """Test accuracy of a half of the samples that begins at an offset in the order of the scores, 20 % of the labels wrong.

    (c), the cloud of partial and whole scores, is table 2 in numbers.
    """
    dataset = bench.noisy(f"symmetric:{bench.size.rates[0]:g}")
    scored = bench.run(dataset, f"cg,{bench.score_name('el2n')}", embedding="none", neighbors=0)
    curve = bench.psi(scored, ["cg"], points=10, window=True, steps="fixed").psi()
    for order, seed, accuracy in curve[["order", "seed", "accuracy"]].values.tolist():
        bench.put("cg", f"{parse_order(order).options.get('offset', 0.0):g} offset", accuracy, seed)


@figure(
    "cg",
    12,
    unit="test accuracy, %",
    line="share pruned",
    findings=(
        Finding("Low scores pruned first: CG is better than TracIn", more("cg", "tracin_validation")),
        Finding("CG comes within 2 points of CRAIG", more("cg", "craig", by=-0.02)),
    ),
)
def more_pruning(bench: Bench) -> None:
    """Test accuracy by the share pruned, against TracIn and CRAIG.

    As figure 2. A low value of TracIn's is one that raises the losses of the validation samples less, so the order without a *
    prunes the samples of the most helpful gradients first, which are the easy ones. CRAIG selects once, where the paper's
    selects again every ten epochs.
    """
    _prune(bench, ("cg", "tracin_validation"), ("craig",))


@figure(
    "cg",
    13,
    unit="share of the wrong labels found, %",
    line="share examined",
    findings=(Finding("On a simple set CG finds more of the wrong labels than TracIn", more("cg", "tracin_self")),),
)
def detection_by_tracin(bench: Bench) -> None:
    """Share of the wrong labels among the highest scores, against TracIn's self-influence."""
    _detect(bench, ("cg", "cg_partial", "tracin_self"), bench.size.rates)


@figure(
    "cg",
    15,
    unit="share of the wrong labels found, %",
    line="share examined",
    findings=(
        Finding(
            "With 50 % of the labels wrong CG still finds them better than chance",
            more("cg, 50 % wrong", "random, 50 % wrong"),
        ),
        Finding(
            "With 80 % of the labels wrong CG still finds them better than chance",
            more("cg, 80 % wrong", "random, 80 % wrong"),
        ),
    ),
)
def detection_at_high_rates(bench: Bench) -> None:
    """Share of the wrong labels among the highest scores, 50 and 80 % of the labels wrong (symmetric)."""
    _detect(bench, ("cg", "cg_partial"), (0.5, 0.8))


@figure(
    "cg",
    16,
    unit="test accuracy, %",
    line="share pruned",
    findings=(Finding("Low scores pruned first: features improve on the score", more("cg_feature", "cg")),),
)
def pruning_by_features(bench: Bench) -> None:
    """Test accuracy by the share pruned, against the score of the features after epoch 10."""
    _prune(bench, ("cg", "cg_feature"))


@figure(
    "cg",
    17,
    unit="share of the wrong labels found, %",
    line="share examined",
    findings=(Finding("Features find more of the wrong labels", more("cg_feature", "cg")),),
)
def detection_by_features(bench: Bench) -> None:
    """Share of the wrong labels among the highest scores, against the score of the features after epoch 10."""
    _detect(bench, ("cg", "cg_feature"), bench.size.rates)


@figure(
    "cg",
    18,
    unit="Spearman rank correlation with the score of the features",
    percent=False,
    line="epoch",
    findings=(
        Finding("As training goes on, it has less in common with the CG-score", lambda values: _fades(values)),
        Finding("Its correlation with EL2N rises at first", lambda values: _rises(values, "EL2N")),
        Finding("Its correlation with forgetting rises at first", lambda values: _rises(values, "Forgetting")),
    ),
)
def features_over_epochs(bench: Bench) -> None:
    """Rank correlation of the score of the features after an epoch with the other scores, as they stand for hard samples.

    Features are those of one network, so a cell is one value.
    """
    epochs = bench.training_of(trained(bench, bench.dataset)).epochs
    featured = {epoch: f"cg_feature@{epoch}" for epoch in FEATURED if epoch <= epochs}
    others = {"CG-score": "cg", "EL2N": bench.score_name("el2n"), "Forgetting": "forgetting", "C-score": "consistency"}
    run = bench.run(bench.dataset, ",".join([*others.values(), *featured.values()]), embedding="none", neighbors=0)
    for epoch, score in featured.items():
        for row, other in others.items():
            bench.put(row, str(epoch), correlation(hardness(run, score), hardness(run, other)))


# What the figures share -------------------------------------------------------------------------------------------------


def _prune(bench: Bench, scores: Sequence[str], samplers: Sequence[str] = ()) -> None:
    """Put the accuracy at every share pruned, of scores from both ends, of samplers and of random."""
    named = {bench.score_name(score): score for score in scores}
    run = bench.run(bench.dataset, ",".join(named), embedding="none", neighbors=0)
    orders = ["random", *named, *(f"{score}*" for score in named), *samplers]
    curve = bench.psi(run, orders, points=10, steps="fixed", class_balanced=True).psi()
    for order, kept, seed, accuracy in curve[["order", "kept_fraction", "seed", "accuracy"]].values.tolist():
        row = named.get(order.rstrip("*"), order.rstrip("*")) + "*" * order.endswith("*")
        bench.put(row, f"{round(10 * (1 - kept)) / 10:g} pruned", accuracy, seed)


def _detect(bench: Bench, scores: Sequence[str], rates: Sequence[float]) -> None:
    """Put the share of the wrong labels found by the share examined, of scores, of chance and of the oracle."""
    named = {bench.score_name(score): score for score in scores}
    for rate in rates:
        behind = f", {100 * rate:g} % wrong" if len(rates) > 1 else ""
        for draw in bench.seeds:
            dataset = bench.noisy(f"symmetric:{rate:g}", draw=draw)
            wrong = wrong_labels(bench.workspace, dataset).numpy()
            if not wrong.any():
                continue
            run = bench.run(dataset, ",".join(named), embedding="none", neighbors=0)
            rows = {row: hardness(run, score) for score, row in named.items()}
            rows |= {"random": np.zeros(len(wrong)), "oracle": wrong.astype(np.float64)}
            for row, suspicion in rows.items():
                shares = find_shares(suspicion, wrong, np.array(EXAMINED))
                for examined, share in zip(EXAMINED, shares.tolist(), strict=True):
                    bench.put(row + behind, f"{examined:g} examined", share, draw)


def _fades(values: Values) -> Holds:
    """Whether the score of the features is less like the CG-score after the last epoch than after the first."""
    if len(values.columns) < 2:
        return Holds(None, "fewer than two epochs were looked at")
    first, last = (values.mean("CG-score", values.columns[i]) for i in (0, -1))
    return Holds(
        first > last, f"{first:.2f} after epoch {values.columns[0]}, {last:.2f} after {values.columns[-1]}; one network"
    )


def _rises(values: Values, row: str) -> Holds:
    """Whether the largest value of a row is not at the first epoch."""
    if len(values.columns) < 2:
        return Holds(None, "fewer than two epochs were looked at")
    best = max(values.columns, key=lambda column: values.mean(row, column))
    first = values.columns[0]
    text = f"{values.mean(row, first):.2f} after epoch {first}, at most {values.mean(row, best):.2f} (epoch {best}); one network"
    return Holds(best != first, text)
