"""Features of a few samples, to try what a backbone is worth before all are computed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from engine.data.decoding import pillow_warnings
from engine.data.originals import Originals
from engine.features.backbones import find_backbone
from engine.features.computing import Tasks
from engine.features.embedding import Embedding, embed
from engine.features.stored import compute_stored, is_stored, key_of, load_stored
from engine.store.progress import Reporter
from engine.store.workspace import Workspace

WHOLE = 5_000
"""Up to so many samples of a dataset the features of all are computed and kept: a run is likely to want them."""

PART = 512
"""Images that are read before they are computed."""


def features_at(
    workspace: Workspace,
    dataset: str,
    source: str,
    positions: Tensor,
    device: torch.device,
    progress: Reporter,
    tasks: Tasks,
) -> Tensor:
    """The features of some training samples.

    Args:   source: a backbone, as --features names it; positions (M,) int64 in the training split
    Returns: (M, D) float32 on the CPU, in the order of the positions
    Raises: as `engine.features.stored.compute_stored`
    """
    key = key_of(workspace, dataset, source)
    backbone = find_backbone(source)
    originals = Originals(workspace, dataset, backbone.side)
    if len(originals) <= WHOLE:
        compute_stored(workspace, dataset, source, device, progress, tasks)
    if is_stored(workspace, dataset, key):
        return load_stored(workspace, dataset, key, "train")[positions]
    mean, std = (torch.tensor(list(values)).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    embedding = Embedding(backbone.load().to(device), mean, std, device)
    order = torch.argsort(positions)
    parts = torch.split(positions[order], PART)
    found = []
    with pillow_warnings():
        for i, part in enumerate(parts):
            within = _share(progress, i, len(parts))
            ids = part.tolist()
            seen = originals.read(ids[0], ids[-1] + 1, progress.heartbeat, set(ids))
            pixels = torch.from_numpy(np.stack([one.pixels for one in seen if one.pixels is not None]))
            found.append(embed(embedding, pixels, within))
    rows = torch.empty(len(positions), found[0].shape[1])
    rows[order] = torch.cat(found)
    return rows


def _share(progress: Reporter, part: int, parts: int) -> Callable[[float], None]:
    return lambda share: progress.step(part + share, parts)
