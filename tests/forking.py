"""Processes that are forked from one which has imported what commands import, also when they first need it: importing is
nearly all of the seconds that a command takes."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest


def forking() -> ForkServerContext:
    """The same for all tests of a process: there is one process to fork from, and what it imports is settled at its start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["no_session", "imported_ahead", "killed_work"])
    with pytest.MonkeyPatch.context() as patch:
        python_path = filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
        patch.setenv("PYTHONPATH", os.pathsep.join(python_path))
        forkserver.ensure_running()
    return context
