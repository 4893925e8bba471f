"""The files that the options of a run name, and which of them may be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.errors import SpecError
from engine.features.own_file import is_own_file
from engine.features.stored import is_stored
from engine.spec import RunSpec, Spec
from engine.store.trust import fetch_trust, trust_roots
from engine.store.workspace import Workspace


def files_of(features: str = "", probs: str = "", cscores: str = "") -> dict[str, Path]:
    """The files that options of a run name, by option."""
    weights = features.split(":", 2)[2] if features.startswith("torchvision:") and features.count(":") > 1 else ""
    named = {"features": features if is_own_file(features) else weights, "probs": probs, "cscores": cscores}
    return {name: Path(text).expanduser() for name, text in named.items() if text}


def trust_files(workspace: Workspace, spec: RunSpec) -> None:
    """Remember the files that were typed, so that the run can be resumed by its id."""
    trust_roots(workspace, files_of(spec.features, spec.probs, spec.cscores).values())


def check_files(workspace: Workspace, files: dict[str, Path]) -> None:
    """Raise SpecError for a file that nobody typed and that lies below no trusted folder."""
    roots = fetch_trust(workspace).roots
    for option, file in files.items():
        if not roots.cover(file):
            raise SpecError(
                f"a run names the file {file} (--{option}), and you have not named it in this workspace: it was not opened; "
                f"give --originals {file.parent}, or name it yourself: winnow run DATASET --{option}"
            )


def as_stored(workspace: Workspace, spec: Spec) -> Spec:
    """A spec that was read from the workspace, as it may be computed: it names only files that may be read, and fetches
    nothing.

    Raises: SpecError as `check_files`
    """
    if not isinstance(spec, RunSpec):
        return spec
    files = files_of(spec.features, spec.probs, spec.cscores)
    if spec.features and is_stored(workspace, spec.dataset, spec.features_hash):
        files.pop("features", None)
    check_files(workspace, files)
    return replace(spec, download=False)
