"""Which samples a person means: as a list in words, as a file of ids, or by a condition."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np

from engine.errors import NotFoundError, SourceError, SpecError, unknown_name
from engine.queries.connection import connected
from engine.queries.groups import fetch_spare_copies
from engine.queries.listing import fetch_proposals
from engine.queries.samples import Ids
from engine.queries.writers import fetch_selected, run_for
from engine.store.records import dataset_facts
from engine.store.workspace import Workspace

_MOST_DIGITS = 9


def parse_samples(text: str, samples: int) -> Ids:
    """Sample ids as a person lists them, "1,2,5-9".

    Args:   samples: how many there are
    Raises: SpecError for anything else, and for an id that no sample has
    """
    found = []
    for part in text.split(","):
        given = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part.strip())
        if given is None or max(map(len, filter(None, given.groups()))) > _MOST_DIGITS:
            raise SpecError(f"samples '{part.strip()[:40]}'; allowed: ids and ranges of them, such as 1,2,5-9")
        first, last = int(given[1]), int(given[2] or given[1])
        if last < first or last >= samples:
            raise SpecError(f"samples '{part.strip()}'; allowed: 0 to {samples - 1:,}, the smaller id first")
        found.append(np.arange(first, last + 1, dtype=np.int32))
    return np.unique(np.concatenate(found))


def read_samples(path: Path) -> Ids:
    """Sample ids from a file: npy, a CSV with a column sample_id (as winnow export writes both), or one id a line.

    Raises: SourceError for a file that cannot be read as one of these
    """
    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)  # checked against the size of the file
            if array.ndim != 1 or array.dtype.kind not in "iu":
                raise SourceError(
                    f"{path} holds {array.dtype} of shape {array.shape}; allowed: a list of whole numbers"
                )
            ids = [int(i) for i in array]
        else:
            with open(path, encoding="utf-8-sig", newline="") as file:
                lines = csv.reader(file)
                header = next(lines, [])
                place = header.index("sample_id") if "sample_id" in header else 0
                rows = ([] if "sample_id" in header else [header]) + list(lines)
            ids = [_whole(path, row[place] if place < len(row) else "") for row in rows if row]
    except (OSError, ValueError, csv.Error, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SourceError(f"{path} cannot be read as sample ids: {reason}") from error
    if wrong := [i for i in ids if not 0 <= i < 2**31]:
        raise SourceError(f"{path} holds {wrong[0]}; allowed: sample ids, from 0 on")
    return np.unique(np.asarray(ids, np.int32))


def _whole(path: Path, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()):
        raise SourceError(
            f"{path} holds '{text.strip()[:40]}' where a sample id belongs; allowed: one id a line, or a CSV "
            "with a column sample_id"
        )
    return int(text)


def samples_where(workspace: Workspace, dataset: str, where: str, run: str | None = None, split: str = "train") -> Ids:
    """The samples of a split that meet a condition, as `winnow export --where` takes it."""
    with connected(workspace, dataset) as connection:
        return fetch_selected(connection, where, run, split)["sample_id"].to_numpy(np.int32)


def find_copies(workspace: Workspace, dataset: str, run: str | None = None) -> Ids:
    """The spare copies (`fetch_spare_copies`) that a run found, or the run to trust most.

    Raises: NotFoundError when the run looked for no duplicates
    """
    with connected(workspace, dataset) as connection:
        found = run or run_for(connection, "") or ""
        spare = fetch_spare_copies(connection, found)
        if (
            not len(spare)
            and not connection.execute("SELECT 1 FROM duplicates WHERE run_id = ? LIMIT 1", [found]).fetchone()
        ):
            raise NotFoundError(f"no run of '{dataset}' found duplicates; winnow run {dataset} looks for them")
    return spare


def fetch_suggested(workspace: Workspace, dataset: str, ids: Ids, run: str | None = None) -> tuple[Ids, Ids]:
    """Of some samples those to which another label is proposed, and the labels: the true one where it is known."""
    with connected(workspace, dataset) as connection:
        proposed = fetch_proposals(connection, run or run_for(connection, "") or "")[ids]
    return ids[proposed >= 0], proposed[proposed >= 0].astype(np.int32)


def find_label(workspace: Workspace, dataset: str, name: str) -> int:
    """The label of a class, by its name or by its number.

    Raises: SpecError, with the nearest name, when there is none
    """
    classes = dataset_facts(workspace.require_dataset(dataset)).classes
    if name in classes:
        return classes.index(name)
    if re.fullmatch(r"[0-9]{1,9}", name) and int(name) < len(classes):
        return int(name)
    raise SpecError(unknown_name("class", name, classes, f"of '{dataset}'"))
