"""What a relabeling found, as text and as JSON."""

from __future__ import annotations

from json import loads
from shlex import quote
from typing import Any

import typer

from engine.cli.console import duration, print_table, records, say
from engine.store.workspace import Workspace


def read_relabeling(workspace: Workspace, dataset: str, run_id: str) -> dict[str, Any]:
    """What a published relabeling found: networks, changes, bins, notes."""
    from engine.queries.connection import connected
    from engine.queries.relabelings import fetch_changes, fetch_relabel_bins, fetch_relabelings

    with connected(workspace, dataset, [run_id]) as connection:
        parts = {"networks": fetch_relabelings, "changes": fetch_changes, "bins": fetch_relabel_bins}
        found: dict[str, Any] = {name: records(fetch(connection, run_id)) for name, fetch in parts.items()}
        notes = connection.execute("SELECT notes FROM runs").fetchall()[0][0]
    return found | {"notes": loads(notes)}


def print_relabeling(found: dict[str, Any], dataset: str, run_id: str) -> None:
    """Print what `read_relabeling` found: what the networks gained, how many labels would change, what to do next."""
    networks = [_network(row) for row in found["networks"]]
    if networks:
        columns = [
            "kept",
            "subset",
            "learner",
            "samples",
            "wrong",
            "wrong after",
            "accuracy",
            "true accuracy",
            "choosing",
            "time",
        ]
        print_table(networks, [c for c in columns if any(row.get(c) for row in networks)])
    changes = found["changes"]
    if not changes or not changes[0]["labels"]:
        return typer.echo("no label would change: the method agrees with every label that it has an opinion on")
    typer.echo(f"it would change {changes[0]['labels']:,} labels; from a confidence on:")
    rows = [
        {
            "confidence": f"{row['from']:g}",
            "labels": f"{row['labels']:,}",
            "expected right": _percent(row["expected"]),
            "right by the truth": _percent(row["right"]),
        }
        for row in changes
        if row["labels"]
    ]
    print_table(rows, [c for c in rows[0] if any(row[c] for row in rows)])
    for note in found["notes"]:
        say(note)
    typer.echo(
        "no label was changed. Review them in the dashboard (Review, Suggestions of), or take those above a confidence:"
    )
    typer.echo(f"  winnow version create {quote(dataset)} NAME --relabel-above 0.9 --run {run_id}")


def _network(row: dict[str, Any]) -> dict[str, Any]:
    true = row["accuracy_true"] if row["accuracy_true"] != row["accuracy"] else None
    return {
        "kept": f"{100 * row['kept_fraction']:.3g} %",
        "subset": row["subset"],
        "learner": row["learner"],
        "samples": f"{row['samples']:,}",
        "wrong": _percent(row["noise"]),
        "wrong after": _percent(row["noise_left"]),
        "accuracy": _percent(row["accuracy"]),
        "true accuracy": _percent(true),
        "choosing": "" if row["select_seconds"] is None else duration(row["select_seconds"]),
        "time": duration(row["seconds"]),
    }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
