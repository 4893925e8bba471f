"""How well a run finds wrong labels: `winnow ingest` and `winnow run` with their defaults, held against the truth.

    python tests/benchmarks detection [--data FOLDER]
    python tests/benchmarks/bench_detection.py FOLDER ... [--title TEXT] [--peers [--cleanlab PYTHON]] [--json FILE]
    python tests/benchmarks/bench_detection.py --dataset SOURCE --noise symmetric:0.05 [--limit 10000] ...

The first is a row of the table of all benchmarks; the others take the sets that are to be judged.

A FOLDER has a folder per class, and beside it FOLDER.csv with path,label,true_label, as textures.py writes them; Winnow
does not read that file. With --dataset, SOURCE is read by `winnow ingest` as well, which makes the noise. Both commands
are run in a fresh workspace as a person would; the seconds are theirs from start to end, and the memory is the most
that either of them had. The test part is judged too: a wrong label that is not judged counts as not found.

--peers computes, on the features (or else the inputs) and the held-out predictions of the same run, what cleanlab and
SelfClean find: see detection_peers.py. --cleanlab names a Python that has cleanlab[datalab], where this one lacks it.
detection_tables.py prints the tables of several JSON files again.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from detection_peers import cleanlab_python, find_with_peers, load_given
from detection_tables import at_number, calibration_error, quality, tables
from machine import machine_lines
from measuring import Row, Size, missing
from photographs import write_photographs
from textures import write_textures

from engine.queries.connection import best_run, connected
from engine.queries.verdicts import fetch_shortlist, fetch_verdict
from engine.spec import RunSpec, spec_from_json
from engine.store.workspace import Workspace

Array = np.ndarray[Any, Any]
DATASET = "mine"
KIB = 1 if sys.platform == "darwin" else 1024
"""Bytes of one unit in which the system says how much memory a process had."""


@dataclass(frozen=True)
class Case:
    """One set to judge. name: of its workspace; options: of `winnow ingest`; truth: of a folder, None = from the ingest."""

    name: str
    options: list[str]
    truth: Path | None


def read_truth(path: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """The label and the true label of each file, by the names of its folder and itself."""
    with open(path, newline="", encoding="utf-8") as file:
        return {Path(row["path"]).parts[-2:]: (row["label"], row["true_label"]) for row in csv.DictReader(file)}


def winnow(words: list[str], log: Path) -> tuple[float, float, float]:
    """Run a command of Winnow. Returns: seconds, the most memory in GB, and processor seconds of all that it starts; ends
    the benchmark where it fails."""
    started = time.perf_counter()
    with open(log, "ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine.cli", *words], stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"winnow {shlex.join(words)} failed:\n{log.read_text()[-2000:]}")
    return time.perf_counter() - started, used.ru_maxrss * KIB / 1e9, used.ru_utime + used.ru_stime


def find_wrong(workspace: Workspace, truth: Path | None) -> Array:
    """Whether the given label of each sample is wrong, (N,) bool by sample id."""
    with connected(workspace, DATASET) as connection:
        rows = connection.execute(
            "SELECT source, class_name, label <> true_label FROM samples ORDER BY sample_id"
        ).fetchall()
    if truth is None:
        return np.array([bool(wrong) for _, _, wrong in rows])
    labels, out = read_truth(truth), []
    for source, name, _ in rows:
        given, true = labels[Path(source).parts[-2:]]
        if given != name:
            raise SystemExit(f"{source} is in the class {name}, but {truth} says {given}")
        out.append(given != true)
    if len(out) != len(labels):
        raise SystemExit(f"{truth} has {len(labels)} files and the dataset {len(out)}")
    return np.array(out)


def measure(case: Case, title: str, run_options: list[str], peers: bool, python: str, root: Path) -> dict[str, Any]:
    """Ingest, run, and hold the verdict and the shortlist against the truth."""
    at = ["--workspace", str(root)]
    log = root.with_suffix(".log")
    ingest_seconds, ingest_memory, ingest_processor = winnow(["ingest", DATASET, *case.options, *at], log)
    run_seconds, run_memory, run_processor = winnow(["run", DATASET, *run_options, *at], log)
    workspace = Workspace.open(root)
    wrong = find_wrong(workspace, case.truth)
    with connected(workspace, DATASET) as connection:
        run = best_run(connection, "verdict")
        verdict = fetch_verdict(connection, run) if run else None
        shortlist = fetch_shortlist(connection, run) if run else None
    if run is None or verdict is None or shortlist is None:
        raise SystemExit(f"the run of {case.name} has no verdict; see {log}")
    ids = shortlist["sample_id"].to_numpy()
    suspicion, listed = np.full(len(wrong), -np.inf), np.zeros(len(wrong), bool)
    suspicion[ids], listed[ids] = -shortlist["rank"].to_numpy(float), shortlist["listed"].to_numpy(bool)
    spec = spec_from_json(workspace.read_spec(run)["spec"])
    assert isinstance(spec, RunSpec)
    out: dict[str, Any] = {
        "title": title or case.name,
        "name": case.name,
        "n": len(wrong),
        "wrong": int(wrong.sum()),
        "real": float(wrong.mean()),
        "judged": len(ids),
        **quality(suspicion, wrong, listed),
        "ece": calibration_error(shortlist["p_wrong"].to_numpy(float), wrong[ids]),
        **{name: getattr(verdict, name) for name in ("accuracy", "noise", "noise_low", "noise_high", "noise_joint")},
        "ingest_seconds": ingest_seconds,
        "run_seconds": run_seconds,
        "processor_seconds": ingest_processor + run_processor,
        "memory_gb": max(ingest_memory, run_memory),
        "command": f"winnow run {shlex.join([DATASET, *run_options])}",
        "network": f"{spec.training.model} on {spec.training.trained_on or 'pixels'}" if spec.training else "none",
    }
    if peers:
        given = load_given(workspace, spec)
        out["reproduced"] = abs(given.accuracy - (verdict.accuracy or 0)) < 1e-6
        if not out["reproduced"]:
            print(
                f"note: the predictions computed once more agree with {given.accuracy:.4f}, the run's with {verdict.accuracy}"
            )
        out["cleanlab"], found = find_with_peers(given, python)
        found = {"Winnow": (suspicion, listed), **found}
        out["peers"] = [
            {"what": what, **quality(*two_of(one, wrong)), **at_number(one[0], wrong, verdict.listed)}
            for what, one in found.items()
        ]
    return out


def two_of(one: tuple[Array, Array], wrong: Array) -> tuple[Array, Array, Array]:
    """A peer's suspicion and list around what is wrong, as `quality` takes them."""
    return one[0], wrong, one[1]


