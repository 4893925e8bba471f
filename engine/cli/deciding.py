"""Commands that decide about samples, take decisions back and list them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from engine.cli.arguments import Dataset, Json, Root, Run, report
from engine.cli.console import print_json, print_table, records, say
from engine.errors import SpecError
from engine.store.decision_file import AUTHOR
from engine.store.decisions import Action
from engine.store.workspace import Workspace

app = typer.Typer()

PRINTED_ROWS = 10_000
"""Rows that are printed as a table at most."""

As = Annotated[str, typer.Option("--as", metavar="NAME", envvar=AUTHOR, help="Who decides. (default: nobody named)")]


@app.command()
def decide(
    dataset: Dataset,
    action: Annotated[str, typer.Argument(help="keep, drop, relabel or unsure.")],
    samples: Annotated[str, typer.Option(metavar="IDS", help="Samples by id: 1,2,5-9.")] = "",
    ids: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Samples by the ids in a file: npy, CSV with sample_id, or text."),
    ] = None,
    where: Annotated[str, typer.Option(metavar="SQL", help="Samples by a condition, as winnow export takes it.")] = "",
    copies: Annotated[
        bool,
        typer.Option(
            "--copies",
            help="Training samples that are there again: of each group of duplicates all but one, "
            "and all where the test part has one.",
        ),
    ] = False,
    split: Annotated[str, typer.Option(help="With --where: train, test, or all that were judged.")] = "train",
    run: Run = None,
    label: Annotated[str, typer.Option(metavar="CLASS", help="With relabel: the class, by name or number.")] = "",
    suggested: Annotated[
        bool,
        typer.Option("--suggested", help="With relabel: each to its own suggestion, the true label where it is known."),
    ] = False,
    note: Annotated[str, typer.Option(help="A note to keep with it.")] = "",
    author: As = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print how many samples it is about, and stop.")] = False,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Decide about samples: keep them, drop them, relabel them, or leave them open as unsure. One winnow undo takes it back."""
    from engine.queries.chosen import (
        fetch_suggested,
        find_copies,
        find_label,
        parse_samples,
        read_samples,
        samples_where,
    )
    from engine.store.decisions import decide
    from engine.store.records import dataset_facts

    at = Workspace.open(workspace)
    path = at.require_dataset(dataset)
    if sum(map(bool, (samples, ids, where, copies))) != 1:
        raise SpecError("which samples? give one of --samples 1,2,5-9, --ids FILE, --where SQL and --copies")
    if (action == "relabel") != (bool(label) != suggested):
        raise SpecError("relabel takes one of --label CLASS and --suggested, the other actions take neither")
    chosen = at.require_run(run) if run else None
    if where:
        meant = samples_where(at, dataset, where, chosen, split)
        say(f"{len(meant):,} samples match")
    elif copies:
        meant = find_copies(at, dataset, chosen)
    else:
        meant = parse_samples(samples, dataset_facts(path).samples) if samples else read_samples(ids or Path())
    n, labels = len(meant), None if not label else find_label(at, dataset, label)
    of_each = None
    if suggested:
        meant, of_each = fetch_suggested(at, dataset, meant, chosen)
        say(f"{len(meant):,} of {n:,} samples have a suggestion that is not their label")
    if dry_run or not len(meant):
        return report(json, {"batch": None, "samples": len(meant)}, f"{len(meant):,} samples; nothing was decided")
    new_label = of_each if of_each is not None else labels
    batch = decide(at, dataset, meant, cast(Action, action), new_label=new_label, note=note, author=author)
    report(
        json,
        {"batch": batch, "samples": len(meant)},
        f"decision {batch}: {action} {len(meant):,} sample{'s' if len(meant) != 1 else ''}; winnow undo {dataset} takes it back",
    )


@app.command()
def undo(
    dataset: Dataset,
    author: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", envvar=AUTHOR, help="Only what NAME decided. (default: anybody)"),
    ] = None,
    decision: Annotated[
        int | None, typer.Option(metavar="N", help="This one of winnow decisions --log. (default: the latest)")
    ] = None,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Take back the latest decision that stands, whole. What others decided before or after it stands."""
    from engine.store.decisions import undo

    at = Workspace.open(workspace)
    at.require_dataset(dataset)
    batch = undo(at, dataset, author, decision)
    whose = f" of {author}" if author else ""
    text = f"took back decision {batch}" if batch is not None else f"no decision{whose} about {dataset} stands"
    report(json, {"batch": batch}, text)


@app.command()
def decisions(
    dataset: Dataset,
    disagreements: Annotated[
        bool, typer.Option("--disagreements", help="List where people differ: the latest decision of each of them.")
    ] = False,
    log: Annotated[
        bool, typer.Option("--log", help="List every decision and undo, the latest first, instead of what stands.")
    ] = False,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """List what people decided: the latest decision per sample."""
    import numpy as np

    from engine.store.decisions import fetch_batches, fetch_decisions_log, fetch_disagreements
    from engine.store.records import dataset_facts

    if disagreements and log:
        raise SpecError("--disagreements and --log; give one of them")
    at = Workspace.open(workspace)
    classes = np.asarray(dataset_facts(at.require_dataset(dataset)).classes, dtype=object)
    fetch = fetch_batches if log else fetch_disagreements if disagreements else fetch_decisions_log
    found = fetch(at, dataset)
    is_label = found["new_label"].notna() & found["action"].eq("relabel")
    found["new_class"] = None
    found.loc[is_label, "new_class"] = classes[found.loc[is_label, "new_label"].astype(int)]
    rows = records(found)
    if json:
        return print_json({"log" if log else "disagreements" if disagreements else "decisions": rows})
    if not rows:
        return say(
            f"people differ about no sample of {dataset}" if disagreements else f"nothing is decided about {dataset}"
        )
    for row in rows[:PRINTED_ROWS]:
        row["decided"] = f"{row['decided_at']:%Y-%m-%d %H:%M}" if row["decided_at"] is not None else ""
        if row["action"] == "undo":
            row["action"], row["n"] = f"undo of {row['new_label']}", None
    first = ["batch", "author", "action", "n"] if log else ["sample_id", "author", "action"]
    print_table(rows[:PRINTED_ROWS], [*first, "new_class", "note", "decided", *(["stands"] if log else [])])
    if len(rows) > PRINTED_ROWS:
        say(f"({len(rows) - PRINTED_ROWS:,} more rows are left out; --json prints all)")
