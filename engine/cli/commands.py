"""The command `winnow`: its groups of commands."""

from __future__ import annotations

import typer

from engine.cli import (
    deciding,
    explore,
    learn,
    manage,
    prove,
    relabel,
    reproduce,
    share,
    start,
    transfer,
    verdict,
    version,
)

app = typer.Typer(
    help="See which samples of an image-classification set are redundant, hard or mislabeled, and why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (start, manage, verdict, prove, relabel, reproduce, deciding, explore, transfer, share):
    app.add_typer(group.app)
app.add_typer(learn.app, name="detector")
app.add_typer(version.app, name="version")
