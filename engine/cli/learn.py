"""`winnow detector`: noise detectors that learn from training dynamics."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.arguments import Dataset, Json, Root, Run
from engine.cli.console import print_json, print_table, progress_bar, say
from engine.cli.estimating import Estimate, print_estimate, say_estimate
from engine.errors import NotFoundError
from engine.store.workspace import Workspace

app = typer.Typer(help="Noise detectors learned from training dynamics (LSTM).", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of a detector (winnow detector list).")]


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="Name of the new detector.")],
    dataset: Annotated[str, typer.Option(help="A dataset whose mislabeled are known, with a run.")],
    run: Run = None,
    start: Annotated[str | None, typer.Option(help="A detector to fine-tune instead of starting from nothing.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate. (default: 0.1, 0.03 to fine-tune)")] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the sequences.")] = 10,
    seed: Annotated[int, typer.Option(help="Of its weights and of the held-out tenth.")] = 0,
    estimate: Estimate = False,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Learn from the dynamics of a run what the mislabeled look like."""
    from engine.runs.detectors import train_on_run

    at = Workspace.open(workspace)
    if estimate:
        from engine.runs.estimates import detector_seconds

        chosen = run_with_dynamics(at, dataset, run)
        return say_estimate(detector_seconds(at, dataset, chosen, start, epochs), json)
    with progress_bar(f"detector {name}") as listen:
        record = train_on_run(
            at,
            dataset,
            run_with_dynamics(at, dataset, run),
            name,
            start=start,
            lr=lr,
            epochs=epochs,
            seed=seed,
            report=lambda done, total: listen("training", done / total, None),
        )
    if json:
        return print_json(record)
    found = ", ".join(f"{metric} {value:.4f}" for metric, value in record["metrics"].items())
    for note in record["notes"]:
        say(note)
    say(f"detector {name} trained on {record['sequences']:,} sequences; on the held-out tenth: {found}")


@app.command()
def apply(
    name: Name,
    dataset: Dataset,
    run: Run = None,
    estimate: Estimate = False,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Judge the samples of a run by a detector, and publish that as a run of its own (score lstm_detector)."""
    from engine.queries.connection import connected
    from engine.queries.summaries import fetch_evaluation
    from engine.runs.compute import compute
    from engine.runs.detectors import load_detector
    from engine.runs.planning import plan_run
    from engine.spec import RunSpec, spec_from_json
    from engine.training.own_models import allow_trusted

    at = Workspace.open(workspace)
    load_detector(at, name)
    source = run_with_dynamics(at, dataset, run)
    spec = spec_from_json(at.read_spec(source)["spec"])
    if not isinstance(spec, RunSpec) or spec.training is None:
        raise NotFoundError(f"run {source} was recorded by a loop of its own; its own run has lstm_detector already")
    allow_trusted(at, spec.training.model)
    wanted = plan_run(at, dataset, ["lstm_detector"], spec.training, detector=name)
    if estimate:
        return print_estimate(at, wanted, "auto", json)
    with progress_bar(dataset) as listen:
        run_id, existed = compute(at, wanted, "auto", listen)
    with connected(at, dataset) as connection:
        found = fetch_evaluation(connection)
    rows = found[(found["run_id"] == run_id) & (found["kind"] == "score")]
    metrics = {} if rows.empty else rows.iloc[0][["roc_auc", "average_precision", "precision_at_recall_95"]].to_dict()
    if json:
        return print_json({"run_id": run_id, "existed": existed, "metrics": metrics})
    found_text = ", ".join(f"{metric} {value:.4f}" for metric, value in metrics.items())
    say(f"run {run_id}: lstm_detector of {dataset} by {name}" + (f"; {found_text}" if found_text else ""))


@app.command("list")
def list_(workspace: Root = None, json: Json = False) -> None:
    """List the detectors: the one that ships, and those of the workspace."""
    from engine.runs.detectors import list_detectors

    records = list_detectors(Workspace.open(workspace))
    if json:
        return print_json({"detectors": records})
    rows = [{**record, "average_precision": record["metrics"].get("average_precision")} for record in records]
    print_table(rows, ["name", "dataset", "noise", "start", "sequences", "epochs", "average_precision"])


@app.command()
def explain(
    dataset: Dataset,
    sample: Annotated[int, typer.Argument(help="A training sample's id.")],
    name: Annotated[str, typer.Option("--detector", help="Whose judgment.")] = "digits+textures",
    run: Run = None,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Show what each epoch adds to a sample's probability of being mislabeled."""
    from engine.runs.detectors import explain_sample

    at = Workspace.open(workspace)
    weights = explain_sample(at, dataset, run_with_dynamics(at, dataset, run), sample, name).tolist()
    if json:
        return print_json({"sample_id": sample, "detector": name, "epochs": weights})
    print_table([{"epoch": i + 1, "adds": weight} for i, weight in enumerate(weights)], ["epoch", "adds"])


def run_with_dynamics(workspace: Workspace, dataset: str, given: str | None) -> str:
    """The given run, else the newest with dynamics of its own; NotFoundError when there is none."""
    from engine.queries.connection import connected, latest_run

    workspace.require_dataset(dataset)
    if given:
        return workspace.require_run(given)
    with connected(workspace, dataset) as connection:
        found = latest_run(connection, "epochs")
    if not found:
        raise NotFoundError(f"no run of '{dataset}' has dynamics; make one: winnow run {dataset}")
    return found
