"""The command `winnow`: thin commands over the engine. torch is imported inside the commands that need it."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import Annotated, Any, NoReturn

import typer

from engine.cli import ask, learn
from engine.cli.arguments import Cluster, Dataset, Device, Json, Root, RunId, tell
from engine.cli.console import duration, print_json, print_table, progress_bar, say
from engine.errors import Cancelled, SpecError, WinnowError
from engine.presets import Preset
from engine.spec import TrainingSpec
from engine.store.workspace import Workspace

app = typer.Typer(
    help="See which samples of an image-classification set are redundant, hard or mislabelled, and why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(ask.app)
app.add_typer(learn.app, name="detector")


@app.command()
def ingest(
    name: Annotated[str, typer.Argument(help="Name of the new dataset.")],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="digits, synthetic, torchvision:NAME[:ROOT], dataset:NAME, or a path: folder with a sub-folder per "
            "class, Parquet (file, glob, folder), CSV with path,label, folder of MNIST IDX files.",
        ),
    ],
    test: Annotated[str | None, typer.Option(help="A second source for the test split.")] = None,
    test_fraction: Annotated[
        float | None, typer.Option(help="Share held out for testing where the source has no test split. [default: 0.2]")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="FILE:COLUMN", help="Given labels from a column of a CSV or Parquet file.")
    ] = None,
    true_labels: Annotated[
        str, typer.Option(help="With --labels: keep the source's labels as the true ones, or know none (keep, drop).")
    ] = "keep",
    noise: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:RATE",
            help="On the training split: symmetric:0.2, asymmetric:0.4, superclass:0.3; a+b for two.",
        ),
    ] = None,
    superclasses: Annotated[
        str | None, typer.Option(metavar="A,B;C,D", help="Groups of classes for superclass noise.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise, the split and the limit.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Training samples to keep, drawn evenly over the classes.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side in pixels that networks see. [default: as stored up to 64, else 64]")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Pass over unreadable samples, and list them.")] = False,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Read a set of images into the workspace."""
    from engine.data.ingest import IngestSpec, ingest

    spec = IngestSpec(
        name=name,
        source=source,
        test=test,
        test_fraction=test_fraction,
        labels=labels,
        true_labels=true_labels,  # type: ignore[arg-type]  # checked by the spec
        noise=noise,
        superclasses=superclasses,
        seed=seed,
        limit=limit,
        image_size=image_size,
        skip_bad=skip_bad,
    )
    at = Workspace.open(workspace, create=True)
    with progress_bar(f"ingest {name}") as listen:
        done = ingest(at, spec, lambda stage, n, total: listen(stage, n / max(1, total), None))
    if json:
        return print_json(asdict(done))
    wrong = "" if done.noise_rate is None else f", {done.noise_rate:.1%} of the training labels wrong"
    skipped = f", {done.skipped} unreadable samples passed over" if done.skipped else ""
    state = "is there already" if done.existed else f"ingested in {duration(done.seconds)}"
    say(
        f"dataset {name}: {done.train:,} training and {done.test:,} test samples of {done.classes} classes{wrong}{skipped}; {state}"
    )


