"""Scores of how a picture looks, whatever its label: those of CleanVision 0.3.7, from what was measured at ingest.

CleanVision's scores are 1 where nothing is wrong and flag below a threshold; these are 1 minus its own, so that a larger
value is more of what the name says, and flag above 1 minus its default threshold: the same images.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

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
def dark(brightness_p99: Tensor) -> Tensor:
    """Dark picture: even its brightest pixels are dark.

    s_i = 1 - 99th percentile of the brightness of its pixels

    Args:    brightness_p99 (N,) as `engine.data.properties` measures it, and so below
    Returns: (N,) in [0, 1]; higher = harder (darker); > 0.68 flags the sample (rule `dark`)
    """
    return 1 - brightness_p99


@picture_score(flags_above=1 - 0.05)
def bright(brightness_p05: Tensor) -> Tensor:
    """Overexposed picture: even its darkest pixels are bright.

    s_i = 5th percentile of the brightness of its pixels

    Args:    brightness_p05 (N,)
    Returns: (N,) in [0, 1]; higher = harder (brighter); > 0.95 flags the sample (rule `bright`)
    """
    return brightness_p05.clone()


@picture_score(flags_above=1 - 0.29)
def blurred(sharpness: Tensor, histogram_spread: Tensor) -> Tensor:
    """Blurred picture: few edges, and no few colors that would explain it.

    s_i = 1 - min(1, a + b), a = 1 - exp(-sharpness / 100), b = 1 - exp(-histogram spread / 100) where above 0.18, else 0

    Args:    sharpness, histogram_spread (N,)
    Returns: (N,) in [0, 1]; higher = harder (more blurred); > 0.71 flags the sample (rule `blurred`)
    """
    sharp = 1 - torch.exp(-sharpness / 100)
    plain = 1 - torch.exp(-histogram_spread / 100)
    return 1 - (sharp + torch.where(plain > 0.18, plain, 0.0)).clamp_max(1.0)


@picture_score(flags_above=1 - 0.3)
def low_information(histogram_entropy: Tensor) -> Tensor:
    """Picture of few colors: hardly anything is to be seen.

    s_i = 1 - min(1, entropy / 10), the entropy of its histogram in bits

    Args:    histogram_entropy (N,)
    Returns: (N,) in [0, 1]; higher = harder (less information); > 0.7 flags the sample (rule `low_information`)
    """
    return 1 - (histogram_entropy / 10).clamp_max(1.0)


@picture_score(flags_above=1 - 0.35)
def odd_shape(aspect_ratio: Tensor) -> Tensor:
    """Picture of an odd shape: far longer than wide, or wider than long.

    s_i = 1 - shorter side / longer side

    Args:    aspect_ratio (N,)
    Returns: (N,) in [0, 1]; higher = harder (longer); > 0.65 flags the sample (rule `odd_shape`)
    """
    return 1 - aspect_ratio


@picture_score(flags_above=0.5)
def odd_size(resolution: Tensor) -> Tensor:
    """Picture of an odd size: much larger or smaller than most of the set.

    s_i = min(1, |r_i - (l + h) / 2| / (h - l)), r = resolution, l and h = the quartiles of r less and plus 3 times their
    distance; where both quartiles are the same, 0 for that resolution and above 1/2 for any other

    Args:    resolution (N,)
    Returns: (N,) in [0, 1]; higher = harder (odder); > 0.5 (beyond l or h) flags the sample (rule `odd_size`)
    """
    low, high = np.percentile(resolution.cpu().numpy(), [25, 75]).tolist()
    span: float = (1 + 2 * QUARTILE_SPANS) * (high - low)
    distance = (resolution - (low + high) / 2).abs()
    if span > 0:
        share: Tensor = distance / span
        return share.clamp_max(1.0)
    odd: Tensor = 0.5 + 0.5 * (distance / low).clamp(1e-6, 1.0)
    return odd.where(distance > 0, torch.zeros_like(odd))
