"""What a seed makes of small real files and of texts, and a process with little memory that reads it.

`python mutated.py KIND SEED COUNT FOLDER` reads COUNT of a kind and prints one JSON object: how many ended how, and what
ended otherwise than it may. It is not a test itself: tests/engine/test_fuzz_sources.py starts it.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import resource
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from safetensors.numpy import save

from engine.cli import console
from engine.data.dataset_file import reading
from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import WinnowError
from engine.features.own_file import read_rows
from engine.store.workspace import Workspace

MEMORY = {"features": 12 << 30, "texts": 12 << 30}  # what torch alone reserves
SLOW = 60.0
"""Seconds from which one case counts as a hang."""

INTERESTING = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some bits, lengths, headers, places and ends of a file changed."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 4, 16))):
        if not out:
            break
        size, how = len(out), rng.randrange(9)
        at = rng.choice(
            (
                rng.randrange(size),
                rng.randrange(size),
                rng.randrange(min(size, 64)),
                max(0, size - 1 - rng.randrange(200)),
            )
        )
        length = rng.choice((1, 2, 4, 8, rng.randrange(1, 200)))
        if how == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            out[at] = rng.randrange(256)
        elif how == 2:
            del out[at:]
        elif how == 3:
            del out[at : at + length]
        elif how == 4:
            out[at:at] = out[at : at + length] * rng.choice((1, 2, 50))
        elif how == 5:
            start = rng.randrange(size)
            out[at : at + length] = out[start : start + length]
        elif how == 6:
            form = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
            bits = 8 * struct.calcsize(form)
            out[at : at + bits // 8] = struct.pack(form, rng.choice(INTERESTING) % 2**bits)
        elif how == 7:
            out[at:at] = rng.randbytes(length)
        else:
            out[at : at + length] = rng.choice((b"\0", b"\xff")) * length
    return bytes(out)


def pixels(seed: int, mode: str = "RGB", side: int = 24) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    values[: side // 2] = np.arange(side, dtype=np.uint8)[None, :, None] * 9
    return Image.fromarray(values).convert(mode)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def images() -> list[tuple[str, bytes]]:
    """(suffix, file) of every format that is read, in several of its forms."""
    exif = Image.Exif()
    exif[0x0112] = 6
    more = [pixels(i, "P") for i in range(3)]
    forms: list[tuple[str, str, str, dict[str, object]]] = [
        *((".png", "PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
        (".png", "PNG", "P", {"transparency": 3}),
        *((".jpg", "JPEG", mode, {"exif": exif}) for mode in ("RGB", "L", "CMYK")),
        (".jpg", "JPEG", "RGB", {"progressive": True, "icc_profile": bytes(300)}),
        (".webp", "WEBP", "RGB", {}),
        (".webp", "WEBP", "RGBA", {"lossless": True, "exif": exif}),
        (".webp", "WEBP", "RGB", {"save_all": True, "append_images": [pixels(9)]}),
        (".gif", "GIF", "P", {"save_all": True, "append_images": more, "transparency": 1}),
        *((".bmp", "BMP", mode, {}) for mode in ("RGB", "L", "P", "1")),
        *(
            (".tif", "TIFF", "RGB", {"compression": how})
            for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
        ),
        *((".tif", "TIFF", "1", {"compression": how}) for how in ("group3", "group4")),
        *((".tif", "TIFF", mode, {}) for mode in ("I;16", "F", "CMYK", "LAB", "P")),
        *((".ppm", "PPM", mode, {}) for mode in ("RGB", "L", "1")),
        (".jp2", "JPEG2000", "RGB", {}),
    ]
    found = []
    for i, (suffix, form, mode, options) in enumerate(forms):
        image = Image.fromarray(np.arange(576, dtype=np.uint16).reshape(24, 24)) if mode == "I;16" else None
        if mode == "LAB":
            image = Image.merge("LAB", pixels(i).split())
        found.append((suffix, encoded(image or pixels(i, mode), form, **options)))
    return [*found, (".ppm", b"P3 3 2 255\n" + b"1 2 3 " * 6), (".pbm", b"P1\n4 2\n01010101")]


def parquet_files() -> list[bytes]:
    pictures = [encoded(pixels(i, side=8), "PNG") for i in range(12)]
    labels = [i % 3 for i in range(12)]
    named = '{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "b", "c"]}}}}'
    structs = pa.table({"image": [{"bytes": one, "path": "x.png"} for one in pictures], "label": labels})
    plain = {"image": pictures, "label": ["cat", "dog", "bird"] * 4, "split": ["train"] * 9 + ["test"] * 3}
    more = {"when": pa.array(range(12), pa.timestamp("us")), "price": [i / 7 for i in range(12)], "note": ["é"] * 12}
    forms: list[tuple[pa.Table, dict[str, object]]] = [
        (structs.replace_schema_metadata({"huggingface": named}), {}),
        (pa.table(plain | more), {"compression": "zstd", "row_group_size": 5}),
        (pa.table(plain), {"compression": "none", "use_dictionary": False}),
        (pa.table({"path": [f"{i}.png" for i in range(12)], "label": labels, "true_label": labels}), {}),
    ]
    found = []
    for table, options in forms:
        out = io.BytesIO()
        pq.write_table(table, out, **options)
        found.append(out.getvalue())
    return found


def csv_files() -> list[bytes]:
    rows = [[f"{i}.png", ["cat", "dog", "bird"][i % 3], ["train", "test"][i % 4 == 3], f"n, {i}"] for i in range(12)]

    def written(delimiter: str, header: list[str]) -> str:
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter).writerows([header, *rows])
        return out.getvalue()

    text = written(",", ["path", "label", "split", "note"])
    other = written(";", ["file_name", "label", "split", "class_name"])
    return [
        text.encode(),
        text.encode("utf-16"),
        b"\xef\xbb\xbf" + other.encode(),
        written("\t", ["a", "label", "c", "note"]).encode(),
    ]


def idx_files() -> list[tuple[str, bytes]]:
    """(suffix, images)."""
    data = bytes([0, 0, 8, 3]) + struct.pack(">III", 12, 8, 8) + bytes(range(256)) * 3
    return [("", data), (".gz", gzip.compress(data, mtime=0))]


def feature_files() -> list[tuple[str, bytes]]:
    rows = np.random.default_rng(0).random((12, 3), np.float32)
    ids = np.arange(12)
    npy, npz, table = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(npy, rows)
    np.savez_compressed(npz, features=rows, sample_id=ids)
    pq.write_table(pa.table({"features": list(rows), "path": [f"/x/{i}.png" for i in range(12)]}), table)
    lines = "a,b,sample_id\n" + "".join(f"{x:.3f},{y:.3f},{i}\n" for i, (x, y, _) in enumerate(rows))
    return [
        (".npy", npy.getvalue()),
        (".npz", npz.getvalue()),
        (".safetensors", save({"features": rows, "id": ids})),
        (".parquet", table.getvalue()),
        (".csv", lines.encode()),
    ]


ODD_WORDS = (
    *(
        "..",
        ".",
        "~",
        "~x",
        "",
        " ",
        "\0",
        "\n",
        "\x1b[31m",
        "\ud800",
        "\udcff",
        "²",
        "é",
        "e\u0301",
        "\u202e",
        "x" * 300,
    ),
    *("*", "**", "[", "[a-", "?", "{}", "%s", "$HOME", "|ls", "-", "--help", "con", "c:", "digits", "synthetic"),
    *("dataset:", "torchvision:", "torchvision:MNIST", "torchvision:LSUN", "http:", "s3:", "hf:", "file:", "label=a"),
    *("a.csv", "b.parquet", "c.png", "cat", "train", "raw", "train-images-idx3-ubyte", "=", ",", ":", ";", "9" * 30),
)


def text(rng: random.Random) -> str:
    """What somebody may write after --from: paths and names of odd words."""
    words = [rng.choice(ODD_WORDS) for _ in range(rng.choice((1, 1, 2, 3, 5)))]
    made = rng.choice(("/", "", ":", "//", ",", "=")).join(words)
    if made.startswith("/"):  # the disk of whoever tests is not walked
        made = f"./{made}"
    return made * rng.choice((1, 1, 1, 1, 40))


# The process that reads ------------------------------------------------------------------------------------------------


class Outcomes:
    """How cases ended. `bad` lists what may not be: another exception, two lines, something left, a hang."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "workspace"
        self.workspace = Workspace.open(self.root, create=True)
        self.empty = self.listing()
        self.counted: Counter[str] = Counter()
        self.bad: list[str] = []
        self.slowest = 0.0

    def listing(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))

    def run(self, name: str, read: Callable[[], object]) -> None:
        started = time.monotonic()
        try:
            read()
            self.counted["read"] += 1
        except WinnowError as error:
            self.counted[type(error).__name__] += 1
            if len(printed(error).splitlines()) != 1 or len(str(error)) > 2000:
                self.bad.append(f"{name}: {printed(error)[:300]!r}")
        except MemoryError:  # one line on the command line
            self.counted["MemoryError"] += 1
        except Exception as error:
            self.bad.append(f"{name}: {''.join(traceback.format_exception(error))[-1500:]}")
        seconds = time.monotonic() - started
        self.slowest = max(self.slowest, seconds)
        if seconds > SLOW:
            self.bad.append(f"{name}: took {seconds:.0f} s")

    def ingest(self, name: str, **options: object) -> None:
        self.run(name, lambda: ingest(self.workspace, IngestSpec("d", **options)))  # type: ignore[arg-type]
        if (path := self.workspace.dataset_path("d")).exists():
            path.unlink()
        if self.listing() != self.empty:
            self.bad.append(f"{name}: left {sorted(set(self.listing()) - set(self.empty))}")


