"""What files say of samples, by format: each is read to one `Answer` a sample."""

from __future__ import annotations

import base64
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.columns import as_text
from engine.data.exported import LARGEST, read_json, require_file
from engine.data.sources.coco import read_coco
from engine.data.sources.croissant import metadata_file, samples_file
from engine.data.sources.files import read_csv, read_header
from engine.data.sources.parquet_files import is_plain, open_parquet, read_column
from engine.errors import SourceError, SpecError, unknown_name
from engine.queries.chosen import read_samples
from engine.text import shown

ACTIONS = {
    "keep": "keep",
    "drop": "drop",
    "reject": "drop",
    "rejected": "drop",
    "unsure": "unsure",
    "relabel": "relabel",
}
"""What a word about a sample means, in a column called decision or action, as a tag, or in place of a label."""

STAYS = "stays"
"""The word of a sample that is named as part of a set: nothing is decided about it unless it is dropped, or has another
label."""


@dataclass(frozen=True)
class Answer:
    """What a file says of one sample. where: in the file, for messages; sample_id, source: what it names the sample by;
    label: a class, number: the same
    as a number, "" = none; word: one of ACTIONS or STAYS, "" = none."""

    where: str
    sample_id: int | None = None
    source: str = ""
    label: str = ""
    word: str = ""
    number: str = ""


@dataclass(frozen=True)
class Format:
    """A format that comes back. read: its samples; lists_kept: whether it is a list of what is kept: what it does not name
    is dropped, and the list must be as it was exported."""

    read: Callable[[Path], Iterator[Answer]]
    lists_kept: bool = False


def _csv(file: Path) -> Iterator[Answer]:
    """A CSV with sample_id, source or path, the label (label or class_name) and if wanted decision, one row per sample."""
    return _rows(file, read_csv(file))


def _parquet(file: Path) -> Iterator[Answer]:
    """A Parquet file with the columns of such a CSV."""
    return _rows(file, _columns(file))


def _columns(file: Path) -> dict[str, list[str]]:
    """The columns of a Parquet file that a format reads, as text."""
    require_file(file)
    found = open_parquet(file)
    schema = found.schema_arrow
    plain = [name for name, kind in zip(schema.names, schema.types, strict=True) if name in _READ and is_plain(kind)]
    return {name: [as_text(value) or "" for value in read_column(found, file, name)] for name in plain}


_READ = ("sample_id", "source", "path", "new_class", "class_name", "label", "decision", "action")


def _rows(file: Path, columns: Mapping[str, Sequence[str]]) -> Iterator[Answer]:
    ids = columns.get("sample_id")
    places = next((columns[name] for name in ("source", "path") if name in columns), None)
    labels = next((columns[name] for name in ("new_class", "class_name", "label") if name in columns), None)
    words = next((columns[name] for name in ("decision", "action") if name in columns), None)
    if ids is None and places is None:
        raise SourceError(
            f"{file} has no column sample_id, source or path; its columns are: {', '.join(columns)[:500]}"
        )
    if labels is None and words is None:
        raise SourceError(
            f"{file} has no column label, class_name or decision; its columns are: {', '.join(columns)[:500]}"
        )
    for row in range(len(next(iter(columns.values())))):
        yield Answer(
            f"row {row}",
            _whole(ids[row]) if ids else None,
            places[row] if places else "",
            labels[row] if labels else "",
            words[row] if words else "",
            columns["label"][row] if "class_name" in columns and "label" in columns else "",
        )


