"""LSTM: the figures whose values are numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from engine.queries.frames import Run
from engine.reproduce.bench import Bench
from engine.reproduce.declared import Finding, figure
from engine.reproduce.lstm import LEARNED, dynamics, fit_detector, learned_detector, suspicions
from engine.reproduce.rules import given_labels, wrong_labels
from engine.reproduce.values import Holds, Values, less, more
from engine.runs.detectors import explain_sample, read_sequences
from engine.scores.evaluation import evaluate_detection
from engine.scores.lstm import Detector, shipped_detector

METRICS = {"mAP": "average_precision", "ROC AUC": "roc_auc", "Precision@95": "precision_at_recall_95"}
"""By the paper's name (appendix A)."""

EXPLAINED = 20
"""Mislabeled samples of figure 8, those that the detector is surest of; the paper shows three."""


@figure(
    "lstm",
    1,
    unit="probability of the given label",
    percent=False,
    line="epoch",
    findings=(
        Finding("Mislabeled samples have a lower probability of their label", less("mislabeled, mean", "right, mean")),
        Finding(
            "In the later half of the training it varies more among mislabeled samples",
            more(
                "mislabeled, deviation", "right, deviation", lambda values: values.columns[len(values.columns) // 2 :]
            ),
        ),
    ),
)
def dynamics_of_both(bench: Bench) -> None:
    """Mean and standard deviation of the probability of the given label over the epochs, 30 % of the labels wrong (symmetric)."""
    dataset = bench.noisy("symmetric:0.3")
    wrong = wrong_labels(bench.workspace, dataset)
    p_given, _ = read_sequences(bench.workspace, dataset, dynamics(bench, dataset, "lstm_detector").id)
    for name, chosen in (("mislabeled", wrong), ("right", ~wrong)):
        of_group = p_given[:, :, chosen].double()
        for what, values in (("mean", of_group.mean(2)), ("deviation", of_group.std(2, unbiased=False))):
            for seed, curve in enumerate(values.tolist()):
                for epoch, value in enumerate(curve, 1):
                    bench.put(f"{name}, {what}", str(epoch), value, seed)


@figure(
    "lstm",
    3,
    unit="%",
    line="share of wrong labels",
    findings=(
        Finding("The detector has a higher mAP than AUM", more("Ours, mAP", "AUM, mAP")),
        Finding("The detector has a higher ROC AUC than AUM", more("Ours, ROC AUC", "AUM, ROC AUC")),
        Finding("The detector has a higher Precision@95 than AUM", more("Ours, Precision@95", "AUM, Precision@95")),
        Finding("One that is learned here has a higher mAP than AUM", more(f"{LEARNED}, mAP", "AUM, mAP")),
    ),
)
def symmetric_detection(bench: Bench) -> None:
    """mAP, ROC AUC and Precision@95 for finding the wrong labels, by their share (symmetric).

    Every network on its own. Ours: the detector that ships; it has learned from digits and textures, so on digits it knows
    their dynamics under other draws of the noise. The other is learned on another draw of 30 % on this dataset.
    """
    _detect(bench, "symmetric", tuple(METRICS))


@figure(
    "lstm",
    4,
    unit="mAP, %",
    line="share of wrong labels",
    findings=(Finding("The detector has a higher mAP than AUM under asymmetric noise", more("Ours, mAP", "AUM, mAP")),),
)
def asymmetric_map(bench: Bench) -> None:
    """mAP for finding the wrong labels, by their share (asymmetric)."""
    _detect(bench, "asymmetric", ("mAP",))


@figure(
    "lstm",
    5,
    unit="mAP, %",
    line="share of wrong labels",
    findings=(Finding("Fine-tuning improves the detector", more("fine-tuned", "off-the-shelf")),),
)
def fine_tuned(bench: Bench) -> None:
    """mAP of the detector as it ships, and fine-tuned on another draw of 30 % wrong labels of the dataset."""
    learned_from = bench.noisy("symmetric:0.3", draw=1)
    before = given_labels(bench.workspace, bench.dataset)
    tuned = fit_detector(bench, learned_from, before, start=shipped_detector())
    for rate in bench.size.rates:
        run, wrong = _noisy_run(bench, f"symmetric:{rate:g}")
        for row, detector in (("off-the-shelf", None), ("fine-tuned", tuned)):
            _measure(bench, {row: suspicions(bench, run, detector)}, wrong, ("mAP",), f"{rate:g}", named=False)


@figure(
    "lstm",
    6,
    unit="mAP on an independent draw of 40 % wrong labels, %",
    findings=(
        Finding(
            "With up to 20 % of underlying noise the detector loses less than 5 points of mAP",
            more("underlying 0.2", "underlying 0", by=-0.05),
        ),
        Finding("More underlying noise harms the detector", lambda values: _falls(values)),
    ),
)
def underlying_noise(bench: Bench) -> None:
    """mAP of detectors that learned from labels of which an unknown share was wrong before the noise that they learn to find.

    Rows: the underlying share; columns: the synthesized one. The paper measures on Caltech256, here: another draw of the same
    dataset.
    """
    run, wrong = _noisy_run(bench, "symmetric:0.4", draw=1)
    for under in (0.0, 0.2, 0.6) if bench.small else (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9):
        before = bench.noisy(f"symmetric:{under:g}" if under else "")
        for added in (0.3,) if bench.small else (0.1, 0.2, 0.3, 0.5, 0.7):
            steps = [*([f"symmetric:{under:g}"] if under else []), f"symmetric:{added:g}"]
            detector = fit_detector(bench, bench.noisy("+".join(steps)), given_labels(bench.workspace, before))
            found = {f"underlying {under:g}": suspicions(bench, run, detector)}
            _measure(bench, found, wrong, ("mAP",), f"{added:g}", named=False)


@figure(
    "lstm",
    7,
    unit="%",
    line="share of wrong labels",
    findings=(
        Finding("Within super-classes the detector has a higher mAP than AUM", more("Ours, mAP", "AUM, mAP")),
        Finding(
            "Within super-classes the detector has a higher ROC AUC than AUM", more("Ours, ROC AUC", "AUM, ROC AUC")
        ),
    ),
)
def within_superclasses(bench: Bench) -> None:
    """mAP and ROC AUC for finding the wrong labels, by their share, where these stay within the super-classes of CIFAR-100."""
    _detect(bench, "superclass", ("mAP", "ROC AUC"))


@figure(
    "lstm",
    8,
    unit="share of the absolute importance, %",
    findings=(
        Finding("The first half of the epochs is more important than the second", more("first half", "second half")),
    ),
)
def importance(bench: Bench) -> None:
    """What LIME says that the detector reads: the importance of the first and of the second half of the epochs.

    Of the mislabeled samples that it is surest of, 20 % of the labels wrong (symmetric); the values of a cell are theirs.
    """
    run, wrong = _noisy_run(bench, f"symmetric:{bench.size.rates[0]:g}")
    suspicion = suspicions(bench, run, None)[0].masked_fill(~wrong, -1)
    for i, sample in enumerate(suspicion.argsort(descending=True)[: min(EXPLAINED, int(wrong.sum()))].tolist()):
        weight = np.abs(explain_sample(bench.workspace, run.dataset, run.id, sample))
        half = len(weight) // 2
        bench.put("first half", "share", float(weight[:half].sum() / weight.sum()), i)
        bench.put("second half", "share", float(weight[half:].sum() / weight.sum()), i)


@figure(
    "lstm",
    9,
    unit="%",
    line="share of wrong labels",
    findings=(
        Finding(
            "The detector has a higher ROC AUC than AUM under asymmetric noise", more("Ours, ROC AUC", "AUM, ROC AUC")
        ),
    ),
)
def asymmetric_detection(bench: Bench) -> None:
    """mAP, ROC AUC and Precision@95 for finding the wrong labels, by their share (asymmetric)."""
    _detect(bench, "asymmetric", tuple(METRICS))


# What the figures share -------------------------------------------------------------------------------------------------


def _noisy_run(bench: Bench, noise: str, draw: int = 0) -> tuple[Run, Tensor]:
    """A run on a draw of a noise, and which labels are wrong (N,) bool."""
    dataset = bench.noisy(noise, draw=draw)
    return dynamics(bench, dataset, "lstm_detector,aum"), wrong_labels(bench.workspace, dataset)


def _detect(bench: Bench, kind: str, metrics: Sequence[str]) -> None:
    """Put metrics of both detectors and of AUM, by the share of wrong labels of a kind of noise."""
    runs = {rate: _noisy_run(bench, f"{kind}:{rate:g}") for rate in bench.size.rates}
    detectors: dict[str, Detector | None] = {"Ours": None, LEARNED: learned_detector(bench)}
    for rate, (run, wrong) in runs.items():
        found = {row: suspicions(bench, run, detector) for row, detector in detectors.items()}
        margins, _ = read_sequences(bench.workspace, run.dataset, run.id, "margin")
        _measure(bench, {**found, "AUM": -margins.mean(1)}, wrong, metrics, f"{rate:g}")


def _measure(
    bench: Bench, found: dict[str, Tensor], wrong: Tensor, metrics: Sequence[str], column: str, named: bool = True
) -> None:
    """Put metrics of suspicions (S, N) by row, each network on its own."""
    for row, suspicion in found.items():
        for seed, values in enumerate(suspicion):
            measured = evaluate_detection(values.numpy(), wrong.numpy())
            for metric in metrics:
                if METRICS[metric] in measured:
                    bench.put(f"{row}, {metric}" if named else row, column, measured[METRICS[metric]], seed)


def _falls(values: Values) -> Holds:
    """Whether the most underlying noise does worse than none."""
    return less(values.rows[-1] if values.rows else "none", "underlying 0")(values)
