"""Tensors as safetensors files, written atomically."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from engine.errors import StorageError
from engine.store.atomic import replacing
from engine.store.documents import require_regular


def save_tensors(path: Path, tensors: dict[str, np.ndarray[Any, Any]], meta: dict[str, Any]) -> None:
    """Write or replace a safetensors file atomically: temporary file, fsync, rename."""
    with replacing(path) as temp:
        save_file(tensors, temp, metadata={"meta": json.dumps(meta)})


def load_tensors(path: Path, prefix: str = "") -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]] | None:
    """The content of a file written by `save_tensors` as (tensors, meta), or None when there is none.

    With a prefix, only the tensors whose names begin with it are read.
    """
    if not os.path.lexists(path):
        return None
    require_regular(path)
    try:
        with safe_open(path, framework="numpy") as file:
            meta = json.loads((file.metadata() or {})["meta"])
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}, meta
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise StorageError(f"{path} is damaged; remove it and run again") from error
