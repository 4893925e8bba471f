"""What several commands take, and how they tell what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli.console import print_json, say

Root = Annotated[
    Path | None,
    typer.Option(
        "--workspace", envvar="WINNOW_WORKSPACE", help="Folder of datasets and runs. [default: winnow-workspace]"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu or cuda.")]
Cluster = Annotated[
    str,
    typer.Option(
        metavar="ray[:HOST:PORT]", help="Compute on a Ray cluster: the one this machine belongs to, or by its head."
    ),
]
Dataset = Annotated[str, typer.Argument(help="Name of a dataset (winnow ingest makes one).")]
RunId = Annotated[str, typer.Argument(help="A run's id, or its first digits (winnow runs lists them).")]
Run = Annotated[
    str | None, typer.Option(help="A run's id, or its first digits. [default: the latest that has what is needed]")
]


def tell(json: bool, value: dict[str, Any], text: str) -> None:
    """One JSON object, or one line for a person."""
    if json:
        print_json(value)
    else:
        say(text)
