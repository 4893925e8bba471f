"""`winnow reproduce` whole: the parts of a paper one after another, each kept as soon as it is there, and the report."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import BusyError, Cancelled, ClusterError, SpecError, WinnowError
from engine.queries.connection import fetch_fingerprint
from engine.reproduce.bench import Bench
from engine.reproduce.declared import Paper, Part, SizeName, find_paper, parts_of
from engine.reproduce.size import Size
from engine.reproduce.values import Holds, Values
from engine.runs.cluster import tasks_on
from engine.spec import spec_hash
from engine.store.journal import append_journal, read_journal
from engine.store.progress import Listener
from engine.store.workspace import Workspace, exclusive
from engine.training.device import pick_device


@dataclass(frozen=True)
class Reproduced:
    """What came of one part. problem: why it was not computed, "" where it was; runs: their ids; seconds: it took when it
    was computed"""

    part: Part
    values: Values
    problem: str
    runs: tuple[str, ...]
    seconds: float

    def findings(self) -> list[tuple[str, Holds]]:
        """The sentences of the paper, each with whether it holds here."""
        return [(finding.sentence, finding.check(self.values)) for finding in self.part.findings]


@dataclass(frozen=True)
class Reproduction:
    """What came of a paper, so far. folder: where its journal and its report are"""

    paper: Paper
    dataset: str
    size_name: SizeName
    size: Size
    parts: tuple[Reproduced, ...]
    folder: Path


def reproduce(
    workspace: Workspace,
    name: str,
    *,
    only: str = "",
    dataset: str = "",
    size_name: SizeName = "small",
    seeds: int | None = None,
    device: str = "auto",
    cluster: str = "",
    listener: Listener = lambda stage, share, left: None,
    after: Callable[[Reproduction], object] = lambda found: None,
) -> Reproduction:
    """Compute the tables and figures of a paper on a dataset. Called again, it goes on where it was.

    Args:   name: of the paper; only: names of parts, separated by commas, "" = all; dataset: "" = the size's own; seeds:
            networks behind every value, None = the size's; after: is called with all that is there after every part
    Raises: SpecError for an unknown paper, part, size or device, and where the size's data does not ship with Winnow;
            BusyError where another process computes the same; ClusterError; Cancelled. What one part cannot be computed for
            is in its `problem`
    """
    paper, wanted = find_paper(name), parts_of(name, only)
    size = paper.sizes[size_name]
    if seeds is not None:
        if not 1 <= seeds <= 1_000:
            raise SpecError(f"--seeds is {seeds}; allowed: 1 to 1000")
        size = replace(size, seeds=seeds)
    if size_name == "small" and dataset not in ("", size.dataset):
        size = replace(size, options={})  # they are for the data that ships with Winnow; on other data a trial chooses
    dataset = _data(workspace, paper, size, size_name, dataset)
    with tasks_on(cluster, pick_device(device)):
        pass  # where either is not there, no part can be computed
    folder = workspace.reproduced_dir(f"{name}-{size_name}-{dataset}")
    folder.mkdir(parents=True, exist_ok=True)
    key = spec_hash([fetch_fingerprint(workspace, dataset), asdict(size)])
    found: list[Reproduced] = []
    with exclusive(folder / ".lock", f"{name} on '{dataset}' is being reproduced by another process"):
        for i, part in enumerate(wanted):
            listen = _Share(listener, part, i, len(wanted))
            done = _load(folder, part, key)
            if done is None:
                bench = Bench(workspace, dataset, size, size_name == "small", folder, device, cluster, listen)
                done = _compute(bench, part, key)
            found.append(done)
            after(Reproduction(paper, dataset, size_name, size, tuple(found), folder))
    return Reproduction(paper, dataset, size_name, size, tuple(found), folder)


def _data(workspace: Workspace, paper: Paper, size: Size, size_name: SizeName, given: str) -> str:
    """The dataset to compute on, made where it ships with Winnow."""
    if given:
        workspace.require_dataset(given)
        return given
    if not size.dataset:
        raise SpecError(
            f"the {size_name} size of {paper.name} has no data that ships with Winnow; ingest its dataset "
            "(winnow ingest cifar10 --from torchvision:CIFAR10:FOLDER) and name it with --dataset"
        )
    if size.dataset not in workspace.datasets():
        ingest(workspace, IngestSpec(name=size.dataset, source=size.dataset))
    return size.dataset


def _compute(bench: Bench, part: Part, key: str) -> Reproduced:
    started, problem = time.monotonic(), ""
    bench.values = Values(part.percent)
    try:
        part.function(bench)
    except (BusyError, Cancelled, ClusterError, MemoryError):
        raise
    except WinnowError as error:
        problem = str(error)
    done = Reproduced(part, bench.values, problem, tuple(dict.fromkeys(bench.runs)), time.monotonic() - started)
    if not problem:
        cells = [
            [row, column, seed, value]
            for row in done.values.rows
            for column in done.values.columns
            for seed, value in done.values.of(row, column).items()
        ]
        append_journal(
            bench.folder,
            "part",
            durable=True,
            part=part.name,
            key=key,
            cells=cells,
            runs=done.runs,
            seconds=done.seconds,
        )
    return done


def _load(folder: Path, part: Part, key: str) -> Reproduced | None:
    """A part that was computed before, of the same data and size."""
    for event in reversed(read_journal(folder)):
        if event["event"] == "part" and event.get("part") == part.name and event.get("key") == key:
            return _restored(part, event)
    return None


def _restored(part: Part, event: Mapping[str, object]) -> Reproduced | None:
    values = Values(part.percent)
    cells, runs, seconds = event.get("cells"), event.get("runs"), event.get("seconds")
    if not isinstance(cells, list) or not isinstance(runs, list) or not isinstance(seconds, float):
        return None  # what no version writes is computed again
    for cell in cells:
        if not isinstance(cell, list) or [type(c) for c in cell] != [str, str, int, float]:
            return None
        values.put(cell[0], cell[1], cell[3], cell[2])
    return Reproduced(part, values, "", tuple(runs), seconds)


class _Share:
    """The progress of one part among all: what a run reports goes on under the part's name, all parts alike long."""

    def __init__(self, listener: Listener, part: Part, index: int, count: int) -> None:
        self._listener, self._index, self._count = listener, index, count
        self._name = re.sub("-", " ", part.name)

    def __call__(self, stage: str, share: float, left: float | None) -> None:
        self._listener(f"{self._name} ({self._index + 1} of {self._count}): {stage}", self._index / self._count, None)
