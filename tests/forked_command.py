"""`winnow` in a process that is forked; what importing does is tested by the commands that are started as people do it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess

from forking import forking

from engine.cli.__main__ import main

PATIENCE_SECONDS = 300


def winnow(*words: object, workspace: Path | None = None, env: Mapping[str, str] = os.environ) -> CompletedProcess[str]:
    """What `subprocess.run` would give of the command."""
    command = ["winnow", *map(str, words), *([] if workspace is None else ["--workspace", str(workspace)])]
    with tempfile.TemporaryDirectory() as folder:
        process = forking().Process(target=_run, args=(command, folder, os.getcwd(), dict(env)))
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
