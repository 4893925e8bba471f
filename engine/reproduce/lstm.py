"""LSTM: a noise detector that learns from training dynamics, and what is gained by leaving out or correcting what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from engine.data.loader import dataset_shape
from engine.errors import SpecError
from engine.queries.frames import Run
from engine.relabel.learner_settings import find_learner_preset
from engine.relabel.registry import find_learner
from engine.reproduce.bench import Bench, Job
from engine.reproduce.declared import Finding, declare_paper, table
from engine.reproduce.rules import given_labels, kept_by_rule, wrong_labels
from engine.reproduce.size import Size
from engine.reproduce.values import more
from engine.runs.detectors import read_sequences
from engine.scores.lstm import Detector, detector_of, lstm_detector, train_detector
from engine.spec import TrainingSpec, spec_hash
from engine.store.tensors import load_tensors, save_tensors

LEARNED = "Ours, learned here"
"""The row of a detector that is learned on the same samples; that of the one that ships is called Ours."""

LEARNED_FROM = "symmetric:0.3"
"""Noise that a detector learns from, as in the paper."""

DEBUGGED = (0.05, 0.1)
"""Shares of the samples whose labels are replaced in table 3."""

EPOCHS, BATCH_SIZE = 300, 256
"""Of the paper's retraining, section B.2 and table 4; its training for the dynamics is shorter, in smaller batches."""

declare_paper(
    "lstm",
    "Learning from Training Dynamics: Identifying Mislabeled Data Beyond Manually Designed Features (Jia et al. 2023)",
    small=Size("digits", {"model": "mlp", "epochs": 20, "batch_size": 64, "lr": 0.002}, 3, (0.2, 0.4)),
    paper=Size("", {"preset": "lstm-cifar100"}, 4, (0.2, 0.4, 0.6, 0.8)),
)


@table(
    "lstm",
    1,
    unit="test accuracy, %",
    published={
        "CIFAR-10": """
                        0.2         0.4         0.6         0.8
        Standard        75.0±0.3    56.7±0.4    36.7±0.4    16.6±0.2
        DY-Bootstrap    79.4±0.1    68.8±1.4    56.4±1.7    Diverged
        Data Param      82.1±0.2    70.8±0.9    49.3±0.7    18.9±0.3
        INCV            89.5±0.1    86.8±0.1    81.1±0.3    53.3±1.9
        AUM             90.2±0.0    87.5±0.1    82.1±0.0    54.4±1.6
        Ours            91.1±0.0    88.9±0.0    83.5±0.2    55.5±1.4
        Oracle          91.0±0.1    90.3±0.4    89.2±0.9    87.4±1.7
        """,
        "CIFAR-100": """
                        0.2         0.4         0.6         0.8
        Standard        49.6±0.2    37.5±0.2    23.8±0.4    8.2±0.3
        DY-Bootstrap    53.0±0.4    43.0±0.3    36.6±0.5    12.8±0.5
        Data Param      56.3±1.4    46.1±0.4    32.8±2.3    11.9±1.2
        INCV            58.6±0.5    55.4±0.2    43.7±0.3    23.7±0.6
        AUM             65.5±0.2    61.3±0.1    53.0±0.5    31.7±0.7
        Ours            65.6±0.3    60.8±0.2    54.3±0.4    30.1±0.6
        Oracle          64.5±0.1    61.0±0.2    55.2±0.5    44.9±0.4
        """,
    },
    findings=(
        Finding("Leaving out what the detector finds is better than training on everything", more("Ours", "Standard")),
        Finding("The detector is better than AUM", more("Ours", "AUM")),
        Finding("The detector is better than INCV", more("Ours", "INCV")),
        Finding("The detector is better than Data Parameters", more("Ours", "Data Param")),
        Finding("The detector is better than DY-Bootstrap", more("Ours", "DY-Bootstrap")),
        Finding("At 20 % noise the detector is better than the oracle", more("Ours", "Oracle", ("0.2",))),
    ),
)
def symmetric_noise(bench: Bench) -> None:
    """Test accuracy without the suspects, by the share of wrong labels (symmetric).

    Ours: the detector that ships, which has learned from digits and textures; on digits it knows their dynamics under other
    draws of the noise. A further row is that of a detector which learned from another draw of 30 % wrong labels on this dataset.
    """
    detector = learned_detector(bench)
    for rate in bench.size.rates:
        dataset = bench.noisy(f"symmetric:{rate:g}")
        run = dynamics(bench, dataset)
        _retrain(bench, run, f"{rate:g}", {**subsets(bench, run, detector), "Oracle": right_ones(bench, dataset)})


