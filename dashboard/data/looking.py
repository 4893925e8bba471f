"""What a person sees first of a workspace, read ahead: by a server that has just started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from dashboard.data import clouds, runs, samples
from dashboard.data.core import View, datasets, disk_use, snapshot, workspace_root
from dashboard.data.jobs import latest_dataset
from engine.queries.samples import SUSPICION, Filter

MOST_PICTURES = 24
"""Suspicious samples on the overview at most."""

Read = Callable[[], object]


def first_score(view: View) -> str:
    """What the overview's row of pictures is chosen by: the shortlist, else aum, else any score; "" where there is none."""
    verdict = runs.verdict(view.at, view.run_id)
    if verdict and verdict.listed:
        return SUSPICION
    names = set(runs.catalog(view.at, view.run_id)["score"])
    return "aum" if "aum" in names else min(names, default="")


def first_looks() -> Iterator[str]:
    """Read what the overview shows of the dataset that opens where none is chosen, then the longest of what the gallery
    reads, the map and the page Compare, in the order in which they are likely to be needed.

    Yields: what was read
    Raises: WinnowError for what cannot be read
    """
    if not workspace_root().exists() or not datasets():
        return
    at = snapshot(latest_dataset())
    run_id = runs.best_run(at)
    view = View(at, run_id, tuple(runs.class_names(at)))
    for name, read in (*_overview(view), *(_lists(view) if run_id else ())):
        read()
        yield name


def _overview(view: View) -> Iterator[tuple[str, Read]]:
    at, run_id = view.at, view.run_id
    yield "runs", partial(runs.runs, at)
    yield "the dataset", partial(runs.dataset_facts, at)
    if run_id:
        yield "the verdict", partial(runs.verdict, at, run_id)
        yield "suspicion", partial(runs.suspicion, at, run_id)
        yield "the most suspicious", partial(_pictures, view)
    yield "unreadable runs", partial(runs.unreadable, at)
    yield "verdicts", partial(runs.verdicts_of, at)
    yield "the disk", partial(disk_use, at)
    if run_id:
        yield "epochs", partial(runs.epochs, at, run_id)
        yield "scores", partial(runs.catalog, at, run_id)
        yield "rules", partial(runs.rules, at, run_id)
    yield "label noise", partial(runs.transition_matrix, at)


def _pictures(view: View) -> None:
    if score := first_score(view):
        samples.cards(view.at, view.run_id, samples.worst(view.at, view.run_id, score, MOST_PICTURES), score)


def _lists(view: View) -> Iterator[tuple[str, Read]]:
    at, run_id, score = view.at, view.run_id, first_score(view)
    scores = set(runs.catalog(at, run_id)["score"])
    if score:
        yield "the gallery", partial(samples.ids, at, run_id, Filter(flagged=score == SUSPICION, split="all"), score)
        yield "classes", partial(samples.facets, at, run_id, Filter(split="all"))
        yield "training samples", partial(samples.facets, at, run_id, Filter())
    yield "metadata", partial(samples.metadata, at, "names")
    yield "the map", partial(clouds.extent, clouds.Cloud(at, clouds.Plane(run_id)))
    if "aum" in scores:
        yield "the hardest", partial(samples.ids, at, run_id, Filter(), "aum")
    if {"aum", "el2n"} <= scores:
        pair = clouds.Cloud(at, clouds.Plane(run_id, "aum", "el2n"))
        yield "two scores", partial(clouds.extent, pair)
        yield "their correlation", partial(clouds.spearman_of, pair)
