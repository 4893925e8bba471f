"""From a spec of any kind to the code that computes it."""

from __future__ import annotations

from engine.errors import SpecError
from engine.queries.curated import CuratedSet
from engine.runs.cluster import tasks_on
from engine.runs.pipeline import run
from engine.runs.prove import run_prove
from engine.runs.psi import run_psi
from engine.runs.relabel import run_relabel
from engine.spec import ProveSpec, PsiSpec, RecordedSpec, RelabelSpec, RunSpec, Spec
from engine.store.progress import Listener
from engine.store.workspace import Workspace
from engine.training.device import pick_device


def compute(
    workspace: Workspace,
    spec: Spec,
    device: str,
    listener: Listener | None = None,
    cluster: str = "",
    curated: CuratedSet | None = None,
) -> tuple[str, bool]:
    """Compute and publish what a spec describes, on auto, cpu or cuda.

    cluster: where its independent tasks run, as `tasks_on` reads it; curated: the set of a proof; None = the one that the
    run holds already

    Returns: (run id, whether it was there already)
    """
    chosen = pick_device(device)
    training = None if isinstance(spec, RecordedSpec) else spec.training
    with tasks_on(cluster, chosen, training.threads if training else 1) as tasks:
        if isinstance(spec, RunSpec):
            return run(workspace, spec, chosen, listener, tasks)
        if isinstance(spec, PsiSpec):
            return run_psi(workspace, spec, chosen, listener, tasks=tasks)
        if isinstance(spec, ProveSpec):
            return run_prove(workspace, spec, chosen, listener, curated=curated, tasks=tasks)
        if isinstance(spec, RelabelSpec):
            return run_relabel(workspace, spec, chosen, listener, tasks=tasks)
    raise SpecError("a recorded run is made by its own training loop; start that again instead")
