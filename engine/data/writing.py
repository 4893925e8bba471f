"""What making a dataset and adding to one have in common: decoding a part into its file, and reporting how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from engine.data.dataset_file import DatasetWriter
from engine.data.decoding import Decoded, Form, decode_in_order
from engine.data.parts import Labels, Part

Report = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


def write_part(
    writer: DatasetWriter,
    part: Part,
    form: Form,
    skip_bad: bool,
    skipped: list[tuple[str, str]],
    progress: Callable[[int], None],
    passes: Callable[[Decoded], np.ndarray[tuple[int], np.dtype[np.bool_]]] | None = None,
) -> Labels:
    """Decode a part and append it under the next ids.

    Args:    skipped: takes the bad samples, as (place, reason); progress: called with the number of samples done;
             passes: which of some decoded samples are taken, None = all
    Returns: the positions (n,) int64 in the part that were written
    Raises:  BadSampleError at the first bad sample unless skip_bad
    """
    kept = []
    for block in decode_in_order(part, form, skip_bad, progress):
        skipped.extend(block.bad)
        inputs, thumbnails, positions, properties = block.inputs, block.thumbnails, block.positions, block.properties
        if passes is not None:
            chosen = passes(block)
            thumbnails = [one for one, taken in zip(thumbnails, chosen, strict=True) if taken]
            inputs, positions = inputs[chosen], positions[chosen]
            properties = None if properties is None else properties[chosen]
        writer.append(inputs, thumbnails, properties)
        kept.append(positions)
    return np.concatenate(kept) if kept else np.empty(0, np.int64)


def together(parts: Sequence[Mapping[str, Sequence[str | None]]], sizes: Sequence[int]) -> dict[str, list[str | None]]:
    """The metadata of several parts of those sizes, one after the other; None where a part has none of a name."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {n: [v for p, size in zip(parts, sizes, strict=True) for v in p.get(n, [None] * size)] for n in names}


def wrong_rate(labels: Labels, true_labels: Labels) -> float | None:
    """The share of labels (N,) that are wrong; None when a true one (N,) is unknown, which is -1."""
    return None if (true_labels < 0).any() else float((labels != true_labels).mean())


def throttled(report: Report | None) -> Report:
    """A report that calls on at most ten times a second, and always at the end of a stage."""
    last = [-1.0]

    def call(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if report is not None and (done >= total or now - last[0] >= 0.1):
            last[0] = now
            report(stage, done, total)

    return call
