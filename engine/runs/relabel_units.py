"""What a relabeling trains: which networks, on which samples, and how; each unit is computed alone, here or elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engine.data.loader import Samples, joined
from engine.errors import SpecError
from engine.features.approximate import search_all
from engine.features.neighbors import checked_rows
from engine.features.penultimate import compute_features, head_of
from engine.relabel.learner_settings import settings_of_learner
from engine.relabel.plain import train_plainly
from engine.relabel.problem import Problem, Report
from engine.relabel.registry import find_learner, find_method
from engine.scores.geometry import nli
from engine.selection.orders import compute_ranks
from engine.selection.samplers import select
from engine.spec import RelabelSpec, TrainingSpec, spec_hash
from engine.training.loop import Normalization, evaluation_pass

PLAIN = "cross-entropy"
"""The learner that every other is held against."""

ALL, WITHOUT, ROP, RANDOM = "all", "without suspects", "rop", "random"
"""The subsets that networks learn from: every sample, all but the suspects, ROP's selection, as many at random."""

SEARCH = 0.9
"""Share of a warm-up that its training is taken for; the rest finds neighbors and computes NLI."""


@dataclass(frozen=True)
class Study:
    """What all units read. samples: the training samples; no true label is in them."""

    samples: Samples
    test: Samples | None
    normalization: Normalization
    training: TrainingSpec


@dataclass(frozen=True)
class Unit:
    """One network or pair of networks to train.

    kept (K,) int64: positions of the samples that it learns from; predicted (A,) int64: of others that it predicts; kept_share:
    of the training samples; batch_size: of its training; preset, settings: of the learner's settings, "" and () = its defaults
    """

    seed: int
    subset: str
    kept_share: float
    learner: str
    kept: Tensor
    predicted: Tensor
    batch_size: int
    preset: str = ""
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """By which what it found is kept for a resume."""
        return f"{self.learner}, {self.subset} {self.kept_share:g}, seed {self.seed}"


@dataclass(frozen=True)
class WarmUp:
    """The network of a seed whose features NLI reads. spec: how"""

    seed: int
    spec: RelabelSpec

    @property
    def name(self) -> str:
        return f"warm-up, seed {self.seed}"


def learn(study: Study, unit: Unit, report: Report) -> dict[str, Tensor]:
    """Train a unit: probabilities (K, C) of what it learned from, predicted (A, C) of the others, test (M, C) if there is one."""
    others = study.samples.subset(unit.predicted) if len(unit.predicted) else None
    both = study.test if others is None else others if study.test is None else joined(others, study.test)
    training = replace(study.training, batch_size=unit.batch_size)
    problem = Problem(study.samples.subset(unit.kept), both, study.normalization, training)
    train = find_learner(unit.learner).function
    if unit.preset or unit.settings:
        on_features = not study.samples.are_images
        train = partial(train, settings=settings_of_learner(unit.learner, unit.preset, unit.settings, on_features))
    learned = train(problem, unit.seed, report)
    found = {"probabilities": learned.probabilities}
    if learned.test is not None:
        found |= {"predicted": learned.test[: len(unit.predicted)], "test": learned.test[len(unit.predicted) :]}
    return found


def warm_up(study: Study, unit: WarmUp, report: Report) -> dict[str, Tensor]:
    """Train a network for some epochs on all samples: nli (N,) by its features and its head."""
    spec, samples = unit.spec, study.samples
    problem = Problem(samples, None, study.normalization, replace(study.training, epochs=spec.nli_epochs))
    network = train_plainly(problem, unit.seed, lambda share: report(SEARCH * share))
    passed = evaluation_pass(network, samples, study.normalization, compute_features, heartbeat=lambda: report(SEARCH))
    features = torch.cat([rows for _, rows in passed]).cpu()
    whole = checked_rows(features, spec.neighbors)
    ids, _, _ = search_all(whole, spec.neighbors, lambda done, total: report(SEARCH))
    head = head_of(network)
    weight = head.weight.detach().float().cpu()
    bias = torch.zeros(len(weight)) if head.bias is None else head.bias.detach().float().cpu()
    options = {
        "propagate_features": not spec.no_feature_propagation,
        "propagate_labels": not spec.no_label_propagation,
        "bias": not spec.no_bias,
    }
    return {"nli": nli(features, ids, samples.labels.cpu(), weight, bias, **options)}


