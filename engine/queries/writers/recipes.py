"""Formats that say which samples and how to read them: a recipe for PyTorch, and Croissant metadata."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from engine.queries.writers.registry import Folder, folder_writer, writer
from engine.queries.writers.selection import Selection, records
from engine.store.atomic import sha256_of

_TORCH = '''"""The samples that winnow chose, as a torch.utils.data.Subset under the labels to train on. It needs torch alone.

    from torchvision.datasets import ImageFolder
    kept = subset(ImageFolder("photos/train"))     # (image, label) of each
"""

import base64
import json
import zlib

from torch.utils.data import Subset


def subset(dataset, paths=None):
    """The chosen samples of a dataset, in which each is found by its file.

    dataset: gives (image, label, ...); paths: the file of each of its samples, by default those of an ImageFolder. Samples
    of a file that holds many, such as an IDX file, are found by their place in it.
    """
    if paths is None:
        paths = [sample[0] for sample in getattr(dataset, "samples", [])]
    classes = getattr(dataset, "classes", CLASSES)
    numbers = {name: number for number, name in enumerate(classes)}
    missing = sorted({CLASSES[label] for _, label, _ in KEPT if CLASSES[label] not in numbers})
    if missing:
        raise LookupError(f"the dataset has no class {missing[0]!r}")
    places = [place for place, _, _ in KEPT]
    return Kept(dataset, positions(places, paths, len(dataset)), [numbers[CLASSES[label]] for _, label, _ in KEPT])


class Kept(Subset):
    """A Subset that gives each sample its label to train on. targets: these, in order."""

    def __init__(self, dataset, indices, targets):
        super().__init__(dataset, indices)
        self.targets = targets

    def __getitem__(self, at):
        return self._labeled(self.dataset[self.indices[at]], at)

    def __getitems__(self, indices):
        return [self[at] for at in indices]

    def _labeled(self, sample, at):
        return (sample[0], self.targets[at], *sample[2:])


def positions(places, paths, length):
    """Where in the dataset the samples are: by their place in one file, or by the end of their path."""
    if all(isinstance(place, int) for place in places):
        if places and max(places) >= length:
            raise LookupError(f"the dataset has {length} samples, and sample {max(places)} is wanted")
        return list(places)
    wanted = [str(place).replace("\\\\", "/").split("/") for place in places]
    there = [str(path).replace("\\\\", "/").split("/") for path in paths]
    for parts in range(max(map(len, wanted)), 0, -1):  # the longest end that all have in common
        at = {}
        for position, path in enumerate(there):
            at.setdefault(tuple(path[-parts:]), []).append(position)
        found = [at.get(tuple(path[-parts:]), ()) for path in wanted]
        if all(len(places) == 1 for places in found):
            return [position for position, in found]
    raise LookupError("not every sample is in the dataset once; give the files of its samples as paths")


def _read(text):
    return json.loads(zlib.decompress(base64.b64decode(text)))


CLASSES = _read("%(classes)s")
KEPT = _read("""
'''


@writer("torch", title="PyTorch recipe", ending=".py", media_type="text/x-python", read_by="PyTorch", back=("import",))
def _torch(selection: Selection, file: BinaryIO) -> None:
    """A small program with the chosen files and labels, whose subset(dataset) is a torch.utils.data.Subset."""
    names = base64.b64encode(zlib.compress(json.dumps(selection.classes).encode(), 9)).decode()
    file.write((_TORCH % {"classes": names}).encode())
    packer, waiting = zlib.compressobj(9), b""
    for text in _kept(selection):
        waiting += packer.compress(text.encode())
        whole = len(waiting) - len(waiting) % 57  # a line of base64, and no padding within
        _write_lines(file, waiting[:whole])
        waiting = waiting[whole:]
    _write_lines(file, waiting + packer.flush())
    file.write(b'""")\n')


def _kept(selection: Selection) -> Iterator[str]:
    """A JSON list of [file or place in it, label to train on, sample id] in pieces."""
    yield "["
    for i, block in enumerate(selection.blocks()):
        columns = records(block[["source", "label", "sample_id"]])
        rows = [[_place(str(row["source"] or "")), row["label"], row["sample_id"]] for row in columns]
        yield ("," if i and rows else "") + json.dumps(rows)[1:-1]
    yield "]"


def _place(source: str) -> str | int:
    """The path of a file, or of a row of a file that holds many its number."""
    text, _, index = source.rpartition(":")
    return int(index) if text and index.isascii() and index.isdecimal() and len(index) < 10 else source


def _write_lines(file: BinaryIO, data: bytes) -> None:
    for start in range(0, len(data), 57):
        file.write(base64.b64encode(data[start : start + 57]) + b"\n")


_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The vocabulary of Croissant 1.0, as its specification writes it."""

_FIELDS = {
    "sample_id": ("sc:Integer", pa.int64(), "The number of the sample in the dataset."),
    "path": ("sc:Text", pa.string(), "Where its image lies."),
    "split": ("sc:Text", pa.string(), "train or test."),
    "label": ("sc:Integer", pa.int64(), "The number of the class to train on."),
    "class_name": ("sc:Text", pa.string(), "The class to train on."),
    "given_class": ("sc:Text", pa.string(), "The class that was given, maybe wrong."),
}


@folder_writer("croissant", title="Croissant", read_by="mlcroissant, TensorFlow Datasets", back=("ingest", "import"))
def _croissant(selection: Selection, folder: Folder) -> None:
    """Metadata of the set in croissant.json, and its samples in samples.parquet."""
    path = folder.path / "samples.parquet"
    schema = pa.schema([(name, kind) for name, (_, kind, _) in _FIELDS.items()])
    with pq.ParquetWriter(path, schema) as file:
        for block in selection.blocks():
            rows = block.rename(columns={"source": "path"})[list(_FIELDS)]
            file.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False))
    ((created,),) = selection.cursor.execute("SELECT created_at FROM dataset").fetchall()
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"samples/{name}",
            "name": name,
            "description": description,
            "dataType": kind,
            "source": {"fileObject": {"@id": "samples.parquet"}, "extract": {"column": name}},
        }
        for name, (kind, _, description) in _FIELDS.items()
    ]
    content = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": selection.choice.set_name or selection.dataset,
        "description": f"{len(selection):,} labeled images of {len(selection.classes):,} classes, chosen from the dataset "
        f"{selection.dataset} with the fingerprint {selection.fingerprint}.",
        "version": "1.0.0",
        "datePublished": created.date().isoformat(),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "samples.parquet",
                "name": "samples.parquet",
                "contentUrl": "samples.parquet",
                "encodingFormat": "application/x-parquet",
                "sha256": sha256_of(path),
            }
        ],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "samples", "name": "samples", "field": fields}],
    }
    (folder.path / "croissant.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
