"""What a limit on this process leaves it. Libraries that get no addresses end the process, some without a word."""

from __future__ import annotations

import sys

from engine.errors import WinnowError

NEEDED = 1100 << 20
"""Bytes of addresses of a process that ingests on two threads: half for its modules, half for DuckDB and decoders."""


def check_addresses() -> None:
    """Raise WinnowError where `ulimit -v` allows this process less than it needs."""
    if sys.platform == "win32":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < NEEDED:
        raise WinnowError(
            f"this process may take {limit >> 20:,} MB (ulimit -v); an ingest needs {NEEDED >> 20:,} MB: raise the limit"
        )
