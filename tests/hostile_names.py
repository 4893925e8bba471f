"""Names that are markup, commands or formulas somewhere, and a workspace in which everything has such a name."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb

from engine.queries.versions import create_version
from engine.store.decisions import decide
from engine.store.jobs import fetch_jobs
from engine.store.journal import append_journal
from engine.store.saved_filters import save_filter
from engine.store.sql import identifier, literal
from engine.store.workspace import Workspace

HOSTILE = (
    "![Zq00](http://127.0.0.1:9/x.png)",
    "[Zq01](http://evil.example)",
    "<img src=x onerror=alert(1)>Zq02",
    '<a href="javascript:1">Zq03</a>',
    ":red[Zq04] :material/home: y",
    "$x^2$ Zq05",
    "[/x]Zq06[bold]",
    "%{y}Zq07%{x:.1f}",
    "=1+1Zq08",
    "@SUM(1)Zq09",
    "../../Zq10",
    "</script><script>alert(1)</script>Zq11",
    "\u202ecod.Zq12\u2066",
    "**Zq13** `x` ~~y~~ _z_ \\",
    "Zq14\r\n# x\t",
    "\u200bZq15\ufeff",
    "http://evil.example/Zq16 me@evil.example",
    "-Zq17|cmd' /C calc'!A0",
    "&lt;b&gt;Zq18&amp;",
    '\'; DROP TABLE x; --Zq19 $(id) `id` "!"',
)
"""Each with its own word, by which it is found again."""

WORDS = {name[name.index("Zq") :][:4]: name for name in HOSTILE}

_MEANT = {"run_id", "kind", "split", "fingerprint", "parent_fingerprint", "training_key", "dynamics_run", "higher_means",
          "metric", "version", "input_dtype", "dataset", "parent", "evidence"}  # fmt: skip
"""Columns whose values are not free: the views and pages look for what they say."""

_KEPT = {"aum", "el2n", "margin_last", "random", "aum*", "heldout_prediction"}
"""Scores and orders that stay, for what is drawn of them alone."""


def tampered(original: Path, dataset: str, root: Path) -> Path:
    """A copy of a workspace in which every text of every file is hostile: what somebody else could send.

    Class, score, rule and order names, titles, sources, reasons and notes, titles of runs, the message of one that failed,
    metadata, notes of decisions, and notes, authors and conditions of versions.
    """
    shutil.copytree(original, root)
    workspace = Workspace.open(root)
    decide(workspace, dataset, [0, 1], "drop", note=HOSTILE[0], author=HOSTILE[1][:80])
    for word in [*HOSTILE, "given", "sample_id"]:
        decide(workspace, dataset, [0], "keep", note=word, author=word[:80])  # people differ
    save_filter(workspace, dataset, HOSTILE[0][:80], f"by={HOSTILE[0]}", HOSTILE[2][:80])
    for name, condition in (("v1", f"class_name = {literal(HOSTILE[0])}"), ("v2", f"source = {literal(HOSTILE[2])}")):
        create_version(workspace, dataset, name, drop=[condition], note=HOSTILE[2], author=HOSTILE[4])
    names = iter(HOSTILE * 1_000)
    for file in [*root.glob("datasets/*.duckdb"), *root.glob("runs/*/published/results.duckdb")]:
        with duckdb.connect(str(file)) as connection:
            _rename(connection, names)
        manifest = file.with_name("manifest.json")
        if manifest.exists():
            content = json.loads(manifest.read_text())
            found = {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
            content["files"][file.name] = found
            manifest.write_text(json.dumps(content))
    for spec in root.glob("runs/*/spec.json"):
        spec.write_text(json.dumps(json.loads(spec.read_text()) | {"title": f"{next(names)}"}))
    for number, state in enumerate(("failed", "running")):
        job = next(job for job in fetch_jobs(workspace, dataset) if (job.kind == "psi") == bool(number))
        folder = workspace.run_dir(f"feed{number}")
        shutil.copytree(workspace.run_dir(job.run_id), folder, ignore=shutil.ignore_patterns("published"))
        append_journal(folder, "stage", stage=f"{HOSTILE[2]} \ud800")
        if state == "failed":
            append_journal(folder, "failed", message=f"{HOSTILE[1]} \ud800", error=HOSTILE[1])
    return root


def _rename(connection: duckdb.DuckDBPyConnection, names: Iterator[str]) -> None:
    """Give every free text of a file a hostile name: the same one wherever a column of that name has the same value."""
    columns = connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE data_type = 'VARCHAR' AND NOT internal AND "
        "table_name IN (SELECT table_name FROM duckdb_tables()) ORDER BY ALL"
    ).fetchall()
    given: dict[tuple[str, str], str] = {}
    for table, column in columns:
        if column in _MEANT or (table == "dataset" and column == "name"):
            continue
        values = connection.execute(f"SELECT DISTINCT {identifier(column)} FROM {identifier(table)}").fetchall()
        for (value,) in sorted(row for row in values[:40] if row[0] and row[0] not in _KEPT):
            name = given.setdefault((column, value), next(names) + ("" if column == "class_name" else value))
            where = f"UPDATE {identifier(table)} SET {identifier(column)} = ? WHERE {identifier(column)} = ?"
            connection.execute(where, [name, value])
