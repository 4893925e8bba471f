"""`winnow verify`: every published file of a workspace read whole, and held against what was published."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

from engine.data.dataset_file import fetch_one, fingerprint_of, has_table, read_blocks, reading
from engine.errors import NotFoundError, StorageError
from engine.store.attached import RESULTS, attach, columns_of, identity_of, look_at, open_walled
from engine.store.contents import contents_of
from engine.store.links import refuse_links
from engine.store.records import dataset_facts
from engine.store.values import RESULTS_FILE, impossible_values
from engine.store.verified import MANIFEST, check_hash, check_sizes, read_manifest, remember
from engine.store.workspace import Workspace

_SIZES = {"uint8": 1, "float32": 4}

Checks = Generator[int, None, list[str]]
"""Yields the bytes of each file that is right, and returns what is wrong with others."""

Report = Callable[[str, int, int], None]
"""(what is read, bytes done of it, its bytes); may raise to stop."""


@dataclass(frozen=True)
class Verified:
    """One published thing that was read. kind: dataset, run or features; problem: what is wrong with it, or ''."""

    kind: str
    name: str
    files: int
    bytes: int
    problem: str


def verify(
    workspace: Workspace, name: str | None = None, report: Report = lambda what, done, total: None
) -> list[Verified]:
    """Read the published files of a workspace, or of one dataset with its runs, or of one run, and check them.

    A dataset: its fingerprint is computed again from its inputs, labels and classes, the key of each image from its
    inputs, and every other table is read, which checks DuckDB's own checksums. A run and stored features: the size and
    the SHA-256 of every file, and that the values of results can be.

    Returns: one row for each problem, and one for each dataset, run and set of features without any
    Raises:  NotFoundError when there is neither a dataset nor a run of that name
    """
    datasets, runs = workspace.datasets(), workspace.run_ids()
    features = sorted(p for p in (workspace.root / "features").glob("[!.]*"))
    if name is not None:
        if name in datasets:
            records = workspace.read_records()[0]
            datasets, runs = [name], [r.run_id for r in records if r.dataset == name]
        else:
            try:
                datasets, runs = [], [workspace.require_run(name)]
            except NotFoundError as error:
                raise NotFoundError(f"'{name}' is neither a dataset nor a run; winnow runs lists the runs") from error
        features = []
    found: list[Verified] = []
    for dataset in datasets:
        found += _rows("dataset", dataset, _verify_dataset(workspace.dataset_path(dataset), report))
    for run in runs:
        if workspace.is_published(run) or workspace.run_dir(run).is_symlink():
            found += _rows("run", run, _verify_run(workspace, run, report))
    for folder in features:
        found += _rows("features", folder.name, _verify_folder(folder, folder, report))
    return found


def _rows(kind: str, name: str, checks: Checks) -> list[Verified]:
    """What checks find, each of which yields the bytes that it read or fails with a problem."""
    files = size = 0
    problems = []
    while True:
        try:
            size += next(checks)
            files += 1
        except StopIteration as end:
            problems += end.value
            break
        except (StorageError, OSError, duckdb.Error) as error:
            problems.append(str(error).splitlines()[0])
            break
    return [Verified(kind, name, files, size, problem) for problem in problems or [""]]


def _verify_folder(folder: Path, whole: Path, report: Report) -> Checks:
    """Every file of a published folder. Returns its problems. whole: what may hold no link."""
    refuse_links(whole, "copy what it leads to into its place")
    listed = read_manifest(folder)
    problems = [
        f"{path} is not in its manifest"
        for path in sorted(folder.iterdir())
        if path.name not in listed and path.name != MANIFEST
    ]
    for name, about in listed.items():
        path, done = folder / name, 0

        def count(n: int, path: Path = path, total: int = about.bytes) -> None:
            nonlocal done
            done += n
            report(str(path), done, total)

        try:
            if not path.exists():
                raise StorageError(f"{path} is missing")
            check_sizes(folder, {name: about})
            check_hash(path, about, count)
        except StorageError as error:
            problems.append(str(error))
            continue
        if name != RESULTS_FILE:  # which is known only when its values are checked as well
            remember(path, about.sha256)
        yield about.bytes
    return problems


def _verify_run(workspace: Workspace, run_id: str, report: Report) -> Checks:
    folder = workspace.published_dir(run_id)
    problems = yield from _verify_folder(folder, workspace.run_dir(run_id), report)
    record = workspace.read_record(run_id)
    if problems or record.dataset not in workspace.datasets() or workspace.outdated(record):
        return problems
    facts, path = dataset_facts(workspace.dataset_path(record.dataset)), folder / RESULTS_FILE
    with open_walled([path], memory_limit="1GB") as connection:
        attach(connection, path, "file")
        tables, refused = look_at(connection, {"file": (path, RESULTS)})
        problem = refused.get("file") or impossible_values(
            connection, "file", tables["file"], facts.samples, len(facts.classes)
        )
    if problem:
        return [problem if str(path) in problem else f"{path}: {problem}"]
    remember(path, read_manifest(folder)[RESULTS_FILE].sha256)
    return []


def _verify_dataset(path: Path, report: Report) -> Checks:
    facts = dataset_facts(path)
    size = identity_of(path)[2]
    with reading(path) as connection:
        shape, dtype = fetch_one(connection, "SELECT input_shape, input_dtype FROM dataset")
        has_contents = "content" in columns_of(connection, "samples")
        content = "content" if has_contents else "NULL"
        rows = connection.execute(
            f"SELECT label, coalesce(true_label, -1) AS truth, split = 'train' AS train, {content} AS content FROM samples "
            "ORDER BY sample_id"
        ).fetchnumpy()
        per_sample, hashed, done, held = math.prod(shape) * _SIZES[dtype], hashlib.sha256(), 0, 0
        for first, n, data in read_blocks(connection, 0, facts.samples):
            if first != held or len(data) != n * per_sample:
                return [f"{path} is damaged at sample {held}; remove it and ingest it again"]
            hashed.update(data)
            if has_contents:
                keys = contents_of(data, per_sample).hex()
                if [keys[i : i + 32] for i in range(0, len(keys), 32)] != list(rows["content"][held : held + n]):
                    return [f"{path} is damaged: a key of samples {held} to {held + n - 1} is not that of the image"]
            held, done = held + n, done + len(data)
            report(str(path), done, size)
        if held != facts.samples:
            return [f"{path} holds the inputs of {held} of {facts.samples} samples; remove it and ingest it again"]
        for table, column in (("thumbnails", "thumbnail"), ("skipped", "source"), ("metadata", "value")):
            if has_table(connection, table):
                connection.execute(f"SELECT bit_xor(hash({column})) FROM {table}").fetchall()
    truth = np.asarray(rows["truth"], np.int32)
    labels, train = np.asarray(rows["label"], np.int32), int(np.asarray(rows["train"]).sum())
    found = fingerprint_of(hashed, shape, dtype, facts.classes, train, labels, truth if (truth >= 0).any() else None)
    if found != facts.fingerprint:
        return [
            f"{path} is not the dataset that was ingested: the fingerprint of its content is {found[:12]}..., not "
            f"{facts.fingerprint[:12]}...; remove it and ingest it again"
        ]
    yield size
    return []
