"""Rows that a computation makes of the features of all samples: in memory, or on the disk where they are many."""

from __future__ import annotations

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

    Args:   rows: the rows of a range, (B, width) float32
    Raises: OSError where the disk is full
    """
    step = max(1, BLOCK_BYTES // (4 * width))
    blocks = (slice(start, min(start + step, count)) for start in range(0, count, step))
    if torch.device(device).type != "cpu" or 4 * count * width <= IN_MEMORY:
        made = torch.empty(count, width, device=device)
        for block in blocks:
            made[block] = rows(block)
        return made
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        for block in blocks:  # written, and not through a map, which ends the process on a full disk
            file.write(rows(block).numpy().tobytes())
        file.flush()
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=(count, width)))
