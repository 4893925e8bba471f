"""Where the originals of a dataset's samples are now: their folder may have been moved since ingest.

Nothing is looked for outside of the folders that this user trusts in the workspace (engine.store.trust): somebody else
may have written where a file is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.data.dataset_file import fetch_one, reading
from engine.data.sources import base_of
from engine.store.trust import fetch_trust
from engine.store.workspace import Workspace


class Whereabouts:
    """Finds originals by the place that a dataset names them by: the column `source` of the view `samples`."""

    def __init__(self, workspace: Workspace, dataset: str) -> None:
        self.workspace, self.dataset = workspace, dataset
        self.roots = fetch_trust(workspace).roots

    def file_of(self, place: str) -> Path | None:
        """The file at a place, there or not; None where samples are not files of their own (`<source>:<index>`)."""
        if not place or re.search(r":\d+$", place):
            return None
        path = Path(place)
        if path.is_absolute() and self.roots.cover(path) and path.exists():
            return path
        found = (one for one in self._elsewhere(path) if self.roots.cover(one) and one.exists())
        return next(found, path)

    def is_outside(self, place: str) -> bool:
        """Whether what is at a place may not be read here, because this user has not named its folder."""
        path = self.file_of(place) or Path(place.rpartition(":")[0])
        if path.is_absolute():
            return not self.roots.cover(path)
        return bool(self.bases) and not any(self.roots.cover(base) for base in self.bases)

    def _elsewhere(self, path: Path) -> Iterator[Path]:
        """Where else a file may be: its folder may have been moved, and ingest's working folder, where relative places of
        version 0.1 begin, is unknown."""
        if not path.is_absolute():
            yield from (folder / path for base in self.bases for folder in (base, *base.parents))
            yield from (root / path for root in self.roots.paths)
        for base in self.bases:
            for folder in (base, base.parent):
                if path.is_relative_to(folder):
                    yield from (root / path.relative_to(folder) for root in self.roots.paths)

    @cached_property
    def bases(self) -> list[Path]:
        """The files or folders that the dataset's sources begin at."""
        texts = (self.spec.get("source"), self.spec.get("test"))
        return [base for text in texts if isinstance(text, str) and text and (base := base_of(text))]

    @cached_property
    def spec(self) -> dict[str, Any]:
        """What the dataset was ingested from, or the one that it derives from."""
        dataset, seen = self.dataset, set[str]()
        while True:
            seen.add(dataset)
            with reading(self.workspace.dataset_path(dataset)) as connection:
                text, parent = fetch_one(connection, "SELECT spec, parent FROM dataset")
            if parent is None or parent in seen or parent not in self.workspace.datasets():
                return dict(json.loads(text))
            dataset = parent
