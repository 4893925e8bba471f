"""What the fuzzer of workspaces does in a process of its own: damage one file, use everything, put the file back.

Run as `python mutated_workspace.py WORKSPACE FIRST LAST`: one line per seed on standard output, `SEED what was done`,
written before anything is read, so that a crash or a hang is known by its seed; then `ok` or what went wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import torch

from engine.errors import WinnowError
from engine.features.stored import load_stored
from engine.queries.clouds import Plane, fetch_extent
from engine.queries.connection import connected, runs_of
from engine.queries.pruned import fetch_psi, fetch_psi_journal
from engine.queries.samples import fetch_cards, fetch_sample, fetch_trajectory
from engine.queries.summaries import fetch_catalog, fetch_dataset, fetch_epochs, fetch_evaluation
from engine.queries.verdicts import fetch_verdict, fetch_worst
from engine.runs.planning import plan_run
from engine.runs.psi import plan_psi
from engine.runs.publishing import find_run
from engine.runs.reuse import find_trained
from engine.scores.registry import resolve_scores
from engine.spec import RunSpec, TrainingSpec, spec_from_json
from engine.store.clean import find_leftovers
from engine.store.decisions import decide, fetch_decisions_log, undo
from engine.store.jobs import fetch_job, fetch_jobs, seconds_spent
from engine.store.tensors import load_tensors
from engine.store.usage import measure
from engine.store.workspace import Workspace

VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf"), -0.5, "", "x", "²", "\u0000"),
    *(
        "\ud800",
        "../../x",
        "/dev/stdin",
        "[/x]",
        "<b>",
        "'; DROP TABLE log; --",
        [],
        {},
        [[]],
        [None],
        {"a": {"b": [1]}},
    ),
    *("a" * 100_000, ["a"] * 1000, "runs", "small", "run", "psi"),
]
VIEWS = (
    "samples images scores dynamics logits score_catalog flags neighbors embedding psi suggestions verdict shortlist"
)
TABLES = "dataset classes samples thumbnails inputs metadata run epochs scores seed_scores trajectories psi log".split()
ABSURD = ["NULL", "-1", "2147483647", "'x'", "'NaN'", "'-inf'", "''", "'[1, 2'", "repeat('x', 100000)", "[]", "'1-1-1'"]


# Damage --------------------------------------------------------------------------------------------------------


def damage(path: Path, chance: random.Random) -> str:
    """Change one file of a workspace. Returns: how, for people"""
    kinds: list[Callable[[Path, random.Random], str]] = [_flip, _cut, _replace]
    if path.suffix in (".json", ".jsonl"):
        kinds += [_edit_json] * 5
    if path.suffix == ".duckdb":
        kinds += [_flip, _edit_sql, _edit_sql]
    return chance.choice(kinds)(path, chance)


def _flip(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    places = [chance.randrange(len(content)) for _ in range(chance.choice([1, 3, 100, 4000]))] if content else []
    if chance.random() < 0.3:  # where formats have their headers
        places = [place % min(len(content), 12_288) for place in places]
    for place in places:
        content[place] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    return f"{len(places)} bits flipped"


def _cut(path: Path, chance: random.Random) -> str:
    content = path.read_bytes()
    end = chance.choice([0, 1, chance.randrange(len(content) + 1), max(0, len(content) - 1)])
    if chance.random() < 0.3:
        path.write_bytes(content + content[:end])
        return f"{end} bytes longer"
    path.write_bytes(content[:end])
    return f"cut to {end} bytes"


def _replace(path: Path, chance: random.Random) -> str:
    path.unlink()
    kind = chance.choice(
        ["missing", "empty", "folder", "pipe", "link to itself", "link out", "link to zeros", "deep", "text"]
    )
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind.startswith("link"):
        path.symlink_to({"link to itself": path.name, "link out": "/etc/passwd", "link to zeros": "/dev/zero"}[kind])
    elif kind == "deep":
        path.write_text("[" * 200_000)
    elif kind == "text":
        path.write_bytes(chance.randbytes(5_000))
    return kind


def _edit_json(path: Path, chance: random.Random) -> str:
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    at = chance.randrange(len(lines))
    value = json.loads(lines[at])
    places = _places(value)
    for _ in range(chance.choice([1, 1, 3])):
        holder, key = chance.choice(places)
        new = chance.choice(VALUES)
        done = chance.choice(["set", "set", "remove", "add", "whole"])
        if done == "whole":
            value = new
        elif done == "remove" and isinstance(holder, dict):
            holder.pop(key, None)
        elif done == "add" and isinstance(holder, dict):
            holder[chance.choice(["brand_new", "version", "kind", "format", ""])] = new
        elif isinstance(holder, dict) or key < len(holder):
            holder[key] = new
    text = json.dumps(value)
    if chance.random() < 0.1 and text.startswith("{"):
        text = text[:-1] + "," + text[1:]  # every key twice
    lines[at] = text
    path.write_text("\n".join(lines) + "\n")
    return f"JSON edited, {text[:60]!r}"


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value, as what holds it and its key there."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    found = [(value, key) for key, _ in items]
    for _, inner in items:
        found += _places(inner)
    return found


def _edit_sql(path: Path, chance: random.Random) -> str:
    table, done = chance.choice(TABLES), ""
    with duckdb.connect(str(path)) as connection:
        for _ in range(chance.choice([1, 2])):
            done = ""
            try:
                columns = [row[0] for row in connection.execute(f'DESCRIBE "{table}"').fetchall()]
                column = f'"{chance.choice(columns)}"'
                name = chance.choice([n for n in TABLES if n != table])
                done = chance.choice(
                    [
                        f'DROP TABLE "{table}"',
                        f'DELETE FROM "{table}"',
                        f'ALTER TABLE "{table}" DROP {column}',
                        f'ALTER TABLE "{table}" ALTER {column} TYPE VARCHAR',
                        f'ALTER TABLE "{table}" RENAME TO "{name}"',
                        f'UPDATE "{table}" SET {column} = {chance.choice(ABSURD)}',
                        f'UPDATE "{table}" SET {column} = {chance.choice(ABSURD)} WHERE random() < 0.05',
                        f'INSERT INTO "{table}" SELECT * FROM "{table}"',
                        f"CREATE VIEW \"{name}_2\" AS SELECT * FROM read_csv('/etc/passwd')",
                        f'DROP TABLE "{table}"; CREATE VIEW "{table}" AS SELECT 1 AS x',
                        "CREATE TABLE more AS SELECT 1 AS x",
                    ]
                )
                connection.execute(done)
            except duckdb.Error:
                continue
    manifest = path.parent / "manifest.json"
    if manifest.exists() and chance.random() < 0.9:  # as somebody would who wants it to be believed
        content = json.loads(manifest.read_text())
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        content["files"][path.name] = {"bytes": path.stat().st_size, "sha256": digest}
        manifest.write_text(json.dumps(content))
    return done[:70]


# Use -----------------------------------------------------------------------------------------------------------


def use_everything(root: Path, whole: set[str]) -> list[str]:
    """Do what commands and pages do. Returns: what went wrong

    whole: datasets that were not damaged, and whose every command must go on working
    """
    wrong: list[str] = []

    def attempt(what: str, work: Callable[[], Any], must: bool = False) -> Any:
        try:
            return work()
        except WinnowError as error:
            text = str(error)
            if "\n" in text or len(text) > 2_000 or not text:
                wrong.append(f"{what}: not one line: {text[:200]!r}")
            elif must:
                wrong.append(f"{what}: {text}")
        except Exception as error:
            frame = error.__traceback__
            while frame and frame.tb_next:
                frame = frame.tb_next
            where = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame else ""
            wrong.append(f"{what}: {type(error).__name__}: {str(error)[:200]!r} at {where}")
        return None

    workspace = attempt("open", lambda: Workspace.open(root))
    if workspace is None:
        return wrong
    jobs = attempt("jobs", lambda: fetch_jobs(workspace)) or []
    attempt("usage", lambda: measure(workspace))
    attempt("leftovers", lambda: find_leftovers(workspace))
    attempt("known runs", lambda: list(workspace.known_runs()))
    for job in jobs:
        attempt("job", lambda job=job: fetch_job(workspace, job.run_id))
        attempt("seconds", lambda job=job: seconds_spent(workspace.run_dir(job.run_id)))
        attempt("points", lambda job=job: fetch_psi_journal(workspace, job.run_id))
        attempt("resume", lambda job=job: _resume(workspace, job.run_id))
    for dataset in attempt("datasets", workspace.datasets) or []:
        must = dataset in whole
        attempt(f"query {dataset}", lambda dataset=dataset: _query(workspace, dataset), must)
        attempt(f"runs {dataset}", lambda dataset=dataset: runs_of(workspace, dataset), must)
        if not must:
            attempt(f"plan {dataset}", lambda dataset=dataset: _plan(workspace, dataset))
            attempt(f"log {dataset}", lambda dataset=dataset: fetch_decisions_log(workspace, dataset))
        attempt(f"decide {dataset}", lambda dataset=dataset: decide(workspace, dataset, [1], "drop"), must)
        attempt(f"undo {dataset}", lambda dataset=dataset: undo(workspace, dataset), must)
    for folder in (workspace.root / "features").glob("*@*"):
        attempt(
            "features", lambda folder=folder: load_stored(workspace, "small", folder.name.rsplit("-", 1)[0], "train")
        )
    for path in workspace.root.glob("runs/*/published/*.safetensors"):
        attempt("tensors", lambda path=path: load_tensors(path))
    return wrong


def _query(workspace: Workspace, dataset: str) -> None:
    with connected(workspace, dataset) as connection:
        for view in VIEWS.split():
            connection.execute(f"SELECT * FROM {view}").fetchall()
        fetch_dataset(connection), fetch_evaluation(connection), fetch_sample(connection, 3)
        for (run,) in connection.execute("SELECT run_id FROM runs").fetchall():
            fetch_verdict(connection, run), fetch_worst(connection, run), fetch_catalog(connection, run)
            fetch_epochs(connection, run), fetch_extent(connection, Plane(run)), fetch_psi(connection, [run])
            fetch_trajectory(connection, run, 3)
            fetch_cards(connection, run, [0, 1, 2])


def _plan(workspace: Workspace, dataset: str) -> None:
    training = TrainingSpec(model="mlp", epochs=2, seeds=1, batch_size=64)
    spec = plan_run(workspace, dataset, ["aum"], training)
    find_run(workspace, spec)
    find_trained(workspace, spec.fingerprint, training, resolve_scores(spec.scores))
    plan_psi(workspace, dataset, ["random"], points=3, seeds=1)


def _resume(workspace: Workspace, run_id: str) -> None:
    spec = spec_from_json(workspace.read_spec(run_id)["spec"])
    find_run(workspace, spec)
    if isinstance(spec, RunSpec) and spec.training:
        find_trained(workspace, spec.fingerprint, spec.training, resolve_scores(spec.scores))


def main(root: Path, seeds: range) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    intact = root.with_name("intact")
    shutil.copytree(root, intact)
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix in SUFFIXES and p.stat().st_size)
    rare = [p for p in files if p.suffix == ".safetensors"]
    common = [p for p in files if p.suffix != ".safetensors"]
    for seed in seeds:
        chance = random.Random(seed)
        path = chance.choice(rare if chance.random() < 0.1 else common)
        done = damage(path, chance)
        print(f"{seed} {path.relative_to(root)}: {done!r:.150}", flush=True)
        about_other = "other" in path.name or "other" in _dataset_of(intact / path.relative_to(root), intact)
        shared = path.parent == root
        wrong = use_everything(root, set() if shared or about_other else {"other"})
        print("; ".join(wrong).replace("\n", " ") if wrong else "ok", flush=True)
        shutil.rmtree(root)
        shutil.copytree(intact, root)


def _dataset_of(path: Path, intact: Path) -> str:
    """The dataset of the run whose file it is, "" for any other file."""
    parts = path.relative_to(intact).parts
    if parts[0] != "runs":
        return ""
    return str(json.loads((intact / "runs" / parts[1] / "spec.json").read_text())["spec"]["dataset"])


SUFFIXES = (".json", ".jsonl", ".duckdb", ".wal", ".safetensors", ".npy")

if __name__ == "__main__":
    main(Path(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[3])))
