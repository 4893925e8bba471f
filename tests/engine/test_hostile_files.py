"""Files that were made to take all memory, all time, or more than their folder: read, left out, or refused in one line."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mutated import encoded, pixels
from PIL import Image

from engine.data.dataset_file import reading
from engine.data.ingest import ingest
from engine.data.parts import alike
from engine.data.request import IngestSpec
from engine.data.sources import open_source
from engine.data.sources.patterns import matching
from engine.errors import SourceError, WinnowError
from engine.features.own_file import read_rows
from engine.store.workspace import Workspace

needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="pipes, names or limits that other systems do not have"
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace", create=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(12):
        draw(tmp_path / "images" / ("cat", "dog")[i % 2] / f"{i}.png", i)
    return tmp_path / "images"


def draw(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(Image.new("L", (8, 8), value), "PNG"))


def refused(text: object) -> str:
    with pytest.raises(WinnowError) as caught:
        open_source(str(text), 0)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


# Folders ---------------------------------------------------------------------------------------------------------------


@needs_linux
def test_pipes_that_are_called_as_tables(folder: Path) -> None:
    os.mkfifo(folder / "x.parquet")
    for source in (folder, folder / "*.parquet"):
        assert "x.parquet cannot be read as Parquet: not a regular file" in refused(source)
    os.mkfifo(folder / "x.csv")
    assert "there is no" in refused(folder / "x.csv")


@needs_linux
def test_what_is_not_utf8_in_the_name_of_a_source(folder: Path) -> None:
    odd = folder.rename(folder.with_name(os.fsdecode(b"odd\xff")))
    (odd / "x.csv").write_text("path,label\ncat/0.png,a\ndog/1.png,b\n")
    for source in (odd, odd / "x.csv", odd.parent / "*" / "x.csv"):
        assert "UTF-8" in refused(source) or "matches 1 files" in refused(source)
    assert "is not valid UTF-8" in refused("cat\ud800")


def test_folders_deeper_than_the_stack(folder: Path) -> None:
    made = [folder / "cat"]
    while len(made) < 1500:
        made.append(made[-1] / "d")
        made[-1].mkdir()
    draw(made[-1] / "x.png")
    assert len(open_source(str(folder), 0).train) == 13
    assert matching(folder / "**" / "x.png") == [made[-1] / "x.png"]
    (made[-1] / "x.png").unlink()
    for path in reversed(made[1:]):
        path.rmdir()


@needs_linux
def test_a_pattern_does_not_walk_in_circles(folder: Path) -> None:
    for name in ("up1", "up2"):
        (folder / "cat" / name).symlink_to("..")
    (folder / "cat" / "a.parquet").write_bytes(b"")
    (folder / "cat" / "up3.parquet").symlink_to("a.parquet")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "b.parquet").write_bytes(b"")
    assert [path.name for path in matching(folder / "**" / "*.parquet")] == ["a.parquet", "up3.parquet"]
    assert [path.name for path in matching(folder / "?at" / "a.par[q]uet")] == ["a.parquet"]
    assert matching(folder / "*" / "gone") == [] and len(matching(folder / "cat" / "*.png")) == 6


def test_a_folder_that_changes_while_it_is_read(folder: Path) -> None:
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for i in range(20):
                draw(folder / "cat" / f"d{i}" / "x.png")
            for i in range(20):
                (folder / "cat" / f"d{i}" / "x.png").unlink()
                (folder / "cat" / f"d{i}").rmdir()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        counts = [len(open_source(str(folder), 0).train) for _ in range(50)]
    finally:
        stop.set()
        thread.join()
    assert 12 <= min(counts) and max(counts) <= 32


@needs_linux
def test_many_empty_folders_long_names_and_hard_links(workspace: Workspace, folder: Path) -> None:
    for i in range(3000):
        (folder / f"empty{i}").mkdir()
    for name in ("....", "x" * 255, " ", "two\nlines"):
        draw(folder / name / f"{'y' * 251}.png")
    for i in range(5):
        os.link(folder / "cat" / "0.png", folder / "cat" / f"again{i}.png")
    done = ingest(workspace, IngestSpec("d", str(folder), test_fraction=0))
    # a name of dots alone is hidden, as every name that begins with one
    assert (done.train, done.classes) == (12 + 5 + 3, 5)
    assert [(why, count) for why, count, _ in done.ignored] == [
        ("a class folder without images", 3000),
        ("a hidden folder", 1),
    ]


def test_names_that_look_alike(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("path,label\n1.png,\u00e9\n2.png,e\u0301\n", encoding="utf-8")
    source = open_source(str(tmp_path / "x.csv"), 0)
    assert len(source.classes) == 2 and "'\u00e9' is written in two ways of Unicode" in source.notes[0]
    assert alike(["a", "b", "\u212b", "\u00c5"]) == ["\u00c5"]


def test_a_failed_ingest_leaves_nothing(workspace: Workspace, folder: Path) -> None:
    (folder / "cat" / "zz.png").write_bytes(b"")
    before = sorted(workspace.root.rglob("*"))
    with pytest.raises(SourceError):
        ingest(workspace, IngestSpec("d", str(folder)))
    assert sorted(workspace.root.rglob("*")) == before
    ingest(workspace, IngestSpec("d", str(folder), skip_bad=True))
    assert [path.name for path in sorted((workspace.root / "datasets").iterdir())] == ["d.duckdb"]


# Images ----------------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, extra: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = zlib.compress(bytes(9 * 8)) if width == 8 else b""
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bmp(width: int, height: int) -> bytes:
    about = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 154, 0, 0, 54) + about + bytes(100)


def edited(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def bombs() -> dict[str, tuple[bytes, str]]:
    """name -> (file, what is printed of it)."""
    zeros = zlib.compress(bytes(20_000_000))
    gif, jpeg = encoded(pixels(0, "P"), "GIF"), encoded(pixels(0, side=64), "JPEG", progressive=True)
    last = jpeg[jpeg.rindex(b"\xff\xda") : jpeg.rindex(b"\xff\xd9")]
    tiff = encoded(pixels(0), "TIFF", compression="tiff_lzw")
    large = "the image is larger than 89,478,485 pixels"
    text = "Decompressed data too large"
    return {
        "size.png": (png(2**31 - 1, 2**31 - 1), large),
        "size.gif": (edited(gif, 6, b"\xff" * 4), large),
        "frame.gif": (edited(gif, gif.index(b"\x2c") + 5, b"\xff" * 4), large),
        "size.bmp": (bmp(2**31 - 1, 2**31 - 1), large),
        "size.jpg": (edited(jpeg, jpeg.index(b"\xff\xc2") + 5, b"\xff" * 4), large),
        "size.ppm": (b"P6 99999999 99999999 255\n", large),
        "digits.ppm": (b"P3 8 8 " + b"9" * 100_000, "Token too long"),
        "profile.png": (png(8, 8, chunk(b"iCCP", b"a\0\0" + zeros)), text),
        "ztxt.png": (png(8, 8, chunk(b"zTXt", b"a\0\0" + zeros)), text),
        "itxt.png": (
            png(8, 8, chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(10**6))) * 70),
            "Too much memory used in text",
        ),
        "scans.jpg": (jpeg[:-2] + last * 200 + jpeg[-2:], "scans; allowed: 100"),
        "nothing.png": (b"", "not an image in a known format"),
        "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(x) (w) file\n", "not an image in a known"),
        "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>", "not an image in a known"),
        "paper.jpg": (b"%PDF-1.4\n", "not an image in a known"),
        "icon.png": (encoded(pixels(0, side=16), "ICO"), "not an image in a known"),
        "damaged.tif": (edited(tiff, 60, bytes(400)), ""),
    }


def good() -> dict[str, bytes]:
    """What is odd, and an image."""
    gif, jpeg = encoded(pixels(0, "P"), "GIF"), encoded(pixels(0, side=64), "JPEG")
    frame, start = gif.index(b"\x2c"), jpeg.index(b"\xff\xda") + 14
    around = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8)  # a directory that holds itself
    tiff = encoded(pixels(0), "TIFF")
    (first,) = struct.unpack("<I", tiff[4:8])
    (count,) = struct.unpack("<H", tiff[first : first + 2])
    return {
        "frames.gif": gif[:frame] + gif[frame:-1] * 20_000 + b";",
        "frames.png": png(8, 8, chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))),
        "texts.png": png(8, 8, chunk(b"tEXt", b"a\0b") * 10_000),
        "restarts.jpg": jpeg[:start] + b"\xff\xd0\xff\xd1" * 100_000 + jpeg[start:],
        "around.jpg": encoded(pixels(0), "JPEG", exif=around),
        "around.tif": edited(tiff, first + 2 + 12 * count, struct.pack("<I", first)),
    }


def test_bombs_and_files_that_are_no_pixels_are_bad_samples(workspace: Workspace, folder: Path) -> None:
    made, fine = bombs(), good()
    for name, data in {**{name: data for name, (data, _) in made.items()}, **fine}.items():
        (folder / "cat" / name).write_bytes(data)
    done = ingest(workspace, IngestSpec("d", str(folder), skip_bad=True))
    assert (done.train + done.test, done.skipped) == (12 + len(fine), len(made))
    with reading(workspace.dataset_path("d")) as connection:
        printed = dict(connection.execute("SELECT parse_filename(source), reason FROM skipped").fetchall())
    assert printed.keys() == made.keys()
    assert [name for name, (_, why) in made.items() if why not in printed[name]] == []


@needs_linux
def test_libtiff_is_silent(workspace: Workspace, folder: Path) -> None:
    tiff = encoded(pixels(0), "TIFF", compression="tiff_lzw")
    (folder / "cat" / "x.tif").write_bytes(edited(tiff, 60, bytes(400)))
    command = [sys.executable, "-P", "-m", "engine.cli", "ingest", "d", "--from", str(folder)]
    ended = subprocess.run([*command, "--workspace", str(workspace.root)], capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr.strip().count("\n")) == (2, 0) and "x.tif: decoder error" in ended.stderr


@needs_linux
@pytest.mark.slow
def test_large_images_are_not_held_together(workspace: Workspace, folder: Path) -> None:
    """Sixteen of 80 million pixels: those that are looked at first would take 1.3 GB together."""
    large = encoded(Image.new("1", (9000, 9000)), "PNG")
    for i in range(16):
        (folder / "cat" / f"large{i}.png").write_bytes(large)
    code = (
        "import resource, sys; from pathlib import Path; from engine.data.ingest import ingest;"
        "from engine.data.request import IngestSpec; from engine.store.workspace import Workspace;"
        "print(ingest(Workspace.open(Path(sys.argv[1])), IngestSpec('d', sys.argv[2], test_fraction=0)).train,"
        "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)"
    )
    command = [sys.executable, "-P", "-c", code, str(workspace.root), str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    train, megabytes = ended.stdout.split()
    assert train == "28" and int(megabytes) < 900


# Tables, IDX and feature files ------------------------------------------------------------------------------------------


def test_idx_files_are_read_as_far_as_their_header_says(tmp_path: Path) -> None:
    labels = bytes([0, 0, 8, 1]) + struct.pack(">I", 4) + bytes([0, 1, 0, 1])
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    images = tmp_path / "train-images-idx3-ubyte"
    images.write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">III", *[2**32 - 1] * 3))
    assert "unpacks to more than 100 times its size" in refused(tmp_path)
    images.write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">III", 4, 2, 2) + bytes(16))
    assert len(open_source(str(tmp_path), 0).train) == 4
    with open(images, "r+b") as file:
        file.truncate(2**40)  # which takes no room
    assert "its header says 16 bytes, it has more" in refused(tmp_path)
    images.unlink()
    images.with_name("train-images-idx3-ubyte.gz").write_bytes(
        gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">III", 4, 2, 2) + bytes(10**8))
    )
    assert "it has more" in refused(tmp_path)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("", "has no column 'path'"),
        ("path,label\n", "has no training rows"),
        ('path,label\n1.png,"a\n2.png,b\n', "training samples of 1 class"),
        ('path,label\n1.png,"' + "x" * 200_000, "field larger than field limit"),
        ("path,label\n" + "x" * (1 << 24), "a line has more than 16,777,216 characters"),
        ("path,label\n1.png,a" + ",x" * 100_000, "100002 fields; the header has 2"),
        (",".join(f"c{i}" for i in range(5000)) + ",path,label\n", "has 5,000 further columns"),
        ("path,label\n1.png,a\0\n2.png,b\n", "has a label with a zero byte"),
        ("path,label\n1.png," + "9" * 5000 + "\n2.png,1\n", "a label of 5,000 characters"),
        ("path,label\n1.png\0,a\n", "the path is '1.png\\x00'"),
        ("path,label\n1.png,\ud800\n", "is not UTF-8 text"),
        ("path,label,split\n1.png,a,t\u00e9st\n2.png,b,train\n", "split is 't\u00e9st'"),
        ("path,label,true_label\n1.png,0," + "9" * 5000 + "\n2.png,1,1\n", "is none of the classes (0, 1)"),
    ],
)
def test_csv_files(tmp_path: Path, text: str, printed: str) -> None:
    (tmp_path / "x.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert printed in refused(tmp_path / "x.csv")


def test_numbers_that_are_none_stay_names(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("path,label\n1.png,inf\n2.png,nan\n3.png,-1\n4.png,\u00b2\n5.png," + "9" * 900)
    assert open_source(str(tmp_path / "x.csv"), 0).classes == ("-1", "9" * 900, "inf", "nan", "\u00b2")


PICTURES = [encoded(Image.new("L", (8, 8), i), "PNG") for i in range(12)]
LABELS = [i % 2 for i in range(12)]


def not_utf8(count: int = 12) -> pa.Array:
    data = pa.array([b"\xff\xfe", b"fine"] * (count // 2), pa.binary())
    return pa.Array.from_buffers(pa.string(), count, data.buffers())


@pytest.mark.parametrize(
    ("label", "printed"),
    [
        (pa.array([2**62 + i for i in LABELS], pa.timestamp("us")), "column 'label' is damaged"),
        (not_utf8(), "column 'label' is damaged"),
        (pa.array([{"a": i} for i in LABELS]), "column 'label' is struct<a: int64>; allowed as label"),
        (pa.array([[i] for i in LABELS]), "column 'label' is list<"),
        (pa.array([b"a", b"b"] * 6, pa.binary(1)), "column 'label' is fixed_size_binary[1]"),
        (pa.array(LABELS).cast(pa.decimal128(20, 0)), "neither a whole number nor text"),
        (pa.array([float("nan"), 1.0] * 6), "no label (nan)"),
        (pa.array([float("inf"), 1.0] * 6), "neither a whole number nor text"),
        (pa.nulls(12), "no label (None)"),
        (pa.array(["x" * 2_000_000, "b"] * 6), "a text of 2,000,000 bytes; allowed: 1,000,000"),
        (pa.array(["9" * 5000, "b"] * 6), "a label of 5,000 characters"),
    ],
)
def test_labels_of_parquet_files(tmp_path: Path, label: pa.Array, printed: str) -> None:
    pq.write_table(pa.table({"image": PICTURES, "label": label}), tmp_path / "x.parquet")
    assert printed in refused(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("names", "printed"),
    [
        ("5", "are not texts"),
        ('{"a": 1}', "are not texts"),
        ("[null, null]", "are not texts"),
        ('[1, {"a": 2}]', "are not texts"),
        ('[["a"], ["b"]]', "are not texts"),
        ('["\\ud800", "b"]', "is not valid Unicode"),
        ('["a\\u0000", "b"]', "a label with a zero byte"),
        ('["a", "a"]', "two classes of the same name"),
    ],
)
def test_names_of_classes_in_parquet_files(tmp_path: Path, names: str, printed: str) -> None:
    meta = f'{{"info": {{"features": {{"label": {{"_type": "ClassLabel", "names": {names}}}}}}}}}'
    table = pa.table({"image": PICTURES, "label": LABELS}).replace_schema_metadata({"huggingface": meta})
    pq.write_table(table, tmp_path / "x.parquet")
    assert printed in refused(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    "meta", [b"[" * 100_000, b"5", b'{"info": [1]}', b"\xff", b"9" * 5000, b'{"info": {"features": 5}}']
)
def test_metadata_of_parquet_files_that_say_nothing(tmp_path: Path, meta: bytes) -> None:
    table = pa.table({"image": PICTURES, "label": LABELS}).replace_schema_metadata({"huggingface": meta})
    pq.write_table(table, tmp_path / "x.parquet")
    assert open_source(str(tmp_path / "x.parquet"), 0).classes == ("0", "1")


def write_twice(path: Path, columns: Sequence[str]) -> None:
    arrays = [pa.array(PICTURES if name == "image" else LABELS) for name in columns]
    pq.write_table(pa.Table.from_arrays(arrays, names=list(columns)), path)


def test_columns_and_rows_of_parquet_files(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    for twice in (["image", "label", "label"], ["image", "image", "label"], ["image", "label", "m", "m"]):
        write_twice(path, twice)
        assert "has two columns" in refused(path)
    write_twice(path, ["image", "label", *(f"c{i}" for i in range(3000))])
    assert "has 3,000 further columns" in refused(path)
    pq.ParquetWriter(path, pa.schema([("image", pa.binary()), ("label", pa.int64())])).close()
    assert "has no training rows" in refused(path)
    pq.write_table(pa.table({"label": pa.array(np.zeros(3_000_000, np.int8))}), path)
    assert "says that it has 3,000,000 rows in" in refused(path)


def test_a_text_that_is_there_a_thousand_times_is_read_once(workspace: Workspace, tmp_path: Path) -> None:
    """A picture of 20 MB in each of 500 rows, which is once in the file, and would be 10 GB in memory."""
    picture = PICTURES[0] + bytes(20_000_000)
    places = pa.array([i % 2 for i in range(500)], pa.int32())
    column = pa.DictionaryArray.from_arrays(places, pa.array([picture, PICTURES[1]], pa.binary()))
    pq.write_table(
        pa.table({"image": column, "label": [i % 2 for i in range(500)]}),
        tmp_path / "x.parquet",
        compression="zstd",
        dictionary_pagesize_limit=1 << 30,
    )
    assert (tmp_path / "x.parquet").stat().st_size < 100_000
    source = open_source(str(tmp_path / "x.parquet"), 0)
    assert len(source.train) == 500 and source.train.load(498).size == (8, 8)  # type: ignore[union-attr]


def test_images_that_unpack_to_far_more_than_the_file_are_bad_samples(workspace: Workspace, tmp_path: Path) -> None:
    zeros = [PICTURES[i % 2] + bytes(30_000_000 + i) for i in range(10)]
    table = pa.table({"image": pa.array(zeros, pa.binary()), "label": LABELS[:10]})
    path = tmp_path / "x.parquet"
    with pq.ParquetWriter(
        path, table.schema, compression="zstd", use_dictionary=False, write_statistics=False
    ) as writer:
        writer.write_table(table)
        writer.write_table(pa.table({"image": PICTURES, "label": LABELS}))
    done = ingest(workspace, IngestSpec("d", str(path), skip_bad=True, test_fraction=0))
    assert (done.train, done.skipped) == (12, 10)
    assert done.ignored == (("row group 0 unpacks to more than 100 times its size", 10, f"{path}:0"),)


def test_torchvision_classes_that_are_no_images_with_a_class(tmp_path: Path) -> None:
    for name in ("LSUN", "CocoDetection", "Kinetics", "DatasetFolder", "PhotoTour", "VisionDataset"):
        assert f"{name} has no single class label per image" in refused(f"torchvision:{name}:{tmp_path}")
    assert "unknown torchvision dataset" in refused(f"torchvision:{'a' * 5000}")


@pytest.mark.parametrize(
    "source", ["http://127.0.0.1:1/x.parquet", "s3://b/x.csv", "hf://d/x*.parquet", "file:///etc", "~x/y"]
)
def test_addresses_are_paths_that_are_not_there(source: str) -> None:
    assert "there is no" in refused(source) or "matches 0 files" in refused(source)


def read_features(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read_rows(path, [f"/{i}.png" for i in range(12)], 10)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def test_feature_files(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**8, 1)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", header.getvalue() + bytes(4 * 10**8))
    assert "features.npy unpacks to more than 100 times its size" in read_features(path)
    np.savez(path, **{f"a{i}": np.zeros((12, 3)) for i in range(200)})
    assert "a19 (12, 3), ...; allowed: one table" in read_features(path)
    path.write_bytes(path.read_bytes()[:-30])
    assert "cannot be read as features" in read_features(path)  # and closed: pytest takes a warning as an error
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features", b"text")
    assert "numbers of shape ()" in read_features(path)
    pq.write_table(pa.table({"a": np.zeros(3_000_000, np.float32)}), tmp_path / "x.parquet")
    assert "says that it has 3,000,000 rows" in read_features(tmp_path / "x.parquet")
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    assert "cannot be read as features" in read_features(tmp_path / "x.safetensors")
