"""What an export left on disk, read again: its manifest, and JSON that other programs may have written since."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from engine.errors import SourceError
from engine.queries.writers import MANIFEST
from engine.store.atomic import sha256_of

LARGEST = 1 << 30
"""Bytes of a file that is read whole."""


def read_json(file: Path) -> Any:
    """The JSON value in a file; SourceError when there is none."""
    require_file(file)
    try:
        value = json.loads(file.read_bytes())
        json.dumps(value, ensure_ascii=False).encode()  # half a character can be neither stored nor shown
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{file} cannot be read as JSON: {str(error)[:200]}") from error
    return value


def require_file(file: Path) -> None:
    """SourceError unless there is a regular file of at most LARGEST bytes: a pipe would be waited for."""
    try:
        about = file.stat()
    except (OSError, ValueError) as error:
        raise SourceError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
        raise SourceError(f"{file} is no file of at most {LARGEST:,} bytes")


def manifest_of(path: Path) -> dict[str, Any]:
    """What the manifest of an export says that is at a path, a file or a folder; {} where there is no such manifest.

    Raises: SourceError for a manifest that cannot be read
    """
    at = path / MANIFEST if path.is_dir() else path.with_name(f"{path.name}.{MANIFEST}")
    content = read_json(at) if at.is_file() else None
    return content if isinstance(content, dict) and {"winnow", "format", "files"} <= content.keys() else {}


def require_unchanged(path: Path, manifest: dict[str, Any]) -> None:
    """SourceError when a file is not the one that its manifest describes."""
    files = manifest["files"]
    about = files.get(path.name) if isinstance(files, dict) else None
    if not isinstance(about, dict) or about.get("sha256") != sha256_of(path):
        raise SourceError(
            f"{path} is not the file that {path.name}.{MANIFEST} describes: it was changed since; export it again, or remove "
            "the manifest to take it as a list of your own"
        )
