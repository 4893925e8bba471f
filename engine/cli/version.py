"""`winnow version`: named versions of the curated set."""

from __future__ import annotations

from dataclasses import asdict
from shlex import join
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.arguments import Dataset, Json, Root, report
from engine.cli.console import print_json, print_table, say
from engine.store.workspace import Workspace
from engine.text import shown

if TYPE_CHECKING:
    from engine.queries.proofs import Gain
    from engine.store.versions import Version

app = typer.Typer(
    help="Named versions of the curated set: which samples stay, and with which label.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="Name of a version (winnow version list).")]
As = Annotated[str, typer.Option("--as", metavar="NAME", help="Who does it.", envvar="WINNOW_AUTHOR")]

SHOWN_IDS = 20
"""Samples of each part of a comparison that are printed; --json gives all."""


@app.command()
def create(
    dataset: Dataset,
    name: Annotated[str, typer.Argument(help="Name of the new version.")],
    drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SQL",
            help="Drop the samples that meet this condition, as in winnow export --where; may be given several times.",
        ),
    ] = None,
    drop_shortlist: Annotated[
        bool, typer.Option("--drop-shortlist", help="Drop what is on the run's shortlist.")
    ] = False,
    relabel_above: Annotated[
        float | None,
        typer.Option(
            help="Take the run's suggestion as the label where its confidence is at least this, above 0 to 1."
        ),
    ] = None,
    no_decisions: Annotated[bool, typer.Option("--no-decisions", help="Pass over what people decided.")] = False,
    unsure: Annotated[
        str,
        typer.Option(metavar="keep|drop", help="What becomes of unsure samples. (default: what the rules say of them)"),
    ] = "",
    run: Annotated[
        str | None,
        typer.Option(
            help="Whose scores, suggestions and shortlist; of a relabeling its suggestions alone. (default: the run to be "
            "trusted most)"
        ),
    ] = None,
    note: Annotated[str, typer.Option(help="What this version is for.")] = "",
    as_: As = "",
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Name the set that rules and decisions give now, and keep it.

    The first that applies to a sample decides: a person's decision (keep, drop, relabel), each --drop in order,
    --relabel-above, --drop-shortlist. All other training samples stay as they are.
    """
    from engine.queries.version_words import version_line
    from engine.queries.versions import create_version

    at = Workspace.open(workspace)
    made = create_version(
        at,
        dataset,
        name,
        drop=drop or (),
        drop_shortlist=drop_shortlist,
        relabel_above=relabel_above,
        decisions=not no_decisions,
        unsure=unsure,
        run=at.require_run(run) if run else None,
        note=note,
        author=as_,
    )
    report(json, _plain(made), f"version {name}: {version_line(made)}")


@app.command("list")
def list_(dataset: Dataset, workspace: Root = None, json: Json = False) -> None:
    """List the versions of a dataset, the oldest first."""
    from engine.queries.connection import connected
    from engine.queries.versions import fetch_gains
    from engine.store.versions import stored_versions

    at = Workspace.open(workspace)
    at.require_dataset(dataset)
    found = stored_versions(at, dataset)
    with connected(at, dataset) as connection:
        gains = fetch_gains(connection) if found else {}
    if json:
        return print_json({"versions": [_plain(version, gains.get(version.hash)) for version in found]})
    if not found:
        return say(f"no versions of {dataset} yet; winnow version create {dataset} NAME makes one")
    print_table(
        [_row(version, gains.get(version.hash)) for version in found],
        ["name", "kept", "of", "relabeled", "noise left", "gained", "made (UTC)", "by", "hash", "note"],
    )


@app.command()
def show(dataset: Dataset, name: Name, workspace: Root = None, json: Json = False) -> None:
    """Show the recipe of a version, its numbers, and whether it gives the same set when it is computed again."""
    from engine.queries.connection import connected
    from engine.queries.version_words import command_words, recipe_sentences, version_line
    from engine.queries.versions import fetch_gains, reproduce
    from engine.store.versions import stored_version

    at = Workspace.open(workspace)
    at.require_dataset(dataset)
    version = stored_version(at, dataset, name)
    again = reproduce(at, version)
    with connected(at, dataset) as connection:
        gain = fetch_gains(connection).get(version.hash)
    if json:
        return print_json({**_plain(version, gain), "reproduces": again.same, "reproduction": again.words})
    by = f" by {shown(version.author)}" if version.author else ""
    lines = [f"Version {name} of {dataset}, made {version.created_at:%Y-%m-%d %H:%M} UTC{by}"]
    lines += [f"  {shown(version.note)}"] if version.note else []
    lines += [f"  {count:>9,}  {shown(text)}" for text, count in recipe_sentences(version.recipe, version.facts)]
    lines += [f"  {version.facts['kept']:>9,}  stay"]
    lines += ["", f"  {version_line(version)}"]
    lines += [f"  gained: {gain.sentence}"] if gain else []
    lines += [f"  SHA-256 {version.hash}", f"  {shown(again.words)}"]
    lines += [
        "",
        "The same recipe with the decisions of today:",
        f"  winnow {shown(join(command_words(version.recipe, 'NAME')), 10_000)}",
    ]
    typer.echo("\n".join(lines))


@app.command()
def diff(
    dataset: Dataset,
    first: Name,
    second: Annotated[str, typer.Argument(help="Name of the other version.")],
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Compare two versions: what both keep, what only one keeps, and what they label differently."""
    from engine.queries.versions import fetch_difference
    from engine.store.records import dataset_facts

    at = Workspace.open(workspace)
    found = fetch_difference(at, dataset, first, second)
    classes = dataset_facts(at.require_dataset(dataset)).classes
    relabeled = found.relabeled.to_dict("records")
    if json:
        return print_json(
            {
                "same": found.same,
                "only_first": found.only_first.tolist(),
                "only_second": found.only_second.tolist(),
                "relabeled": relabeled,
            }
        )
    lines = [f"{found.same:,} samples are in both under the same label"]
    for name, ids in ((first, found.only_first), (second, found.only_second)):
        some = ", ".join(map(str, ids[:SHOWN_IDS])) + (", ..." if len(ids) > SHOWN_IDS else "")
        lines.append(f"{len(ids):,} only in {name}" + (f": {some}" if some else ""))
    typer.echo("\n".join([*lines, f"{len(relabeled):,} in both under different labels"]))
    if relabeled:
        rows = [
            {"sample_id": row["sample_id"], first: classes[row["first"]], f"{second} ": classes[row["second"]]}
            for row in relabeled[:SHOWN_IDS]
        ]
        print_table(rows, ["sample_id", first, f"{second} "])


