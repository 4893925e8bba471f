"""`--estimate`: how long a command will take on this machine, in place of doing it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.cli.arguments import report
from engine.cli.console import rough
from engine.store.workspace import Workspace

Estimate = Annotated[bool, typer.Option("--estimate", help="Print how long it will take, and compute nothing.")]


def print_estimate(workspace: Workspace, spec: Any, device: str, json: bool) -> None:
    """Print what computing a run will take on this machine; 0 seconds where it is published already."""
    from engine.runs.feasible import estimate_seconds
    from engine.training.device import pick_device

    chosen = pick_device(device)
    say_estimate(estimate_seconds(workspace, spec, chosen), json, chosen.type)


def say_estimate(seconds: float, json: bool, device: str = "cpu") -> None:
    """Print rough seconds; 0 where there is nothing left to do."""
    on = "GPU" if device == "cuda" else "processor"
    text = f"about {rough(seconds)} on this {on}" if seconds else "it is computed already"
    report(json, {"seconds": round(seconds, 1), "device": device}, text)
