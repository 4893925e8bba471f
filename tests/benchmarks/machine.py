"""The line that every benchmark prints first: what it ran on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch


def machine_lines(*packages: str, device: torch.device | None = None) -> list[str]:
    """The processor (and the GPU), cores, threads, load and the versions of winnow, torch and the peer."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    if device is not None and device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}; {name}"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = ", ".join(f"{package} {version(package)}" for package in ("winnow-images", "torch", *packages))
    return [
        f"machine: {name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads{load}",
        f"versions: Python {platform.python_version()}, {versions}",
    ]


def print_machine(*packages: str, device: torch.device | None = None) -> None:
    """Print `machine_lines`."""
    print("\n".join(machine_lines(*packages, device=device)))