@table(
    "lstm",
    2,
    unit="test accuracy, %",
    published={
        "CIFAR-10": """
                        CIFAR-10    CIFAR-100   Tiny ImageNet   WebVision50     Clothing 100K
        Standard        91.9±0.1    67.0±0.3    50.7±0.1        78.6            64.2
        Data Param      91.9±0.0    63.6±1.4    51.6±0.2        78.5            64.5
        DY-Bootstrap    90.0±0.0    65.1±0.1    48.4±0.0        74.2            61.6
        INCV            90.9±0.0    61.8±0.1    43.9±0.1        77.9            66.7
        AUM             92.1±0.0    68.2±0.1    51.4±0.1        80.2            66.5
        Ours            92.5±0.1    68.7±0.3    52.2±0.0        81.4            68.2
        """,
    },
    findings=(
        Finding("Leaving out what the detector finds is better than training on everything", more("Ours", "Standard")),
        Finding("The detector is better than AUM", more("Ours", "AUM")),
        Finding("The detector is better than INCV", more("Ours", "INCV")),
        Finding("The detector is better than Data Parameters", more("Ours", "Data Param")),
        Finding("The detector is better than DY-Bootstrap", more("Ours", "DY-Bootstrap")),
    ),
)
def without_injected_noise(bench: Bench) -> None:
    """Test accuracy without the suspects, on the labels as they are."""
    run = dynamics(bench, bench.dataset)
    _retrain(bench, run, bench.dataset, subsets(bench, run, learned_detector(bench)))


@table(
    "lstm",
    3,
    unit="test accuracy, and share of the training labels that are right, %",
    published={
        "CUB-200-2011": """
                                        Best        Last        Top1        Top5
        DM-AugDesc                      79.65       79.01       78.64       93.20
        DM-AugDesc + 5% D.D.[Ours]      79.55       79.15       79.32       92.56
        DM-AugDesc + 10% D.D.[Ours]     80.14       79.65       78.84       92.84
        DivideMix                       75.96       73.89       77.32       91.64
        DivideMix + 5% D.D.[Ours]       76.06       74.44       77.84       92.16
        DivideMix + 10% D.D.[Ours]      76.77       74.99       78.24       92.72
        """,
    },
    findings=(
        Finding("5 % of data debugging improve DivideMix", more("DivideMix + 5% D.D.[Ours]", "DivideMix", ("Last",))),
        Finding("10 % of data debugging improve DivideMix", more("DivideMix + 10% D.D.[Ours]", "DivideMix", ("Last",))),
        Finding(
            "10 % that a model corrects improve DivideMix",
            more("DivideMix + 10% D.D., by a model", "DivideMix", ("Last",)),
        ),
    ),
)
def debugged(bench: Bench) -> None:
    """DivideMix alone, and after data debugging of the most suspicious labels, 20 % of the labels wrong (symmetric).

    D.D.: their labels are replaced by the true ones, as by a person, which is the paper's pseudo verification; in the rows
    "by a model" by what networks predict that were trained without them. The columns are the paper's for CUB-200-2011 with
    20 % noise (Best, Last) and mini WebVision (Top1, Top5); here: after the last epoch, for the best one is chosen by the test
    set. DM-AugDesc is not computed.
    """
    dataset = bench.noisy(f"symmetric:{bench.size.rates[0]:g}")
    run, truth = dynamics(bench, dataset), bench.samples(dataset).true_labels
    if truth is None:
        raise SpecError(f"dataset '{dataset}' has samples without a true label, which no person can verify here")
    truth = truth.cpu()
    rows = debugged_labels(bench, run, truth)
    training, preset = _dividemix(bench, run)
    jobs = [
        (row, Job(seed, None, given, "dividemix", preset, row)) for row, given in rows.items() for seed in bench.seeds
    ]
    outcomes = bench.train(dataset, training, [job for _, job in jobs])
    for (row, job), outcome in zip(jobs, outcomes, strict=True):
        bench.put(row, "Last", outcome.accuracy, job.seed)
    for row, given in rows.items():
        bench.put(row, "right labels", float((given == truth).double().mean()))