def printed(error: WinnowError) -> str:
    """What the command line prints of an error."""
    console.messages.file = out = io.StringIO()
    console.say(f"winnow: {error}")
    return out.getvalue()


def read_images(outcomes: Outcomes, rng: random.Random, count: int, folder: Path) -> None:
    """All in one folder, which must be read with the bad ones skipped and counted; then the first bad one alone."""
    originals = images()
    for i in range(count):
        suffix, data = originals[i % len(originals)]
        at = folder / "images" / "ab"[i % 2] / f"{i:05}{suffix}"
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(data if i < 2 * len(originals) and i % 4 < 2 else mutated(data, rng))
    spec = IngestSpec("d", str(folder / "images"), skip_bad=True)

    def read() -> None:
        done = ingest(outcomes.workspace, spec)
        assert done.train + done.test + done.skipped == count, (done, count)
        outcomes.counted.update({"image": done.train + done.test, "bad sample": done.skipped})

    outcomes.run("images", read)
    path = outcomes.workspace.dataset_path("d")
    with reading(path) as connection:
        skipped = connection.execute("SELECT source, reason FROM skipped").fetchall()
    outcomes.bad += [f"{source}: {why!r}" for source, why in skipped if len(why.splitlines()) != 1 or len(why) > 300]
    path.unlink()
    outcomes.ingest("images without --skip-bad", source=str(folder / "images"))


