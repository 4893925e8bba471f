"""What a proof found, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from json import loads
from typing import Any

import typer

from engine.cli.console import print_table, say, visible
from engine.store.workspace import Workspace


def read_gains(workspace: Workspace, dataset: str, run_id: str) -> dict[str, Any]:
    """What a published proof shows: gain, gain_true (None where the truth is unknown), pairs and notes."""
    from engine.queries.connection import connected
    from engine.queries.proofs import compute_gain, fetch_proof

    with connected(workspace, dataset, [run_id]) as connection:
        rows = fetch_proof(connection, run_id)
        notes = connection.execute("SELECT notes FROM runs").fetchall()[0][0]
    found: dict[str, Any] = {}
    for name, column in (("gain", "accuracy"), ("gain_true", "accuracy_true")):
        gain = compute_gain(rows, column)
        found[name] = None if gain is None else asdict(gain) | {"sentence": gain.sentence, "measured": gain.measured}
    wide = rows.pivot(index="seed", columns="set", values="accuracy")
    pairs = [
        {"seed": int(s), "full": full, "curated": curated}
        for s, curated, full in wide[["curated", "full"]].itertuples()
    ]
    return found | {"pairs": pairs, "notes": loads(notes)}


def print_gains(found: Mapping[str, Any]) -> None:
    """Print what `read_gains` found on standard output: the verdict, what it is a mean of, the pairs, the notes."""
    from engine.queries.proofs import points

    gain, true = found["gain"], found["gain_true"]
    typer.echo(visible(gain["sentence"]))
    typer.echo(visible(gain["measured"]))
    if true is not None and true != gain:
        typer.echo(visible(f"by the true labels: {true['sentence']} ({true['measured']})"))
    rows = [
        {"seed": pair["seed"]}
        | {name: f"{100 * pair[name]:.2f} %" for name in ("full", "curated")}
        | {"points": points(pair["curated"] - pair["full"])}
        for pair in found["pairs"]
    ]
    print_table(rows, ["seed", "full", "curated", "points"])
    for note in found["notes"]:
        say(note)