@app.command()
def remove(dataset: Dataset, name: Name, as_: As = "", workspace: Root = None, json: Json = False) -> None:
    """Take a version out of the list; its name is free again. What was exported from it stays."""
    from engine.store.versions import remove_version

    at = Workspace.open(workspace)
    at.require_dataset(dataset)
    remove_version(at, dataset, name, as_)
    report(json, {"dataset": dataset, "removed": name}, f"removed version {name} of {dataset}")


def _plain(version: Version, gain: Gain | None = None) -> dict[str, Any]:
    """A version as one JSON object."""
    return {
        "dataset": version.dataset,
        "name": version.name,
        "author": version.author,
        "note": version.note,
        "created_at": f"{version.created_at:%Y-%m-%dT%H:%M:%SZ}",
        "hash": version.hash,
        "recipe": asdict(version.recipe),
        "facts": dict(version.facts),
        "gain": None if gain is None else asdict(gain),
    }


def _row(version: Version, gain: Gain | None) -> dict[str, Any]:
    """A version as a row of the list."""
    from engine.queries.proofs import points
    from engine.queries.verdicts import percent

    left = version.facts.get("noise_left")
    return {
        "name": version.name,
        "kept": f"{version.facts['kept']:,}",
        "of": f"{version.facts['samples']:,}",
        "relabeled": f"{version.facts['relabeled']:,}",
        "noise left": "" if left is None else percent(left),
        "gained": "" if gain is None else f"{points(gain.difference)} points",
        "made (UTC)": f"{version.created_at:%Y-%m-%d %H:%M}",
        "by": version.author,
        "hash": version.hash[:12],
        "note": version.note,
    }
