"""What a run is refused for before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from engine.data.loader import Samples
from engine.errors import SpecError
from engine.runs.inputs import require_test
from engine.scores.inputs import find_input
from engine.scores.registry import Score, check_classes
from engine.spec import RunSpec


def check_inputs_exist(
    scores: Sequence[Score], spec: RunSpec, own: Samples, samples: Samples, test: Samples | None
) -> None:
    """Refuse before anything is trained what would fail after it: the checks of every input that is read.

    own: with the dataset's own inputs; samples: as networks see them

    Raises: ScoreInputError where classes or samples are missing; SpecError where a score needs a test split and there
            is none, or more memory than is free
    """
    mixed = [found.name for found in scores if found.reads_features and not found.features_suffice]
    if spec.features and mixed and not (spec.training and spec.training.trained_on):
        raise SpecError(
            f"{', '.join(mixed)} reads the trained network's last layer, which the features {spec.features} do not fit; "
            "leave it out or leave out --features"
        )
    if any(found.compares_classes for found in scores):
        check_classes(samples.labels)
    read = dict.fromkeys(name for found in scores for name in found.all_inputs)
    if spec.neighbors:
        read["neighbor_ids"] = None
    for check, of_own in dict.fromkeys((find_input(name).check, find_input(name).cost == "inputs") for name in read):
        if check is not None:
            check(spec, own if of_own else samples)
    if any(found.needs_test for found in scores):
        require_test(spec, test)
