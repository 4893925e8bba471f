"""How many bytes a workspace takes, by what they are. Links are not followed, and what vanishes meanwhile counts nothing."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.store.workspace import Workspace

KINDS = ("datasets", "results", "weights", "features", "checkpoints", "other")
"""What the bytes of a workspace are. results: also decisions, records and journals; weights: of the networks of runs;
features: of images, and of networks of runs; checkpoints: what a run needs only while it is computed."""

_WHILE_COMPUTED = ("partial", ".publishing")


@dataclass(frozen=True)
class Usage:
    """The bytes of a workspace. kinds: by what they are, in the order of KINDS; datasets, runs: by name and by id."""

    kinds: Mapping[str, int]
    datasets: Mapping[str, int]
    runs: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.kinds.values())


def measure(workspace: Workspace) -> Usage:
    """What a workspace takes on the disk. A file with several names, as networks that runs share, counts once."""
    kinds, datasets, runs = Counter[str](), Counter[str](), Counter[str]()
    for parts, size in _files(workspace.root):
        kinds[_kind(parts)] += size
        if parts[0] == "runs" and len(parts) > 2:
            runs[parts[1]] += size
        elif parts[0] == "datasets" and len(parts) == 2 and parts[1].endswith(".duckdb"):
            datasets[parts[1].removesuffix(".duckdb")] += size
    return Usage({kind: kinds[kind] for kind in KINDS}, dict(datasets), dict(runs))


def bytes_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0
    if stat.S_ISDIR(found.st_mode):
        return sum(size for _, size in _files(path))
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def size(count: int) -> str:
    """Bytes as they are shown: 812 B, 3.4 kB, 56 MB, 1.2 GB."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.1f} {units[0]}" if value < 9.95 and units[0] != "B" else f"{value:.0f} {units[0]}"


def _kind(parts: tuple[str, ...]) -> str:
    first, name = parts[0], parts[-1]
    if first == "datasets" and not name.startswith("."):
        return "datasets"
    if first == "features":
        return "checkpoints" if parts[1].startswith(".") else "features"
    if first == "runs" and len(parts) > 2:
        if parts[2] in _WHILE_COMPUTED or parts[1].startswith("."):
            return "checkpoints"
        if name.endswith(".safetensors"):
            return "features" if name == "features.safetensors" else "weights"
        return "results"
    return "results" if len(parts) == 1 and name.startswith("decisions.duckdb") else "other"


def _files(root: Path) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every regular file below a folder: its path in it, in parts, and its bytes, 0 for a further name of one file."""
    seen, folders = set[tuple[int, int]](), [(str(root), tuple[str, ...]())]
    while folders:
        folder, parts = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError:  # gone since it was listed, or not ours to read
            continue
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(found.st_mode):
                folders.append((entry.path, (*parts, entry.name)))
            elif stat.S_ISREG(found.st_mode):
                again = found.st_nlink > 1 and (found.st_dev, found.st_ino) in seen
                if found.st_nlink > 1:
                    seen.add((found.st_dev, found.st_ino))
                yield (*parts, entry.name), 0 if again else found.st_size
