"""Samples in groups, worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.queries.groups import Grouped, group_by_class, group_by_duplicate, group_by_pair

LABELS = np.array([1, 0, 1, 2, 0, 1, 2, 0], np.int32)
IDS = np.array([5, 0, 7, 3, 2, 1, 4], np.int32)  # in the order of some score; 6 does not pass


def groups(found: Grouped) -> dict[int, list[int]]:
    parts = np.split(found.ids, found.starts[1:-1])
    return dict(zip(found.keys.tolist(), [part.tolist() for part in parts], strict=True))


def test_classes_come_in_label_order_and_keep_the_order_within() -> None:
    found = groups(group_by_class(IDS, LABELS))
    assert found == {0: [7, 1, 4], 1: [5, 0, 2], 2: [3]} and list(found) == [0, 1, 2]


def test_pairs_come_by_size_and_what_has_no_proposal_last() -> None:
    others = np.array([2, 1, 2, -1, 1, 0, -1, 2], np.int32)
    found = groups(group_by_pair(IDS, LABELS, others, 3))
    # 0 -> 1: samples 1 and 4; 1 -> 2: 0 and 2; 0 -> 2: 7; 1 -> 0: 5; of one size by labels
    assert list(found.items()) == [(1, [1, 4]), (5, [0, 2]), (2, [7]), (3, [5]), (-1, [3])]


def test_duplicates_are_whole_groups_leaks_first_then_those_of_different_labels() -> None:
    own = np.array([0, 0, 0, 1, 1, 2, 2, -1], np.int32)
    facts = pd.DataFrame({"n": [3, 2, 2], "labels": [1, 2, 1], "leak": [False, False, True]})
    order = np.array([6, 5, 4, 3, 2, 1, 0, 7], np.int32)
    found = groups(group_by_duplicate(np.array([7, 5, 1, 3], np.int32), order, own, facts))
    assert list(found.items()) == [(2, [6, 5]), (1, [4, 3]), (0, [2, 1, 0])]
    alone = groups(group_by_duplicate(np.array([2], np.int32), order, own, facts))
    assert alone == {0: [2, 1, 0]}  # those of its copies that do not pass stand beside it
    none = group_by_duplicate(np.array([7], np.int32), order, own, facts)
    assert len(none.ids) == len(none.keys) == 0 and none.starts.tolist() == [0]
