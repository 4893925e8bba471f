"""The ways out of a workspace and back into it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.arguments import Dataset, DeclaredHelp, Json, OriginalsIn, Root
from engine.cli.console import print_json, progress_bar, say
from engine.store.progress import Listener
from engine.store.workspace import Workspace

app = typer.Typer()

_EVERY_SECONDS = 1.0


@app.command(cls=DeclaredHelp)
def export(
    dataset: Dataset,
    to: Annotated[Path, typer.Option(help="The file to write, or the folder, which is not there yet.")],
    where: Annotated[
        str,
        typer.Option(
            help="SQL over the columns of samples, scores and metadata by name, flagged (on the shortlist), p_wrong (0..1), "
            "suspicion_rank (0 = first), action: 'NOT flagged AND aum > 0'. (default: all samples of the split)"
        ),
    ] = "true",
    split: Annotated[
        str, typer.Option(help="train, test, or all: the test part as well, as far as it was judged.")
    ] = "train",
    format: Annotated[str, typer.Option(help="{formats}")] = "",
    run: Annotated[
        str | None, typer.Option(help="Whose scores and shortlist. (default: the run to be trusted most)")
    ] = None,
    decisions: Annotated[
        str,
        typer.Option(
            help="apply: leave out what was dropped, and write what was relabeled under its new label; ignore: all as given."
        ),
    ] = "apply",
    version: Annotated[
        str, typer.Option(help="A version of the curated set: its samples, under its labels.", show_default=False)
    ] = "",
    scores: Annotated[
        str, typer.Option(help="Scores to write as columns, separated by commas, or all.", show_default=False)
    ] = "",
    link: Annotated[
        str, typer.Option(help="copy, hardlink or symlink: how images get into a folder, where they are files.")
    ] = "copy",
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Write the thumbnail where an original cannot be read.")
    ] = False,
    originals: OriginalsIn = None,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Write the samples that meet a condition, with a manifest of hashes; winnow ingest reads most formats."""
    from typing import cast

    from engine.data.exporting import export_set
    from engine.fields import check_choice
    from engine.queries.writers import Choice, Decisions, Link, find_writer
    from engine.store.trust import named_folders, trust_roots

    at = Workspace.open(workspace)
    writer = find_writer(format, to)
    check_choice("link", link, Link)
    if problem := trust_roots(at, named_folders(originals)):
        say(problem)
    wanted = tuple(name.strip() for name in scores.split(",") if name.strip())
    choice = Choice(where, split, at.require_run(run) if run else None, cast(Decisions, decisions), wanted)
    with _shown(dataset) as listen:
        done = export_set(
            at,
            dataset,
            choice,
            to,
            writer,
            version=version,
            link=cast(Link, link),
            thumbnails=thumbnails,
            listen=listen,
        )
    found = {"kept": done.kept, "of": done.total, "to": str(to), "format": writer.name}
    if json:
        found |= {"left_out": done.left_out, "relabeled": done.relabeled, "notes": list(done.notes)}
        return print_json(found)
    what = {"train": "training samples", "test": "test samples"}.get(split, "samples")
    say(f"{done.kept:,} of {done.total:,} {what} written to {to}")
    if done.left_out:
        say(f"{done.left_out:,} are left out because they were dropped; --decisions ignore writes them")
    if done.relabeled:
        say(f"{done.relabeled:,} have another label than the given one, which stands beside it")
    for note in done.notes:
        say(note)


@app.command(name="import", cls=DeclaredHelp)
def import_(
    dataset: Dataset,
    file: Annotated[
        Path,
        typer.Argument(help="What people labeled, or a set that was exported: a file, or the folder of a format."),
    ],
    format: Annotated[str, typer.Option(help="{formats_back}. (default: by the file's ending and content)")] = "",
    rest: Annotated[
        str,
        typer.Option(
            help="What becomes of samples of the exported part that the file does not name: drop, or leave. (default: drop "
            "for npy, txt and torch, which list what is kept, else leave)"
        ),
    ] = "",
    author: Annotated[str, typer.Option("--as", metavar="NAME", help="Who decided. (default: nobody named)")] = "",
    note: Annotated[str, typer.Option(help="A note on all of these decisions.", show_default=False)] = "",
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Make decisions of labels from another tool, or of a set that was exported.

    Another label relabels, the given one keeps, a rejected sample drops; of a list of what is kept, the rest drops.
    """
    from engine.data.returning import bring_back

    done = bring_back(Workspace.open(workspace), dataset, file, format, rest=rest, author=author, note=note)
    found = {"batch": done.batch, "decisions": done.counts, "unmatched": done.unmatched, "unlabeled": done.unlabeled}
    found |= {"unchanged": done.unchanged, "dropped_unnamed": done.rest}
    if json:
        return print_json({**found, "unmatched_named": list(done.named)})
    made = ", ".join(f"{action} {count:,}" for action, count in done.counts.items()) or "none"
    say(f"decisions: {made}" + (f" (winnow undo {dataset} takes all of them back)" if done.counts else ""))
    if done.unchanged:
        say(f"{done.unchanged:,} are in the set as the file has them, and nothing is decided about them")
    if done.rest:
        say(f"{done.rest:,} that the file does not name are dropped (--rest leave decides nothing about them)")
    if done.unlabeled:
        say(f"{done.unlabeled:,} samples have no label in {file}, and nothing is decided about them")
    if done.unmatched:
        more = ", ..." if done.unmatched > len(done.named) else ""
        say(f"{done.unmatched:,} are about no sample of {dataset}: {', '.join(done.named)}{more}")


@contextmanager
def _shown(title: str) -> Iterator[Listener]:
    """A bar in a terminal; a line a second elsewhere, which a page reads."""
    if sys.stderr.isatty() or "ipykernel" in sys.modules:
        with progress_bar(title) as listen:
            yield listen
        return
    last = time.monotonic()

    def write(stage: str, fraction: float, left: float | None) -> None:
        nonlocal last
        if time.monotonic() - last > _EVERY_SECONDS:
            last = time.monotonic()
            say(f"{stage} {100 * fraction:.0f} %")

    yield write
