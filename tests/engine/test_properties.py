"""Properties of images, against Pillow's own statistics and by hand; and where an ingest keeps them."""

import math

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageStat

from engine.data.ingest import ingest
from engine.data.properties import LONGEST, measure, shrink
from engine.data.request import IngestSpec
from engine.queries.connection import connected
from engine.store.tables import PROPERTIES
from engine.store.workspace import Workspace

NAMES = list(PROPERTIES)


def properties(*images):
    rows = measure([shrink(image) for image in images], [image.size for image in images])
    return [dict(zip(NAMES, row, strict=True)) for row in rows.tolist()]


def drawn(size, mode, seed=0):
    """Noise over a gradient, so that every property has something to measure."""
    generator = np.random.default_rng(seed)
    ramp = np.linspace(0, 180, size[0] * size[1]).reshape(size[1], size[0], 1)
    noise = generator.integers(0, 76, (size[1], size[0], 3))
    image = Image.fromarray((ramp + noise).astype(np.uint8))
    return image.convert(mode)


def by_pillow(image):
    """The definitions of CleanVision 0.3.7, one image at a time."""
    pixels = np.asarray(image.convert("RGB")).astype(float)
    weights = np.array([0.241, 0.691, 0.068])
    brightness = np.sqrt((pixels**2) @ weights) / 255
    mean = np.array(ImageStat.Stat(image.convert("RGB")).mean)
    small, ratio = image, max(image.size) / 64
    if ratio > 1:
        small = image.resize((max(int(image.width // ratio), 1), max(int(image.height // ratio), 1)))
    gray = small.convert("L")
    return {
        "brightness": math.sqrt((mean**2) @ weights) / 255,
        "brightness_p05": np.percentile(brightness, 5),
        "brightness_p99": np.percentile(brightness, 99),
        "sharpness": math.sqrt(ImageStat.Stat(gray.filter(ImageFilter.FIND_EDGES)).var[0]),
        "histogram_spread": np.std(gray.histogram()),
        "histogram_entropy": image.entropy(),
        "aspect_ratio": min(image.size) / max(image.size),
        "resolution": math.sqrt(image.width * image.height),
    }


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(32, 32), (8, 8), (2, 5), (1, 1), (64, 64), (65, 64), (100, 30), (30, 190)])
def test_they_are_what_pillow_measures(size, mode):
    images = [drawn(size, mode, seed) for seed in range(3)]
    for found, image in zip(properties(*images), images, strict=True):
        assert found == pytest.approx(by_pillow(image), rel=1e-9, abs=1e-9)


def test_together_they_are_what_they_are_alone():
    images = [drawn(size, mode) for size in [(32, 32), (28, 28), (32, 32), (90, 40)] for mode in ("RGB", "L")]
    assert properties(*images) == [pytest.approx(properties(image)[0], rel=1e-12) for image in images]


def test_by_hand():
    black, white = (Image.new("RGB", (32, 16), color) for color in ("black", "white"))
    dark, bright = properties(black, white)
    assert (dark["brightness_p99"], bright["brightness_p05"]) == (0, pytest.approx(1))
    assert dark["sharpness"] == 0
    # Pillow's edges keep the border as it is: 92 of 512 pixels are white, the others black.
    assert bright["sharpness"] == pytest.approx(255 * math.sqrt(92 / 512 * 420 / 512))
    # One value in each of three channels; in gray there is one alone.
    assert dark["histogram_entropy"] == bright["histogram_entropy"] == pytest.approx(math.log2(3))
    assert properties(white.convert("L"))[0]["histogram_entropy"] == 0
    assert (dark["aspect_ratio"], dark["resolution"]) == (0.5, pytest.approx(math.sqrt(512)))
    red = properties(Image.new("RGB", (4, 4), (200, 0, 0)))[0]
    assert red["brightness"] == pytest.approx(math.sqrt(0.241) * 200 / 255)
    # All 16 counts of the gray histogram in one of 256 bins: the deviation of (16, 0, .. 0).
    assert red["histogram_spread"] == pytest.approx(16 * math.sqrt(1 / 256 - 1 / 256**2))


def test_a_large_picture_is_measured_smaller_and_nearly_the_same():
    large = drawn((900, 600), "RGB").filter(ImageFilter.GaussianBlur(2))
    assert max(shrink(large).size) <= LONGEST and shrink(drawn((LONGEST, 9), "RGB")).size == (LONGEST, 9)
    found, exact = properties(large)[0], by_pillow(large)
    assert (found["resolution"], found["aspect_ratio"]) == (exact["resolution"], exact["aspect_ratio"])
    for name in ("brightness", "brightness_p05", "brightness_p99"):
        assert found[name] == pytest.approx(exact[name], abs=0.02)
    assert found["sharpness"] == pytest.approx(exact["sharpness"], rel=0.1)


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def kept(workspace, tmp_path):
    """A dataset of six images of two sizes, one a broken file, and what was kept of them."""
    images = [drawn((20, 30), "RGB", seed) for seed in range(4)] + [drawn((700, 100), "RGB")]
    for i, image in enumerate(images):
        folder = tmp_path / "pictures" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{i}.png")
    (tmp_path / "pictures" / "a" / "1broken.png").write_bytes(b"no image")
    ingest(workspace, IngestSpec("pictures", str(tmp_path / "pictures"), test_fraction=0.0, skip_bad=True))
    return workspace, images


def test_ingest_keeps_them_as_metadata(kept):
    workspace, images = kept
    with connected(workspace, "pictures", []) as connection:
        rows = connection.execute(
            "SELECT source, name, value, number FROM metadata JOIN samples USING (sample_id)"
        ).fetchall()
        assert connection.execute("SELECT count(*) FROM skipped").fetchone() == (1,)
    assert len(rows) == 5 * len(NAMES)
    for source, name, value, number in rows:
        expected = properties(images[int(source.rpartition("/")[2][0])])[0][name]
        assert number == pytest.approx(expected, rel=1e-5)
        assert float(value) == number


def test_a_derived_dataset_takes_them_over(kept):
    workspace, _ = kept
    ingest(workspace, IngestSpec("noised", "dataset:pictures", noise="symmetric:0.4"))
    counted = []
    for name in ("pictures", "noised"):
        with connected(workspace, name, []) as connection:
            counted.append(connection.execute("SELECT count(*), sum(number), min(value) FROM metadata").fetchone())
    assert counted[0] == counted[1] and counted[0][0] == 40


def test_what_is_added_has_them_too(kept, tmp_path):
    workspace, images = kept
    drawn((20, 30), "RGB", 7).save(tmp_path / "pictures" / "a" / "5.png")
    ingest(workspace, IngestSpec("pictures", str(tmp_path / "pictures"), skip_bad=True, add=True))
    with connected(workspace, "pictures", []) as connection:
        rows = connection.execute(
            "SELECT source, number FROM metadata JOIN samples USING (sample_id) WHERE name = 'brightness'"
        ).fetchall()
        counts = connection.execute("SELECT count(*), count(DISTINCT (sample_id, name)) FROM metadata").fetchone()
    assert counts == (48, 48)
    for source, number in rows:
        place = int(source.rpartition("/")[2][0])
        image = drawn((20, 30), "RGB", 7) if place == 5 else images[place]
        assert number == pytest.approx(properties(image)[0]["brightness"], rel=1e-5)


def test_a_column_of_the_same_name_is_kept_under_another(workspace, tmp_path):
    for i in range(4):
        drawn((9, 9), "RGB", i).save(tmp_path / f"{i}.png")
    rows = "".join(f"{i}.png,{'ab'[i % 2]},{i}\n" for i in range(4))
    (tmp_path / "set.csv").write_text("path,label,histogram_entropy\n" + rows)
    ingest(workspace, IngestSpec("set", str(tmp_path / "set.csv"), test_fraction=0.0))
    with connected(workspace, "set", []) as connection:
        found = connection.execute(
            "SELECT list(number ORDER BY sample_id) FROM metadata WHERE name = 'column_histogram_entropy'"
        ).fetchone()
        assert connection.execute("SELECT count(*) FROM metadata WHERE name = 'histogram_entropy'").fetchone() == (4,)
    assert found == ([0, 1, 2, 3],)


def test_vectors_have_none(workspace):
    ingest(workspace, IngestSpec("points", "synthetic", limit=100))
    with connected(workspace, "points", []) as connection:
        assert connection.execute("SELECT count(*) FROM metadata").fetchone() == (0,)
