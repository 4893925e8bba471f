"""Folders and files that were made to break an ingest: each is read, left out and named, or refused in one line."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from engine.data.ingest import ingest
from engine.data.outcome import describe
from engine.data.request import IngestSpec
from engine.data.sources import open_source
from engine.errors import BadSampleError, SourceError, SpecError
from engine.store.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace", create=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(12):
        draw(tmp_path / "images" / ("cat", "dog")[i % 2] / f"{i}.png", i)
    return tmp_path / "images"


def draw(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, value, value)).save(path)


def refused(text: str) -> str:
    with pytest.raises((SourceError, SpecError)) as caught:
        open_source(text, 0)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


def test_links_that_lead_upwards_or_in_circles_are_not_followed(folder: Path) -> None:
    for name in ("up1", "up2"):
        (folder / "cat" / name).symlink_to("..")
    (folder / "cat" / "self").symlink_to(".")
    (folder / "cat" / "deep").mkdir()
    draw(folder / "cat" / "deep" / "x.png", 1)
    (folder / "cat" / "twice").symlink_to("deep")
    (folder / "dog" / "more").symlink_to(folder / "cat" / "deep")  # a pool of images that two classes share is read
    source = open_source(str(folder), 0)
    assert len(source.train) == 14
    assert sorted((Path(p).name, why) for p, why in source.train.ignored) == [
        (name, "a link to a folder that is read already") for name in ("self", "twice", "up1", "up2")
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in its folders")
def test_pipes_and_devices_are_bad_samples(workspace: Workspace, folder: Path) -> None:
    os.mkfifo(folder / "cat" / "zz.png")
    with pytest.raises(BadSampleError, match=r"zz\.png: not a regular file"):
        ingest(workspace, IngestSpec("d", str(folder)))
    done = ingest(workspace, IngestSpec("d", str(folder), skip_bad=True))
    assert (done.train + done.test, done.skipped) == (12, 1)
    (folder / "x.csv").write_text("path,label\n/dev/stdin,a\ncat/0.png,a\ncat/2.png,b\n/dev/zero,b\n")
    with pytest.raises(BadSampleError, match="/dev/stdin: not a regular file"):
        ingest(workspace, IngestSpec("e", str(folder / "x.csv")))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_names_that_are_not_utf8(workspace: Workspace, folder: Path) -> None:
    os.link(folder / "cat" / "0.png", os.fsencode(folder / "cat") + b"/z\xff.png")
    (folder / "cat" / os.fsdecode(b"n\xfe.txt")).write_text("")
    with pytest.raises(BadSampleError, match=r"z\\xff\.png: its name is not valid UTF-8; rename it"):
        ingest(workspace, IngestSpec("d", str(folder)))
    done = ingest(workspace, IngestSpec("d", str(folder), skip_bad=True))
    assert sorted(why for why, _, _ in done.ignored) == ["its name is not valid UTF-8; rename it", "not an image file"]
    os.rename(folder / "cat", os.fsencode(folder) + b"/c\xffat")
    assert "has a name that is not valid UTF-8; rename it" in refused(str(folder))


def test_names_with_commas_quotes_lines_and_other_scripts(workspace: Workspace, folder: Path) -> None:
    hard = ['a, "b"', "it's; --", "two\nlines", "猫🐈", "x" * 200, "[red]no[/red]", "=1+1"]
    for i, name in enumerate(hard):
        draw(folder / name / f"{name}.png", i)
        draw(folder / name / f"{i}.png", i)
    done = ingest(workspace, IngestSpec("d", str(folder), test_fraction=0))
    assert (done.train, done.classes) == (26, 9)
    (folder / "two\nlines" / "bad\n.png").write_bytes(b"")
    command = [
        sys.executable,
        "-m",
        "engine.cli",
        "ingest",
        "e",
        "--from",
        str(folder),
        "--workspace",
        str(workspace.root),
    ]
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 2 and failed.stderr.strip().count("\n") == 0 and "bad\\n.png" in failed.stderr


def test_what_is_left_out_is_counted_with_the_first_of_each_kind(workspace: Workspace, folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / ".git").mkdir()
    for name in ("cat/.DS_Store", "cat/a.txt", "dog/b.txt", "cat/Thumbs.db", "read me.md"):
        (folder / name).write_text("")
    draw(folder / "alone.png", 3)
    done = ingest(workspace, IngestSpec("d", str(folder)))
    assert done.ignored == (
        ("not an image file", 4, str(folder / "read me.md")),
        ("a class folder without images", 1, str(folder / "empty")),
        ("a hidden file", 1, str(folder / "cat" / ".DS_Store")),
        ("a hidden folder", 1, str(folder / ".git")),
        ("an image in no class folder", 1, str(folder / "alone.png")),
    )
    assert describe(done, "1 s")[1].startswith(
        f"left out: 4 x not an image file (first: {folder / 'read me.md'}); 1 x a"
    )


def test_a_test_folder_without_class_folders_is_named(folder: Path) -> None:
    (folder / "train").mkdir()
    for name in ("cat", "dog"):
        (folder / name).rename(folder / "train" / name)
    draw(folder / "test" / "1.png", 1)
    source = open_source(str(folder), 0)
    assert source.test is None and source.train.ignored == ((str(folder / "test"), "a folder without class folders"),)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="this account may read everything")
def test_a_folder_that_must_not_be_read(folder: Path) -> None:
    (folder / "cat" / "private").mkdir(mode=0)
    assert "not allowed to read" in refused(str(folder)) and "private" in refused(str(folder))


def test_texts_that_are_no_source(tmp_path: Path) -> None:
    assert "... (5,000 characters) cannot be read: File name too long" in refused("x/" + "a" * 4998)
    assert "there is no" in refused("a/b\0c")
    assert "torchvision's VisionDataset has no single class label per image" in refused(
        f"torchvision:VisionDataset:{tmp_path}"
    )


def test_idx_files_that_hold_nothing_or_too_much(tmp_path: Path) -> None:
    def write(sizes: tuple[int, ...], data: bytes) -> None:
        header = bytes([0, 0, 8, len(sizes)]) + b"".join(struct.pack(">I", n) for n in sizes)
        kind = "images-idx3" if len(sizes) == 3 else "labels-idx1"
        (tmp_path / f"train-{kind}-ubyte.gz").write_bytes(gzip.compress(header + data))

    write((20,), bytes(20))
    write((20, 0, 0), b"")
    assert "says that it is 20 x 0 x 0, so it holds nothing" in refused(str(tmp_path))
    write((20, 2000, 2000), bytes(80_000_000))
    assert "unpacks to more than 100 times its size" in refused(str(tmp_path))


def test_what_the_command_line_says(workspace: Workspace, folder: Path) -> None:
    """The first line has the counts and what was decided about them, the last one the next command."""
    (folder / "cat" / "notes.txt").write_text("")
    command = [
        sys.executable,
        "-m",
        "engine.cli",
        "ingest",
        "d",
        "--from",
        "images",
        "--workspace",
        str(workspace.root),
    ]
    said = subprocess.run(command, capture_output=True, text=True, cwd=folder.parent, check=True).stderr
    first, left_out, last = [line for line in said.splitlines() if line.strip()]
    assert first.startswith(
        "dataset d: 10 training and 2 test samples of 2 classes; the test samples are 20 % of each class"
    )
    assert "held out because the source has no test part (--test-fraction 0 keeps all for training)" in first
    assert left_out == f"left out: 1 x not an image file (first: {folder / 'cat' / 'notes.txt'})"
    assert last == f"next: winnow run d --workspace {workspace.root}"
