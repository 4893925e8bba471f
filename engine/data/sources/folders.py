"""A folder of images with a sub-folder per class, or with train/, val/ and test/ that have them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.data.exported import manifest_of
from engine.data.images import SUFFIXES, open_image
from engine.data.parts import TEST_NAMES, Part, Source, joined, rename_labels
from engine.data.sources.kinds import Named, source
from engine.data.sources.parquet import class_names
from engine.errors import SourceError
from engine.store.trust import Roots

TRAIN_NAMES = ("train", "training")
_TEST_NAMES = (*TEST_NAMES, "testing")


@source("a folder with one sub-folder per class", matches=lambda named: named.path.is_dir())
def class_folders(named: Named) -> Source:
    """A folder with one sub-folder per class, or with train/, val/ and test/ that each have them.

    Files are found at any depth, in the order of their names; other files than images are listed as ignored. val/ and
    test/ together are the test split. In a folder that winnow export wrote, classes are called as its manifest says.
    """
    found = _class_folders_of(named)
    names = manifest_of(named.path).get("class_folders")
    if not isinstance(names, dict) or not names.keys() >= {*found.classes}:
        return found
    return replace(found, classes=class_names(str(named.path), [names[folder] for folder in found.classes]))


def _class_folders_of(named: Named) -> Source:
    root, within = named.path, named.within
    splits = {p.name: p for p in _folders(root)}
    train_name = next((name for name in TRAIN_NAMES if name in splits), None)
    if (
        train_name is None
        or not splits.keys() <= {train_name, *_TEST_NAMES}
        or not any(_class_folders(splits[train_name], within))
    ):
        classes, train = _read_classes(root, within)
        return Source(classes, train, notes=_elsewhere(root, splits.values()))
    classes, train = _read_classes(splits[train_name], within)
    linked = _elsewhere(root, [p for split in splits.values() for p in (split, *_folders(split))])
    found: dict[str, Part] = {}
    for name in (name for name in _TEST_NAMES if name in splits):
        if any(_class_folders(splits[name], within)):
            names, part = _read_classes(splits[name], within)
            found[name] = rename_labels(part, names, classes, str(splits[name]))
        else:  # such as the test images of a competition, whose labels nobody has
            train = replace(train, ignored=(*train.ignored, (str(splits[name]), "a folder without class folders")))
    if not found:
        return Source(classes, train, notes=linked)
    if len(found) == 1:
        (test,) = found.values()
        return Source(classes, train, test, notes=linked)
    # so that they can be told apart
    named_parts = [(train, train_name), *((part, name) for name, part in found.items())]
    train, *tests = (_with(part, "source_split", name) for part, name in named_parts)
    counted = " and ".join(f"{name}/ ({len(part):,} images)" for name, part in found.items())
    return Source(classes, train, joined(tests), notes=(f"{counted} are the test part", *linked))


def _elsewhere(root: Path, folders: Iterable[Path]) -> tuple[str, ...]:
    """A sentence about the splits and classes that are links to folders outside of the source."""
    own = Roots((root,))
    links = [f"{printable(p)} -> {printable(Path(os.path.realpath(p)))}" for p in folders if not own.cover(p)]
    what = (
        f"{len(links)} of its folders are links that lead"
        if len(links) > 1
        else "one of its folders is a link that leads"
    )
    return (f"{what} elsewhere ({links[0]})",) if links else ()


def _with(part: Part, name: str, value: str) -> Part:
    return replace(part, metadata={name: [value] * len(part)})


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _class_folders(root: Path, within: Roots) -> Iterator[Path]:
    """The folders in a folder that have an image somewhere."""
    for folder in _folders(root):
        if any(path.suffix.lower() in SUFFIXES for path in _files(folder, [], within)):
            yield folder


def _read_classes(root: Path, within: Roots) -> tuple[tuple[str, ...], Part]:
    folders = _folders(root)
    paths: list[Path] = []
    labels: list[int] = []
    classes: list[str] = []
    ignored: list[tuple[str, str]] = []
    for path in sorted(p for p in root.iterdir() if not p.is_dir() or p.name.startswith(".")):
        is_image = path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        ignored.append((printable(path), "an image in no class folder" if is_image else _why(path)))
    for folder in folders:
        found = [path for path in _files(folder, ignored, within) if path.suffix.lower() in SUFFIXES]
        if not found:
            ignored.append((printable(folder), "a class folder without images"))
            continue
        if printable(folder) != str(folder):
            raise SourceError(f"class folder {printable(folder)} has a name that is not valid UTF-8; rename it")
        labels += [len(classes)] * len(found)
        paths += found
        classes.append(folder.name)
    if not paths:
        suffixes = " ".join(sorted(SUFFIXES))
        raise SourceError(
            f"{root} has no class folders with images ({suffixes}), Parquet or IDX files; allowed: one sub-folder per "
            "class with its images, or train/ and test/ with them"
        )
    places = [printable(p) for p in paths]
    part = Part(np.array(labels, np.int64), places, lambda i: open_image(within.require(paths[i])), tuple(ignored))
    return tuple(classes), part


def _files(folder: Path, ignored: list[tuple[str, str]], within: Roots) -> Iterator[Path]:
    """The files of a folder at any depth, in the order of their names; those that are hidden or no images are ignored.

    A link to a folder is followed once, never to a folder that holds this one, and only to one that may be read.
    """
    seen = {_identity(above) for above in (folder, *folder.parents)}
    waiting = [folder]  # and no recursion: folders may be deeper than Python's stack
    while waiting:
        parent = waiting.pop()
        below, names = _listed(parent, is_root=parent is folder)
        kept = []
        for path in below:
            if path.name.startswith("."):
                ignored.append((printable(path), "a hidden folder"))
            elif (identity := _identity(path)) in seen:
                ignored.append((printable(path), "a link to a folder that is read already"))
            elif path.is_symlink() and not within.cover(path):
                ignored.append((printable(path), "a link that leads outside (--originals FOLDER reads it)"))
            else:
                seen.add(identity)
                kept.append(path)
        waiting += reversed(kept)
        for path in names:
            if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                ignored.append((printable(path), _why(path)))
            else:
                yield path


def _listed(folder: Path, is_root: bool) -> tuple[list[Path], list[Path]]:
    """The folders and the other files in a folder, by name; one that was removed while the others were read is empty."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries)
    except FileNotFoundError:
        if is_root:
            raise
        return [], []
    paths = [(folder / name, is_folder) for name, is_folder in found]
    return [path for path, is_folder in paths if is_folder], [path for path, is_folder in paths if not is_folder]


def _why(path: Path) -> str:
    """Why a file that is no sample is none."""
    kind = "folder" if path.is_dir() else "file"
    return f"a hidden {kind}" if path.name.startswith(".") else "not an image file"


def _identity(path: Path) -> tuple[int, int]:
    """What two paths to one folder have in common; of a folder that was removed meanwhile, nothing."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return -1, -1
    return found.st_dev, found.st_ino


def printable(path: Path) -> str:
    """A path as text that can be stored; what is not valid UTF-8 in it is escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
