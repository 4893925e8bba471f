"""The exceptions of the engine. Each message says what was given, what is allowed and what to do.

WinnowError                     expected: the CLI prints the message and exits 2, a page shows it
|-- SpecError                   an option is not allowed (a name, a range, a combination)
|-- SourceError                 what should be read is missing or malformed
|   `-- BadSampleError          one image, row or file of a source; --skip-bad passes over it
|-- ClusterError                the cluster does not answer, lacks what is needed, or could not compute a task
|-- ScoreInputError             tensors that a score, sampler or neighbor search cannot take
`-- WorkspaceError              the workspace cannot read or write what is needed
    |-- NotFoundError           no such dataset or run
    |-- BusyError               another process holds what is needed
    `-- StorageError            disk full, read-only, newer format, damaged file
Cancelled                       not an error: the run was stopped
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WinnowError(Exception):
    """An expected error: its text is one line that a person can act on."""


class SpecError(WinnowError):
    """An option is not allowed: a name, a range, a combination."""


class SourceError(WinnowError):
    """A source of images or labels is missing or malformed."""


class BadSampleError(SourceError):
    """One sample of a source cannot be read."""


class ClusterError(WinnowError):
    """The cluster does not answer, lacks what is needed, or could not compute a task."""


class ScoreInputError(WinnowError):
    """Tensors of a wrong shape, or with values a score cannot take."""


class WorkspaceError(WinnowError):
    """The workspace cannot read or write what is needed."""


class NotFoundError(WorkspaceError):
    """No such dataset or run in the workspace."""


class BusyError(WorkspaceError):
    """Another process holds what is needed."""


class StorageError(WorkspaceError):
    """The disk or a file on it refuses: full, read-only, damaged, of a newer format."""


class Cancelled(Exception):
    """The run was stopped; its finished work is kept in its checkpoint."""


def unknown_name(kind: str, given: str, allowed: Iterable[str], hint: str = "") -> str:
    """The message for a name that is not in a list, with the nearest one that is.

    >>> unknown_name("score", "el2m", ["aum", "el2n"], "winnow scores lists them")
    "unknown score 'el2m'; did you mean 'el2n'? (winnow scores lists them)"
    """
    names = sorted(allowed)
    if len(given) > 200:
        given = f"{given[:200]}... ({len(given):,} characters)"
    near = difflib.get_close_matches(given, names, n=1)
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    middle = f"did you mean '{near[0]}'?" if near else f"allowed: {shown}" if names else "there is none yet"
    return f"unknown {kind} '{given}'; {middle}" + (f" ({hint})" if hint else "")