@table(
    "lstm",
    4,
    unit="as named",
    percent=False,
    published={
        "CIFAR-10": """
                                                    epochs      first drop  second drop     batch size      learning rate
        CIFAR, Tiny ImageNet (ResNet-32)            300         150         225             256             0.1
        CUB-200-2011, Caltech256 (ResNet-34)        300         150         225             256             0.1
        WebVision50, Clothing100K (ResNet-50)       180         60          120             256             0.1
        """,
    },
)
def settings(bench: Bench) -> None:
    """Setting of model retraining.

    Batches shrink with the share of the samples that is left. ResNet-34 has ImageNet's weights. All three crop and flip; the
    last two scale as well.
    """
    shape = dataset_shape(bench.workspace, bench.dataset)
    training = _retraining(bench, dynamics(bench, bench.dataset))
    row = f"{bench.dataset} ({training.model})"
    bench.put(row, "training", shape.train)
    bench.put(row, "test", shape.test)
    bench.put(row, "epochs", training.epochs)
    if training.schedule == "step":
        bench.put(row, "first drop", training.epochs // 2)
        bench.put(row, "second drop", training.epochs * 3 // 4)
    bench.put(row, "batch size", training.batch_size)
    bench.put(row, "learning rate", training.lr)


# What the parts share ---------------------------------------------------------------------------------------------------


def dynamics(bench: Bench, dataset: str, scores: str = "lstm_detector,aum,incv") -> Run:
    """A run whose dynamics and rules the parts read."""
    rounds = {} if "incv" in scores else {"threshold_rounds": 0}
    return bench.run(dataset, scores, embedding="none", neighbors=0, **rounds)


def learned_detector(bench: Bench) -> Detector:
    """A detector that is learned on the dataset with another draw of 30 % wrong labels.

    What it learns to find are the labels that were injected, so the truth of the dataset itself is not read.
    """
    dataset = bench.noisy(LEARNED_FROM, draw=1)
    return fit_detector(bench, dataset, given_labels(bench.workspace, bench.dataset))


def fit_detector(bench: Bench, dataset: str, before: Tensor, start: Detector | None = None) -> Detector:
    """A detector learned from the dynamics of a dataset; once, for it is kept beside the journal.

    Args: before (N,): the labels before the noise; start: to fine-tune
    """
    run = dynamics(bench, dataset, "lstm_detector")
    injected = given_labels(bench.workspace, dataset) != before
    path = bench.folder / f"detector-{spec_hash([run.id, injected.tolist(), start is not None])}.safetensors"
    if kept := load_tensors(path):
        return detector_of({name: torch.from_numpy(values).float() for name, values in kept[0].items()})
    p_given, _ = read_sequences(bench.workspace, dataset, run.id)
    seeds, length, n = p_given.shape

    def report(done: int, total: int) -> None:
        bench.listener("detector", done / total, None)

    flat = p_given.permute(1, 0, 2).reshape(length, seeds * n)
    found = train_detector(flat, injected.repeat(seeds), 0, start=start, report=report).detector
    tensors = {name: values.detach().numpy() for name, values in found.state_dict().items()}
    save_tensors(path, {**tensors, "epochs": np.array(found.epochs, np.int32)}, {"run_id": run.id})
    return found


def suspicions(bench: Bench, run: Run, detector: Detector | None) -> Tensor:
    """How likely each label is wrong by a detector, (S, N) for the networks of a run; None = the detector that ships."""
    p_given, _ = read_sequences(bench.workspace, run.dataset, run.id)
    return torch.stack([lstm_detector(sequences, detector) for sequences in p_given])


def subsets(bench: Bench, run: Run, detector: Detector) -> dict[str, Tensor]:
    """The positions (K,) int64 that each rule leaves, by row. detector: the one that is learned here"""
    return {
        "INCV": kept_by_rule(run, "discarded_by_incv"),
        "AUM": kept_by_rule(run, "aum_threshold"),
        "Ours": kept_by_rule(run, "lstm_detector"),
        LEARNED: (suspicions(bench, run, detector).double().mean(0) <= 0.5).nonzero()[:, 0],
    }


def debugged_labels(bench: Bench, run: Run, truth: Tensor) -> dict[str, Tensor]:
    """The labels (N,) int64 that each row of table 3 learns from.

    truth (N,): is read for the rows with the paper's pseudo verification alone
    """
    labels = given_labels(bench.workspace, run.dataset)
    rows = {"DivideMix": labels}
    for share in DEBUGGED:
        name = f"DivideMix + {100 * share:g}% D.D."
        at = _most_suspicious(run, share)
        rows[f"{name}[Ours]"] = labels.index_put((at,), truth[at])
        proposed = bench.relabel(run.dataset, "debug", score="lstm_detector", share=share, run=run.id).suggestions()
        proposed = proposed[proposed["method"] == "debug"]
        ids, classes = (torch.from_numpy(proposed[c].to_numpy("int64")) for c in ("sample_id", "suggested_label"))
        rows[f"{name}, by a model"] = labels.index_put((ids,), classes)
    return rows


def right_ones(bench: Bench, dataset: str) -> Tensor:
    """The positions of the samples whose label is right, which only the oracle knows."""
    return (~wrong_labels(bench.workspace, dataset)).nonzero()[:, 0]


def _retrain(bench: Bench, run: Run, column: str, kept_by: Mapping[str, Tensor]) -> None:
    """Put the accuracy of networks trained on what each row keeps, and of the robust learners on everything.

    The batches shrink with the subset, so that every network takes as many steps.
    """
    training = _retraining(bench, run)
    n = len(given_labels(bench.workspace, run.dataset))
    jobs: list[tuple[str, Job]] = []
    for seed in bench.seeds:
        jobs.append(("Standard", Job(seed)))
        jobs.append(("DY-Bootstrap", Job(seed, learner="dy-bootstrap")))
        jobs.append(("Data Param", Job(seed, learner="data-parameters")))
        for row, kept in kept_by.items():
            batch = max(2, round(training.batch_size * len(kept) / n))
            jobs.append((row, Job(seed, kept, what=f"the subset by {row}", batch_size=batch)))
    for (row, job), outcome in zip(jobs, bench.train(run.dataset, training, [job for _, job in jobs]), strict=True):
        bench.put(row, column, outcome.accuracy, job.seed)


def _retraining(bench: Bench, run: Run) -> TrainingSpec:
    training = bench.training_of(run)
    return training if bench.small else replace(training, epochs=EPOCHS, batch_size=BATCH_SIZE)


def _dividemix(bench: Bench, run: Run) -> tuple[TrainingSpec, str]:
    """How DivideMix is trained, and the preset of its settings: that of its paper, or in the small size its defaults.

    In the small size on batches twice as large, for it takes half of the time.
    """
    if not bench.small:
        return find_learner_preset("dividemix-cifar10", "dividemix").training, "dividemix-cifar10"
    training = bench.training_of(run)
    epochs = max(training.epochs, find_learner("dividemix").epochs)
    return replace(training, epochs=epochs, batch_size=2 * training.batch_size), ""


def _most_suspicious(run: Run, share: float) -> Tensor:
    """Positions of the share of the samples that the detector suspects most, as `winnow relabel --method debug` takes them."""
    found = run.scores(long=True)
    ranks = found[found["score"] == "lstm_detector"].sort_values("sample_id")["rank"].to_numpy("int64")
    return torch.from_numpy(ranks >= len(ranks) - max(1, round(share * len(ranks)))).nonzero()[:, 0]
