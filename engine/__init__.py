"""Winnow in Python: from a folder of images to scores, flags and a curated set as pandas frames.

>>> import engine
>>> workspace = engine.open("winnow-workspace", create=True)
>>> digits = workspace.ingest("digits", from_="digits", noise="symmetric:0.2", limit=200, progress=False)
>>> run = digits.run(model="mlp", scores="aum,confident_learning", epochs=2, seeds=1, progress=False)
>>> frame = digits.samples().merge(run.flags()).merge(run.scores())
>>> list(frame.columns)[:6]
['sample_id', 'split', 'label', 'true_label', 'class_name', 'source']
>>> list(frame.columns)[6:]
['flagged', 'flagged_aum_threshold', 'flagged_confident_joint', 'aum', 'confident_learning']
>>> kept, total = digits.export("curated.csv", where="NOT flagged")
>>> (len(frame), kept + int(frame.flagged.sum()), total)
(200, 200, 200)

Every option is that of the command line, by the same name: `winnow run --help`. Importing this package loads neither
torch nor pandas; what needs them imports them.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.dataset import Dataset, listening
from engine.errors import (
    BadSampleError,
    BusyError,
    Cancelled,
    ClusterError,
    NotFoundError,
    ScoreInputError,
    SourceError,
    SpecError,
    StorageError,
    WinnowError,
    WorkspaceError,
)

if TYPE_CHECKING:
    import pandas as pd

    from engine.queries.frames import Run
    from engine.recorder import Recorder, WithIds
    from engine.store.workspace import Workspace

__all__ = [
    "BadSampleError",
    "BusyError",
    "Cancelled",
    "ClusterError",
    "Dataset",
    "NotFoundError",
    "OpenWorkspace",
    "Recorder",
    "Run",
    "ScoreInputError",
    "SourceError",
    "SpecError",
    "StorageError",
    "WinnowError",
    "WithIds",
    "WorkspaceError",
    "open",
]


def open(path: str | PathLike[str] | None = None, create: bool = False) -> OpenWorkspace:
    """The workspace at a path.

    Args:   path: its folder; None = WINNOW_WORKSPACE, or ./winnow-workspace; create: make it where there is none
    Raises: NotFoundError when it is not there and create is False; StorageError when it is damaged, of a newer format
            or cannot be made
    """
    from engine.store.workspace import Workspace

    found = Workspace.open(None if path is None else Path(path), create=create)
    return OpenWorkspace(Workspace(found.root.resolve()))  # a notebook may change its folder later


if not TYPE_CHECKING:  # a type checker reads the imports above, and finds a misspelled name

    def __getattr__(name: str) -> Any:
        """Recorder, WithIds and Run, imported when they are used: they need torch or pandas."""
        homes = {"Recorder": "engine.recorder", "WithIds": "engine.recorder", "Run": "engine.queries.frames"}
        if name in homes:
            return getattr(import_module(homes[name]), name)
        raise AttributeError(f"module 'engine' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)


class OpenWorkspace:
    """A folder of datasets and runs: `workspace["photos"]` is a dataset, `workspace.find_run("3fa2")` a run.

    It can be given wherever a path of a workspace is, such as to `Recorder`.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._workspace.root

    @property
    def datasets(self) -> dict[str, Dataset]:
        """The datasets by name, in alphabetical order."""
        return {name: Dataset(self._workspace, name) for name in self._workspace.datasets()}

    def runs(self) -> pd.DataFrame:
        """Every run, the latest first, as `winnow runs` lists them.

        Columns: run_id, kind, dataset, title, state (running, done, failed, cancelled, interrupted), stage,
        fraction (0..1), seconds_left, message, started_at and updated_at (seconds since 1970)
        """
        from dataclasses import asdict, fields

        import pandas as pd

        from engine.store.jobs import Job, fetch_jobs

        jobs = fetch_jobs(self._workspace)
        return pd.DataFrame([asdict(job) for job in jobs], columns=[field.name for field in fields(Job)]).astype(
            {"seconds_left": float}
        )

    def find_run(self, run: str) -> Run:
        """The published run whose id starts with that; NotFoundError when none or several do."""
        from engine.queries.frames import find_run

        return find_run(self._workspace, run)

    def ingest(
        self, name: str, from_: str | PathLike[str], *, progress: bool = True, **options: str | float | bool | None
    ) -> Dataset:
        """Read a set of images into the workspace, or find it: the same ingest given twice is done once.

        Args:   name: of the new dataset; from_: what `winnow ingest --from` takes, such as a folder with a sub-folder
                per class; progress: show how far it is; options: those of `winnow ingest`, such as test="photos/test",
                noise="symmetric:0.2", limit=1000, skip_bad=True
        Raises: SpecError for an unknown option or value; SourceError for a source that cannot be read
        """
        from engine.runs.ingesting import ingest
        from engine.runs.options import plan_ingest_from

        spec = plan_ingest_from(name, from_, options)
        with listening(f"ingest {name}", progress) as listen:
            ingest(self._workspace, spec, listen and (lambda stage, n, total: listen(stage, n / max(1, total), None)))
        return self[name]

    def __getitem__(self, name: str) -> Dataset:
        self._workspace.require_dataset(name)
        return Dataset(self._workspace, name)

    def __contains__(self, name: object) -> bool:
        return name in self._workspace.datasets()

    def __iter__(self) -> Iterator[str]:
        return iter(self._workspace.datasets())

    def __len__(self) -> int:
        return len(self._workspace.datasets())

    def __fspath__(self) -> str:
        return fspath(self.path)

    def __repr__(self) -> str:
        return f"<winnow workspace {self.path}: {_list(list(self)) or 'no dataset'}>"

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def _repr_html_(self) -> str:
        rows = "".join(f"<li>{html.escape(repr(one)[1:-1])}</li>" for one in self.datasets.values())
        return f"<b>winnow workspace</b> {html.escape(str(self.path))}<ul>{rows or '<li>no dataset</li>'}</ul>"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
