"""Scores of how a picture looks, whatever its label: those of CleanVision 0.3.7, from what was measured at ingest.

CleanVision's scores are 1 where nothing is wrong and flag below a threshold; these are 1 minus its own, so that a larger
value is more of what the name says, and flag above 1 minus its default threshold: the same images.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from engine.data.properties import PROPERTIES
from engine.scores.registry import F, score

SOURCE = "CleanVision 0.3.7"

QUARTILE_SPANS = 3.0
"""Interquartile ranges beyond the quartiles from which a resolution is odd."""


def picture_score(flags_above: float) -> Callable[[F], F]:
    """The declaration that all of these share."""
    return score(
        higher_means="harder", evidence="picture", value_range=(0.0, 1.0), source=SOURCE, flags_above=flags_above
    )


@picture_score(flags_above=1 - 0.32)
def dark(image_properties: Tensor) -> Tensor:
    """Dark picture: even its brightest pixels are dark.

    s_i = 1 - 99th percentile of the brightness of its pixels

    Args:    image_properties (N, P), columns as `engine.data.properties.PROPERTIES`
    Returns: (N,) in [0, 1]; higher = harder (darker); > 0.68 flags the sample (rule `dark`)
    """
    return 1 - _column(image_properties, "brightness_p99")


@picture_score(flags_above=1 - 0.05)
def bright(image_properties: Tensor) -> Tensor:
    """Overexposed picture: even its darkest pixels are bright.

    s_i = 5th percentile of the brightness of its pixels

    Args:    image_properties (N, P)
    Returns: (N,) in [0, 1]; higher = harder (brighter); > 0.95 flags the sample (rule `bright`)
    """
    return _column(image_properties, "brightness_p05")


@picture_score(flags_above=1 - 0.29)
def blurred(image_properties: Tensor) -> Tensor:
    """Blurred picture: few edges, and no few colors that would explain it.

    s_i = 1 - min(1, a + b), a = 1 - exp(-sharpness / 100), b = 1 - exp(-histogram spread / 100) where above 0.18, else 0

    Args:    image_properties (N, P)
    Returns: (N,) in [0, 1]; higher = harder (more blurred); > 0.71 flags the sample (rule `blurred`)
    """
    sharp = 1 - torch.exp(-_column(image_properties, "sharpness") / 100)
    plain = 1 - torch.exp(-_column(image_properties, "histogram_spread") / 100)
    return 1 - (sharp + torch.where(plain > 0.18, plain, 0.0)).clamp_max(1.0)


@picture_score(flags_above=1 - 0.3)
def low_information(image_properties: Tensor) -> Tensor:
    """Picture of few colors: hardly anything is to be seen.

    s_i = 1 - min(1, entropy / 10), the entropy of its histogram in bits

    Args:    image_properties (N, P)
    Returns: (N,) in [0, 1]; higher = harder (less information); > 0.7 flags the sample (rule `low_information`)
    """
    return 1 - (_column(image_properties, "entropy") / 10).clamp_max(1.0)


@picture_score(flags_above=1 - 0.35)
def odd_shape(image_properties: Tensor) -> Tensor:
    """Picture of an odd shape: far longer than wide, or wider than long.

    s_i = 1 - shorter side / longer side

    Args:    image_properties (N, P)
    Returns: (N,) in [0, 1]; higher = harder (longer); > 0.65 flags the sample (rule `odd_shape`)
    """
    return 1 - _column(image_properties, "aspect_ratio")


@picture_score(flags_above=0.5)
def odd_size(image_properties: Tensor) -> Tensor:
    """Picture of an odd size: much larger or smaller than most of the set.

    s_i = min(1, |r_i - (l + h) / 2| / (h - l)), r = resolution, l and h = the quartiles of r less and plus 3 times their
    distance; where both quartiles are the same, 0 for that resolution and above 1/2 for any other

    Args:    image_properties (N, P)
    Returns: (N,) in [0, 1]; higher = harder (odder); > 0.5 (beyond l or h) flags the sample (rule `odd_size`)
    """
    resolution = _column(image_properties, "resolution")
    low, high = np.percentile(resolution.cpu().numpy(), [25, 75]).tolist()
    span = (1 + 2 * QUARTILE_SPANS) * (high - low)
    distance = (resolution - (low + high) / 2).abs()
    if span > 0:
        return (distance / span).clamp_max(1.0)
    odd: Tensor = 0.5 + 0.5 * (distance / low).clamp(1e-6, 1.0)
    return odd.where(distance > 0, torch.zeros_like(odd))


def _column(image_properties: Tensor, name: str) -> Tensor:
    column: Tensor = image_properties[:, list(PROPERTIES).index(name)]
    return column