def select_by_nli(spec: RelabelSpec, values: Tensor, labels: Tensor, seed: int, share: float) -> Tensor:
    """ROP's subset: positions (K,) that stay, ascending. Args: values (N,) NLI; labels (N,) given; seed: of the network

    Departs from the paper: the same share of every class, unless the spec says otherwise. NLI is larger in some classes than
    in others, so the lowest over all of them leave whole classes out: of 1,438 digits at a share of 0.2, two of ten.
    """
    inputs = {
        "ranks": compute_ranks(values, "harder", _generator(spec, "rank", seed)),
        "hardness": values,
        "labels": labels,
        "generator": _generator(spec, f"select {share:g}", seed),
    }
    options: dict[str, Any] = {"beta": spec.beta} if spec.select == "ccs" else {}
    return select(spec.select, budget(len(labels), share), inputs, class_balanced=not spec.unbalanced, **options)


def select_at_random(spec: RelabelSpec, labels: Tensor, seed: int, share: float) -> Tensor:
    """As many samples at random: the baseline."""
    inputs = {"labels": labels, "generator": _generator(spec, f"random {share:g}", seed)}
    return select("random", budget(len(labels), share), inputs, class_balanced=not spec.unbalanced)


def _generator(spec: RelabelSpec, purpose: str, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(spec_hash([spec.seed, "relabel", purpose, seed]), 16))


def budget(n: int, share: float) -> int:
    """How many of n samples a share is."""
    return max(1, round(share * n))


def check_classes_left(labels: Tensor, kept: Tensor, subset: str, share: float) -> None:
    """Raise SpecError unless every class of the training samples is left in a subset, which has two samples or more."""
    if len(kept) < 2:
        raise SpecError(f"the subset that keeps {share:g} has {len(kept)} of {len(labels)} samples; allowed: 2 or more")
    gone = sorted(set(torch.unique(labels).tolist()) - set(torch.unique(labels[kept]).tolist()))
    if gone:
        names = {ROP: "of the lowest NLI", RANDOM: "drawn at random", WITHOUT: "without the suspects"}
        raise SpecError(
            f"the subset {names[subset]} that keeps {share:g} has no sample of class {gone[0]}: no network can learn it; "
            + ("lower --share" if subset == WITHOUT else "raise --keep, or leave out --unbalanced")
        )


def learners_of(spec: RelabelSpec) -> list[str]:
    """The learners that a spec trains: plain training first, which shows what the other gains."""
    named = spec.learner or find_method(spec.method).learner
    return [PLAIN] if named in ("", PLAIN) else [PLAIN, named]


def planned_work(spec: RelabelSpec, n: int) -> list[tuple[int, float]]:
    """What a spec trains on n samples: samples and epochs of each network, a learner's epochs times its cost."""
    if spec.training is None:
        return []
    epochs = spec.training.epochs
    costs = [find_learner(name).cost for name in learners_of(spec)]
    one: list[tuple[int, float]] = []
    if spec.method == "rop":
        one.append((n, spec.nli_epochs / SEARCH))
        subsets = [budget(n, share) for share in spec.keep for _ in range(1 if share == 1 else 2)]
        one += [(kept, epochs * cost) for kept in subsets for cost in costs]
    elif spec.method == "debug":
        one += [(n, epochs), (n - round(spec.share * n), epochs)]
    else:
        one += [(n, epochs * cost) for cost in costs]
    return one * spec.training.seeds
