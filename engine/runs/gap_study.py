"""What the complexity gap looks like on a set: the inverse kernel, the place of samples, how random subsets converge."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.data.loader import load_split, normalization, to_float
from engine.errors import NotFoundError, SpecError
from engine.queries.connection import connected, latest_run
from engine.runs.inputs.gaps import has_direction
from engine.scores.complexity import cg
from engine.scores.gap import Gap, gap_bytes, solve_gap, solve_inverse, solve_stochastic_gap
from engine.scores.rows import unit_rows
from engine.spec import RunSpec, spec_from_json
from engine.store.workspace import Workspace
from engine.training.device import available_bytes

RATIOS = (1, 2, 3, 4)
"""Samples of the other classes for each of a class (CG, figure 5)."""

SHOWN = 100
"""Samples of each of two classes whose entries of the inverse are kept (CG, figure 1)."""

PLACED = 500
"""Samples of each of the two classes whose place is kept."""

SECONDS = 2e-11
"""Of solving the kernel of n samples, by n ** 3."""


def find_run(workspace: Workspace, dataset: str, run_id: str | None) -> str:
    """The run whose complexity gap is studied: the one given, else the newest that has it; NotFoundError without one."""
    with connected(workspace, dataset) as connection:
        found = run_id or latest_run(connection, "scores", "cg")
        there = connection.execute("SELECT 1 FROM scores WHERE run_id = ? AND score = 'cg' LIMIT 1", [found]).fetchall()
    if not found or not there:
        raise NotFoundError(f"no run of '{dataset}' has the score 'cg'; make one: winnow run {dataset} --scores cg")
    return str(found)


def study_seconds(n: int, classes: int, draws: int) -> float:
    """Rough seconds of `study_gap`."""
    subsets = sum((n * (1 + ratio) / classes) ** 3 for ratio in _ratios(classes))
    return 2.0 + SECONDS * (3 * n**3 + draws * classes * subsets)


def _ratios(classes: int) -> list[int]:
    return [ratio for ratio in RATIOS if ratio < classes - 1]


def study_gap(
    workspace: Workspace,
    dataset: str,
    run_id: str,
    draws: int = 20,
    report: Callable[[float], None] = lambda share: None,
) -> dict[str, Any]:
    """Study the complexity gap of a run's dataset, on the inputs that the run scored.

    The pair of classes are those whose mean inputs are most alike, by the true labels where all are known: the same samples
    then have the same places with and without label noise. A sample's own share of its class's mean is left out of its place.

    Args:    draws: random subsets of each size; report: is given the share that is done
    Returns: what `GapStudy` holds, as JSON: pair, points, inverse, convergence
    Raises:  SpecError where the kernel does not fit in memory, or fewer than two classes have two samples
    """
    samples = load_split(workspace, dataset, "train")
    spec = spec_from_json(workspace.read_spec(run_id)["spec"])
    standardize = isinstance(spec, RunSpec) and spec.standardize
    inputs = to_float(samples.inputs, *normalization(samples)) if standardize else samples.inputs
    n, classes = len(samples), samples.classes
    needed, free = gap_bytes(n, math.prod(inputs.shape[1:]), classes), available_bytes(inputs.device)
    if needed > free:
        raise SpecError(
            f"the complexity gap of {n:,} samples needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB is free; "
            "take a smaller dataset: winnow ingest --limit"
        )
    if not has_direction(inputs).all():
        raise SpecError(
            f"an input of '{dataset}' is all zeros, so it has no direction; give --run a run that has --standardize"
        )
    rows = unit_rows(inputs.flatten(1).double(), "rows")
    truth = samples.true_labels
    place = samples.labels if truth is None else truth
    total, done = study_seconds(n, classes, draws), 2.0 + SECONDS * n**3
    pair = closest_classes(rows, place)
    exact = _means(solve_gap(rows, samples.labels))[-1]
    report(done / total)
    members = [(place == label).nonzero()[:, 0] for label in pair]
    few = torch.cat([_some(of, SHOWN) for of in members])
    inverse = solve_inverse(rows, few)
    done += 2 * SECONDS * n**3
    report(done / total)
    placed = [_some(of, PLACED) for of in members]
    positions = torch.cat(
        [place_between(rows[of], rows[members[0]], rows[members[1]], own) for own, of in enumerate(placed)]
    )
    convergence = []
    for ratio in _ratios(classes):
        generator = torch.Generator().manual_seed(ratio)
        means = _means(solve_stochastic_gap(rows, samples.labels, ratio, draws, generator))
        for count, mean in enumerate(means, start=1):
            spearman = _correlation(mean.argsort().argsort(), exact.argsort().argsort())
            convergence.append([ratio, count, spearman, _correlation(mean, exact)])
        done += SECONDS * draws * classes * (n * (1 + ratio) / classes) ** 3
        report(done / total)
    ids = samples.sample_ids[torch.cat(placed)].tolist()
    return {
        "pair": list(pair),
        "points": [[i, round(p, 5)] for i, p in zip(ids, positions.tolist(), strict=True)],
        "inverse": [[float(f"{value:.4g}") for value in row] for row in inverse.tolist()],
        "convergence": convergence,
    }


def _means(gap: Gap) -> Tensor:
    """(R, N): the complexity gap as the mean over the first 1 .. R runs."""
    each = torch.stack([cg(a[None], d[None]) for a, d in zip(gap.alpha, gap.inverse_diagonal, strict=True)])
    return each.cumsum(0) / torch.arange(1, len(each) + 1)[:, None]


def _correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's r, to the same bits wherever it is computed: the last of numpy's depend on where in memory its rows are."""
    try:
        return statistics.correlation(a.tolist(), b.tolist())
    except statistics.StatisticsError:  # one of them is constant
        return math.nan


def _some(members: Tensor, most: int) -> Tensor:
    """At most so many of them: of more every k-th."""
    return members[:: max(1, -(-len(members) // most))]


def closest_classes(rows: Tensor, labels: Tensor) -> tuple[int, int]:
    """The two classes of two samples or more whose mean rows have the largest cosine, the smaller label first.

    Raises: SpecError where fewer than two classes have two samples
    """
    counts = torch.bincount(labels)
    known = (counts >= 2).nonzero()[:, 0]
    if len(known) < 2:
        raise SpecError(f"classes of two samples or more: {len(known)}; a place between two classes needs two of them")
    means = torch.stack([rows[labels == label].mean(0) for label in known])
    means = means / means.norm(dim=1, keepdim=True).clamp_min(1e-12)
    alike = (means @ means.T).fill_diagonal_(-2)
    first, second = sorted(divmod(int(alike.argmax()), len(known)))
    return int(known[first]), int(known[second])


def place_between(some: Tensor, first: Tensor, second: Tensor, own: int) -> Tensor:
    """Where rows lie on the line between the means of two classes: -1 at the first mean, 1 at the second.

    own: 0 where they are of the first class, 1 where of the second; of its own class's mean each is left out
    """
    means = [first.mean(0).expand_as(some), second.mean(0).expand_as(some)]
    count = len((first, second)[own])
    means[own] = (count * means[own] - some) / (count - 1)
    along = means[1] - means[0]
    return 2 * ((some - (means[0] + means[1]) / 2) * along).sum(1) / along.square().sum(1).clamp_min(1e-24)
