"""The samples of a split as the networks of a training see them: with the dataset's own inputs, or stored features."""

from __future__ import annotations

from typing import Literal

import torch

from engine.data.loader import Samples, load_split
from engine.features.stored import load_stored
from engine.store.workspace import Workspace


def load_seen(
    workspace: Workspace,
    dataset: str,
    split: Literal["train", "test"],
    trained_on: str = "",
    device: torch.device | str = "cpu",
) -> Samples:
    """One split with the inputs that networks are trained on.

    Args:   trained_on: key of stored features, whose rows (N, D) float32 are then the inputs, on the CPU mapped from their
            file; "" = the dataset's own
    Raises: NotFoundError when there is no such dataset or split, or the features are not stored; StorageError when they
            are damaged
    """
    if not trained_on:
        return load_split(workspace, dataset, split, device)
    return load_split(workspace, dataset, split, device, load_stored(workspace, dataset, trained_on, split))
