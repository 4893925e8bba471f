"""Scores of how unlike the others a sample is, whatever its label."""

from __future__ import annotations

from torch import Tensor

from engine.scores.registry import score


@score(
    higher_means="harder",
    evidence="outlier",
    value_range=(0.0, 2.0),
    source="Kuan & Mueller 2022 (KNN distance, as in cleanlab)",
)
def outlier(similarities: Tensor) -> Tensor:
    """Outlier, off-topic: mean cosine distance of the features to those of the nearest other samples.

    s_i = 1 - 1/K sum_k cos(f_i, f_k)

    Args:    similarities (N, K) of the K nearest
    Returns: (N,) in [0, 2]; higher = harder (nothing else is like it)
    Departs from the source: K of the run (15), where cleanlab takes 10 and gives exp(-distance / mean distance).
    """
    return (1 - similarities.mean(1)).clamp_(0.0, 2.0)
