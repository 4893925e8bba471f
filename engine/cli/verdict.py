"""`winnow verdict`: what to believe of a run, and its most suspicious samples, as text. `winnow run` ends with the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.arguments import Dataset, Json, Root
from engine.cli.console import print_json, records
from engine.errors import NotFoundError
from engine.store.workspace import Workspace
from engine.text import shown

if TYPE_CHECKING:
    from engine.queries.verdicts import Verdict

app = typer.Typer()

_WIDEST = 28  # characters of a class name


@app.command()
def verdict(
    dataset: Dataset,
    run: Annotated[
        str | None, typer.Option(help="A run's id, or its first digits. (default: the run to be trusted most)")
    ] = None,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Print what to believe of a run: held-out accuracy, estimated share of wrong labels, the shortlist, what to do."""
    from engine.queries.connection import best_run, connected

    at = Workspace.open(workspace)
    with connected(at, dataset) as connection:
        chosen = at.require_run(run) if run else best_run(connection, "verdict") or best_run(connection)
    if not chosen:
        raise NotFoundError(f"no run of '{dataset}' has scores; winnow run {dataset} makes one")
    print_verdict(at, dataset, chosen, json)


def has_verdict(workspace: Workspace, dataset: str, run_id: str) -> bool:
    """Whether a published run has a verdict."""
    from engine.queries.connection import connected
    from engine.queries.verdicts import fetch_verdict

    with connected(workspace, dataset, [run_id]) as connection:
        return fetch_verdict(connection, run_id) is not None


def print_verdict(workspace: Workspace, dataset: str, run_id: str, json: bool = False) -> None:
    """Print the verdict of a published run on standard output; NotFoundError where it has none."""
    from engine.queries.connection import connected
    from engine.queries.verdicts import fetch_verdict, fetch_worst, no_verdict

    with connected(workspace, dataset) as connection:
        found = fetch_verdict(connection, run_id)
        worst = records(fetch_worst(connection, run_id))
    if found is None:
        raise NotFoundError(no_verdict(dataset, run_id))
    if json:
        return print_json({"dataset": dataset, **asdict(found), "worst": worst})
    typer.echo(verdict_text(dataset, found, worst))


def verdict_text(dataset: str, verdict: Verdict, worst: Sequence[Mapping[str, Any]]) -> str:
    """The verdict, the most suspicious samples and the next command, as lines for a terminal.

    Args: worst: rows as fetch_worst gives them: p_wrong, class_name, suggested (None where unknown), source, split
    """
    from engine.queries.verdicts import likely

    lines = [f"Verdict on {dataset}, run {verdict.run_id}", *(f"  {_line(text)}" for text in verdict.sentences())]
    if worst:
        given = [_name(row["class_name"]) for row in worst]
        proposed = [_name(row["suggested"]) for row in worst]
        wide, wider = max(map(len, [*given, "given"])), max(map(len, [*proposed, "suggested"]))
        lines += ["", f"  {'wrong':>6}  {'given':{wide}}  {'suggested':{wider}}  file"]
        lines += [
            f"  {likely(row['p_wrong']):>6}  {a:{wide}}  {b:{wider}}  {_line(row['source'])}"
            for row, a, b in zip(worst, given, proposed, strict=True)
        ]
    name = quote(dataset)
    lines += ["", "Next:  winnow dashboard                                   look at the samples"]
    if worst:
        lines.append(f"       winnow export {name} --where flagged --split all --to shortlist.csv")
    return "\n".join(lines)


def _name(text: str | None) -> str:
    """A class name that fits in a column."""
    shown = _line(text or "")
    return shown if len(shown) <= _WIDEST else f"{shown[: _WIDEST - 1]}…"


def _line(text: str) -> str:
    """Text on one line of a terminal."""
    return shown(text)