@app.command()
def run(
    context: typer.Context,
    dataset: Dataset,
    preset: Annotated[
        str, typer.Option(help="A paper's settings (winnow presets lists them); options beside it win.")
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            help="mlp, cnn, vgg16, resnet18, resnet32, resnet50, preact_resnet18, torchvision:NAME, or "
            "PACKAGE.MODULE:FACTORY."
        ),
    ] = TrainingSpec.model,
    epochs: Annotated[int, typer.Option(help="Passes over the training set.")] = TrainingSpec.epochs,
    seeds: Annotated[int, typer.Option(help="Networks to train.")] = TrainingSpec.seeds,
    batch_size: Annotated[int, typer.Option(help="Samples per step.")] = TrainingSpec.batch_size,
    lr: Annotated[float | None, typer.Option(help="Learning rate. [default: 0.002 adam, 0.1 sgd]")] = None,
    optimizer: Annotated[str, typer.Option(help="adam, or sgd with Nesterov momentum 0.9.")] = TrainingSpec.optimizer,
    schedule: Annotated[
        str, typer.Option(help="constant, cosine, or step (a tenth at 1/2 and at 3/4).")
    ] = TrainingSpec.schedule,
    weight_decay: Annotated[float, typer.Option(help="L2 penalty.")] = TrainingSpec.weight_decay,
    observe: Annotated[
        str, typer.Option(help="Record logits of the training pass (train) or of a clean pass after it (eval).")
    ] = TrainingSpec.observe,
    augment: Annotated[str, typer.Option(help="none, flip, crop or crop+flip.")] = TrainingSpec.augment,
    logit_seeds: Annotated[int, typer.Option(help="Seeds that keep their full logits.")] = TrainingSpec.logit_seeds,
    threshold_rounds: Annotated[
        int | None, typer.Option(help="Networks for the AUM threshold rule: 0 or 2. [default: 2 with aum]")
    ] = None,
    scores: Annotated[
        str,
        typer.Option(
            help="standard (what takes no longer than the training), all, or names separated by commas; el2n@5 is el2n "
            "after epoch 5."
        ),
    ] = "standard",
    neighbors: Annotated[
        int | None, typer.Option(help="Nearest neighbours to keep. [default: 15 with standard, all or a map]")
    ] = None,
    embedding: Annotated[str | None, typer.Option(help="umap or none. [default: umap with standard or all]")] = None,
    features: Annotated[
        str,
        typer.Option(metavar="torchvision:NAME:FILE", help="Features of a torchvision model with weights from a file."),
    ] = "",
    complexity: Annotated[
        str,
        typer.Option(help="Complexity gap over the whole set (exact) or averaged over random subsets (stochastic)."),
    ] = "exact",
    standardise: Annotated[
        bool, typer.Option("--standardise", help="Standardise its inputs per channel first.")
    ] = False,
    detector: Annotated[
        str, typer.Option(help="Noise detector of the score lstm_detector. [default: digits, which ships]")
    ] = "",
    cscores: Annotated[
        str, typer.Option(metavar="FILE", help="Published C-scores (.npz) for consistency, instead of estimating it.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Of threshold samples, ties and the map.")] = 0,
    device: Device = "auto",
    cluster: Cluster = "",
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Train, record the dynamics, score every sample and publish the run. Started again, it goes on where it was."""
    from engine.runs.pipeline import plan_run
    from engine.spec import LEARNING_RATE

    training: dict[str, Any] = dict(
        model=model,
        epochs=epochs,
        seeds=seeds,
        batch_size=batch_size,
        lr=LEARNING_RATE.get(optimizer, 0.1) if lr is None else lr,
        optimizer=optimizer,
        schedule=schedule,
        weight_decay=weight_decay,
        observe=observe,
        augment=augment,
        logit_seeds=min(logit_seeds, seeds),
    )
    at = Workspace.open(workspace)
    at.require_dataset(dataset)
    names = [name.strip() for name in scores.split(",") if name.strip()]
    if preset:
        chosen = _find_preset(preset)
        typed = {name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")}
        training = asdict(chosen.training) | {name: value for name, value in training.items() if name in typed}
        names = names if "scores" in typed else list(chosen.scores)
    spec = plan_run(
        at,
        dataset,
        names,
        TrainingSpec(**training),
        threshold_rounds=threshold_rounds,
        neighbors=neighbors,
        embedding=embedding,  # type: ignore[arg-type]  # checked by the spec
        seed=seed,
        complexity=complexity,  # type: ignore[arg-type]  # checked by the spec
        standardise=standardise,
        features=features,
        detector=detector,
        cscores=cscores,
    )
    _compute(at, spec, device, cluster, json)


def _find_preset(name: str) -> Preset:
    """The preset of that name, told with what it changes."""
    from engine.presets import find_preset

    found = find_preset(name)
    say(f"preset {name} ({found.source})" + (f": {found.changes}" if found.changes else ""))
    return found


@app.command()
def psi(
    dataset: Dataset,
    orders: Annotated[
        str | None,
        typer.Option(
            help="random, oracle, scores (* behind one reverses it), samplers such as kcenter or ccs(nli,beta=0.2); "
            "separated by commas. [default: random,el2n,el2n*,oracle]"
        ),
    ] = None,
    points: Annotated[
        int | None, typer.Option(help="Points of a curve: 0, 1/points, 2/points, ... pruned. [default: 20, window 10]")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Networks per point. [default: 3]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the kept samples. [default: as the scores]")] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            help="epochs: as many passes at every point; fixed: as many steps as the full set. [default: epochs]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of random orders.")] = 0,
    class_balanced: Annotated[
        bool, typer.Option("--class-balanced", help="Prune the same share of every class.")
    ] = False,
    window: Annotated[
        bool, typer.Option("--window", help="Keep half at every point: a window that slides over the ranks of a score.")
    ] = False,
    around: Annotated[
        str, typer.Option(metavar="RULE", help="End at twice what a rule flags, such as aum_threshold.")
    ] = "",
    preset: Annotated[str | None, typer.Option(help="A paper's settings; options beside it win.")] = None,
    device: Device = "auto",
    cluster: Cluster = "",
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Prune by an order, train afresh, test: the data-pruning curve. Started again, it goes on where it was."""
    from engine.presets import curve_settings
    from engine.runs.psi import plan_psi
    from engine.selection.names import split_orders

    at = Workspace.open(workspace)
    at.require_dataset(dataset)
    given = {"orders": orders and split_orders(orders), "points": points, "seeds": seeds, "steps": steps}
    asked = curve_settings(preset, window, **given)
    if preset:
        _find_preset(preset)
    spec = plan_psi(
        at, dataset, epochs=epochs, seed=seed, class_balanced=class_balanced, window=window, around=around, **asked
    )
    _compute(at, spec, device, cluster, json)


