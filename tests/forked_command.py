"""`winnow` in a process of its own that is forked from one in which everything is imported.

Importing is nearly all of the seconds that a command takes. It is the same for each, and tested by those that are started
as people start them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import engine.cli.commands  # noqa: F401
import engine.data.ingest  # noqa: F401
import engine.runs.compute  # noqa: F401
import engine.runs.options  # noqa: F401
from engine.cli.__main__ import main

PATIENCE_SECONDS = 300


def winnow(*words: object, workspace: Path | None = None, env: Mapping[str, str] = os.environ) -> CompletedProcess[str]:
    """What `subprocess.run` would give of the command."""
    command = ["winnow", *map(str, words), *([] if workspace is None else ["--workspace", str(workspace)])]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        python_path = filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
        patch.setenv("PYTHONPATH", os.pathsep.join(python_path))  # for the process to fork from, which this may start
        process = context.Process(target=_run, args=(command, folder, os.getcwd(), dict(env)))
        process.start()
        process.join(PATIENCE_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise AssertionError(f"{command} does not end")
        out, err = ((Path(folder) / name).read_text() for name in ("out", "err"))
        return CompletedProcess(command, process.exitcode, out, err)


def _run(command: list[str], output: str, folder: str, environment: dict[str, str]) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(output) / name, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = command
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    main()
