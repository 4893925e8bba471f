"""The verdict of a run: which labels are suspected, how many, and how much of that to believe. No truth is read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.data.loader import load_split
from engine.features.approximate import search_all
from engine.features.scratch import fill_rows
from engine.runs.inputs import Inputs
from engine.runs.results import Results
from engine.scores.registry import Score
from engine.scores.rules import tellable_accuracy
from engine.scores.verdict import (
    Noise,
    along_ranking,
    fit_noise,
    mean_rank,
    noise_of_joint,
    probability_wrong,
    rescale,
    with_neighbors,
)

WITH_AUM = "mean rank of aum and held-out predictions"
WITH_NEIGHBORS = "held-out predictions and neighbors"
HELD_OUT = "held-out predictions"

NEIGHBORS = 15
"""Of each sample among all that are judged, on stored features."""

WIDEST = 0.4
"""Of the interval of the estimate: where it is wider, the predictions do not tell noise from their own errors."""


def judges(scores: Sequence[Score]) -> bool:
    """Whether a run of these scores has held-out predictions to judge the labels by."""
    return any("heldout_probs" in found.all_inputs for found in scores)


def write_verdict(inputs: Inputs, results: Results, scores: Sequence[Score]) -> None:
    """Judge every label by the run's held-out predictions, and write the verdict, the shortlist and suggestions.

    The share of wrong labels is that of plain cross-validation. The ranking reads more: on stored features networks that
    were not trained on suspects, and the neighbors; for networks of images the aum of the training samples.
    """
    place = inputs.place_of(next(found for found in scores if "heldout_probs" in found.all_inputs))
    names = ("heldout_probs", "test_heldout_probs", "refined_probs")
    own, tested, refined = (inputs.get(name, place) for name in names)
    probs, labels = torch.cat([own, tested]), _labels(inputs, len(tested))
    accuracy = float((probs.argmax(1) == labels).double().mean())
    chance = float(torch.bincount(labels).max()) / len(labels)
    noise = fit_noise(probs, labels)
    reason, advice = _weakness(inputs, accuracy, chance, noise)
    tells, score, aum = not reason, HELD_OUT, None
    if inputs.spec.training and inputs.spec.training.trained_on and len(labels) > NEIGHBORS:
        refined, score = _with_neighbors(inputs, refined, labels), WITH_NEIGHBORS
    elif inputs.spec.training and "aum" in results.values:
        aum, score = results.values["aum"], WITH_AUM
    suspicion, p_wrong = rank_suspects(refined, labels, rescale(noise, refined, labels), aum)
    listed = round(noise.share * len(labels)) if tells else 0
    if tells:
        reason, advice = _strength(p_wrong.sort(descending=True).values[:listed], noise)
    results.write_shortlist(suspicion, p_wrong, listed)
    results.write_suggestions("heldout_prediction", *suggest(refined, labels))
    results.write_row(
        "verdict",
        accuracy=accuracy,
        chance=chance,
        noise=noise.share if tells else None,
        noise_low=noise.low if tells else None,
        noise_high=noise.high if tells else None,
        noise_joint=noise_of_joint(probs, labels, noise) if tells else None,
        noise_mixture=noise.share if tells else None,
        score=score,
        judged=len(labels),
        listed=listed,
        reason=reason,
        advice=advice,
    )


def _labels(inputs: Inputs, tested: int) -> Tensor:
    """The labels of all samples that were judged: the training samples, and the test samples where they were too."""
    parts = [inputs.own.labels.cpu()]
    if tested:
        found = inputs.test or load_split(inputs.workspace, inputs.spec.dataset, "test")
        parts.append(found.labels.cpu())
    return torch.cat(parts)


def _with_neighbors(inputs: Inputs, probs: Tensor, labels: Tensor) -> Tensor:
    """The predictions, and the vote of the nearest of all samples by cosine of the standardized features."""
    samples, scale = inputs.judged(), inputs.normalization

    def standardized(part: slice) -> Tensor:
        return functional.normalize((samples.inputs_at(part) - scale.mean) / scale.std, dim=1)

    unit = fill_rows(len(samples), samples.shape[0], standardized, inputs.partial, inputs.device)
    ids, similarities, note = search_all(unit, NEIGHBORS, lambda done, total: inputs.progress.heartbeat())
    inputs.notes += [f"{note}, for the verdict"] if note else []
    return with_neighbors(probs, ids.cpu(), similarities.cpu(), labels)


def rank_suspects(probs: Tensor, labels: Tensor, noise: Noise, aum: Tensor | None) -> tuple[Tensor, Tensor]:
    """The ranking of all judged samples, and its probabilities.

    Where there is an aum, the training samples are ranked by the mean of their ranks by it and by their p_wrong, and take
    the probabilities along that ranking; test samples keep their own. Samples of equal probability are ranked by it too.

    Args:    probs (N + M, C), labels (N + M,), the training samples in front; noise: on the scale of probs; aum (N,) or
             None
    Returns: suspicion (N + M,) float64, higher = more suspicious, and p_wrong (N + M,) float32, which never falls as it
             rises
    """
    p_wrong = probability_wrong(probs, labels, noise)
    finer = mean_rank(1 - probs.gather(1, labels[:, None])[:, 0])
    if aum is not None and noise.share > 0:
        n = len(aum)
        ranked = mean_rank(p_wrong[:n], -aum)
        p_wrong[:n], finer[:n] = along_ranking(p_wrong[:n], ranked), ranked
    order = torch.from_numpy(np.lexsort((finer.numpy(), p_wrong.numpy())))
    suspicion = torch.empty(len(order), dtype=torch.float64)
    suspicion[order] = torch.arange(len(order), dtype=torch.float64)
    return suspicion, p_wrong


def suggest(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The samples whose most probable class is not their label: positions, that class, and its probability."""
    confidence, winner = probs.max(1)
    at = (winner != labels).nonzero()[:, 0]
    return at, winner[at], confidence[at]


