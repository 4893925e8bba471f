"""Label noise: labels in, labels out, the same for the same seed. No I/O, no torch.

A kind of noise is one function `(labels, rate, classes, rng) -> labels` with the decorator below. What else it reads it
names as a further argument: `groups`, the super-class of each class; `confusions`, how much each sample looks like each
class to networks. Each changes exactly round(rate * N) labels, so that a rate is a fact and not an expectation. One that
takes `matrix` in place of `rate` is written KIND:FILE, and has exact numbers in each class.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from engine.errors import SpecError, unknown_name

Labels = np.ndarray[Any, np.dtype[np.int64]]
Matrix = np.ndarray[Any, np.dtype[np.float64]]
F = TypeVar("F", bound=Callable[..., Labels])


@dataclass(frozen=True)
class NoiseKind:
    """One kind of noise. example: a rate to show in help, FILE where a matrix is read; reads: names of its arguments."""

    name: str
    title: str
    function: Callable[..., Labels]
    example: float | str
    reads: frozenset[str]


KINDS: dict[str, NoiseKind] = {}
"""Every kind of noise by name, in the order of this file."""


def noise_kind(*, example: float | str) -> Callable[[F], F]:
    """Put a function into KINDS under its own name; the first line of its docstring is its title."""

    def add(function: F) -> F:
        name, title = function.__name__, (function.__doc__ or "").strip().split("\n")[0].rstrip(".")
        if not title or name in KINDS:
            raise TypeError(f"noise {name} has no docstring, or there is one of that name already")
        KINDS[name] = NoiseKind(name, title, function, example, frozenset(inspect.signature(function).parameters))
        return function

    return add


def noise_help() -> str:
    """What --noise may be, in one line of help."""
    examples = ", ".join(f"{kind.name}:{kind.example}" for kind in KINDS.values())
    return f"{examples}; a+b for two"


def parse_noise(text: str) -> list[tuple[str, float | str]]:
    """The steps of a noise, `KIND:RATE` or several joined with `+`, in the order in which they are applied.

    A kind that reads a matrix is written `KIND:FILE`; a `+` in the name of the file stays in it.

    >>> parse_noise("asymmetric:0.1+matrix:crowd.csv")
    [('asymmetric', 0.1), ('matrix', 'crowd.csv')]

    Raises: SpecError for an unknown kind, a rate that is not a number in 0 .. 1, or a file that is not named
    """
    steps: list[tuple[str, float | str]] = []
    for part in text.split("+"):
        kind, colon, value = part.strip().partition(":")
        if kind not in KINDS and steps and isinstance(steps[-1][1], str):
            steps[-1] = steps[-1][0], f"{steps[-1][1]}+{part.rstrip()}"
            continue
        if kind not in KINDS:
            raise SpecError(unknown_name("noise", kind, KINDS, "it is written KIND:RATE, as in symmetric:0.2"))
        if "matrix" in KINDS[kind].reads:
            if not value:
                raise SpecError(f"noise '{kind}' names no file; write {kind}:FILE, a CSV or .npy file of C x C numbers")
            steps.append((kind, value))
            continue
        try:
            rate = float(value)
        except ValueError:
            given = f"'{value}'" if colon else "missing"
            raise SpecError(f"the rate of noise '{kind}' is {given}; write {kind}:0.2 for 20 %") from None
        if not 0 <= rate <= 1:
            raise SpecError(f"the rate of noise '{kind}' is {rate:g}; allowed: 0 to 1 (write {kind}:0.2 for 20 %)")
        steps.append((kind, rate))
    return steps


def reads(text: str | None, given: str) -> bool:
    """Whether a step of a noise reads `groups` or `confusions`; None is no noise."""
    return text is not None and any(given in KINDS[kind].reads for kind, _ in parse_noise(text))


def apply_noise(
    text: str,
    labels: Labels,
    classes: int,
    seed: int,
    groups: Sequence[int] | None = None,
    *,
    confusions: Matrix | None = None,
    matrices: Mapping[str, Matrix] | None = None,
) -> Labels:
    """Labels after every step of a noise, one applied to the result of the other, each drawn on its own.

    Args:    labels (N,) int64 in [0, classes); seed >= 0; groups: the super-class of each class, for the kinds that read
             them; confusions (N, C): as `instance` takes them; matrices: by the name of the file, as `matrix` takes them
    Returns: (N,) int64; the argument is left as it was
    Raises:  SpecError as `parse_noise`, and when the classes do not allow the kind
    """
    if classes < 2:
        raise SpecError(f"noise needs at least 2 classes to choose from; there is {classes}")
    grouped = None if groups is None else np.asarray(groups, np.int64)
    for step, (kind, value) in enumerate(parse_noise(text)):
        known = {"groups": grouped, "confusions": confusions}
        given = {name: known[name] for name in known if name in KINDS[kind].reads}
        how = (matrices or {})[value] if isinstance(value, str) else value
        labels = KINDS[kind].function(labels, how, classes, np.random.default_rng([seed, step]), **given)
    return labels


@noise_kind(example=0.2)
def symmetric(labels: Labels, rate: float, classes: int, rng: np.random.Generator) -> Labels:
    """Another label, each of the other classes equally likely."""
    chosen = _choose(len(labels), rate, rng)
    noisy = labels.copy()
    noisy[chosen] = (labels[chosen] + rng.integers(1, classes, len(chosen))) % classes
    return noisy


@noise_kind(example=0.4)
def asymmetric(labels: Labels, rate: float, classes: int, rng: np.random.Generator) -> Labels:
    """The next class: y -> y + 1 mod C."""
    chosen = _choose(len(labels), rate, rng)
    noisy = labels.copy()
    noisy[chosen] = (labels[chosen] + 1) % classes
    return noisy


@noise_kind(example=0.3)
def superclass(labels: Labels, rate: float, classes: int, rng: np.random.Generator, groups: Labels | None) -> Labels:
    """Another label of the same super-class, each equally likely (LSTM, "Super-Classes Noises")."""
    if groups is None:
        raise SpecError(
            "superclass noise needs super-classes: CIFAR-100's are known, others are given like "
            "--superclasses 'cat,dog;car,truck'"
        )
    if len(groups) != classes:
        raise SpecError(f"superclass noise was given super-classes of {len(groups)} classes; the dataset has {classes}")
    members = [np.flatnonzero(groups == groups[label]) for label in range(classes)]
    alone = [label for label, same in enumerate(members) if len(same) < 2]
    if alone:
        raise SpecError(f"superclass noise: class {alone[0]} is alone in its super-class, so it has no other label")
    noisy = labels.copy()
    for i in _choose(len(labels), rate, rng):
        same = members[labels[i]]
        place = int(np.searchsorted(same, labels[i]))
        noisy[i] = same[(place + rng.integers(1, len(same))) % len(same)]
    return noisy


@noise_kind(example=0.2)
def instance(labels: Labels, rate: float, classes: int, rng: np.random.Generator, confusions: Matrix | None) -> Labels:
    """The class that networks confuse the sample with, where they confuse it most (Chen et al. 2021, algorithm 1).

    confusions (N, C): the probability of each class by networks trained on the true labels, averaged over the epochs,
    and 0 at the true class, so that no label is made right. Ties are drawn.
    """
    if confusions is None:
        raise SpecError("instance noise needs the predictions of networks, and there is nothing to train them on")
    others = confusions.copy()
    others[np.arange(len(labels)), labels] = -1
    wrong = others.argmax(1)
    drawn = rng.permutation(len(labels))
    order = drawn[np.argsort(-others[drawn, wrong[drawn]], kind="stable")]
    chosen = order[: round(rate * len(labels))]
    noisy = labels.copy()
    noisy[chosen] = wrong[chosen]
    return noisy


@noise_kind(example="FILE")
def matrix(labels: Labels, matrix: Matrix, classes: int, rng: np.random.Generator) -> Labels:
    """Another label by a matrix in a file: row = the class, column = what share of it is labeled as each class.

    matrix (C, C): of rows that add up to 1. Of n samples of a class the shares n * row are rounded by largest remainder,
    so that they are whole and add up to n; equal remainders go to the class itself, then to the first class.
    """
    noisy = labels.copy()
    for label in range(classes):
        members = rng.permutation(np.flatnonzero(labels == label))
        noisy[members] = np.repeat(
            np.arange(classes), _whole(len(members) * matrix[label] / matrix[label].sum(), label)
        )
    return noisy


def transition_matrix(true_labels: Labels, labels: Labels, classes: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Counts (C, C): row = true label, column = given label; sums to N."""
    counts = np.bincount(np.asarray(true_labels) * classes + labels, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def superclasses_of(class_names: Sequence[str], grouping: str | None = None) -> list[int] | None:
    """The super-class of every class: of a grouping, else CIFAR-100's when the names are its fine classes, else None.

    Args:   grouping: class names separated by commas, super-classes by semicolons: "cat,dog;car,truck"
    Raises: SpecError when a class is in no super-class or in two, or a name is of no class
    """
    if grouping is None:
        groups = [names.split() for names in _CIFAR100]
        if {name for names in groups for name in names} != set(class_names):
            return None
    else:
        groups = [[name.strip() for name in names.split(",")] for names in grouping.split(";")]
        named = [name for names in groups for name in names]
        for name in named:
            if name not in class_names:
                raise SpecError(unknown_name("class", name, class_names, "--superclasses"))
            if named.count(name) > 1:
                raise SpecError(f"class '{name}' is in --superclasses twice; allowed: each class once")
        left = [name for name in class_names if name not in named]
        if left:
            raise SpecError(f"class '{left[0]}' is in none of the --superclasses; add it to one")
    return [next(i for i, names in enumerate(groups) if name in names) for name in class_names]


def _choose(count: int, rate: float, rng: np.random.Generator) -> Labels:
    """Exactly round(rate * count) distinct positions."""
    return np.sort(rng.permutation(count)[: round(rate * count)])


def _whole(shares: Matrix, first: int) -> Labels:
    """Numbers (C,) of shares that add up to a whole number, each rounded up or down; of equal remainders `first` wins."""
    # shares are products of decimal fractions: 0.29 * 100 is meant to be 29
    counts = np.floor(shares + 1e-9).astype(np.int64)
    left = round(float(shares.sum())) - int(counts.sum())
    remainders = np.round(shares - counts, 9)
    order = np.lexsort((np.arange(len(shares)), np.arange(len(shares)) != first, -remainders))
    counts[order[:left]] += 1
    return counts


_CIFAR100 = (
    "beaver dolphin otter seal whale",
    "aquarium_fish flatfish ray shark trout",
    "orchid poppy rose sunflower tulip",
    "bottle bowl can cup plate",
    "apple mushroom orange pear sweet_pepper",
    "clock keyboard lamp telephone television",
    "bed chair couch table wardrobe",
    "bee beetle butterfly caterpillar cockroach",
    "bear leopard lion tiger wolf",
    "bridge castle house road skyscraper",
    "cloud forest mountain plain sea",
    "camel cattle chimpanzee elephant kangaroo",
    "fox porcupine possum raccoon skunk",
    "crab lobster snail spider worm",
    "baby boy girl man woman",
    "crocodile dinosaur lizard snake turtle",
    "hamster mouse rabbit shrew squirrel",
    "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "bicycle bus motorcycle pickup_truck train",
    "lawn_mower rocket streetcar tank tractor",
)
"""CIFAR-100's 20 super-classes: aquatic mammals, fish, flowers, food containers, fruit and vegetables, household
electrical devices, furniture, insects, large carnivores, large man-made outdoor things, large natural outdoor
scenes, large omnivores and herbivores, medium-sized mammals, non-insect invertebrates, people, reptiles, small
mammals, trees, vehicles 1 and 2."""
