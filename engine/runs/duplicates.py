"""The duplicates of a run: which samples are there more than once, in both splits together."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from engine.features.duplicates import Duplicates, Pairs, group_duplicates, near_pairs, near_threshold
from engine.features.neighbors import search_rows
from engine.features.scratch import fill_rows
from engine.features.stored import open_stored
from engine.runs.inputs import Inputs
from engine.store.contents import fetch_contents


def find_duplicates(run: Inputs) -> Duplicates:
    """Exact copies among all samples; near ones too where the features are a backbone's or a person's own.

    Those of a network of the run itself tell its classes apart and little else, so they make no pairs. What was found is
    noted.
    """
    contents = fetch_contents(run.workspace.require_dataset(run.spec.dataset))
    pairs: list[Pairs] = []
    how = "exact copies alone"
    if run.spec.features and run.spec.neighbors:
        threshold = near_threshold(run.get("similarities"))
        how = f"near ones from a cosine of {threshold:.3f}"
        pairs.append(near_pairs(run.get("neighbor_ids"), run.get("similarities"), 0, threshold))
        rows = open_stored(run.workspace, run.spec.dataset, run.spec.features_hash)
        if len(rows) > len(run.own):
            pairs.append(_pairs_of_test(run, rows, threshold))
        elif len(contents) > len(run.own):
            how += ", of training samples alone: the file of features has no test samples"
    found = group_duplicates(contents, len(run.own), pairs)
    if len(found.sample):
        leaks = len(set(found.group[found.leak].tolist()))
        across = f"; {leaks:,} with samples of both splits, which are leaks" if leaks else ""
        groups, samples = int(found.group[-1]) + 1, len(found.sample)
        run.notes.append(f"{samples:,} samples are duplicates, in {groups:,} groups ({how}){across}")
    return found


def _pairs_of_test(run: Inputs, rows: Tensor, threshold: float) -> Pairs:
    """The near pairs of test samples with training samples, and with each other. rows: the features of both, in this order"""

    def normalized(part: slice) -> Tensor:
        return functional.normalize(rows[part].to(run.device), dim=1)

    own = len(run.own)
    unit = fill_rows(len(rows), rows.shape[1], normalized, run.partial, run.device)
    k = min(run.spec.neighbors, len(unit) - 1)
    ids, similarities = search_rows(unit, k, own, len(unit), run.progress.step)
    return near_pairs(ids, similarities, own, threshold)
