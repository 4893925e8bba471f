"""Commands that compute: ingest, run, psi, resume, and the demo; and the one that opens the dashboard."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli.arguments import (
    Cluster,
    Dataset,
    DeclaredHelp,
    Device,
    Json,
    OriginalsIn,
    Root,
    RunId,
    TrustModel,
    Yes,
    report,
    with_options,
)
from engine.cli.console import duration, messages, print_json, progress_bar, rough, say
from engine.cli.estimating import Estimate, print_estimate, say_estimate
from engine.cli.gains import print_gains, read_gains
from engine.cli.proposed import print_relabeling, read_relabeling
from engine.cli.verdict import has_verdict, print_verdict
from engine.data.request import IngestSpec
from engine.errors import SpecError, WinnowError
from engine.presets import find_preset
from engine.spec import ProveSpec, PsiSpec, RelabelSpec, RunSpec, TrainingSpec
from engine.store.decision_file import AUTHOR, MOST_AUTHOR, check_text
from engine.store.workspace import Workspace

app = typer.Typer()

Port = Annotated[int | None, typer.Option(help="Port on localhost. (default: 8501, or the next free one)")]
NoToken = Annotated[bool, typer.Option("--no-token", help="Serve every user of this machine, without a token.")]


@app.command(cls=DeclaredHelp)
@with_options(IngestSpec)
def ingest(
    name: Annotated[str, typer.Argument(help="Name of the new dataset.")],
    source: Annotated[str, typer.Option("--from", help="{sources}.")],
    estimate: Estimate = False,
    workspace: Root = None,
    json: Json = False,
    **words: Any,
) -> None:
    """Read a set of images into the workspace."""
    from engine.data.outcome import describe
    from engine.runs.ingesting import ingest

    given = {option: value for option, value in words.items() if value is not None}
    spec = IngestSpec(name=name, source=source, **given)
    at = Workspace.open(workspace, create=True)
    if estimate:
        from engine.runs.estimates import ingest_seconds

        return say_estimate(ingest_seconds(at, spec), json)
    with progress_bar(f"ingest {name}") as listen:
        done = ingest(at, spec, lambda stage, n, total: listen(stage, n / max(1, total), None))
    if json:
        return print_json(asdict(done))
    for line in describe(done, duration(done.seconds)):
        say(line)
    place = "" if workspace is None else f" --workspace {shlex.quote(str(workspace))}"
    say(f"next: winnow run {name}{place}")


@app.command(cls=DeclaredHelp)
@with_options(TrainingSpec, RunSpec)
def run(
    dataset: Dataset,
    preset: Annotated[
        str | None,
        typer.Option(help="A paper's settings (winnow presets lists them); explicit options take precedence."),
    ] = None,
    scores: Annotated[
        str | None,
        typer.Option(
            help="standard (what takes no longer than the training), all, or names separated by commas; el2n@5 is el2n "
            "after epoch 5. (default: standard)"
        ),
    ] = None,
    trust_model: TrustModel = False,
    originals: OriginalsIn = None,
    device: Device = "auto",
    cluster: Cluster = "",
    yes: Yes = False,
    estimate: Estimate = False,
    workspace: Root = None,
    json: Json = False,
    **words: Any,
) -> None:
    """Train, record the dynamics, score every sample and publish the run. The same command resumes it."""
    from engine.runs.options import plan_run_from
    from engine.training.device import pick_device

    at = Workspace.open(workspace)
    at.require_dataset(dataset)
    chosen = pick_device(device)
    with progress_bar(dataset) as listen:
        given: dict[str, Any] = {**words, "scores": scores, "preset": preset, "trust_model": trust_model}
        given["originals"] = originals
        spec = plan_run_from(at, dataset, given, chosen, listen, say)
    _describe_preset(preset)
    if estimate:
        return print_estimate(at, spec, device, json)
    compute_run(at, spec, device, cluster, json, yes)


@app.command(cls=DeclaredHelp)
@with_options(PsiSpec)
def psi(
    dataset: Dataset,
    orders: Annotated[
        str | None,
        typer.Option(
            help="Separated by commas: a score (its easiest pruned first), a score with * (its hardest first), or one of "
            "{samplers}. (default: random,el2n,el2n*,oracle)"
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Networks per point. (default: 3)")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the kept samples. (default: as the scores)")] = None,
    around: Annotated[
        str | None, typer.Option(metavar="RULE", help="End at twice what a rule flags, such as aum_threshold.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="A paper's settings; explicit options take precedence.")] = None,
    trust_model: TrustModel = False,
    device: Device = "auto",
    cluster: Cluster = "",
    yes: Yes = False,
    estimate: Estimate = False,
    workspace: Root = None,
    json: Json = False,
    **words: Any,
) -> None:
    """Prune by an order, train again, test: the data-pruning curve. The same command resumes it."""
    from engine.runs.options import plan_psi_from

    at = Workspace.open(workspace)
    at.require_dataset(dataset)
    given: dict[str, Any] = {"orders": orders, "seeds": seeds, "epochs": epochs, "around": around, "preset": preset}
    given["trust_model"] = trust_model
    spec = plan_psi_from(at, dataset, {**words, **given})
    _describe_preset(preset)
    if estimate:
        return print_estimate(at, spec, device, json)
    compute_run(at, spec, device, cluster, json, yes)


@app.command()
def resume(
    run: RunId,
    trust_model: TrustModel = False,
    originals: OriginalsIn = None,
    device: Device = "auto",
    cluster: Cluster = "",
    yes: Yes = False,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Continue a run that was canceled, interrupted or failed."""
    from engine.runs.named_files import as_stored
    from engine.spec import spec_from_json
    from engine.store.trust import named_folders, trust_roots
    from engine.training.own_models import allow_trusted

    at = Workspace.open(workspace)
    record = at.read_record(at.require_run(run))
    if problem := at.outdated(record):  # its networks would go on learning from other samples
        raise SpecError(problem)
    trust_roots(at, named_folders(originals))
    spec = as_stored(at, spec_from_json(record.spec))
    if isinstance(spec, RunSpec | PsiSpec | ProveSpec | RelabelSpec) and spec.training:
        allow_trusted(at, spec.training.model, trust_model)
    compute_run(at, spec, device, cluster, json, yes)


