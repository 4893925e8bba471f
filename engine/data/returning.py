"""Ways back: labels that people gave in another tool, and sets that were exported, become decisions about a dataset.

A file says of each sample which class it has, or that it is to be dropped, or that somebody was unsure; or it lists the
samples of a set. Samples are found by
their id and by the path of their image, which must agree; where the dataset was ingested again, by the path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from engine.data.answers import ACTIONS, STAYS, Answer, find_format
from engine.data.exported import manifest_of, require_unchanged
from engine.errors import SourceError, unknown_name
from engine.fields import check_choice
from engine.queries.connection import connected
from engine.store.decisions import Action, decide
from engine.store.records import DatasetFacts, dataset_facts
from engine.store.workspace import Workspace
from engine.text import shown

Rest = Literal["drop", "leave"]


@dataclass(frozen=True)
class Returned:
    """What became of a file. batch: of the decisions, None when there are none; counts: by action; unmatched: rows that are
    about no sample of the dataset; unlabeled: samples of which the file says nothing; named: the first of the unmatched;
    unchanged: samples of a set that are in it already, under that label; rest: samples that the file does not name, and that
    are dropped."""

    batch: int | None
    counts: dict[str, int]
    unmatched: int = 0
    unlabeled: int = 0
    named: tuple[str, ...] = ()
    unchanged: int = 0
    rest: int = 0


class _Sample(NamedTuple):
    """A sample as it stands: new_label as decided, if it was relabeled."""

    source: str
    label: int
    split: str
    action: str
    new_label: int


def bring_back(
    workspace: Workspace,
    dataset: str,
    file: Path,
    format: str = "",
    *,
    rest: str = "",
    author: str = "",
    note: str = "",
) -> Returned:
    """Make decisions of what a file says, as one batch that `undo` takes back whole.

    A label that differs from the given one relabels, the given one keeps, a rejected sample is dropped. Where a file is a set
    of samples, those in it stay: what was dropped is kept, and what has another label there is relabeled.

    Args:    format: one of FORMATS; "" = by its ending and content; rest: what becomes of samples of the exported part that
             the file does not name, drop or leave; "" = drop for lists of what is kept, else leave
    Raises:  SourceError for a file that cannot be read, that was changed although it is a list, that is about another
             dataset, or that names a class or with drop a sample that the dataset has not; SpecError for an unknown format
    """
    check_choice("rest", rest or "leave", Rest)
    found = find_format(file, format)
    drops_rest = rest == "drop" or (not rest and found.lists_kept)
    manifest = manifest_of(file)
    if found.lists_kept and manifest:
        require_unchanged(file, manifest)
    facts = dataset_facts(workspace.require_dataset(dataset))
    samples = _fetch_samples(workspace, dataset)
    by_place: dict[str, list[int]] = {}
    for i, sample in enumerate(samples):
        by_place.setdefault(sample.source, []).append(i)
    numbers = {name: label for label, name in enumerate(facts.classes)}
    answers = list(found.read(file))
    if not answers:
        raise SourceError(f"{file} holds no samples; allowed: what people labeled of dataset '{dataset}'")
    same = _same_ids(manifest, facts)
    unlabeled, unchanged, named = 0, 0, set[int]()
    unmatched: list[str] = []
    decided: dict[int, tuple[Action, int]] = {}
    given = [answer.label for answer in answers if answer.label]
    as_numbers = bool(given) and all(text.isdecimal() for text in given) and not set(given) <= numbers.keys()
    if as_numbers:
        numbers = {str(label): label for label in range(len(facts.classes))}
    for answer in answers:
        at = _find(answer, samples, by_place, same)
        if at is None:
            unmatched.append(f"{answer.where} ({shown(answer.source or answer.sample_id, 200)})")
            continue
        named.add(at)
        new = _label(answer, numbers, samples[at].label, file)
        if answer.word == STAYS:
            action = _staying(samples[at], new)
            unchanged += action is None
        else:
            action = _action(answer, new, samples[at].label)
            unlabeled += action is None
        if action:
            decided[at] = action, new or 0
    if unmatched and (drops_rest or not named):
        raise SourceError(_unmatched(file, dataset, unmatched, manifest, facts, drops_rest))
    left = _rest(samples, named, manifest, facts) if drops_rest else []
    decided |= {i: ("drop", 0) for i in left}
    actions = [action for action, _ in decided.values()]
    labels = [label for _, label in decided.values()] if "relabel" in actions else None
    batch = None
    if decided:
        batch = decide(workspace, dataset, list(decided), actions, new_label=labels, note=note, author=author)
    counts: dict[str, int] = {one: actions.count(one) for one in sorted(set(actions))}
    return Returned(batch, counts, len(unmatched), unlabeled, tuple(unmatched[:3]), unchanged, len(left))


def _fetch_samples(workspace: Workspace, dataset: str) -> list[_Sample]:
    """Every sample, by id."""
    with connected(workspace, dataset, []) as connection:
        rows = connection.execute(
            "SELECT coalesce(source, ''), label, split, coalesce(action, ''), coalesce(new_label, -1) FROM samples "
            "LEFT JOIN (SELECT sample_id, action, new_label FROM decisions) USING (sample_id) ORDER BY sample_id"
        ).fetchall()
    return [_Sample(*row) for row in rows]


def _same_ids(manifest: Mapping[str, Any], facts: DatasetFacts) -> int:
    """How many of the first ids mean the samples that they meant when something was exported."""
    fingerprint = manifest.get("fingerprint", facts.fingerprint)
    if fingerprint == facts.fingerprint:
        return facts.samples
    known = facts.earlier.get(fingerprint) if isinstance(fingerprint, str) else None
    return known[0] if known else 0  # samples that were added since follow the training samples


def _find(answer: Answer, samples: Sequence[_Sample], by_place: Mapping[str, list[int]], same: int) -> int | None:
    """The sample that an answer is about: that of its id, if it has that path, else the only one of the path."""
    at = answer.sample_id
    if at is not None and 0 <= at < len(samples):
        if samples[at].source == answer.source if answer.source else at < same:
            return at
    found = by_place.get(answer.source, []) if answer.source else []
    return found[0] if len(found) == 1 else None


def _unmatched(
    file: Path,
    dataset: str,
    unmatched: Sequence[str],
    manifest: Mapping[str, Any],
    facts: DatasetFacts,
    drops_rest: bool,
) -> str:
    """The message for a file that is about other samples."""
    more = ", ..." if len(unmatched) > 3 else ""
    text = f"{file} names {len(unmatched):,} samples that '{dataset}' has not: {', '.join(unmatched[:3])}{more}"
    of, fingerprint = manifest.get("dataset", dataset), manifest.get("fingerprint", facts.fingerprint)
    if of != dataset or fingerprint != facts.fingerprint:
        text += f"; it was exported from '{shown(of, 80)}' with the fingerprint {shown(fingerprint, 40)}"
    return text + "; nothing was decided" + (" (--rest leave passes over them)" if drops_rest else "")


def _rest(samples: Sequence[_Sample], named: set[int], manifest: Mapping[str, Any], facts: DatasetFacts) -> list[int]:
    """The samples of the exported part that are not named, and not dropped yet.

    The part is that of the manifest, without one those parts that it names samples of; samples that were added since belong
    to none.
    """
    split = manifest.get("split")
    parts = {"train", "test"} if split == "all" else {split} & {"train", "test"} or {samples[i].split for i in named}
    end = _same_ids(manifest, facts) or len(samples)
    return [
        i
        for i, sample in enumerate(samples[:end])
        if sample.split in parts and i not in named and sample.action != "drop"
    ]


def _label(answer: Answer, numbers: Mapping[str, int], given: int, file: Path) -> int | None:
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
    word = ACTIONS.get(answer.word.strip().lower(), "")
    if word in ("drop", "unsure"):
        return "drop" if word == "drop" else "unsure"
    if label is None:
        return "keep" if word == "keep" else None
    return "keep" if label == given else "relabel"


def _staying(sample: _Sample, label: int | None) -> Action | None:
    """What makes a sample part of the set, under a label if there is one; None when it is already."""
    stands = sample.new_label if sample.action == "relabel" else sample.label
    if sample.action != "drop" and label in (None, stands):
        return None
    return "keep" if label in (None, sample.label) else "relabel"
