"""Complexity gap (Ki, Choi & Chung 2023): how much simpler the training set gets without a sample. No training.

What the scores read, H^-1 y and the diagonal of H^-1, is solved for in `engine.scores.gap`.
"""

from __future__ import annotations

import math

from torch import Tensor

from engine.scores.registry import score

SOURCE = "Ki et al. 2023"


@score(higher_means="harder", evidence="label", version=2, value_range=(0.0, math.inf), source=f"{SOURCE}, eq. 2 and 6")
def cg(alpha: Tensor, inverse_diagonal: Tensor) -> Tensor:
    """Complexity gap: how much the complexity y'H^-1 y of the set falls when the sample is left out.

    s_i = alpha_i^2 / d_i, with alpha = H^-1 y and d = diag(H^-1)

    Args:    alpha, inverse_diagonal (R, N) as `solve_gap` gives them, R > 1 for the stochastic form
    Returns: (N,), >= 0; higher = harder
    Departs from the paper: exact over the whole set from one factor, all classes at once; an exact copy is
    scored as if its row were in the set once, with its own label.
    """
    return (alpha.square() / inverse_diagonal).mean(0)


@score(higher_means="harder", evidence="label", version=2, source=f"{SOURCE}, eq. 6, second term", flags_above=0.0)
def cg_partial(alpha: Tensor, inverse_diagonal: Tensor) -> Tensor:
    """Partial complexity gap: positive where a label contradicts its neighborhood.

    s_i = 2 (y_i alpha_i - d_i); y_i = 1, because each sample is scored against its own class

    Args:    alpha, inverse_diagonal (R, N) as `solve_gap` gives them
    Returns: (N,), unbounded; higher = harder; > 0 flags the sample (rule `cg_partial`)
    """
    return 2 * (alpha - inverse_diagonal).mean(0)


@score(
    higher_means="harder",
    evidence="hardness",
    version=2,
    value_range=(0.0, math.inf),
    source=f"{SOURCE}, eq. 6, first term",
)
def cg_fit(alpha: Tensor, inverse_diagonal: Tensor) -> Tensor:
    """First term of the complexity gap: how strongly the other samples speak about this one, for or against.

    s_i = (alpha_i - y_i d_i)^2 / d_i; the terms add up: cg = cg_fit + cg_partial + d

    Args:    alpha, inverse_diagonal (R, N) as `solve_gap` gives them
    Returns: (N,), >= 0; higher = harder
    """
    return ((alpha - inverse_diagonal).square() / inverse_diagonal).mean(0)


@score(higher_means="easier", evidence="label", version=2, source=f"{SOURCE}, CG'")
def cg_forward(kernel_labels: Tensor) -> Tensor:
    """Gap of y'Hy instead of y'H^-1 y: how much more alike a sample is to its own class than to the others.

    s_i = 2 y_i (H y)_i - 1/2

    Args:    kernel_labels (R, N) = H y of the sample's own class, as `solve_gap` gives it
    Returns: (N,), unbounded; higher = easier
    """
    return 2 * kernel_labels.mean(0) - 0.5


@score(
    higher_means="harder",
    evidence="label",
    version=2,
    value_range=(0.0, math.inf),
    source=f"{SOURCE}, appendix H",
    epoch=10,
)
def cg_feature(feature_alpha: Tensor, feature_inverse_diagonal: Tensor) -> Tensor:
    """Complexity gap of the penultimate features, early in training.

    s_i = alpha_i^2 / d_i on the kernel of the features of one network after epoch 10

    Args:    feature_alpha, feature_inverse_diagonal (R, N) as `solve_gap` gives them for features
    Returns: (N,), >= 0; higher = harder
    Departs from the paper: the last epoch where fewer than 10 were trained.
    """
    return cg(feature_alpha, feature_inverse_diagonal)
