"""What a run is computed on: the device, its free memory, and the versions recorded beside the results."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import SpecError
from engine.store.version import winnow_version


def describe_environment(device: Any) -> dict[str, Any]:
    """Versions, device and, in a checkout, the commit. device: a torch.device, or a name."""
    packages = ("torch", "duckdb", "numpy", "umap-learn")
    name = platform.processor() or platform.machine()
    if str(device).startswith("cuda"):
        name = torch.cuda.get_device_name()
    return {
        "winnow": winnow_version(),
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "system": platform.system(),
        "device": str(device),
        "device_name": name,
        "cpus": os.cpu_count(),
        **{package: version(package) for package in packages},
    }


def available_bytes(device: Any) -> int:
    """Memory that can still be allocated: of the GPU, or of this machine within the limits of its control group.

    Of a GPU's memory, what torch holds for later and nothing lies in counts as free.
    """
    if str(device).startswith("cuda"):
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for line in _read_lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            found.append(1024 * int(line.split()[1]))
    return min(found + [_left_of(Path(place), *names) for place, names in GROUPS.items()])


GROUPS = {
    "/sys/fs/cgroup": ("memory.max", "memory.current", ("active_file", "inactive_file")),
    "/sys/fs/cgroup/memory": (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_active_file", "total_inactive_file"),
    ),
}
"""Control groups, of both versions: where they are, their limit, what is used of it, and what of that is cached of files."""


def _left_of(group: Path, limit: str, used: str, cached: Sequence[str]) -> int:
    """What a control group leaves to allocate; what is kept of files for later counts as free."""
    most, now = (_read_lines(group / name) for name in (limit, used))
    if not (most and now and most[0].isdigit()):
        return sys.maxsize
    stat = dict(line.split() for line in _read_lines(group / "memory.stat"))
    return int(most[0]) - int(now[0]) + sum(int(stat.get(name, 0)) for name in cached)


def send(values: Tensor, device: torch.device) -> Tensor:
    """Values drawn on the processor, on a device; where that is a GPU, this process does not wait for it."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _read_lines(path: Path) -> list[str]:
    """The lines of a file of the system, none where it does not exist."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _git_commit() -> str | None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def pick_device(name: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`; SpecError when there is no CUDA device."""
    if name not in ("auto", "cpu", "cuda"):
        raise SpecError(f"--device is '{name}'; allowed: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise SpecError("--device is 'cuda', but torch finds no CUDA device; use --device auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
