"""What a limit on this process leaves it. Libraries that get no addresses end the process, some without a word."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from engine.errors import WinnowError

NEEDED = 600 << 20
"""Bytes of addresses that an ingest takes on two threads, DuckDB's and its decoders' together."""


def check_addresses(needed: int = NEEDED) -> None:
    """Raise WinnowError where `ulimit -v` leaves this process less than it needs. Only Linux says what is in use."""
    if sys.platform != "linux":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    if limit - used < needed:
        raise WinnowError(
            f"the limit of this process (ulimit -v) leaves it {max(0, limit - used) >> 20} MB; an ingest needs "
            f"{needed >> 20} MB: raise the limit"
        )