def _weakness(inputs: Inputs, accuracy: float, chance: float, noise: Noise) -> tuple[str, str]:
    """Why the predictions cannot tell, and what to change; nothing where they can."""
    needed = tellable_accuracy(chance)
    if accuracy >= needed and noise.high - noise.low <= WIDEST:
        return "", ""
    if accuracy < needed:
        reason = (
            f"Held-out predictions agree with {100 * accuracy:.0f} % of the given labels, and the largest class alone with "
            f"{100 * chance:.0f} %: below {100 * needed:.0f} % a network does not tell wrong labels from its own errors."
        )
    else:
        reason = (
            f"The share of wrong labels may be anything from {100 * noise.low:.0f} % to {100 * noise.high:.0f} %: the "
            "predictions do not tell noise from their own errors."
        )
    return reason, _advice(inputs)


def _advice(inputs: Inputs) -> str:
    spec, few = inputs.spec, len(inputs.own) < 20 * inputs.own.classes
    if few:
        return (
            f"Add images: {len(inputs.own):,} of {inputs.own.classes:,} classes are too few to learn the classes from, or "
            "join classes that are alike."
        )
    if spec.probs:
        return (
            "Give probabilities of a stronger model, held out: for each sample of a model that was not trained on it."
        )
    if spec.features:
        return (
            "Give features of a network that knows such images: --features torchvision:NAME, or a file of features of your "
            "own; or train on the images: --features none --model resnet18."
        )
    return "Use features of a pretrained network (--features efficientnet_lite0), or a larger model (--model resnet18)."


def _strength(listed: Tensor, noise: Noise) -> tuple[str, str]:
    if not len(listed):
        return (
            "The held-out predictions give no sign of wrong labels: where they differ from a label, their own errors explain it.",
            "Look at the most suspicious samples all the same: a few wrong labels can hide among the hardest.",
        )
    expected = float(listed.double().mean())
    reason = f"By their probabilities {100 * expected:.0f} % of the samples on the shortlist have a wrong label."
    if noise.low <= 0:
        return f"The share may also be zero. {reason}", "Decide each sample of the shortlist by eye."
    if expected < 0.5:
        return reason, "Most of the shortlist may be right: decide each sample by eye, and relabel nothing in bulk."
    return reason, "Review the shortlist from the top; below its end wrong labels become rare."
