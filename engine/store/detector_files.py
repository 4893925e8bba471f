"""Where noise detectors are stored: those that ship with the package, and those of a workspace. No torch."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from engine.errors import NotFoundError, unknown_name
from engine.store.workspace import Workspace

DETECTOR_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""What a detector of a user's own may be called; one that ships has a + in its name."""


def shipped_detectors() -> dict[str, Path]:
    """The files of the detectors that ship with the package, by name."""
    folder = Path(str(resources.files("engine.scores") / "detectors"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def detectors_folder(workspace: Workspace) -> Path:
    """Where the detectors of a workspace are, if it has any."""
    return workspace.root / "detectors"


def detector_file(workspace: Workspace, name: str) -> Path:
    """The file of a detector; NotFoundError for an unknown name. name: "" = the one that ships"""
    shipped, folder = shipped_detectors(), detectors_folder(workspace)
    path = shipped[name or next(iter(shipped))] if name in ("", *shipped) else folder / f"{name}.safetensors"
    if not (name in ("", *shipped) or DETECTOR_NAME.fullmatch(name)) or not path.is_file():
        known = [*shipped, *(file.stem for file in folder.glob("*.safetensors"))]
        raise NotFoundError(unknown_name("detector", name, known, "winnow detector list"))
    return path
