"""Formats that hold the images themselves: class folders, and Parquet as Hugging Face `datasets` reads it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import WinnowError
from engine.queries.writers.registry import Folder, Picture, folder_writer
from engine.queries.writers.selection import Selection, records
from engine.queries.writers.tables import csv_of
from engine.text import shown

_PICTURES = 256
"""Samples whose images are read at once."""

SHARD = 4_096
"""Samples of one Parquet file."""


@folder_writer(
    "imagefolder", title="Image folder", read_by="torchvision ImageFolder, timm, fastai", back=("ingest",), images=True
)
def _imagefolder(selection: Selection, folder: Folder) -> None:
    """The images in train/ and test/, a sub-folder per class, and samples.csv with the id of each file."""
    classes, used, problems = _Names(), _Names(), Problems()
    names = {label: classes.free("", name, "", label) for label, name in enumerate(selection.classes)}
    index = open(folder.path / "samples.csv", "wb")
    with index:
        for i, (block, pictures) in enumerate(with_pictures(selection, folder)):
            files = []
            for row, picture in zip(records(block), pictures, strict=True):
                if problems.has(picture, str(row["source"])):
                    continue
                place = folder.path / str(row["split"]) / names[row["label"]]
                place.mkdir(parents=True, exist_ok=True)
                stem = picture.path.stem if picture.path else str(picture.sample_id)
                name = used.free(str(place), stem, picture.suffix, picture.sample_id)
                put(picture, place / name, folder)
                files.append(f"{row['split']}/{names[row['label']]}/{name}")
            if not problems.found:
                columns = ["sample_id", "split", "label", "class_name", "given_label", "given_class", "source"]
                index.write(csv_of(block[columns].assign(file=files), header=i == 0).encode())
    problems.refuse(len(selection), folder)
    _note_classes(selection, folder, names)


@folder_writer("hf", title="Hugging Face", read_by="Hugging Face datasets", back=("ingest",), images=True)
def _hf(selection: Selection, folder: Folder) -> None:
    """Parquet files of images and labels in data/, with the features that Hugging Face datasets reads."""
    problems = Problems()
    schema = _hf_schema(selection)
    (folder.path / "data").mkdir()
    sizes = selection.values("SELECT split, count(*) AS n FROM chosen JOIN samples USING (sample_id) GROUP BY 1")
    shards = {split: -(-int(n) // SHARD) for split, n in zip(sizes["split"], sizes["n"], strict=True)}
    taken, opened = dict.fromkeys(shards, 0), dict[str, pq.ParquetWriter]()
    try:
        for block, pictures in with_pictures(selection, folder):
            rows = [
                (row, picture)
                for row, picture in zip(records(block), pictures, strict=True)
                if not problems.has(picture, str(row["source"]))
            ]
            if problems.found:
                continue
            for split in dict.fromkeys(str(row["split"]) for row, _ in rows):
                here = [(row, picture) for row, picture in rows if row["split"] == split]
                while here:
                    shard, within = divmod(taken[split], SHARD)
                    if within == 0:
                        if split in opened:
                            opened.pop(split).close()
                        name = f"{split}-{shard:05d}-of-{shards[split]:05d}.parquet"
                        opened[split] = pq.ParquetWriter(folder.path / "data" / name, schema)
                    some, here = here[: SHARD - within], here[SHARD - within :]
                    opened[split].write_table(_hf_rows(some, schema))
                    taken[split] += len(some)
    finally:
        for file in opened.values():
            file.close()
    problems.refuse(len(selection), folder)
    if not shards:  # a reader that finds no file has nothing to say what there is none of
        pq.write_table(schema.empty_table(), folder.path / "data" / "train-00000-of-00001.parquet")


def _hf_schema(selection: Selection) -> pa.Schema:
    label = {"names": list(selection.classes), "_type": "ClassLabel"}
    features = {
        "image": {"_type": "Image"},
        "label": label,
        "given_label": label,
        "sample_id": {"dtype": "int32", "_type": "Value"},
    }
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = [("image", image), ("label", pa.int64()), ("given_label", pa.int64()), ("sample_id", pa.int32())]
    return pa.schema(columns, {"huggingface": json.dumps({"info": {"features": features}})})


def _hf_rows(rows: list[tuple[Any, Picture]], schema: pa.Schema) -> pa.Table:
    columns = {
        "image": [
            {
                "bytes": picture.path.read_bytes() if picture.path else picture.data,
                "path": picture.path.name if picture.path else f"{picture.sample_id}{picture.suffix}",
            }
            for _, picture in rows
        ],
        "label": [row["label"] for row, _ in rows],
        "given_label": [row["given_label"] for row, _ in rows],
        "sample_id": [picture.sample_id for _, picture in rows],
    }
    return pa.table(columns, schema)


def with_pictures(selection: Selection, folder: Folder) -> Iterator[tuple[pd.DataFrame, Iterator[Picture]]]:
    """The samples in blocks, with the picture of each."""
    assert folder.images is not None
    for block in selection.blocks(_PICTURES):
        yield block, folder.images.fetch(block["sample_id"].tolist())


class Problems:
    """The samples whose image cannot be written, which are counted and of which some are named."""

    def __init__(self) -> None:
        self.found, self.stand_ins, self._named = 0, 0, list[str]()

    def has(self, picture: Picture, source: str) -> bool:
        """Take note of a picture; whether nothing can be written any more."""
        self.stand_ins += picture.stands_in
        if picture.problem:
            self.found += 1
            if len(self._named) < 3:
                self._named.append(f"sample {picture.sample_id}, {shown(source, 200)}: {shown(picture.problem)}")
        return self.found > 0

    def refuse(self, of: int, folder: Folder) -> None:
        """WinnowError where the image of a sample cannot be written; a note where thumbnails stand in."""
        if self.found:
            more = f", and {self.found - len(self._named):,} more" if self.found > len(self._named) else ""
            raise WinnowError(
                f"{self.found:,} of {of:,} originals cannot be read ({'; '.join(self._named)}{more}); --originals FOLDER "
                "reads them where they lie now, --thumbnails writes small pictures in their place, and nothing was written"
            )
        if self.stand_ins:
            folder.notes.append(f"{self.stand_ins:,} images are thumbnails, because their originals cannot be read")
            folder.about["thumbnails"] = self.stand_ins


def _note_classes(selection: Selection, folder: Folder, names: dict[int, str]) -> None:
    """What the manifest and a person should know of the class folders."""
    counts = selection.values(
        "SELECT DISTINCT split, coalesce(chosen.new_label, samples.label) AS label FROM chosen JOIN samples USING (sample_id)"
    )
    by_split = {str(split): set(part["label"]) for split, part in counts.groupby("split")}
    folder.about["class_folders"] = {names[label]: name for label, name in enumerate(selection.classes)}
    for split, labels in by_split.items():
        gone = [selection.classes[label] for label in names if label not in labels]
        if gone:
            listed = ", ".join(shown(name, 80) for name in gone[:3]) + (", ..." if len(gone) > 3 else "")
            folder.notes.append(
                f"{len(gone):,} of {len(names):,} classes have no sample in {split}/ and no folder there ({listed}); what "
                "reads folders numbers the others from 0"
            )
    changed = [name for label, name in enumerate(selection.classes) if names[label] != name]
    if changed:
        folder.notes.append(
            f"{len(changed):,} classes have a name that is no name of a folder; manifest.json says which folder is whose"
        )


def put(picture: Picture, to: Path, folder: Folder) -> None:
    if picture.path is None:
        to.write_bytes(picture.data)
    elif folder.link == "copy":
        shutil.copyfile(picture.path, to)
    else:
        real = os.path.realpath(picture.path)
        try:
            os.link(real, to) if folder.link == "hardlink" else os.symlink(real, to)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise WinnowError(
                f"no {folder.link} from {to.parent} to {real}: {error.strerror}; --link copy works everywhere"
            ) from error


_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}
"""What a disk says that makes no such link here."""

_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_MOST_BYTES = 200


class _Names:
    """Names that are free in their folders, on a disk too that does not tell capitals from small letters."""

    def __init__(self) -> None:
        self._used: dict[str, set[bytes]] = {}

    def free(self, folder: str, stem: str, suffix: str, number: int) -> str:
        """A safe name like the given one; where it is taken, with the number behind it, as often as that takes."""
        stem, used = safe_name(stem), self._used.setdefault(folder, set())
        while (key := _key(stem + suffix)) in used:
            stem = f"{stem}-{number}"
        used.add(key)
        return stem + suffix


def _key(name: str) -> bytes:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return hashlib.blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def safe_name(text: str) -> str:
    """A text as the name of a file or folder anywhere: no separators, nothing hidden, nothing that some system reserves.

    >>> safe_name("../a:b "), safe_name("nul"), safe_name("")
    ('_._a_b', 'nul_', '_')
    """
    name = _UNSAFE.sub("_", text).strip().rstrip(".")
    name = re.sub(r"^\.", "_", name)
    if _RESERVED.fullmatch(name):
        name += "_"
    return name.encode()[:_MOST_BYTES].decode("utf-8", "ignore").rstrip(" .") or "_"
