"""`winnow relabel`: other labels for suspicious samples, each with a confidence."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.cli.arguments import Cluster, Dataset, DeclaredHelp, Device, Json, Root, Run, TrustModel, Yes, with_options
from engine.cli.estimating import Estimate, print_estimate
from engine.cli.start import compute_run
from engine.spec import RelabelSpec, TrainingSpec
from engine.store.workspace import Workspace

app = typer.Typer()


@app.command(cls=DeclaredHelp)
@with_options(TrainingSpec, RelabelSpec)
def relabel(
    dataset: Dataset,
    method: Annotated[str, typer.Option(help="{methods}.")],
    keep: Annotated[
        str | None,
        typer.Option(
            help="With rop: shares of the samples that are kept, separated by commas. (default: 0.2,0.4,0.6,0.8)"
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of the learner, in place of its preset's; can be given several times. {learner_settings}.",
        ),
    ] = None,
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
    """Propose other labels for samples, each with a confidence. The same command resumes it. No label is changed."""
    from engine.runs.options import plan_relabel_from

    at = Workspace.open(workspace)
    at.require_dataset(dataset)
    given = {**words, "keep": keep, "set": set_ or None, "run": run, "trust_model": trust_model}
    spec = plan_relabel_from(at, dataset, method, given)
    if estimate:
        return print_estimate(at, spec, device, json)
    compute_run(at, spec, device, cluster, json, yes)
