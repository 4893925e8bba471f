"""Ways back: labels that people gave in another tool become decisions about the samples of a dataset.

A file says of each sample which class it has, or that it is to be dropped, or that somebody was unsure. Samples are found by
their id and by the path of their image, which must agree; where the dataset was ingested again, by the path.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.sources.files import read_csv
from engine.errors import SourceError, SpecError, unknown_name
from engine.queries.connection import connected
from engine.store.decisions import Action, decide
from engine.store.workspace import Workspace
from engine.text import shown

LARGEST = 1 << 30
"""Bytes of a file of labels."""

_ACTIONS = {
    "keep": "keep",
    "drop": "drop",
    "reject": "drop",
    "rejected": "drop",
    "unsure": "unsure",
    "relabel": "relabel",
}
"""What a word about a sample means, in a column called decision or action, as a tag, or in place of a label."""


@dataclass(frozen=True)
class Answer:
    """What a file says of one sample. where: in the file, for messages; sample_id, source: what it names the sample by;
    label: a class, number: the same
    as a number, "" = none; word: one of _ACTIONS, "" = none."""

    where: str
    sample_id: int | None = None
    source: str = ""
    label: str = ""
    word: str = ""
    number: str = ""


@dataclass(frozen=True)
class Returned:
    """What became of a file. batch: of the decisions, None when there are none; counts: by action; unmatched: rows that are
    about no sample of the dataset; unlabeled: samples of which the file says nothing; named: the first of the unmatched."""

    batch: int | None
    counts: dict[str, int]
    unmatched: int = 0
    unlabeled: int = 0
    named: tuple[str, ...] = ()


Read = Callable[[Path], Iterator[Answer]]


def bring_back(
    workspace: Workspace, dataset: str, file: Path, format: str = "", *, author: str = "", note: str = ""
) -> Returned:
    """Make decisions of the labels in a file, as one batch that `undo` takes back whole.

    A label that differs from the given one relabels, the given one keeps, a rejected sample is dropped.

    Args:    file: a CSV, the JSON of Label Studio or labels of FiftyOne; format: one of FORMATS; "" = by its ending and content
    Raises:  SourceError for a file that cannot be read, or that names a class that the dataset has not
    """
    read = _reader(file, format)
    samples, classes = _fetch_samples(workspace, dataset)
    by_place: dict[str, list[int]] = {}
    for i, (place, _) in enumerate(samples):
        by_place.setdefault(place, []).append(i)
    numbers = {name: label for label, name in enumerate(classes)}
    answers = list(read(file))
    if not answers:
        raise SourceError(f"{file} holds no samples; allowed: what people labeled of dataset '{dataset}'")
    unlabeled, unmatched, named = 0, 0, list[str]()
    decided: dict[int, tuple[Action, int]] = {}
    given = [answer.label for answer in answers if answer.label]
    as_numbers = bool(given) and all(text.isdecimal() for text in given) and not set(given) <= numbers.keys()
    if as_numbers:
        numbers = {str(label): label for label in range(len(classes))}
    for answer in answers:
        sample = _find(answer, samples, by_place)
        if sample is None:
            unmatched += 1
            named += [f"{answer.where} ({shown(answer.source or answer.sample_id, 200)})"] if len(named) < 3 else []
            continue
        new = _label(answer, numbers, samples[sample][1], file)
        if action := _action(answer, new, samples[sample][1]):
            decided[sample] = action, new or 0
        else:
            unlabeled += 1
    actions = [action for action, _ in decided.values()]
    labels = [label for _, label in decided.values()] if "relabel" in actions else None
    batch = None
    if decided:
        batch = decide(workspace, dataset, list(decided), actions, new_label=labels, note=note, author=author)
    return Returned(
        batch, {one: actions.count(one) for one in sorted(set(actions))}, unmatched, unlabeled, tuple(named)
    )


def _fetch_samples(workspace: Workspace, dataset: str) -> tuple[list[tuple[str, int]], list[str]]:
    """The source and the given label of every sample by id, and the classes."""
    with connected(workspace, dataset, []) as connection:
        samples = connection.execute("SELECT coalesce(source, ''), label FROM samples ORDER BY sample_id").fetchall()
        classes = connection.execute("SELECT class_name FROM classes ORDER BY label").fetchall()
    return [(str(place), int(label)) for place, label in samples], [str(name) for (name,) in classes]


def _find(answer: Answer, samples: Sequence[tuple[str, int]], by_place: dict[str, list[int]]) -> int | None:
    """The sample that an answer is about: that of its id, if it has that path, else the only one of the path."""
    at = answer.sample_id
    if at is not None and 0 <= at < len(samples) and (not answer.source or samples[at][0] == answer.source):
        return at
    found = by_place.get(answer.source, []) if answer.source else []
    return found[0] if len(found) == 1 else None


def _label(answer: Answer, numbers: dict[str, int], given: int, file: Path) -> int | None:
    """The label that an answer gives. Where its name and its number differ, one of them was edited: not the given one."""
    if not answer.label:
        return None
    if answer.label not in numbers:
        raise SourceError(f"{file}, {answer.where}: {unknown_name('class', answer.label, numbers)}")
    named = numbers[answer.label]
    if answer.number.isdecimal() and (number := int(answer.number)) != named:
        if given not in (named, number) or number >= len(numbers):
            raise SourceError(
                f"{file}, {answer.where}: its label is {number} and its class_name '{shown(answer.label, 200)}', which is "
                f"{named}; correct one of them"
            )
        return number if named == given else named
    return named


def _action(answer: Answer, label: int | None, given: int) -> Action | None:
    """What an answer decides; None when it says nothing."""
    word = _ACTIONS.get(answer.word.strip().lower(), "")
    if word in ("drop", "unsure"):
        return "drop" if word == "drop" else "unsure"
    if label is None:
        return "keep" if word == "keep" else None
    return "keep" if label == given else "relabel"


# The formats -----------------------------------------------------------------------------------------------------


def _csv(file: Path) -> Iterator[Answer]:
    """A CSV with sample_id, source or path, the label (label or class_name) and if wanted decision, one row per sample."""
    columns = read_csv(file)
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
    for place, task in enumerate(_list(_json(file), file)):
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
    content = _json(file)
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
        tags = [str(tag).lower() for tag in sample.get("tags") or [] if str(tag).lower() in _ACTIONS]
        path = str(sample.get("filepath") or "")
        yield Answer(f"sample {place}", _id_of(path), label=_choice(label.get("label")), word=tags[0] if tags else "")


FORMATS: dict[str, Read] = {"csv": _csv, "labelstudio": _labelstudio, "fiftyone": _fiftyone}
"""What can be brought back, by the name of the format."""


def _reader(file: Path, format: str) -> Read:
    """The reader of a format; SpecError when there is none."""
    if format and format not in FORMATS:
        raise SpecError(unknown_name("format", format, FORMATS, "--format"))
    if format:
        return FORMATS[format]
    if file.suffix.lower() == ".csv":
        return _csv
    if file.is_dir():
        return _fiftyone
    return _labelstudio if isinstance(_json(file), list) else _fiftyone


def _json(file: Path) -> Any:
    try:
        about = file.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
            raise SourceError(f"{file} is no file of at most {LARGEST:,} bytes")
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{file} cannot be read as JSON: {str(error)[:200]}") from error


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