@app.command()
def resume(
    run: RunId, device: Device = "auto", cluster: Cluster = "", workspace: Root = None, json: Json = False
) -> None:
    """Go on with a run that was cancelled, interrupted or failed."""
    from engine.spec import spec_from_json

    at = Workspace.open(workspace)
    _compute(at, spec_from_json(at.read_spec(at.require_run(run))["spec"]), device, cluster, json)


@app.command()
def runs(
    dataset: Annotated[str | None, typer.Option(help="Only the runs of this dataset.")] = None,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """List all runs, the latest first."""
    from engine.store.jobs import fetch_jobs

    at = Workspace.open(workspace)
    if dataset:
        at.require_dataset(dataset)
    jobs = fetch_jobs(at, dataset)
    if json:
        return print_json({"runs": [asdict(job) for job in jobs]})
    if not jobs:
        return say("no runs yet; winnow run DATASET makes one")
    rows = [{**asdict(job), "done": f"{job.fraction:.0%}", "left": duration(job.seconds_left)} for job in jobs]
    print_table(rows, ["run_id", "dataset", "title", "state", "done", "left"])
    for job in jobs:
        if job.message:
            say(f"{job.run_id}: {job.message}")


@app.command()
def status(run: RunId, workspace: Root = None, json: Json = False) -> None:
    """Tell how far a run is."""
    from engine.store.jobs import fetch_job

    at = Workspace.open(workspace)
    job = fetch_job(at, at.require_run(run))
    if json:
        return print_json(asdict(job))
    left = f", {duration(job.seconds_left)} left" if job.seconds_left is not None else ""
    stage = f" ({job.stage}{left})" if job.state == "running" else ""
    say(
        f"run {job.run_id} on {job.dataset}: {job.title}; {job.state}, {job.fraction:.0%} done{stage} {job.message}".rstrip()
    )


@app.command()
def cancel(run: RunId, workspace: Root = None, json: Json = False) -> None:
    """Ask a running run to stop. It keeps what it has done: winnow resume goes on."""
    from engine.store.jobs import cancel

    at = Workspace.open(workspace)
    wanted = at.require_run(run)
    cancel(at, wanted)
    tell(json, {"run_id": wanted, "asked": "cancel"}, f"run {wanted} was asked to stop; winnow resume {wanted} goes on")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="A run's id, or a dataset (its runs go with it).")],
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Delete a run, or a dataset with all its runs."""
    from engine.store.jobs import discard_dataset

    at = Workspace.open(workspace)
    if name in at.datasets():
        found = discard_dataset(at, name)
        removed = {"dataset": name, "runs": found}
        return tell(json, removed, f"removed dataset {name} and {len(found)} runs")
    run_id = at.require_run(name)
    at.remove_run(run_id)
    tell(json, {"dataset": None, "runs": [run_id]}, f"removed run {run_id}")


@app.command()
def dashboard(
    port: Annotated[int | None, typer.Option(help="Port on localhost. [default: 8501, or the next free one]")] = None,
    workspace: Root = None,
) -> None:
    """Open the workspace in a browser, on this machine only. Ctrl-C stops it."""
    _serve(Workspace.open(workspace), port)


@app.command()
def demo(
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Compute, but do not start the dashboard.")] = False,
    port: Annotated[int | None, typer.Option(help="Port on localhost. [default: 8501, or the next free one]")] = None,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """From nothing to flagged images in a browser: 1,797 real digits, a fifth of the labels made wrong."""
    from engine.cli.demo import compute_demo

    at = Workspace.open(workspace, create=True)
    done = compute_demo(at)
    if json:
        print_json(done)
    if not no_serve:
        _serve(at, port)


def _compute(workspace: Workspace, spec: Any, device: str, cluster: str, json: bool) -> None:
    """Compute a run with a progress bar, and tell its id."""
    from engine.runs.compute import compute
    from engine.store.jobs import fetch_job

    with progress_bar(f"{spec.dataset}") as listen:
        run_id, existed = compute(workspace, spec, device, listen, cluster)
    job = fetch_job(workspace, run_id)
    told = "was there already" if existed else "published"
    tell(
        json,
        {"run_id": run_id, "existed": existed, "dataset": job.dataset, "title": job.title},
        f"run {run_id} {told}: {job.title}",
    )


def _serve(workspace: Workspace, port: int | None) -> None:
    from dashboard.serve import serve

    try:
        serve(workspace.root, port)
    except OSError as error:
        raise SpecError(str(error)) from error


def main() -> NoReturn:
    """Entry point: one line and exit code 2 for an expected error, 130 for a run that was asked to stop."""
    # Threads that spin while they wait for each other stall the machine as soon as anything else runs on it (a
    # second run, the dashboard's browser): steps then take 40 times as long. Sleeping costs next to nothing.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except WinnowError as error:
        say(f"winnow: {error}")
        sys.exit(2)
    except (Cancelled, KeyboardInterrupt):
        say("stopped; what was done is kept: the same command, or winnow resume, goes on")
        sys.exit(130)
    sys.exit(0)