def _labelstudio(file: Path) -> Iterator[Answer]:
    """The tasks that Label Studio exports as JSON or JSON-MIN, made of those that winnow export wrote."""
    for place, task in enumerate(_list(read_json(file), file)):
        where = f"task {place}"
        data = task.get("data", task)
        if not isinstance(data, dict):
            raise SourceError(f"{file}, {where}: it has no data; allowed: tasks as Label Studio exports them")
        about = where, _whole(data.get("sample_id")), str(data.get("source") or "")
        if "annotations" not in task:  # JSON-MIN
            yield Answer(*about, _choice(task.get("label")), _choice(task.get("decision")))
            continue
        done = [a for a in task["annotations"] or [] if isinstance(a, dict) and not a.get("was_cancelled")]
        if not done:  # nobody has looked, or whoever did passed over it
            yield Answer(*about, "", "unsure" if task["annotations"] else "")
            continue
        given = {str(part.get("from_name")): part.get("value") for part in done[-1].get("result") or []}
        choices = {name: value.get("choices") for name, value in given.items() if isinstance(value, dict)}
        yield Answer(*about, _choice(choices.get("label")), _choice(choices.get("decision")))


def _fiftyone(file: Path) -> Iterator[Answer]:
    """The labels.json of a FiftyOneImageClassificationDataset, or samples.json of a FiftyOneDataset, of a winnow export."""
    file = next((found for name in ("labels.json", "samples.json") if (found := file / name).is_file()), file)
    content = read_json(file)
    if isinstance(content, dict) and isinstance(content.get("labels"), dict):
        classes = content.get("classes") or []
        for key, value in content["labels"].items():
            given = value.get("label") if isinstance(value, dict) else value
            if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < len(classes):
                given = classes[given]
            yield Answer(f"sample {shown(key, 80)}", _id_of(str(key)), label=_choice(given))
        return
    for place, sample in enumerate(_list(content.get("samples") if isinstance(content, dict) else None, file)):
        labels = [sample[n] for n in ("ground_truth", "label") if isinstance(sample.get(n), dict)]
        label: dict[str, Any] = labels[0] if labels else {}
        tags = [str(tag).lower() for tag in sample.get("tags") or [] if str(tag).lower() in ACTIONS]
        path = str(sample.get("filepath") or "")
        yield Answer(f"sample {place}", _id_of(path), label=_choice(label.get("label")), word=tags[0] if tags else "")


def _ids(file: Path) -> Iterator[Answer]:
    """A list of sample ids."""
    require_file(file)
    for sample in read_samples(file).tolist():
        yield Answer(f"sample {sample}", sample, word=STAYS)


def _torch(file: Path) -> Iterator[Answer]:
    """The recipe for PyTorch. It is read, never run."""
    require_file(file)
    content = file.read_bytes()
    found = _RECIPE.search(content)
    if found is None:
        raise SourceError(f"{file} is no recipe that winnow export wrote")
    classes, kept = (_unpacked(packed, file) for packed in found.groups())
    if not all(isinstance(name, str) for name in classes):
        raise SourceError(f"{file} is damaged: a class is no text")
    for number, row in enumerate(kept):
        place, label, sample = row if isinstance(row, list) and len(row) == 3 else (None, None, None)
        if not isinstance(label, int) or not 0 <= label < len(classes) or not isinstance(place, str | int):
            raise SourceError(f"{file} is damaged: its sample {number} is no file, label and id")
        source = place if isinstance(place, str) else ""
        yield Answer(f"sample {number}", _whole(sample), source, classes[label], STAYS)


_RECIPE = re.compile(rb'^CLASSES = _read\("([\w+/=]*)"\)\s+KEPT = _read\("""([\w+/=\s]*)"""\)\s*\Z', re.MULTILINE)


def _unpacked(packed: bytes, file: Path) -> list[Any]:
    """A list as a recipe packs it."""
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(base64.b64decode(packed), LARGEST >> 1)
        value = json.loads(text) if unpacker.eof else None
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, zlib.error, RecursionError) as error:
        raise SourceError(f"{file} is damaged: {str(error)[:200]}") from error
    if not isinstance(value, list):
        raise SourceError(f"{file} is damaged: it holds no list")
    return value


