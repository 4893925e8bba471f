"""The methods: from what networks or neighbors say to probabilities of every class for every sample."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.relabel.registry import mean_of, relabel


@relabel(source="majority over seeds and epochs")
def vote(votes: Tensor) -> Tensor:
    """Majority of the predictions of a run's networks over seeds and epochs.

    p_ic = share of the predictions of sample i that are c
    """
    return votes


@relabel(source="k-nearest-neighbor vote", options=("neighbors",))
def neighbors(neighbor_ids: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Given labels of the nearest neighbors by a run's features.

    p_ic = share of the K nearest other samples whose given label is c
    """
    votes = torch.zeros(len(labels), classes)
    votes.scatter_add_(1, labels[neighbor_ids], torch.ones(neighbor_ids.shape))
    return votes / neighbor_ids.shape[1]


@relabel(name="sop+", source="Liu et al. 2022", learner="sop+")
def sop_plus(learned: Tensor, reached: Tensor) -> Tensor:
    """Networks that learn, beside the classes, how wrong each label is.

    p_i = mean over seeds of the probabilities of the networks that SOP+ trains
    """
    return mean_of(learned, reached)


@relabel(source="Li et al. 2020", learner="dividemix")
def dividemix(learned: Tensor, reached: Tensor) -> Tensor:
    """Two networks, each of which tells the other which labels to learn from.

    p_i = mean over seeds of the mean of both networks' probabilities
    """
    return mean_of(learned, reached)


@relabel(source="LSTM paper, section 4.3", learner="cross-entropy", options=("score", "share"))
def debug(learned: Tensor, reached: Tensor) -> Tensor:
    """Suspects of a score, predicted by a network that is trained without them.

    p_i = mean over seeds of the probabilities of the suspect i; nothing is proposed for the others. The batch is smaller in
    proportion to the samples that are left.
    """
    return mean_of(learned, reached)


@relabel(
    source="ROP",
    options=(
        "learner",
        "keep",
        "select",
        "beta",
        "nli_epochs",
        "neighbors",
        "no_feature_propagation",
        "no_label_propagation",
        "no_bias",
        "unbalanced",
    ),
)
def rop(learned: Tensor, reached: Tensor) -> Tensor:
    """Selection of the samples that agree with their neighbors, whose labels a learner corrects.

    p_i = mean of the probabilities by the networks of the largest share kept, over the seeds whose subset has sample i;
    nothing is proposed for what is left out
    """
    return mean_of(learned, reached)