def read_tables(kind: str) -> Callable[[Outcomes, random.Random, int, Path], None]:
    def read(outcomes: Outcomes, rng: random.Random, count: int, folder: Path) -> None:
        for i in range(12):
            (folder / f"{i}.png").write_bytes(encoded(pixels(i, side=8), "PNG"))
        originals = parquet_files() if kind == "parquet" else csv_files()
        for i in range(count):
            path = folder / f"x.{kind}"
            data = originals[i % len(originals)]
            # Half of them keep what would be refused first: the footer of a Parquet file, UTF-8 of a CSV.
            end = 8 + int.from_bytes(data[-8:-4], "little") if kind == "parquet" and rng.random() < 0.5 else 0
            data = mutated(data[: len(data) - end], rng) + data[len(data) - end :]
            if kind == "csv" and i % 4 != 1 and rng.random() < 0.5:
                data = data.decode("utf-8", "replace").encode()
            path.write_bytes(data)
            columns = "path=a,split=c" if kind == "csv" and i % 4 == 3 else None
            outcomes.ingest(f"{kind} {i}", source=str(path), columns=columns, skip_bad=bool(i % 2))

    return read


def read_idx(outcomes: Outcomes, rng: random.Random, count: int, folder: Path) -> None:
    originals = idx_files()
    labels = bytes([0, 0, 8, 1]) + struct.pack(">I", 12) + bytes([0, 1, 2] * 4)
    for i in range(count):
        suffix, data = originals[i % 2]
        (folder / "train-labels-idx1-ubyte").write_bytes(mutated(labels, rng) if i % 3 == 0 else labels)
        for old in folder.glob("train-images*"):
            old.unlink()
        (folder / f"train-images-idx3-ubyte{suffix}").write_bytes(data if i % 3 == 0 else mutated(data, rng))
        outcomes.ingest(f"idx {i}", source=str(folder), skip_bad=bool(i % 2))


def read_features(outcomes: Outcomes, rng: random.Random, count: int, folder: Path) -> None:
    originals = feature_files()
    places = [f"/x/{i}.png" for i in range(12)]
    for i in range(count):
        suffix, data = originals[i % len(originals)]
        path = folder / f"x{suffix}"
        path.write_bytes(mutated(data, rng))
        outcomes.run(f"features {i} {suffix}", lambda path=path: read_rows(path, places, 10))


def read_texts(outcomes: Outcomes, rng: random.Random, count: int, folder: Path) -> None:
    """From a folder that is so deep that a few .. stay in it."""
    deep = folder.joinpath(*["deep"] * 60)
    deep.mkdir(parents=True)
    os.chdir(deep)
    for name in ("a.csv", "b.parquet", "c.png"):
        Path(name).write_bytes(b"")
    Path("cat").mkdir()
    for i in range(count):
        source, which = text(rng), rng.randrange(8)
        options = {3: {"test": text(rng)}, 4: {"columns": text(rng)}, 5: {"metadata": text(rng)}}.get(which, {})
        if which == 6:
            options = {"labels": text(rng) + ":x"}
        outcomes.ingest(
            f"text {i} {source!r} {options!r}"[:500], source="cat" if which in (4, 5, 6) else source, **options
        )


READERS = {
    "images": read_images,
    "parquet": read_tables("parquet"),
    "csv": read_tables("csv"),
    "idx": read_idx,
    "features": read_features,
    "texts": read_texts,
}


def main() -> Iterator[str]:
    kind, seed, count, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    limit = MEMORY.get(kind, 3 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    outcomes = Outcomes(folder)
    (given := folder / "given").mkdir()
    READERS[kind](outcomes, random.Random(f"{kind} {seed}"), count, given)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    yield json.dumps(
        {"counted": outcomes.counted, "bad": outcomes.bad[:10], "slowest": outcomes.slowest, "megabytes": memory}
    )


if __name__ == "__main__":
    print(*main())
