"""An export as a whole: the file or the folder, and the manifest with the hashes of what was written."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from engine.errors import WinnowError
from engine.queries.connection import connected
from engine.queries.writers.registry import Folder, Images, Link, Writer, find_writer
from engine.queries.writers.selection import Choice, Decisions, Selection, selected
from engine.store.atomic import replacing_folder, sha256_of, write_export, write_text
from engine.store.version import winnow_version
from engine.store.workspace import Workspace

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Exported:
    """What became of an export. kept, total: numbers of samples of the split; left_out: dropped by a person's decision;
    relabeled: with another label than the given one; notes: what a person should know, in sentences."""

    kept: int
    total: int
    left_out: int
    relabeled: int
    notes: tuple[str, ...] = ()


def export(
    workspace: Workspace,
    dataset: str,
    where: str,
    to: Path,
    format: str = "",
    run: str | None = None,
    split: str = "train",
    decisions: Decisions = "ignore",
) -> tuple[int, int]:
    """Write the samples of a split that meet a condition (see `Choice`) to a file, whole or not at all.

    Args:    format: one of WRITERS that needs no images; "" = by the file's ending
    Returns: (kept, all) numbers of samples of the split
    Raises:  SpecError for an unknown format or anything but one condition; WinnowError for a mistake in it
    """
    done = export_choice(workspace, dataset, Choice(where, split, run, decisions), to, find_writer(format, to))
    return done.kept, done.total


def export_samples(
    workspace: Workspace,
    dataset: str,
    sample_ids: Sequence[int],
    to: Path,
    format: str = "",
    weights: Sequence[float] | None = None,
) -> tuple[int, int]:
    """`export` of the training samples of those ids as they were given, with a column of weights where there are some.

    Args: sample_ids: ascending
    """
    choice = Choice(ids=sample_ids, weights=weights)
    done = export_choice(workspace, dataset, choice, to, find_writer(format, to))
    return done.kept, done.total


def export_bytes(
    connection: duckdb.DuckDBPyConnection,
    choice: Choice,
    format: str,
    listen: Callable[[float], None] = lambda share: None,
) -> bytes:
    """What `export_choice` writes to a file, of a format that is one file."""
    found, file = find_writer(format), io.BytesIO()
    if found.write_file is None:
        raise WinnowError(f"{format} is a folder; allowed here: a format that is one file")
    with selected(connection, choice, listen) as selection:
        found.write_file(selection, file)
    return file.getvalue()


def export_choice(
    workspace: Workspace,
    dataset: str,
    choice: Choice,
    to: Path,
    writer: Writer,
    *,
    images: Callable[[Selection], Images] | None = None,
    link: Link = "copy",
    listen: Callable[[str, float, float | None], None] = lambda stage, share, left: None,
) -> Exported:
    """Write what was chosen in one format, whole or not at all, with its manifest.

    The manifest of a file lies beside it as NAME.manifest.json, that of a folder in it as manifest.json. A manifest that is
    there belongs to what lies beside it: it is taken away before, and written after.

    Args:   to: a file, or a folder that is not there yet or empty; images: gives those that a format with images needs;
            link: how they get into a folder; listen: (stage, share done 0..1, None), may raise to stop
    Raises: WinnowError when something lies there; StorageError for a full disk
    """
    stage = "reading" if writer.images else "writing"
    with (
        connected(workspace, dataset) as connection,
        selected(connection, choice, lambda share: listen(stage, 0.9 * share, None)) as selection,
    ):
        if writer.write_folder is None:
            notes = _write_file(selection, writer, to)
        else:
            if writer.images and images is None:
                raise WinnowError(f"{writer.name} needs the images; winnow export writes it")
            folder = Folder(to, images(selection) if images and writer.images else None, link)
            notes = _write_folder(selection, writer, to, folder, listen)
    listen("done", 1.0, None)
    return Exported(len(selection), selection.total, selection.left_out, selection.relabeled, tuple(notes))


def _write_file(selection: Selection, writer: Writer, to: Path) -> list[str]:
    beside = to.with_name(f"{to.name}.{MANIFEST}")
    hashes: dict[str, dict[str, object]] = {}

    def write(path: Path) -> None:
        with open(path, "wb") as file:
            assert writer.write_file is not None
            writer.write_file(selection, file)
        hashes[to.name] = _about(path)
        if not beside.is_dir():
            beside.unlink(missing_ok=True)

    write_export(to, write)
    write_text(beside, manifest_text(selection, writer, hashes, {}))
    return []


def _write_folder(
    selection: Selection,
    writer: Writer,
    to: Path,
    folder: Folder,
    listen: Callable[[str, float, float | None], None],
) -> list[str]:
    assert writer.write_folder is not None
    with replacing_folder(to) as temp:
        folder.path = temp
        writer.write_folder(selection, folder)
        files = sorted(path for path in temp.rglob("*") if path.is_file())
        hashes = {}
        for i, path in enumerate(files):
            if i % 256 == 0:
                listen("hashing", 0.9 + 0.1 * i / len(files), None)
            hashes[path.relative_to(temp).as_posix()] = _about(path)
        text = manifest_text(selection, writer, hashes, folder.about)
        (temp / MANIFEST).write_text(text, encoding="utf-8")
    return folder.notes


def manifest_text(
    selection: Selection, writer: Writer, files: dict[str, dict[str, object]], about: dict[str, object]
) -> str:
    """What was written, from what, by what: the same export twice has the same manifest."""
    choice = selection.choice
    counts = selection.values(
        "SELECT coalesce(chosen.new_label, samples.label) AS label, count(*) FILTER (split = 'train') AS train, "
        "count(*) FILTER (split = 'test') AS test FROM chosen JOIN samples USING (sample_id) GROUP BY 1 ORDER BY 1"
    ).set_index("label")
    classes = [
        {"label": label, "name": name, **{split: int(counts[split].get(label, 0)) for split in ("train", "test")}}
        for label, name in enumerate(selection.classes)
    ]
    content: dict[str, Any] = {
        "format": writer.name,
        "winnow": winnow_version(),
        "dataset": selection.dataset,
        "fingerprint": selection.fingerprint,
        "run": selection.run,
        "where": choice.where or "true",
        "split": choice.split,
        "decisions": choice.decisions,
        "version": choice.set_name or None,
        "samples": len(selection),
        "of": selection.total,
        "left_out_by_decisions": selection.left_out,
        "relabeled": selection.relabeled,
        "classes": classes,
        **about,
        "files": files,
    }
    return json.dumps(content, indent=1, ensure_ascii=True) + "\n"


def _about(path: Path) -> dict[str, object]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
