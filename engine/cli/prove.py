"""`winnow prove`: what is gained by training on the curated set."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.cli.arguments import Cluster, Dataset, DeclaredHelp, Device, Json, Root, Run, TrustModel, Yes, with_options
from engine.cli.estimating import Estimate, print_estimate
from engine.cli.start import compute_run
from engine.spec import ProveSpec, TrainingSpec
from engine.store.workspace import Workspace

app = typer.Typer()


@app.command(cls=DeclaredHelp)
@with_options(TrainingSpec, ProveSpec)
def prove(
    dataset: Dataset,
    version: Annotated[
        str, typer.Option(metavar="NAME", help="A named version (winnow version list), with its own labels.")
    ] = "",
    where: Annotated[
        str,
        typer.Option(
            metavar="SQL",
            help="What stays, as in winnow export --where; decisions correct the labels. (default: decisions)",
        ),
    ] = "",
    drop_shortlist: Annotated[
        bool,
        typer.Option(
            "--drop-shortlist", help="Leave out the shortlist too, but for what people decided to keep or relabel."
        ),
    ] = False,
    run: Run = None,
    trust_model: TrustModel = False,
    device: Device = "auto",
    cluster: Cluster = "",
    yes: Yes = False,
    estimate: Estimate = False,
    workspace: Root = None,
    json: Json = False,
    **words: Any,
) -> None:
    """Train networks on the curated set and on the full set, and compare their accuracy. The same command resumes it."""
    from engine.runs.options import plan_prove_from

    at = Workspace.open(workspace)
    at.require_dataset(dataset)
    given: dict[str, Any] = {**words, "run": run, "trust_model": trust_model}
    given |= {"version": version or None, "where": where or None, "drop_shortlist": drop_shortlist or None}
    spec, curated = plan_prove_from(at, dataset, given)
    if estimate:
        return print_estimate(at, spec, device, json)
    compute_run(at, spec, device, cluster, json, yes, curated)
