"""The formats of an export. Each is one function with `@writer`, beside the others of its kind in this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from engine.errors import SpecError, WinnowError, unknown_name
from engine.queries.writers.selection import Selection

Link = Literal["copy", "hardlink", "symlink"]
Back = Literal["ingest", "import"]


@dataclass(frozen=True)
class Picture:
    """The image of one sample. path: its own file, where it has one; data: its bytes, else; suffix: of the name of a file
    with it, such as .png; problem: why there is none, a few words, or ""; stands_in: whether the thumbnail stands in."""

    sample_id: int
    path: Path | None = None
    data: bytes = b""
    suffix: str = ""
    problem: str = ""
    stands_in: bool = False


class Images(Protocol):
    """Gives the images of samples: `engine.data.exporting` has the originals."""

    def fetch(self, sample_ids: Sequence[int]) -> Iterator[Picture]:
        """One picture of each, in order."""


@dataclass
class Folder:
    """What a writer of a folder is given. path: an empty folder; images: None where the format needs none; link: how files
    get there; notes: what a person should know, to append to; about: what the manifest says beside, to fill."""

    path: Path
    images: Images | None = None
    link: Link = "copy"
    notes: list[str] = field(default_factory=list)
    about: dict[str, object] = field(default_factory=dict)


WriteFile = Callable[[Selection, BinaryIO], None]
WriteFolder = Callable[[Selection, Folder], None]


@dataclass(frozen=True)
class Writer:
    """One format. title: for a button; holds: what is written, a few words; ending: of a file's name, "" for a folder;
    read_by: what reads it; back: the commands that read it again, as a dataset or as decisions; images: whether it needs the
    images themselves. One of write_file and write_folder is there."""

    name: str
    title: str
    holds: str
    ending: str
    media_type: str
    read_by: str
    back: tuple[Back, ...] = ()
    images: bool = False
    write_file: WriteFile | None = None
    write_folder: WriteFolder | None = None


WRITERS: dict[str, Writer] = {}
"""Every format by name, in the order in which they are offered."""


def writer(
    name: str,
    *,
    title: str,
    read_by: str,
    back: tuple[Back, ...] = (),
    ending: str = "",
    media_type: str = "application/octet-stream",
) -> Callable[[WriteFile], WriteFile]:
    """Declare a function (selection, file) as the writer of a format that is one file.

    The first line of its docstring, what the file holds, is shown in the help of --format and on the page.

    Args: ending: of the file's name; "" = a dot and the format's name
    """

    def declare(function: WriteFile) -> WriteFile:
        holds = _holds(name, function.__doc__)
        WRITERS[name] = Writer(name, title, holds, ending or f".{name}", media_type, read_by, back, write_file=function)
        return function

    return declare


def folder_writer(
    name: str, *, title: str, read_by: str, back: tuple[Back, ...] = (), images: bool = False
) -> Callable[[WriteFolder], WriteFolder]:
    """Declare a function (selection, folder) as the writer of a format that is a folder, as `writer` does for files."""

    def declare(function: WriteFolder) -> WriteFolder:
        WRITERS[name] = Writer(
            name, title, _holds(name, function.__doc__), "", "", read_by, back, images, write_folder=function
        )
        return function

    return declare


def _holds(name: str, docstring: str | None) -> str:
    holds = (docstring or "").strip().split("\n")[0].rstrip(".")
    if name in WRITERS or not holds:
        raise ValueError(f"format '{name}' is declared twice or has no docstring")
    return holds


def formats_help() -> str:
    """The help of an option --format."""
    listed = "; ".join(f"{w.name}: {w.holds[0].lower()}{w.holds[1:]}" for w in WRITERS.values())
    return f"{listed}. (default: by the file's ending)"


def find_writer(format: str, to: Path | None = None) -> Writer:
    """The writer of a format, or with "" of the ending of a file.

    Raises: SpecError, with the nearest name, when there is none
    """
    name = format or (to.suffix.lstrip(".").lower() if to else "")
    if not name:
        raise SpecError(f"--to is '{to}', whose name has no ending; name the format (--format {', '.join(WRITERS)})")
    if name not in WRITERS:
        raise SpecError(unknown_name("format", name, WRITERS, "--format"))
    return WRITERS[name]


def require_verdict(selection: Selection, format: str) -> None:
    """WinnowError when the run of a selection has no verdict, of which the format consists."""
    if selection.verdict is None:
        which = (
            f"run {selection.run} has no verdict" if selection.run else f"dataset '{selection.dataset}' has no run yet"
        )
        raise WinnowError(
            f"{format} is about what a run flags, and {which}; winnow run {selection.dataset} makes a run with one"
        )
