"""The command `winnow`: its groups of commands, and how it ends."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from engine.cli import explore, learn, manage, start, verdict
from engine.cli.console import say
from engine.errors import Cancelled, WinnowError

app = typer.Typer(
    help="See which samples of an image-classification set are redundant, hard or mislabeled, and why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (start, manage, verdict, explore):
    app.add_typer(group.app)
app.add_typer(learn.app, name="detector")


def main() -> NoReturn:
    """Entry point: one line and exit code 2 for an expected error, 130 for a run that was stopped."""
    # Threads that spin while they wait for each other stall the machine as soon as anything else runs on it (a
    # second run, the dashboard's browser): steps then take 40 times as long. Sleeping costs next to nothing.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except WinnowError as error:
        say(f"winnow: {error}")
        sys.exit(2)
    except MemoryError:
        say("winnow: there is not enough memory; close other programs, raise the limit of this one, or take less data")
        sys.exit(2)
    except (Cancelled, KeyboardInterrupt):
        say("stopped; finished work is kept: the same command, or winnow resume, continues")
        sys.exit(130)
    sys.exit(0)
