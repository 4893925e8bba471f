"""`winnow report`: what is known of a dataset as one file, for people who have no dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.arguments import Dataset, Json, Root
from engine.cli.arguments import report as answer
from engine.errors import SpecError
from engine.store.workspace import Workspace

app = typer.Typer()

MOST = 1_000
"""Images in one report at most."""


@app.command()
def report(
    dataset: Dataset,
    to: Annotated[Path, typer.Option(help="The HTML file to write.")],
    run: Annotated[
        str | None, typer.Option(help="A run's id, or its first digits. (default: the run to be trusted most)")
    ] = None,
    images: Annotated[int, typer.Option(help="Images of the shortlist at most.")] = 48,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Write one self-contained HTML file: the verdict, the worst images, classes, scores, curves, decisions."""
    from engine.report.page import write_report

    if not 0 <= images <= MOST:
        raise SpecError(f"--images is {images}; allowed: 0 to {MOST:,}")
    size = write_report(Workspace.open(workspace), dataset, to, run, images)
    answer(json, {"to": str(to), "bytes": size}, f"wrote {to}: {size:,} bytes, in one file that loads nothing")
