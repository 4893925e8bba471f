"""Calls of packages whose functions numba compiles."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def calling_numba() -> Iterator[None]:
    """Ignore what numba and its dependencies warn about themselves, and keep torch's number of threads.

    The first parallel function of a process sets it to all processors, in the OpenMP library that numba and torch share.
    """
    threads = torch.get_num_threads()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
