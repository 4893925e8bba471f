"""Commands that read what runs have published, and export it."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.arguments import Cluster, Dataset, DeclaredHelp, Device, Json, Root, Run, report
from engine.cli.console import print_json, print_table, progress_bar, records, say
from engine.cli.estimating import Estimate, say_estimate
from engine.errors import SpecError
from engine.store.atomic import write_text
from engine.store.workspace import Workspace

app = typer.Typer()

PRINTED_ROWS = 10_000
"""Rows that `winnow query` prints as a table at most."""


@app.command()
def scores(
    dataset: Annotated[
        str | None, typer.Option(help="List the seconds that each score took on this dataset, its inputs included.")
    ] = None,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """List every score: what it means, which way it points, what it needs."""
    if dataset:
        from engine.queries.connection import connected
        from engine.queries.summaries import fetch_costs

        at = Workspace.open(workspace)
        with connected(at, dataset) as connection:
            costs = records(fetch_costs(connection))
        if json:
            return print_json({"costs": costs})
        if not costs:
            return say(f"no scores of {dataset} yet; winnow run {dataset} makes them")
        return print_table(costs, ["score", "seconds", "cost", "run_id", "title"])
    import engine.runs.inputs  # noqa: F401  # declares what scores read
    from engine.scores.registry import all_scores, catalog_row

    rows = [catalog_row(found) for found in all_scores().values()]
    if json:
        return print_json({"scores": rows})
    for row in rows:
        row["range"] = f"{row['value_min']:.3g} .. {row['value_max']:.3g}"
    print_table(rows, ["score", "title", "higher_means", "evidence", "range", "cost", "source"])


@app.command()
def presets(json: Json = False) -> None:
    """List the papers' settings, and what their fast forms change."""
    from engine.presets import PRESETS

    if json:
        return print_json({"presets": [asdict(preset) for preset in PRESETS.values()]})
    rows = [
        {**asdict(p), "training": f"{p.training.model}, {p.training.epochs} epochs, {p.training.seeds} seeds"}
        for p in PRESETS.values()
    ]
    print_table(rows, ["name", "training", "noise", "source", "changes", "unknown"])