@app.command()
def dashboard(
    port: Port = None,
    no_token: NoToken = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Show everything; decide, start, save and remove nothing.")
    ] = False,
    login: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Let people in by an OpenID Connect provider, in place of the token."),
    ] = None,
    author: Annotated[
        str,
        typer.Option(
            "--as", metavar="NAME", envvar=AUTHOR, help="Whose decisions are made in it. (default: nobody named)"
        ),
    ] = "",
    workspace: Root = None,
) -> None:
    """Open the workspace in a browser, on this machine only. Ctrl-C stops it."""
    check_text("author", author, MOST_AUTHOR)
    words = [*(["--read-only"] if read_only else []), *(["--login", str(login.resolve())] if login else [])]
    _serve(Workspace.open(workspace), port, no_token, *words, author=author)


@app.command()
def demo(
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Compute, but do not start the dashboard.")] = False,
    port: Port = None,
    no_token: NoToken = False,
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
        _serve(at, port, no_token)


def compute_run(
    workspace: Workspace, spec: Any, device: str, cluster: str, json: bool, yes: bool, curated: Any = None
) -> None:
    """Compute a run with a progress bar, and print its id and what it found. curated: the set of a new proof"""
    from engine.runs.compute import compute
    from engine.store.jobs import fetch_job

    if not cluster:
        _announce(workspace, spec, device, yes)
    with progress_bar(f"{spec.dataset}") as listen:
        run_id, existed = compute(workspace, spec, device, listen, cluster, curated)
    job = fetch_job(workspace, run_id)
    outcome = "was there already" if existed else "published"
    found: dict[str, Any] = {"run_id": run_id, "existed": existed, "dataset": job.dataset, "title": job.title}
    if isinstance(spec, ProveSpec):
        found |= read_gains(workspace, spec.dataset, run_id)
    if isinstance(spec, RelabelSpec):
        found |= read_relabeling(workspace, spec.dataset, run_id)
    report(json, found, f"run {run_id} {outcome}: {job.title}")
    if isinstance(spec, ProveSpec) and not json:
        print_gains(found)
    if isinstance(spec, RelabelSpec) and not json:
        print_relabeling(found, spec.dataset, run_id)
    _say_notes(workspace, spec)
    if isinstance(spec, RunSpec) and not json and has_verdict(workspace, spec.dataset, run_id):
        print_verdict(workspace, spec.dataset, run_id)


def _say_notes(workspace: Workspace, spec: Any) -> None:
    """Say for which images the stored ones stand in."""
    from engine.features.stored import notes_of
    from engine.store.trust import fetch_trust

    if isinstance(spec, RunSpec) and spec.features:
        for note in notes_of(workspace, spec.dataset, spec.features_hash):
            say(note)
        if problem := fetch_trust(workspace).problem:
            say(problem)


LONG_SECONDS = 60.0
"""What takes longer says so before it starts,"""

ALTERNATIVE_SECONDS = 300.0
"""what takes longer than this also says what would take less,"""

CONFIRM_SECONDS = 3600.0
"""and this is confirmed on a terminal."""


def _announce(workspace: Workspace, spec: Any, device: str, yes: bool) -> None:
    """Say how long a run will take, and what would take less; confirm it on a terminal where it is over an hour."""
    from engine.runs.feasible import alternatives, estimate_seconds
    from engine.training.device import pick_device

    chosen = pick_device(device)
    seconds = estimate_seconds(workspace, spec, chosen)
    if seconds < LONG_SECONDS:
        return
    words = [f"about {rough(seconds)} on this {'GPU' if chosen.type == 'cuda' else 'processor'}"]
    if seconds >= ALTERNATIVE_SECONDS:
        others = alternatives(workspace, spec, chosen).items()
        words += [f"with {options} {rough(less)}" for options, less in others if 0 < less < 0.8 * seconds]
    say("; ".join(words))
    confirm = seconds > CONFIRM_SECONDS and not yes and sys.stdin.isatty() and messages.is_terminal
    if confirm and not typer.confirm("Start it?", err=True):
        say("nothing was started")
        raise typer.Exit(1)


def _serve(workspace: Workspace, port: int | None, no_token: bool, *words: str, author: str = "") -> None:
    """Serve until Ctrl-C or SIGTERM, in a process of its own: the engine never imports the dashboard."""
    root = str(workspace.root.resolve())
    # -P: a streamlit.py or an engine.py in the current folder is not what is meant.
    command = [sys.executable, "-P", "-m", "dashboard", "--workspace", root, "--attached"]
    command += [] if port is None else ["--port", str(port)]
    command += [*(["--no-token"] if no_token else []), *words]
    environment = {**os.environ, AUTHOR: author}
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    interrupted = signal.getsignal(signal.SIGINT)
    try:
        # The server ends when its input does, however this process ends. A session of its own: Ctrl-C reaches it once,
        # through this process, however often it is pressed.
        with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, env=environment) as process:
            try:
                process.wait()
            except KeyboardInterrupt:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=10)
                process.kill()  # does nothing to a process that has ended
                return
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupted)
    if process.returncode == 2:
        raise typer.Exit(2)  # its own line says why
    if process.returncode not in (0, -signal.SIGTERM, -signal.SIGINT):
        raise WinnowError(f"the dashboard ended with code {process.returncode}; its messages are above")


def _describe_preset(name: str | None) -> None:
    """Print what a preset is, and what it changes."""
    if name:
        found = find_preset(name)
        say(f"preset {name} ({found.source})" + (f": {found.changes}" if found.changes else ""))
