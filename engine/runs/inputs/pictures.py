"""What was measured of each image at ingest, kept in the dataset's metadata."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.data.dataset_file import has_table, reading
from engine.data.loader import Samples
from engine.errors import SpecError
from engine.runs.inputs.computed import At, Inputs, provides
from engine.spec import RunSpec
from engine.store.tables import PROPERTIES

_OTHERS = [name for name in PROPERTIES if name != "brightness"]


def check_images(spec: RunSpec, samples: Samples) -> None:
    """Raise SpecError for a dataset of vectors, of which nothing is measured."""
    if not samples.are_images:
        raise SpecError(
            f"dataset '{spec.dataset}' holds vectors; scores of how a picture looks need images: leave them out"
        )


@provides(cost="inputs", check=check_images, along={name: f"(N,) float64 {PROPERTIES[name]}" for name in _OTHERS})
def brightness(run: Inputs, at: At | None) -> tuple[Tensor, ...]:
    """(N,) float64 brightness of the mean color, 0 = black .. 1 = white."""
    out = np.full((len(PROPERTIES), len(run.own)), np.nan)
    with reading(run.workspace.require_dataset(run.spec.dataset)) as connection:
        for row, name in zip(out, ("brightness", *_OTHERS), strict=True) if has_table(connection, "metadata") else ():
            found = connection.execute(
                "SELECT sample_id, number FROM metadata JOIN samples USING (sample_id) WHERE split = 'train' AND name = ?",
                [name],
            ).fetchnumpy()
            row[np.asarray(found["sample_id"], np.int64)] = np.asarray(found["number"], np.float64)
    missing = int(np.isnan(out).any(0).sum())
    if missing:
        raise SpecError(
            f"nothing was measured of {missing:,} of {len(run.own):,} images of dataset '{run.spec.dataset}', which an "
            "earlier version ingested; ingest it again under another name, or leave out the scores of pictures"
        )
    return tuple(torch.from_numpy(out))