@app.command()
def evaluate(
    dataset: Dataset,
    run: Run = None,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """List how well scores and rules find mislabeled samples, where the true labels are known; the best first."""
    from engine.queries.connection import connected
    from engine.queries.summaries import fetch_evaluation

    at = Workspace.open(workspace)
    with connected(at, dataset) as connection:
        found = fetch_evaluation(connection)
    if run:
        found = found[found["run_id"] == at.require_run(run)]
    rows = records(found)
    if json:
        return print_json({"metrics": rows})
    if not rows:
        return say(f"no metrics: no run of {dataset} has scores, or no label of it is known to be wrong")
    of_scores = [
        "name",
        "roc_auc",
        "average_precision",
        "precision_at_recall_95",
        "recall_at_10",
        "recall_at_20",
        "run_id",
    ]
    print_table([row for row in rows if row["kind"] == "score"], of_scores)
    of_rules = ["name", "precision", "recall", "flagged_share", "run_id"]
    print_table([row for row in rows if row["kind"] == "rule"], of_rules)


@app.command(cls=DeclaredHelp)
def select(
    dataset: Dataset,
    order: Annotated[
        str,
        typer.Argument(
            help="What stays: a score (its hardest samples), a score with * (its easiest), or one of {samplers}."
        ),
    ],
    keep: Annotated[float, typer.Option(help="Share of the training samples that stays, above 0 to 1.")],
    to: Annotated[Path, typer.Option(help="The file to write.")],
    class_balanced: Annotated[
        bool, typer.Option("--class-balanced", help="Keep the same share of each given class.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random.")] = 0,
    format: Annotated[str, typer.Option(help="{formats}")] = "",
    device: Device = "auto",
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Keep a share of the training samples by an order or a sampler, and write them to a file."""
    from engine.queries.writers import export_samples
    from engine.runs.choose import choose_samples
    from engine.training.device import pick_device

    at, on = Workspace.open(workspace), pick_device(device)
    kept = choose_samples(at, dataset, order, keep, class_balanced=class_balanced, seed=seed, device=on)
    weights = None if kept.weights is None else kept.weights.tolist()
    n, total = export_samples(at, dataset, kept.sample_ids.tolist(), to, format, weights)
    report(json, {"kept": n, "of": total, "to": str(to)}, f"{n:,} of {total:,} training samples written to {to}")


@app.command()
def velocity(
    dataset: Dataset,
    score: Annotated[str, typer.Option(help="Whose deciles are compared.")] = "aum",
    size: Annotated[int, typer.Option(help="Samples of a decile.")] = 125,
    run: Run = None,
    estimate: Estimate = False,
    device: Device = "auto",
    cluster: Cluster = "",
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Measure and store how fast the tangent kernel of each decile of a score changes while the first network trains."""
    from engine.queries.connection import connected, latest_run
    from engine.runs.cluster import tasks_on
    from engine.runs.velocity import velocity_by_decile
    from engine.training.device import pick_device

    on = pick_device(device)
    at = Workspace.open(workspace)
    with connected(at, dataset) as connection:
        chosen = at.require_run(run) if run else latest_run(connection, "scores", score)
    if estimate:
        from engine.runs.estimates import velocity_seconds

        return say_estimate(velocity_seconds(at, dataset, score, chosen, size, on), json)
    with progress_bar(dataset) as listen, tasks_on(cluster, on) as tasks:
        found = velocity_by_decile(
            at,
            dataset,
            score,
            chosen,
            size,
            on,
            lambda done, total: listen("kernel velocity", done / total, None),
            tasks,
        )
    rows = records(found)
    if chosen:
        write_text(at.velocity_path(chosen, score), dumps(rows))
    if json:
        return print_json({"velocity": rows})
    print_table(rows, ["decile", "epoch", "until", "velocity"])


@app.command()
def gap(
    dataset: Dataset,
    draws: Annotated[int, typer.Option(min=1, max=1_000, help="Random subsets of each size.")] = 20,
    run: Run = None,
    estimate: Estimate = False,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Measure and store how the complexity gap changes from one class to another, and how fast its stochastic form converges."""
    from engine.data.loader import dataset_shape
    from engine.queries.paper import fetch_gap_study
    from engine.runs.gap_study import find_run, study_gap, study_seconds

    at = Workspace.open(workspace)
    chosen = find_run(at, dataset, at.require_run(run) if run else None)
    found = fetch_gap_study(at, chosen)
    if found and not found.convergence.empty and found.convergence["runs"].max() != draws:
        found = None
    if estimate:
        facts = dataset_shape(at, dataset)
        return say_estimate(0.0 if found else study_seconds(facts.train, facts.classes, draws), json)
    if found is None:
        with progress_bar(dataset) as listen:
            made = study_gap(at, dataset, chosen, draws, lambda share: listen("complexity gap", share, None))
        write_text(at.gap_path(chosen), dumps(made))
        found = fetch_gap_study(at, chosen)
        assert found is not None
    rows = records(found.convergence.astype({"ratio": int, "runs": int}))
    if json:
        return print_json({"run_id": chosen, "pair": list(found.pair), "convergence": rows})
    print_table([row for row in rows if row["runs"] == draws], ["ratio", "runs", "spearman", "pearson"])


@app.command()
def similar(
    dataset: Dataset,
    image: Annotated[Path, typer.Argument(help="A file of an image.")],
    n: Annotated[int, typer.Option(help="How many samples.")] = 60,
    run: Annotated[
        str | None, typer.Option(help="Whose features are compared. (default: the run to be trusted most)")
    ] = None,
    workspace: Root = None,
    json: Json = False,
) -> None:
    """List the samples nearest to an image of your own, by the features of a run."""
    from engine.queries.connection import connected, fetch_sql
    from engine.runs.similar import similar_samples

    at = Workspace.open(workspace)
    chosen, found = similar_samples(at, dataset, image, at.require_run(run) if run else None, n)
    if json:
        return print_json({"run_id": chosen, "similar": [{"sample_id": i, "similarity": s} for i, s in found]})
    ids = [i for i, _ in found]
    with connected(at, dataset) as connection:
        sql = "SELECT * FROM samples WHERE sample_id IN (SELECT unnest(?::INTEGER[]))"
        known = {row["sample_id"]: row for row in records(fetch_sql(connection, sql, [ids]))}
    rows = [{"similarity": round(s, 4), **known[i]} for i, s in found if i in known]
    print_table(rows, ["similarity", "sample_id", "split", "class_name", "source"])


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="A query over the views; FROM (SHOW TABLES) lists them.")],
    dataset: Annotated[str | None, typer.Option(help="Which dataset. (default: that of the latest run)")] = None,
    format: Annotated[str, typer.Option(help="table, csv or json (an array of objects).")] = "table",
    workspace: Root = None,
    json: Json = False,
) -> None:
    """Query the views with SQL, read-only: one statement, of at most a minute and 2 GB of memory."""
    from engine.queries.connection import connected, default_dataset
    from engine.queries.views import comment_views
    from engine.queries.writers import csv_of
    from engine.store.sql import fetch_answer

    if format not in ("table", "csv", "json"):
        raise SpecError(f"--format is '{format}'; allowed: table, csv, json")
    printed = format == "table" and not json
    at = Workspace.open(workspace)
    chosen = dataset or default_dataset(at)
    with connected(at, chosen) as connection:
        comment_views(connection)
        frame, left_out = fetch_answer(connection, sql, rows=PRINTED_ROWS if printed else None)
    rows = records(frame)
    if json or format == "json":
        print_json(rows)
    elif format == "csv":
        typer.echo(csv_of(frame), nl=False)
    else:
        print_table(rows, [str(c) for c in frame.columns])
        if left_out:
            say(f"({left_out:,} more rows are left out; --format csv or json prints all)")
        if not dataset:
            say(f"({len(rows)} rows; dataset {chosen})")
