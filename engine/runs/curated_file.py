"""The curated set of a proof as a file: in the run's folder from the start, and published beside its results."""

from __future__ import annotations

from pathlib import Path

from engine.data.loader import Samples
from engine.errors import SpecError, StorageError
from engine.queries.curated import CuratedSet
from engine.spec import ProveSpec
from engine.store.links import refuse_links
from engine.store.tensors import load_tensors, save_tensors
from engine.store.workspace import Workspace

SET_FILE = "curated.safetensors"
_AGAIN = "start the proof again: winnow prove"


def hold_set(
    workspace: Workspace, run_id: str, spec: ProveSpec, curated: CuratedSet | None, samples: Samples
) -> CuratedSet:
    """The set of a proof, kept in its folder before anything else of it, so that it can always be resumed by its id.

    Args:   curated: None = the one that the folder holds
    Raises: StorageError when it holds none, or another; SpecError when the set cannot be trained on
    """
    folder = workspace.run_dir(run_id)
    refuse_links(folder, f"remove the run (winnow remove {run_id}) and start it again")
    path = folder / "partial" / SET_FILE
    held = _load(path, run_id) if curated is None else curated  # an empty set is false too
    if held.hash != spec.curated:
        raise StorageError(f"{path} is not the curated set of run {run_id}; {_AGAIN}")
    if len(held) < 2:
        raise SpecError(f"{len(held)} of {len(samples)} samples stay in the curated set; allowed: 2 or more")
    ids, labels = held.sample_ids, held.labels
    if ids[0] < 0 or ids[-1] >= len(samples) or labels.min() < 0 or labels.max() >= samples.classes:
        raise SpecError(f"the curated set has samples or labels that the training split of '{spec.dataset}' lacks")
    if curated is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_set(path, curated)
    return held


def save_set(path: Path, curated: CuratedSet) -> None:
    """Write or replace a file with a curated set, whole or not at all."""
    save_tensors(path, {"sample_ids": curated.sample_ids, "labels": curated.labels}, {})


def _load(path: Path, run_id: str) -> CuratedSet:
    found = load_tensors(path)
    if found is None or not {"sample_ids", "labels"} <= found[0].keys():
        raise StorageError(f"run {run_id} does not hold its curated set; {_AGAIN}")
    try:
        return CuratedSet(found[0]["sample_ids"], found[0]["labels"])
    except SpecError as error:
        raise StorageError(f"{path} is damaged ({error}); {_AGAIN}") from error
