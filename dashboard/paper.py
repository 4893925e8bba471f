"""The figures of the papers for a dataset: from which runs each is drawn, and which command makes what is missing."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go

from dashboard import charts, data
from dashboard.figures import aum, cg, prune, rop
from dashboard.widgets import View

Scores = Mapping[str, str]
"""Names as they are in a run, by what was wanted."""


@dataclass
class Shown:
    """What there is of a figure: the drawing, the runs it is from, and what is missing with the commands that make it."""

    figure: go.Figure | None = None
    runs: list[str] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class PaperFigure:
    """One figure of a paper. load: from the dataset in view to what can be shown of it."""

    title: str
    caption: str
    load: Callable[[View], Shown]


def _noisy_and_clean(view: View) -> tuple[str, str]:
    """The noised set that is meant and the clean one it comes from; "" for one that is not in the workspace."""
    facts, here = data.dataset_facts(view.at), view.at.dataset
    if facts["parent"] or facts["noise_rate"]:
        return here, facts["parent"] if facts["parent"] in data.datasets() else ""
    derived = (name for name in data.datasets() if data.dataset_facts(data.snapshot(name))["parent"] == here)
    return next((name for name in derived if data.dataset_facts(data.snapshot(name))["noise_rate"]), ""), here


def _noise_command(view: View) -> tuple[str, str]:
    name = view.at.dataset
    noisy, _ = _noisy_and_clean(view)
    if noisy and noisy != name:
        return f"It needs labels that are known to be wrong: choose {noisy} as the dataset.", ""
    return (
        "It needs labels that are known to be wrong.",
        f"winnow ingest {name}-noisy --from dataset:{name} --noise symmetric:0.3",
    )


def _run_command(dataset: str, scores: Sequence[str]) -> tuple[str, str]:
    named = ", ".join(scores)
    return f"No run of {dataset} has {named} beside the others.", f"winnow run {dataset} --scores {','.join(scores)}"


def _curve(dataset: str, wanted: Sequence[str], options: str, shown: Shown) -> pd.DataFrame:
    """The points of the psi run that has most of the orders wanted; what is missing is said with its commands."""
    at = data.snapshot(dataset)
    run_id, found = data.having(at, "order", wanted)
    scores = sorted({order.removesuffix("*") for order in wanted} - {"random", "oracle"})
    if set(wanted) - set(found):
        source, known = data.having(at, "score", scores)
        orders = [known.get(o.removesuffix("*"), o.removesuffix("*")) + "*" * o.endswith("*") for o in wanted]
        command = f"winnow psi {dataset} --orders {shlex.quote(','.join(orders))} {options}"
        if set(scores) - set(known):
            command = f"{_run_command(dataset, scores)[1]}\n{command}"
        lacking = ", ".join(order for order in wanted if order not in found)
        shown.missing.append((f"The curves of {lacking} on {dataset} are not there, or not in one run.", command))
    if not run_id:
        return pd.DataFrame()
    shown.runs.append(run_id)
    points = data.psi_points([run_id])
    return points[points["order"].isin(found.values())]


def _scores(view: View, wanted: Sequence[str], shown: Shown) -> tuple[str, Scores]:
    """The run that has most of the scores wanted; what is missing is said with its command."""
    run_id, found = data.having(view.at, "score", wanted)
    if set(wanted) - set(found):
        shown.missing.append(_run_command(view.at.dataset, wanted))
    if run_id:
        shown.runs.append(run_id)
    return run_id, found


def _known_noise(view: View, shown: Shown) -> bool:
    """Whether labels of the dataset are known to be wrong; else what makes such a set is said."""
    if data.dataset_facts(view.at)["wrong"]:
        return True
    shown.missing.append(_noise_command(view))
    return False


def _prune_1(view: View) -> Shown:
    shown = Shown()
    _, clean = _noisy_and_clean(view)
    if not clean:
        shown.missing.append(("The clean set is not in this workspace.", "winnow ingest NAME --from SOURCE"))
        return shown
    points = _curve(clean, ("random", "forgetting", "forgetting*", "el2n", "el2n*"), "--points 20 --seeds 3", shown)
    shown.figure = prune.pruning_figure(points) if len(points) else None
    return shown


def _prune_2(view: View) -> Shown:
    shown = Shown()
    noisy, _ = _noisy_and_clean(view)
    if not noisy:
        shown.missing.append(_noise_command(view))
        return shown
    orders = ("random", "oracle", "forgetting", "forgetting*", "el2n", "el2n*")
    points = _curve(noisy, orders, "--points 20 --seeds 3", shown)
    shown.figure = prune.pruning_figure(points) if len(points) else None
    return shown


def _prune_3(view: View) -> Shown:
    shown, wanted = Shown(), ("forgetting", "el2n")
    noisy, clean = _noisy_and_clean(view)
    if not noisy or not clean:
        shown.missing.append(_noise_command(view))
        return shown
    before, after = data.snapshot(clean), data.snapshot(noisy)
    (old_run, old), (new_run, new) = data.having(before, "score", wanted), data.having(after, "score", wanted)
    for dataset, found in ((clean, old), (noisy, new)):
        if set(wanted) - set(found):
            shown.missing.append(_run_command(dataset, wanted))
    labels, ranks = data.labels(after), {}
    for score in wanted:
        if score in old and score in new:
            both = data.score(before, old_run, old[score]).merge(data.score(after, new_run, new[score]), on="sample_id")
            both = both.merge(labels, on="sample_id")
            wrong = (both["true_label"] >= 0) & (both["true_label"] != both["label"])
            name = old[score] if old[score] == new[score] else f"{old[score]} and {new[score]}"
            ranks[name] = pd.DataFrame({"x": both["rank_x"], "y": both["rank_y"], "wrong": wrong})
    shown.runs += [run for run in (old_run, new_run) if run]
    shown.figure = prune.rank_figure(ranks) if ranks else None
    return shown


def _cg_2(view: View) -> Shown:
    shown = Shown()
    scores = ("cg", "el2n", "forgetting", "consistency")
    orders = ("random", *(order for score in scores for order in (score, f"{score}*")))
    points = _curve(view.at.dataset, orders, "--points 10 --seeds 5 --steps fixed", shown)
    if len(points) and points["order"].str.startswith(scores).any():
        shown.figure = cg.pruning_figure(points)
    return shown


def _cg_3(view: View) -> Shown:
    shown = Shown()
    if not _known_noise(view, shown):
        return shown
    run_id, found = _scores(view, ("cg", "cg_partial", "el2n", "forgetting"), shown)
    if "cg" in found:
        curves = {name: data.detection_curve(view.at, run_id, name) for name in found.values()}
        bins = data.histogram(view.at, run_id, "cg")
        shown.figure = cg.detection_figure(bins, curves, data.dataset_facts(view.at)["noise_rate"])
    return shown


def _cg_4(view: View) -> Shown:
    shown = Shown()
    run_id, found = _scores(view, ("cg",), shown)
    if not found:
        return shown
    curves = data.figure_table(view.at, "fetch_decile_curves", run_id, "cg")
    if curves.empty:
        shown.missing.append(("That run has no dynamics.", f"winnow run {view.at.dataset} --scores cg"))
        return shown
    velocity = data.velocity(view.at, run_id, "cg")
    if velocity.empty:
        command = f"winnow velocity {view.at.dataset} --score cg --run {run_id}"
        shown.missing.append(("The kernel velocity, panel (c), is not computed yet.", command))
    shown.figure = cg.decile_figure(curves, velocity, "cg")
    return shown


def _cg_6(view: View) -> Shown:
    shown, dataset = Shown(), view.at.dataset
    windows = data.windows(view.at)
    if windows.empty:
        command = f"winnow psi {dataset} --orders cg --window --points 10 --seeds 3"
        if "cg" not in data.having(view.at, "score", ("cg",))[1]:
            command = f"winnow run {dataset} --scores cg,cg_partial\n{command}"
        shown.missing.append(("The window experiment, panel (a), is not computed yet.", command))
    else:
        shown.runs += list(dict.fromkeys(windows["run_id"]))
    scatter = pd.DataFrame()
    if _known_noise(view, shown):
        run_id, found = _scores(view, ("cg", "cg_partial"), shown)
        if len(found) == 2:
            both = data.score(view.at, run_id, "cg_partial").merge(data.score(view.at, run_id, "cg"), on="sample_id")
            both = both.merge(data.labels(view.at), on="sample_id")
            wrong = (both["true_label"] >= 0) & (both["true_label"] != both["label"])
            scatter = pd.DataFrame({"x": both["value_x"], "y": both["value_y"], "wrong": wrong})
    shown.figure = cg.window_figure(windows, scatter) if len(windows) or len(scatter) else None
    return shown


def _aum_2(view: View) -> Shown:
    shown = Shown()
    if not _known_noise(view, shown):
        return shown
    run_id, found = _scores(view, ("aum",), shown)
    groups = data.figure_table(view.at, "fetch_logit_groups", run_id) if found else pd.DataFrame()
    if len(groups):
        shown.figure = aum.logit_figure(groups, view.names)
    elif found:
        shown.missing.append(
            ("That run has kept no logits.", f"winnow run {view.at.dataset} --scores aum --logit-seeds 1")
        )
    return shown


def _aum_3(view: View) -> Shown:
    shown = Shown()
    run_id, found = _scores(view, ("aum",), shown)
    if found:
        rules = data.rules(view.at, run_id).set_index("rule")["thresholds"]
        thresholds = [float(t) for t in rules.get("aum_threshold", []) if t is not None]
        if not thresholds:
            shown.missing.append(
                (
                    "That run has trained no threshold samples.",
                    f"winnow run {view.at.dataset} --scores aum --threshold-rounds 2",
                )
            )
        shown.figure = aum.threshold_figure(data.histogram(view.at, run_id, "aum"), thresholds)
    return shown


def _aum_5(view: View) -> Shown:
    shown = Shown()
    options = "--points 20 --seeds 3"
    run_id, found = data.having(view.at, "score", ("aum",))
    rules = charts.rows(data.rules(view.at, run_id)) if found else iter(())
    flagged = next((float(rule.flagged / rule.judged) for rule in rules if rule.rule == "aum_threshold"), None)
    if flagged is not None:
        options = f"--around aum_threshold {options}"
        shown.runs.append(run_id)
    points = _curve(view.at.dataset, ("random", "aum*"), options, shown)
    shown.figure = aum.removal_figure(points, flagged) if len(points) and (points["order"] == "aum*").any() else None
    return shown


def _aum_6(view: View) -> Shown:
    shown = Shown()
    if not _known_noise(view, shown):
        return shown
    run_id, found = _scores(view, ("aum",), shown)
    pair = data.figure_table(view.at, "fetch_margin_pair", run_id) if found else pd.DataFrame()
    shown.figure = aum.margin_figure(pair) if len(pair) else None
    return shown


def _rop_3(view: View) -> Shown:
    shown = Shown()
    if not _known_noise(view, shown):
        return shown
    run_id, found = _scores(view, ("nli",), shown)
    bins = data.figure_table(view.at, "fetch_relabelling", run_id) if found else pd.DataFrame()
    shown.figure = rop.relabelling_figure(bins) if len(bins) else None
    return shown


FIGURES: dict[str, PaperFigure] = {
    "prune-1": PaperFigure(
        "PRUNE 1",
        "Accuracy while more and more of the clean training set is pruned; * prunes the hardest first.",
        _prune_1,
    ),
    "prune-2": PaperFigure(
        "PRUNE 2", "The same with label noise: the oracle prunes the mislabelled before all others.", _prune_2
    ),
    "prune-3": PaperFigure(
        "PRUNE 3",
        "Each sample's rank before and after labels were corrupted; the corrupted ones end up last.",
        _prune_3,
    ),
    "cg-2": PaperFigure(
        "CG 2",
        "Removing samples by each score, the low ones first or the high ones first; as many steps at every point.",
        _cg_2,
    ),
    "cg-3": PaperFigure(
        "CG 3", "How the complexity gap separates the mislabelled, and how many each score finds.", _cg_3
    ),
    "cg-4": PaperFigure(
        "CG 4", "Samples with a low complexity gap are learned first: ten groups, blue = lowest, red = highest.", _cg_4
    ),
    "cg-6": PaperFigure(
        "CG 6", "Training on half of the samples, from an offset in the ranks on; the sign of the partial gap.", _cg_6
    ),
    "aum-2": PaperFigure(
        "AUM 2",
        "The area between the logit of the given label (blue) and the largest other: mean of up to 50 samples.",
        _aum_2,
    ),
    "aum-3": PaperFigure(
        "AUM 3", "AUM of clean and mislabelled samples, and where the threshold samples put the line.", _aum_3
    ),
    "aum-5": PaperFigure("AUM 5", "Test error while samples are removed: the best is where the threshold is.", _aum_5),
    "aum-6": PaperFigure(
        "AUM 6",
        "A margin swings, its running mean separates: a hard clean sample and a typical mislabelled one.",
        _aum_6,
    ),
    "rop-3": PaperFigure(
        "ROP 3",
        "Labels the networks vote for are right where neighbours agree, by neighbouring-label inconsistency.",
        _rop_3,
    ),
}
