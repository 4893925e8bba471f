"""A backbone's features of a dataset's originals: streamed in blocks that outlive a killed process, known rows copied."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from engine.data.decoding import pillow_warnings
from engine.data.originals import NOTHING, Known, Originals, Seen
from engine.errors import SourceError, StorageError
from engine.features.backbones import Backbone
from engine.features.embedding import Embedding, embed, faster_precision, ready
from engine.store.documents import read_json
from engine.store.progress import Reporter
from engine.store.tensors import load_tensors, save_tensors
from engine.store.verified import checked_file
from engine.store.workspace import Workspace

BLOCK_BYTES = 1 << 24
BLOCK_SAMPLES = (16, 256)
"""Pixels that are read, computed and written at a time, and how few and how many samples that may be."""

TIMED = 512
"""Images from which it pays to time a step in each precision."""

EXAMPLES = 3

Rows = np.ndarray[Any, np.dtype[np.float32]]
Index = np.ndarray[Any, np.dtype[np.uint8]]


class Tasks(Protocol):
    """Where blocks are computed: in this process, or on a cluster. `engine.runs.cluster.Tasks` is one."""

    def share(self, value: Any) -> Any: ...

    def together(self, work: Sequence[Callable[[], Any]], workers: int, progress: Any, threads: int | None) -> Any: ...

    def call(self, task: Any, shared: Any, item: Any, report: Callable[[float], None]) -> Any: ...


@dataclass
class Recognized:
    """Rows of other stored features of the same backbone, found by content.

    contents: of this dataset's samples by id; precision: of the first set that has some of them, which decides for the
    others, so that rows fit together; None where no set has any. An image is the same when its stored input is, and its
    original's bytes, or its file's path, size and time.
    """

    sets: Sequence[Path]
    contents: Sequence[bytes]
    precision: str | None = field(init=False)
    _rows: list[Rows] = field(init=False)
    _known: dict[bytes, Known] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted, self._rows, self.precision = set(self.contents), [], None
        for i, folder in enumerate(self.sets):
            try:
                features, found, about = (checked_file(folder, f) for f in ("features.npy", "index.npy", "about.json"))
                self._rows.append(np.load(features, mmap_mode="r", allow_pickle=False))
                index, precision = np.load(found, allow_pickle=False), str(read_json(about)["precision"])
                if index.shape != (len(self._rows[-1]), 3, 16) or self._rows[-1].ndim != 2:
                    raise ValueError(f"index of shape {index.shape} for features of {self._rows[-1].shape}")
            except (OSError, ValueError, EOFError, KeyError, TypeError, StorageError) as error:
                raise StorageError(f"{folder} is damaged ({error}); remove it and run again") from error
            for row, (content, origin, file) in enumerate(index):
                if (own := content.tobytes()) in wanted:
                    self.precision = self.precision or precision
                    known = Known(origin.tobytes(), (i, row))
                    for stands_for in (known.origin, file.tobytes()):
                        if stands_for != NOTHING:
                            self._known.setdefault(own + stands_for, known)

    def find(self, sample: int, stands_for: bytes) -> Known | None:
        return self._known.get(self.contents[sample] + stands_for)

    def row(self, known: Known) -> Rows:
        which, row = known.row
        return np.asarray(self._rows[which][row])


def compute_rows(
    workspace: Workspace,
    dataset: str,
    backbone: Backbone,
    contents: Sequence[bytes],
    device: torch.device,
    pieces: Path,
    progress: Reporter,
    tasks: Tasks,
    ids: Sequence[int],
) -> dict[str, Any]:
    """Compute what is missing of the features of some samples, in pieces; `join_pieces` puts them together.

    Args:    contents: of the dataset's samples by id; ids: of those that are meant, ascending; pieces: a folder for what
             is done, which outlives this process; tasks: where blocks are computed; originals are always read here
    Returns: the facts for about.json
    Raises:  SpecError for a dataset of vectors; Cancelled; SourceError for features that are not finite
    """
    known = Recognized(workspace.feature_sets(backbone.key), contents)
    originals = Originals(workspace, dataset, backbone.side, known.find)
    blocks = _blocks(ids, backbone.side)
    missing = [block for block in blocks if not _piece(pieces, block).exists()]
    embedding = _made_ready(backbone, device, known.precision, len(ids), pieces)
    shared, done = tasks.share(embedding), _Count(progress, len(ids))
    done.add(len(ids) - sum(len(block) for block in missing))

    def work(block: Sequence[int]) -> None:
        seen = originals.read(block, progress.heartbeat)
        fresh = [s.pixels for s in seen if s.pixels is not None]
        rows = np.empty((0, 0), np.float32)
        if fresh:
            pixels = torch.from_numpy(np.stack(fresh))
            rows = tasks.call(embed, shared, pixels, partial(done.within, len(block))).numpy()
        _write_piece(_piece(pieces, block), block, seen, rows, known, contents)
        done.add(len(block))

    # Blocks side by side, each with one thread: many threads in one step wait for each other, the more so on a busy machine.
    workers = torch.get_num_threads() if device.type == "cpu" else os.cpu_count() or 1
    with pillow_warnings():
        tasks.together([partial(work, block) for block in missing], workers, progress, 1)
    return {"precision": embedding.precision, "side": backbone.side, "weights": backbone.weights}


def _blocks(ids: Sequence[int], side: int) -> list[Sequence[int]]:
    """The samples in blocks, the same in each process that goes on with them."""
    few, many = BLOCK_SAMPLES
    step = max(few, min(many, BLOCK_BYTES // (3 * side**2)))
    return [ids[first : first + step] for first in range(0, len(ids), step)]


class _Count:
    """Samples done, of work that is done here and there at once."""

    def __init__(self, progress: Reporter, total: int) -> None:
        self._progress, self._total, self._done, self._lock = progress, total, 0, threading.Lock()

    def add(self, more: int) -> None:
        with self._lock:
            self._done += more
        self.within(0, 0.0)

    def within(self, more: int, share: float) -> None:
        """A block of `more` samples has come this far."""
        done = self._done + more * share
        self._progress.step(done, self._total, f"{int(done):,} of {self._total:,} images")


def _made_ready(backbone: Backbone, device: torch.device, precision: str | None, count: int, pieces: Path) -> Embedding:
    """The backbone on its device. Its precision is that of what is there already, else the quicker one."""
    embedding, chosen = ready(backbone, device), pieces / "precision"
    if precision is None and chosen.exists():
        precision = chosen.read_text()
    if precision is None:
        precision = faster_precision(embedding, backbone.side) if count >= TIMED else embedding.precision
    chosen.write_text(precision)
    return replace(embedding, precision=precision)


def _piece(pieces: Path, block: Sequence[int]) -> Path:
    return pieces / f"block-{block[0]:09d}.safetensors"


def _write_piece(
    path: Path, block: Sequence[int], seen: Sequence[Seen], fresh: Rows, known: Recognized, contents: Sequence[bytes]
) -> None:
    """Keep the features and the index of a block. fresh: the features of those that had to be computed, in order."""
    computed = iter(fresh)
    features = np.stack([next(computed) if s.known is None else known.row(s.known) for s in seen])
    if not np.isfinite(features).all():
        raise SourceError(
            "the backbone gives features that are not finite numbers: its weights are damaged, or of another network"
        )
    index = b"".join(contents[i] + s.origin + s.file for i, s in zip(block, seen, strict=True))
    save_tensors(
        path,
        {"features": features, "index": np.frombuffer(index, np.uint8).reshape(-1, 3, 16)},
        {
            "computed": len(fresh),
            "stand_ins": [i for i, s in zip(block, seen, strict=True) if s.stands_in and not s.outside],
            "outside": [i for i, s in zip(block, seen, strict=True) if s.outside],
        },
    )


def join_pieces(pieces: Path, target: Path, side: int, places: Sequence[str], ids: Sequence[int]) -> dict[str, Any]:
    """Put the blocks together: features.npy and index.npy in the target folder, rows as ids. Returns what is known of
    them. places: where all samples of the dataset come from."""
    count, at, width, computed, stand_ins, outside = len(ids), 0, 0, 0, list[int](), list[int]()
    index = np.empty((count, 3, 16), np.uint8)
    with open(target / "features.npy", "wb") as file:  # in order: a memory map would end the process on a full disk
        for block in _blocks(ids, side):
            found = load_tensors(_piece(pieces, block))
            assert found is not None
            rows, meta = found
            if not width:
                width = rows["features"].shape[1]
                header = {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(rows["features"].tobytes())
            index[at : at + len(block)] = rows["index"]
            at += len(block)
            computed += meta["computed"]
            stand_ins += meta["stand_ins"]
            outside += meta.get("outside", [])
    np.save(target / "index.npy", index)
    return {
        "width": width,
        "computed": computed,
        "copied": count - computed,
        "stand_ins": len(stand_ins),
        "examples": [places[i] for i in stand_ins[:EXAMPLES]],
        "outside": len(outside),
        "outside_examples": [places[i] for i in outside[:EXAMPLES]],
    }
