"""ROP's selections: the samples that each method keeps, the networks that learn from them, and the noise they have.

Every method reads one network, the warm-up: trained for 10 epochs on all given labels (ROP, table 7; 30 of a hundred classes
or more), here by cross-entropy, where the paper's is SOP+. So the intervals hold the seeds of the networks that learn from a
subset and of what a selection draws at random, not of the warm-up.

A method selects over all classes together, as in the paper. Where that loses a class, which no network could learn then, the
same share of every class is selected by the same method instead: table 3 says how many classes each one loses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from engine.data.loader import Samples, dataset_shape
from engine.queries.frames import Run
from engine.relabel.learner_settings import find_learner_preset
from engine.reproduce.bench import Bench, Job, Outcome
from engine.runs.choose import Selection
from engine.runs.relabel_units import PLAIN, budget
from engine.spec import TrainingSpec

METHODS: Mapping[str, str] = {
    "Random": "random",
    "Small": "loss_last*",
    "Margin": "top2_gap",
    "KCenter": "kcenter",
    "Forget": "forgetting",
    "GraNd": "grand_last_layer",
    "SSP": "prototype_distance*",
    "Moderate": "moderate",
    "Pr4ReL": "pr4rel",
    "FDMat": "fdmat",
    "RoP": "nli*",
    "RoP_B": "ccs(nli)",
}
"""The rows of the paper, and the orders by which they select: without * the hardest samples stay, with it the easiest.

Small and SSP keep the smallest losses and the most typical samples, as the paper says of them; Margin, Forget and GraNd the
smallest differences of the two largest probabilities, the most forgotten, and the largest gradients (of the last layer).
Uniform, in its tables 3 and 4, is Random. A sample that the warm-up never learns is the most forgotten, as Toneva et al. have
it. The paper's authors seem to count otherwise: in their table 3 Forget keeps no more wrong labels than Random.
"""

SCORES = "loss_last,top2_gap,forgetting,grand_last_layer,prototype_distance,nli,knn_disagreement,knn_vote"

WARM_UP, WARM_UP_MANY = 10, 30
"""Epochs of the warm-up, and those of a hundred classes or more."""

NEIGHBORS = 15

EPOCHS, EPOCHS_ON_FEATURES = 30, 15
"""Of the networks of the small size on a dataset of one's own: images, and frozen features (the preset sop+-features)."""


@dataclass(frozen=True)
class Noisy:
    """A dataset with wrong labels. share: of its labels that are wrong, 0..1; from 0.1 on rounded to a tenth"""

    dataset: str
    share: float

    def column(self, kept: float) -> str:
        """The name of the column of a share kept, as the paper's tables have it: 0.2, 40 %."""
        return f"{kept:g}, {100 * self.share:.0f} %"


def noisy_sets(bench: Bench, rates: Iterable[float], kind: str = "symmetric") -> list[Noisy]:
    """The dataset with each rate of wrong labels; as it is, once, where some of its labels are known to be wrong already."""
    own = _share_wrong(bench, bench.dataset)
    if own:
        return [Noisy(bench.dataset, round(own, 1) if own >= 0.1 else own)]
    return [Noisy(bench.noisy(f"{kind}:{rate:g}"), rate) for rate in rates]


def _share_wrong(bench: Bench, dataset: str) -> float:
    samples = bench.samples(dataset)
    return 0.0 if samples.true_labels is None else float((samples.true_labels != samples.labels).double().mean())


