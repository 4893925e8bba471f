"""`winnow reproduce`: the tables and figures of a paper, on any dataset."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from engine.cli.arguments import Cluster, DeclaredHelp, Device, Json, Root, report
from engine.cli.console import duration, print_table, progress_bar, say
from engine.store.workspace import Workspace

app = typer.Typer()


@app.command(cls=DeclaredHelp)
def reproduce(
    paper: Annotated[str, typer.Argument(help="{papers}, or all.")],
    dataset: Annotated[str, typer.Option(help="A dataset of the workspace. (default: digits in the small size)")] = "",
    size: Annotated[
        str, typer.Option(help="small (minutes on two cores) or paper (its networks, epochs and noise rates).")
    ] = "small",
    only: Annotated[
        str, typer.Option(metavar="PARTS", help="Tables and figures, separated by commas: table-2,figure-4.")
    ] = "",
    seeds: Annotated[int | None, typer.Option(help="Networks behind every value. (default: 3)")] = None,
    device: Device = "auto",
    cluster: Cluster = "",
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Compute the tables and figures of a paper, and write what came out beside what it has. The same command resumes it."""
    from engine.errors import SpecError
    from engine.reproduce.declared import SizeName, all_papers, find_paper, parts_of
    from engine.reproduce.report import WORDS, write_reproduction
    from engine.reproduce.reproducing import Reproduction, reproduce

    sizes: dict[str, Literal["small", "paper"]] = {"small": "small", "paper": "paper"}
    if size not in sizes:
        raise SpecError(f"--size is '{size}'; allowed: small, paper")
    chosen: SizeName = sizes[size]
    names = list(all_papers()) if paper == "all" else [paper]
    for name in names:  # before the first is computed
        parts_of(find_paper(name).name, only)
    at = Workspace.open(workspace, create=True)
    found: list[Reproduction] = []
    for name in names:
        with progress_bar(name) as listen:
            done = reproduce(
                at, name, only=only, dataset=dataset, size_name=chosen, seeds=seeds, device=device, cluster=cluster,
                listener=listen, after=write_reproduction,
            )  # fmt: skip
        found.append(done)
        for part in done.parts:
            say(
                f"{name} {part.part.name}: "
                + (f"not computed: {part.problem}" if part.problem else duration(part.seconds))
            )
    rows = [
        {
            "paper": one.paper.name,
            "where": part.part.name,
            "here": WORDS[held.holds],
            "finding": sentence,
            "by": held.because,
        }
        for one in found
        for part in one.parts
        if not part.problem
        for sentence, held in part.findings()
    ]
    content = {
        "findings": rows,
        "problems": {
            f"{one.paper.name} {part.part.name}": part.problem for one in found for part in one.parts if part.problem
        },
        "reports": [str(one.folder / "report.html") for one in found],
    }
    if rows and not json:
        print_table(rows, ["paper", "where", "here", "finding"])
    report(json, content, "\n".join(f"report: {path}" for path in content["reports"]))
    if all(part.problem for one in found for part in one.parts):
        raise typer.Exit(2)
