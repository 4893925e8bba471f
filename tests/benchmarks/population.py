"""The samples of a generated workspace and the network outputs for them, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.data.noise import apply_noise
from engine.fields import check_range

NOISE = 0.08
"""Share of the training labels that are wrong."""

NEIGHBORS, WINDOW = 15, 64
CANDIDATES = 10
"""Classes that a sample's logits are drawn for; the others get FLOOR, so that 1,000 classes cost what 10 do."""

FLOOR = -25.0
BLOCK = 1 << 17
"""Samples whose logits are drawn at a time."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Options:
    """What a workspace is made of. n: training samples; dimensions: of the features."""

    n: int
    classes: int = 10
    epochs: int = 10
    seeds: int = 2
    dimensions: int = 32
    long_names: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("--classes", self.classes, 2, 5_000)
        least = max(100, 10 * self.classes)
        check_range("N", self.n, least, 20_000_000, "at least 100, and 10 for each class")
        check_range("--epochs", self.epochs, 2, 200)
        check_range("--seeds", self.seeds, 1, 20)
        check_range("--dimensions", self.dimensions, 4, 2_048)
        check_range("--seed", self.seed, 0, 2**31 - 1)

    def generator(self, *purpose: int) -> np.random.Generator:
        """A generator of its own for every purpose."""
        return np.random.default_rng([self.seed, *purpose])


@dataclass(frozen=True)
class Population:
    """The training samples as they are drawn.

    truth, labels (N,) int64; candidates (N, K) int16: classes, the true one first, then the one it is most like;
    given (N,) int64: where the given label stands among them; hardness (N,) in 0..1; places (N, 2) on the map;
    features (N, D); doubled (N,): the sample that this one nearly repeats, itself where none.
    """

    truth: Array
    labels: Array
    candidates: Array
    given: Array
    hardness: Array
    places: Array
    features: Array
    doubled: Array


def draw_population(options: Options) -> Population:
    """Draw labels, difficulties, features and places on the map."""
    rng, n, classes = options.generator(1), options.n, options.classes
    truth = rng.permutation((np.sqrt(np.linspace(0.25, 1, n, endpoint=False)) - 0.5) * 2 * classes).astype(np.int64)
    labels = apply_noise(f"symmetric:{NOISE}", truth, classes, options.seed)
    at = np.arange(classes)
    layout = 2 * np.sqrt(at + 0.5)[:, None] * np.stack([np.cos(at * 2.39996), np.sin(at * 2.39996)], 1)
    apart = np.square(layout[:, None] - layout[None]).sum(2)
    count = min(CANDIDATES, classes)
    candidates = np.argsort(apart, 1, kind="stable")[:, :count].astype(np.int16)[truth]
    candidates[~(candidates == labels[:, None]).any(1), -1] = labels[~(candidates == labels[:, None]).any(1)]
    given = (candidates == labels[:, None]).argmax(1)

    hardness = rng.beta(1.5, 4.0, n).astype(np.float32)
    doubled = np.arange(n)
    copies = rng.choice(n, n // 100, replace=False)
    same_class = np.lexsort((rng.random(n), truth))  # the next in this order is of the same class, nearly always
    place_in = np.empty(n, np.int64)
    place_in[same_class] = np.arange(n)
    originals = same_class[(place_in[copies] + 1) % n]
    alike = (truth[originals] == truth[copies]) & ~np.isin(originals, copies)
    copies, originals = copies[alike], originals[alike]
    doubled[copies] = originals
    hardness[copies] = hardness[originals]

    pull = (0.85 * hardness)[:, None]
    groups = rng.normal(0, 0.6, (classes, 3, 2))[truth, rng.integers(3, size=n)]
    local = (groups + rng.normal(0, 0.45, (n, 2))).astype(np.float32)
    like = candidates[:, 1]
    places = ((1 - pull) * layout[truth] + pull * layout[like] + local).astype(np.float32)
    centers = rng.standard_normal((classes, options.dimensions), dtype=np.float32)
    centers *= 3 / np.linalg.norm(centers, axis=1, keepdims=True)
    axes = rng.standard_normal((2, options.dimensions), dtype=np.float32) / np.float32(options.dimensions**0.5)
    features = rng.standard_normal((n, options.dimensions), dtype=np.float32)
    features *= 1.6 / options.dimensions**0.5
    for start in range(0, n, BLOCK):
        part = slice(start, start + BLOCK)
        features[part] += (
            (1 - pull[part]) * centers[truth[part]] + pull[part] * centers[like[part]] + local[part] @ axes
        )
    for values, noise in ((features, 0.002), (places, 0.01)):
        width = values.shape[1]
        values[copies] = values[originals] + noise * rng.standard_normal((len(copies), width), dtype=np.float32)
    return Population(truth, labels, candidates, given, hardness, places, features, doubled)


def find_neighbors(population: Population) -> tuple[Tensor, Tensor]:
    """The nearest by cosine of the features among those next to a sample along a Z-curve over the map.

    Returns: ids (N, 15) int64 and similarities (N, 15) float32, the nearest first
    """
    n = len(population.labels)
    unit = functional.normalize(torch.from_numpy(population.features), dim=1)
    low, high = population.places.min(0), population.places.max(0)
    cells = ((population.places - low) / (high - low) * 65535).astype(np.uint64)
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        cells = (cells | cells << np.uint64(shift)) & np.uint64(mask)
    order = torch.from_numpy(np.argsort(cells[:, 0] | cells[:, 1] << np.uint64(1), kind="stable"))
    window = min(WINDOW, n - 1)
    ids, similarities = torch.empty(n, NEIGHBORS, dtype=torch.int64), torch.empty(n, NEIGHBORS)
    step = max(1, (1 << 23) // (window * unit.shape[1]))
    for start in range(0, n, step):
        at = torch.arange(start, min(start + step, n))
        first = (at - window // 2).clamp(0, n - window - 1)
        near = order[first[:, None] + torch.arange(window + 1)]
        cosine = (unit[near] @ unit[order[at]][:, :, None])[:, :, 0].clamp(-1, 1)
        cosine[near == order[at][:, None]] = -2
        best = cosine.topk(NEIGHBORS)
        ids[order[at]], similarities[order[at]] = near.gather(1, best.indices), best.values
    return ids, similarities


def draw_logits(population: Population, part: slice, own: Array, done: float, rng: np.random.Generator) -> Tensor:
    """Logits (B, K) of the candidates after a share 0..1 of the training.

    The true class rises, later where a sample is hard; the class it is like rises with it; a wrong given label is
    learned by heart towards the end, by some samples more than by others.
    """
    hard = population.hardness[part]
    logits = (0.7 - 0.3 * done) * rng.standard_normal(own.shape, dtype=np.float32) + 0.7 * own
    learned = 1 - np.exp(-done / (0.06 + 0.7 * hard))
    logits[:, 0] += 7.5 * learned * (1 - 0.55 * hard)
    logits[:, 1] += 5.5 * hard * (0.4 + 0.6 * learned)
    wrong = np.flatnonzero(population.given[part] != 0)
    grip = 1 / (1 + np.exp(own[wrong, 0]))  # how readily this network learns it by heart
    logits[wrong, population.given[part][wrong]] += 8 * grip / (1 + np.exp((0.75 - done) / 0.08)) + 0.5
    return torch.from_numpy(logits.astype(np.float32))