@contextlib.contextmanager
def workspaces(keep: Path | None) -> Iterator[Path]:
    """The folder of the workspaces: one that goes at the end, or one to keep."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


QUICK = (
    "--model mlp --features none --epochs 3 --seeds 1 --scores aum,confident_learning --neighbors 0 --embedding none"
)
"""Options of `winnow run` in seconds."""


def rows(size: Size) -> Iterator[Row]:
    """What `winnow ingest` and `winnow run` find in the sets that are there, once each, and the seconds of both commands."""
    python = cleanlab_python("")
    with workspaces(None) as root:
        for title, case in _sets(size, root):
            options = QUICK.split() if size.small else []
            found = measure(case, title, options, not size.small, python, root / f"workspace-{case.name}")
            row = Row("wrong labels found", f"{title}, {found['n']:,} samples", "")
            yield replace(row, ours=(found["processor_seconds"],), note=_noted(found), more=found)


def _sets(size: Size, root: Path) -> Iterator[tuple[str, Case]]:
    mnist = size.data and size.data / "MNIST" / "raw"
    photographs = sorted((size.data / "cifar10").glob("train-*.parquet")) if size.data else []
    if size.small:
        yield "digits", Case("digits", ["--from", "digits", "--noise", "symmetric:0.1", "--limit", "300"], None)
        return
    if mnist and mnist.is_dir():
        words = ["--from", str(mnist), "--noise", "symmetric:0.05", "--limit", "10000"]
        yield "MNIST", Case("mnist", words, None)
    if photographs:
        write_photographs(photographs[0], root / "photographs", 3_000, 0.08, 0)
        yield "photographs", _folder(root / "photographs")
    if not photographs and not (mnist and mnist.is_dir()):
        write_textures(root / "textures", 300, 0.08, 0, 96, "png")
        yield "textures", _folder(root / "textures")


def _folder(folder: Path) -> Case:
    return Case(folder.name, ["--from", str(folder)], Path(f"{folder}.csv"))


def _noted(found: dict[str, Any]) -> str:
    def one(what: str, of: dict[str, Any]) -> str:
        figures = (("average precision", "ap"), ("ROC AUC", "auc"), ("precision", "precision"), ("recall", "recall"))
        given = (f"{name} {of[key]:.3f}" for name, key in figures if of[key] is not None)
        return f"{what}: {', '.join(given)} of {of['listed']:,} listed"

    others = [one(of["what"], of) for of in found.get("peers", [])[1:]]
    absent = missing("cleanlab", "'cleanlab[datalab]'") if "peers" in found and not found["cleanlab"] else ""
    return "\n    ".join(
        [one(f"{found['wrong']:,} wrong", found), *others, *([f"cleanlab {absent}"] if absent else [])]
    )


def cases_of(given: argparse.Namespace) -> list[Case]:
    found = [Case(folder.name, ["--from", str(folder)], Path(f"{folder}.csv")) for folder in given.folders]
    if given.dataset:
        options = {"--from": given.dataset, "--noise": given.noise, "--limit": given.limit, "--seed": given.seed}
        words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
        found.append(Case(Path(given.dataset).name or "dataset", words, None))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--dataset", help="a source of winnow ingest, such as a folder of IDX files")
    parser.add_argument("--noise", help="with --dataset: KIND:RATE")
    parser.add_argument("--limit", type=int, help="with --dataset: training samples to keep")
    parser.add_argument("--seed", type=int, help="with --dataset: of the noise and the limit")
    parser.add_argument("--title", default="", help="what the sets are, in the table: those of one title are averaged")
    parser.add_argument("--run", default="", help="options of winnow run, where they are not to be the defaults")
    parser.add_argument("--peers", action="store_true", help="cleanlab and SelfClean beside it")
    parser.add_argument("--cleanlab", default="", metavar="PYTHON", help="a Python that has cleanlab[datalab]")
    parser.add_argument("--each", action="store_true", help="a row for every set")
    parser.add_argument("--json", type=Path, help="file to keep the figures in")
    parser.add_argument("--keep", type=Path, help="a new folder to keep the workspaces in")
    given = parser.parse_args()
    cases = cases_of(given)
    if not cases:
        parser.error("nothing to judge; give a FOLDER with FOLDER.csv beside it, or --dataset SOURCE")
    for case in cases:
        if case.truth and not case.truth.is_file():
            parser.error(f"there is no {case.truth}; a FOLDER needs FOLDER.csv with path,label,true_label beside it")
    python = cleanlab_python(given.cleanlab)
    lines = machine_lines()
    print(*lines, sep="\n", flush=True)
    if given.peers and not python:
        print(
            "cleanlab is not installed here, so its rows are left out; --cleanlab takes a Python that has cleanlab[datalab]"
        )
    measured = []
    with workspaces(given.keep) as root:
        for i, case in enumerate(cases):
            place = root / f"{i}-{case.name}"
            measured.append(measure(case, given.title, shlex.split(given.run), given.peers, python, place))
            done = measured[-1]
            print(f"{case.name}: {done['network']}, {done['judged']:,} of {done['n']:,} judged", flush=True)
            if given.json:
                content = {"machine": lines, "arguments": sys.argv[1:], "cases": measured}
                given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if version := next((case["cleanlab"] for case in measured if case.get("cleanlab")), ""):
        print(f"cleanlab {version}")
    print(f"\n{tables(measured, given.each)}")


if __name__ == "__main__":
    main()
