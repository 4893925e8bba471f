"""`winnow`, and `python -m engine.cli`: how a command begins and how it ends.

Everything else is imported inside: where memory is short, importing is what fails first.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import re
import sys
import threading
from typing import NoReturn

ADDRESSES = 8 << 30
"""Bytes of address space that winnow and its libraries may reserve. With fewer, threads of compiled code that Python
cannot catch end the process without a word."""

FILES = 64
"""Files that a process must be allowed to have open; with many runs in a workspace it has more."""

_MEMORY = "there is not enough memory; close other programs, raise the limit of this one, or take less data"
_THREADS = "the system starts no more threads or processes; close other programs, or raise the limit (ulimit -u)"
_FILES = "too many files are open; close other programs, or raise the limit (ulimit -n)"

_STOPPED = "stopped; finished work is kept: the same command, or winnow resume, continues"

_SHORT = {
    r"start new thread|pthread_create|[Rr]esource temporarily unavailable": _THREADS,
    r"[Tt]oo many open files": _FILES,
    r"failed to map segment|[Aa]llocat|bad_alloc|not enough memory|[Oo]ut of [Mm]emory|memory protection": _MEMORY,
}
"""What Python and libraries say, in errors of several types, of what the system does not give."""

_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOLCK}


def main() -> NoReturn:
    """Entry point: one line and exit code 2 for an expected error, 130 for a run that was stopped."""
    # Threads that spin while they wait for each other stall the machine as soon as anything else runs on it (a
    # second run, the dashboard's browser): steps then take 40 times as long. Sleeping costs next to nothing.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    code: int | str | None = 2
    _prepare_streams()
    try:
        line = _lacking()
        if line is None:
            code = _run()
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk behind it shows here, and not when Python has ended
    except KeyboardInterrupt:  # while something was imported
        line, code = None, 130
    except Exception as error:
        line = refusal(error)
        if line is None:
            raise
    if line is not None and sys.stderr is not None:
        code = 2
        gc.collect()  # or DuckDB's library reports, when Python ends, what the error's frames still hold
        with contextlib.suppress(OSError):
            sys.stderr.write(f"winnow: {line}\n")
    _leave_output()
    sys.exit(code)


def _prepare_streams() -> None:
    """Make the standard streams fit to be written to, whoever started this process."""
    # In place of a closed one: the next file would get its number, and what a library writes to its standard error
    # would go into somebody's dataset.
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as its standard error: names may be in any script


def _run() -> int | str | None:
    """Run the command that the arguments name. Returns: its exit code"""
    from engine.cli.commands import app
    from engine.cli.console import say
    from engine.errors import Cancelled, WinnowError

    try:
        app()
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            say(_STOPPED)
        return end.code
    except WinnowError as error:
        say(f"winnow: {error}")
        return 2
    except (Cancelled, KeyboardInterrupt):
        say(_STOPPED)
        return 130
    return 0


def refusal(error: BaseException) -> str | None:
    """One line for an error that says that the system refuses something, None for any other: that is a bug."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, MemoryError):
            return _MEMORY
        if isinstance(found, (OSError, ImportError, RuntimeError)) or "duckdb" in type(found).__module__:
            for pattern, line in _SHORT.items():
                if re.search(pattern, str(found)):
                    return line
        if isinstance(found, OSError) and found.errno in _REFUSED:
            return f"{found.strerror}: {found.filename}" if found.filename else f"cannot write: {found.strerror}"
        found = found.__cause__ or found.__context__
    return None


def _lacking() -> str | None:
    """What this process needs and is not given, looked up before a library finds out and says so in its own way."""
    with contextlib.suppress(ImportError):  # Windows has no such limits
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY and limit < ADDRESSES:
            return (
                f"the address space of this process is limited to {limit >> 20:,} MiB; winnow and its libraries reserve up "
                f"to {ADDRESSES >> 20:,} MiB of it, and use few of them: raise the limit (ulimit -v)"
            )
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if files != resource.RLIM_INFINITY and files < FILES:
            return f"this process may open {files} files; winnow needs {FILES}: raise the limit (ulimit -n)"
    waiting, ended = [], threading.Event()
    try:
        for _ in range(2 * (os.cpu_count() or 1) + 8):  # as many as libraries may start at once
            thread = threading.Thread(target=ended.wait)
            thread.start()
            waiting.append(thread)
    except RuntimeError:
        return _THREADS
    finally:
        ended.set()
        for thread in waiting:
            thread.join()
    return None


def _leave_output() -> None:
    """Keep Python from writing once more, when it ends, to a standard output that refuses."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