def _cleanlab(file: Path) -> Iterator[Answer]:
    """A table of issues as cleanlab's Datalab.get_issues gives it, with sample_id or source: an issue drops the sample,
    unless its label is another than the given one."""
    columns = read_csv(file)
    missing = [name for name in ("is_label_issue",) if name not in columns]
    if missing or not {"sample_id", "source"} & columns.keys():
        raise SourceError(
            f"{file} has no column {missing[0] if missing else 'sample_id or source'}; its columns are: {', '.join(columns)[:500]}"
        )
    nothing = [""] * len(columns["is_label_issue"])
    ids, places, labels, given = (
        columns.get(name, nothing) for name in ("sample_id", "source", "label", "given_label")
    )
    for row, issue in enumerate(columns["is_label_issue"]):
        if issue.lower() not in ("true", "false", "1", "0"):
            raise SourceError(f"{file}, row {row}: is_label_issue is '{shown(issue, 50)}'; allowed: True, False")
        corrected = labels[row] != given[row] and labels[row] != ""
        drops = issue.lower() in ("true", "1") and not corrected
        label = "" if drops else labels[row]
        yield Answer(f"row {row}", _whole(ids[row]), places[row], label, "drop" if drops else STAYS)


def _coco(file: Path) -> Iterator[Answer]:
    """COCO JSON of images with one category each, made of one that winnow export wrote."""
    found = read_coco(file)
    for sample, place, label in zip(found.ids, found.paths, found.labels, strict=True):
        yield Answer(f"image {sample}", _whole(sample), place, found.classes[label], STAYS)


def _croissant(file: Path) -> Iterator[Answer]:
    """croissant.json, or its folder, of a winnow export."""
    samples = samples_file(metadata_file(file))
    columns = _columns(samples)
    missing = [name for name in ("sample_id", "path", "class_name") if name not in columns]
    if missing:
        raise SourceError(f"{samples} has no column {missing[0]}; export it again")
    for row, (sample, place, label) in enumerate(
        zip(columns["sample_id"], columns["path"], columns["class_name"], strict=True)
    ):
        yield Answer(f"row {row}", _whole(sample), place, label, STAYS)


FORMATS: dict[str, Format] = {
    "csv": Format(_csv),
    "parquet": Format(_parquet),
    "npy": Format(_ids, lists_kept=True),
    "txt": Format(_ids, lists_kept=True),
    "torch": Format(_torch, lists_kept=True),
    "croissant": Format(_croissant),
    "cleanlab": Format(_cleanlab),
    "coco": Format(_coco),
    "labelstudio": Format(_labelstudio),
    "fiftyone": Format(_fiftyone),
}
"""What can be brought back, by the name of the format; winnow ingest reads the others."""

_BY_ENDING = {".parquet": "parquet", ".npy": "npy", ".txt": "txt", ".py": "torch"}


def find_format(file: Path, name: str) -> Format:
    """The format of a name, or with "" the one that a file's ending and content say; SpecError when there is none."""
    if name and name not in FORMATS:
        hint = "--format; winnow ingest reads it as a dataset" if name in ("imagefolder", "hf") else "--format"
        raise SpecError(unknown_name("format", name, FORMATS, hint))
    return FORMATS[name or _guessed(file)]


def _guessed(file: Path) -> str:
    ending = file.suffix.lower()
    if ending in _BY_ENDING:
        return _BY_ENDING[ending]
    if ending == ".csv":
        return "cleanlab" if "is_label_issue" in read_header(file) else "csv"
    if metadata_file(file).is_file():
        return "croissant"
    if file.is_dir():
        return "fiftyone"
    content = read_json(file)
    if isinstance(content, list):
        return "labelstudio"
    return "coco" if isinstance(content, dict) and {"images", "annotations"} <= content.keys() else "fiftyone"


def _list(value: Any, file: Path) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise SourceError(f"{file} holds no list of samples; allowed: --format {', '.join(FORMATS)}")
    return value


def _choice(value: Any) -> str:
    """The text of a choice, which may stand in a list of one; "" when nothing, or several, were chosen."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        return _choice(value.get("choices"))
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def _whole(value: Any) -> int | None:
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _id_of(path: str) -> int | None:
    """The sample id that an export named an image file by."""
    return _whole(os.path.splitext(path.replace("\\", "/").rpartition("/")[2])[0])
