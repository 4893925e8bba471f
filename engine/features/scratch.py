"""Rows that a computation makes of the features of all samples: in memory, or on the disk where they are many."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

IN_MEMORY = 1 << 28
"""Bytes of rows up to which they are kept in memory."""

BLOCK_BYTES = 1 << 24
"""Rows that are made at a time."""


def fill_rows(
    count: int, width: int, rows: Callable[[slice], Tensor], folder: Path, device: torch.device | str = "cpu"
) -> Tensor:
    """(count, width) float32 rows, made block by block.

    On a processor more than IN_MEMORY bytes lie in a file of the folder that has no name: it is gone with the tensor, or
    with the process. The system keeps of it in memory what there is room for.

    Args:   rows: the rows of a range, (B, width)
    Raises: OSError where the disk is full
    """
    device = torch.device(device)
    size = 4 * count * width
    made = (
        _on_disk(count, width, folder)
        if device.type == "cpu" and size > IN_MEMORY
        else torch.empty(count, width, device=device)
    )
    step = max(1, BLOCK_BYTES // (4 * width))
    for start in range(0, count, step):
        block = slice(start, min(start + step, count))
        made[block] = rows(block)
    return made


def _on_disk(count: int, width: int, folder: Path) -> Tensor:
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(
            file.fileno(), 0, 4 * count * width
        )  # a full disk is an error here, and the end of the process later
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=(count, width)))
