"""What a run was computed with, recorded beside its results."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def winnow_version() -> str:
    """The installed version of winnow, or "unknown" when it runs from a checkout that is not installed."""
    try:
        return version("winnow")
    except PackageNotFoundError:
        return "unknown"


def describe_environment(device: Any) -> dict[str, Any]:
    """Versions, device and, in a checkout, the commit. device: a torch.device, or a name."""
    packages = ("torch", "duckdb", "numpy", "umap-learn")
    name = platform.processor() or platform.machine()
    if str(device).startswith("cuda"):
        import torch

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


def _git_commit() -> str | None:
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