class Subsets:
    """What is kept of one dataset.

    Attributes:
        bench, dataset; run: the warm-up; training: of the networks that learn from a subset
    """

    def __init__(self, bench: Bench, dataset: str) -> None:
        self.bench, self.dataset = bench, dataset
        self.run = self.scored()
        self.training = self._training()
        self._selections: dict[tuple[str, int, bool], Selection] = {}

    def scored(self, scores: str = SCORES, neighbors: int = NEIGHBORS) -> Run:
        """The warm-up with other scores, or another number of neighbors: its network is trained once."""
        options = {"seeds": 1, "observe": "eval", "neighbors": neighbors, "embedding": "none"}
        if self._own:
            given = int(self.bench.size.options["epochs"])
            wanted = WARM_UP if self.bench.small or self._classes < 100 else WARM_UP_MANY
            warm_up = {"epochs": min(given, wanted), "schedule": "constant"}
            return self.bench.run(self.dataset, scores, **options, **warm_up)
        return self.bench.run(self.dataset, scores, **dict.fromkeys(self.bench.size.options), **options)

    @property
    def _own(self) -> bool:
        """Whether the size says how networks are trained; on other data than its own a short trial does, in the small size."""
        return not self.bench.small or self.bench.dataset == self.bench.size.dataset

    @property
    def _classes(self) -> int:
        return dataset_shape(self.bench.workspace, self.dataset).classes

    def _training(self) -> TrainingSpec:
        """How the networks that learn from subsets are trained: the size's options, else as the learners' presets are."""
        warm_up = self.bench.training_of(self.run)
        if self._own:
            return replace(warm_up, **self.bench.size.options)
        preset = find_learner_preset("sop+-features" if warm_up.trained_on else "sop+-images", "sop+").training
        epochs = EPOCHS_ON_FEATURES if warm_up.trained_on else EPOCHS
        named = ("batch_size", "lr", "optimizer", "schedule", "weight_decay")
        return replace(warm_up, epochs=epochs, **{name: getattr(preset, name) for name in named})

    @cached_property
    def labels(self) -> Tensor:
        """The given labels (N,)."""
        return self._samples.labels.cpu()

    @cached_property
    def wrong(self) -> Tensor | None:
        """Whether each given label is wrong, (N,) bool; None where the truth is not known."""
        truth = self._samples.true_labels
        return None if truth is None else (truth.cpu() != self.labels)

    @cached_property
    def _samples(self) -> Samples:
        return self.bench.samples(self.dataset, self.training.trained_on)

    def order(self, row: str) -> str:
        """The order of a row of the paper.

        RoP_B leaves out a share of the largest NLI, beta, before it covers the rest. The paper does not print its beta, but
        the few wrong labels of its table 3 say that it is not 0. Here it is the share of the samples whose given label most
        of their neighbors do not have (the rule knn_vote), which reads no true label.
        """
        if row != "RoP_B":
            return METHODS[row]
        return f"ccs(nli,beta={self._outvoted:.4f})"

    @cached_property
    def _outvoted(self) -> float:
        flags = self.run.flags(long=True)
        return float(flags.loc[flags["rule"] == "knn_vote", "flagged"].mean())

    def selection(self, order: str, seed: int, *, balanced: bool = False, run: Run | None = None) -> Selection:
        """What an order keeps, by the scores of a run, drawn from a seed."""
        key = ((run or self.run).id, seed, balanced)
        if key not in self._selections:
            self._selections[key] = self.fresh(order, seed, balanced=balanced, run=run)
        return self._selections[key]

    def fresh(self, order: str, seed: int, *, balanced: bool = False, run: Run | None = None) -> Selection:
        """A selection that has read nothing yet."""
        found = (run or self.run).id
        return Selection(
            self.bench.workspace, self.dataset, self._samples, [order], found, seed=seed, class_balanced=balanced
        )

    def over_all(self, order: str, share: float, seed: int, run: Run | None = None) -> Tensor:
        """The positions (K,) that an order keeps over all classes together, as the paper selects."""
        left_out = len(self.labels) - budget(len(self.labels), share)
        return self.selection(order, seed, run=run).kept(order, left_out)

    def lost(self, kept: Tensor) -> int:
        """How many of the classes of the given labels a subset has no sample of."""
        return len(torch.unique(self.labels)) - len(torch.unique(self.labels[kept]))

    def kept(self, order: str, share: float, seed: int, run: Run | None = None) -> Tensor:
        """The positions (K,) that networks learn from: those over all classes, balanced where these lose a class."""
        found = self.over_all(order, share, seed, run)
        if not self.lost(found):
            return found
        left_out = len(self.labels) - budget(len(self.labels), share)
        return self.selection(order, seed, balanced=True, run=run).kept(order, left_out)

    def train(self, learner: str, jobs: Iterable[tuple[Tensor | None, int, str]]) -> list[Outcome]:
        """Train a network on each subset. Args: jobs: positions (None = all), seed, and what they are, for an error"""
        training, preset = self.training, ""
        if learner != PLAIN and not self.bench.small:
            preset = f"{learner}-{'cifar10' if self._classes < 100 else 'cifar100'}"
            if learner == "dividemix":
                settings = find_learner_preset(preset, learner).training
                training = replace(training, batch_size=settings.batch_size, schedule=settings.schedule)
        elif learner != PLAIN and training.trained_on:
            preset = f"{learner}-features"
        named = [Job(seed, kept, None, learner, preset, what) for kept, seed, what in jobs]
        return self.bench.train(self.dataset, training, named)

    def put(
        self,
        learner: str,
        orders: Mapping[str, str],
        shares: Sequence[float],
        column: Callable[[float], str],
        run: Run | None = None,
    ) -> None:
        """Put the test accuracy of a learner after each selection. Args: orders: by row; column: the name of a share's"""
        cells = [(row, share, seed) for row in orders for share in shares for seed in self.bench.seeds]
        jobs = (
            (self.kept(orders[row], share, seed, run), seed, f"the subset by {row} that keeps {share:g}")
            for row, share, seed in cells
        )
        for (row, share, seed), found in zip(cells, self.train(learner, jobs), strict=True):
            self.bench.put(row, column(share), found.accuracy, seed)


def put_accuracies(
    bench: Bench, methods: Iterable[str], shares: Sequence[float], learner: str, sets: Iterable[Noisy], suffix: str = ""
) -> None:
    """Put the test accuracy of a learner after the paper's selections. Args: suffix: of the names of the rows"""
    for noisy in sets:
        subsets = Subsets(bench, noisy.dataset)
        orders = {f"{row}{suffix}": subsets.order(row) for row in methods}
        subsets.put(learner, orders, shares, noisy.column)
