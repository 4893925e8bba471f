"""The original that a person looks at: as it is, smaller, or a thumbnail in its place with the reason."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.data.viewing import Viewed, Viewer
from engine.queries.connection import connected
from engine.store.workspace import Workspace


@pytest.fixture
def viewed(tmp_path: Path) -> tuple[Workspace, dict[str, tuple[str, bytes]]]:
    """A workspace with four pictures, and the place and thumbnail of each by its name."""
    rng = np.random.default_rng(0)
    for name, size in (("small", (40, 30)), ("middle", (200, 120)), ("large", (900, 600)), ("upright", (500, 300))):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8))
        picture = coarse.resize(size, Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x0112] = 6 if name == "upright" else 1  # turned by a quarter when shown
        folder = tmp_path / "set" / name[0]  # a class each
        folder.mkdir(parents=True)
        picture.save(folder / f"{name}.png", exif=exif)
    workspace = Workspace.open(tmp_path / "workspace", create=True)
    ingest(workspace, IngestSpec(name="set", source=str(tmp_path / "set"), test_fraction=0.0))
    with connected(workspace, "set") as connection:
        rows = connection.execute("SELECT source, thumbnail FROM samples JOIN images USING (sample_id)").fetchall()
    return workspace, {Path(place).stem: (place, bytes(content)) for place, content in rows}


def look(viewed: tuple[Workspace, dict[str, tuple[str, bytes]]], name: str, most: int = 400) -> Viewed:
    workspace, pictures = viewed
    place, thumbnail = pictures[name]
    return Viewer(workspace, "set").view(place, thumbnail, most)


def test_an_original_is_shown_as_it_is_or_smaller(viewed: tuple[Workspace, dict[str, tuple[str, bytes]]]) -> None:
    small, middle, large, upright = (look(viewed, name) for name in ("small", "middle", "large", "upright"))
    assert (small.content, small.width, small.height) == (b"", 40, 30)  # the thumbnail has all of its pixels
    kept = np.asarray(Image.open(io.BytesIO(middle.content)).convert("RGB"))
    assert (kept == np.asarray(Image.open(middle.path))).all() and kept.shape == (120, 200, 3)
    assert (large.width, large.height) == (900, 600)
    assert Image.open(io.BytesIO(large.content)).size == (400, 267)
    assert (upright.width, upright.height) == (300, 500)
    assert Image.open(io.BytesIO(look(viewed, "large", 8_000).content)).size == (900, 600)
    assert {one.missing for one in (small, middle, large, upright)} == {""}


def test_what_is_gone_or_another_says_so_and_nothing_is_read_elsewhere(
    viewed: tuple[Workspace, dict[str, tuple[str, bytes]]], tmp_path: Path
) -> None:
    small, middle, large = (tmp_path / "set" / name[0] / f"{name}.png" for name in ("small", "middle", "large"))
    small.rename(tmp_path / "elsewhere.png")
    middle.write_bytes(large.read_bytes())
    large.write_bytes(b"no picture")
    assert (look(viewed, "small").missing, look(viewed, "small").content) == ("moved", b"")
    assert (look(viewed, "middle").missing, look(viewed, "middle").content) == ("changed", b"")
    unreadable = look(viewed, "large")
    assert (unreadable.missing, unreadable.problem) == ("unreadable", "not an image in a known format")
    workspace, pictures = viewed
    outside = Viewer(workspace, "set").view(str(tmp_path / "elsewhere.png"), pictures["small"][1], 400)
    assert (outside.missing, outside.content, outside.path) == ("outside", b"", str(tmp_path / "elsewhere.png"))
    viewer = Viewer(workspace, "set")
    assert [viewer.is_gone(pictures[name][0]) for name in ("small", "middle")] == [True, False]
    assert not viewer.is_gone("/somewhere/else.png")  # not even looked at


def test_what_was_made_by_a_name_is_its_thumbnail(small_workspace: Workspace) -> None:
    with connected(small_workspace, "small") as connection:
        [(place, thumbnail)] = connection.execute(
            "SELECT source, thumbnail FROM samples JOIN images USING (sample_id) WHERE sample_id = 3"
        ).fetchall()
    assert Viewer(small_workspace, "small").view(place, bytes(thumbnail), 400) == Viewed(width=8, height=8)
