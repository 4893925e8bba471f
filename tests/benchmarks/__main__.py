"""Measure Winnow beside what people would use instead: all benchmarks, or those named, in one table.

python tests/benchmarks [NAME ...] [--repeats 5] [--small] [--samples 1000,10000,100000] [--json FILE]
                        [--data FOLDER] [--workspace FOLDER]

Each NAME is a file bench_NAME.py beside this one that has `rows(size)`. `dashboard` takes minutes and a Chromium, and is
measured only when it is named: by the clock, on the --workspace that make_workspace.py made, else on one of 50,000 samples
that is made first. `detection` is measured on what --data holds of MNIST (MNIST/raw) and CIFAR-10 (cifar10/train-*.parquet),
else on textures that are drawn. Both sides are run in turn in one process, once to
warm up and then --repeats times; the ratio is the median over the rounds of ours as a share of the peer's, in processor time,
which other work on the machine changes least. The figures are kept as JSON in tests/benchmarks/results/, which git ignores.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `winnow` itself does; read when torch is imported

import argparse
import importlib
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from machine import machine_lines
from measuring import Row, Size

FOLDER = Path(__file__).parent
ORDER = (
    "recorder",
    "neighbors",
    "complexity",
    "issues",
    "map",
    "psi",
    "features",
    "export",
    "scale",
    "detection",
    "dashboard",
)
"""In the order of their table."""

WHEN_NAMED = ("dashboard",)
"""Left out where none is named."""


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ORDER)}; none = all but dashboard")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="the smallest form of each, to see that it runs")
    parser.add_argument("--samples", default="1000,10000,100000", help="sizes at which the growth is measured")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="of `detection`: MNIST/raw or cifar10 is in it")
    parser.add_argument("--workspace", type=Path, metavar="FOLDER", help="of `dashboard`: made by make_workspace.py")
    parser.add_argument("--json", type=Path, help="where the figures are kept; results/<date>.json unless given")
    given = parser.parse_args(words)
    if unknown := [name for name in given.names if name not in ORDER]:
        parser.error(f"no benchmark {unknown[0]!r}; allowed: {', '.join(ORDER)}")
    if given.repeats < 1 or not all(n.strip().isdigit() and int(n) >= 100 for n in given.samples.split(",")):
        parser.error("--repeats takes 1 or more; --samples takes whole numbers from 100, with commas between them")
    for folder in (given.data, given.workspace):
        if folder is not None and not folder.is_dir():
            parser.error(f"there is no folder {folder}")
    samples = tuple(sorted({int(n) for n in given.samples.split(",")}))
    repeats, samples = (1, (200, 400)) if given.small else (given.repeats, samples)
    size = Size(repeats, given.small, samples, given.data, given.workspace)
    now = datetime.now(UTC)
    lines = [*machine_lines(), f"date: {now:%Y-%m-%d}; 1 warm-up, then repeats: {size.repeats}; processor time"]
    print("\n".join(lines), "\n", sep="", flush=True)
    found = []
    print(_line("what", "data", "ours", "peer", "ratio", "goal", ""))
    names = [name for name in ORDER if (name in given.names if given.names else name not in WHEN_NAMED)]
    for row in measured(names, size):
        found.append(row)
        print(_shown(row), flush=True)
    path = given.json or FOLDER / "results" / f"{now:%Y-%m-%dT%H%M%S}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": lines, "rows": [row.document() for row in found]}, indent=1) + "\n")
    print(f"\nkept in {path}")
    return 0


def measured(names: Sequence[str], size: Size) -> Iterator[Row]:
    """The rows of some benchmarks, as they come."""
    for name in names:
        yield from importlib.import_module(f"bench_{name}").rows(size)


def _shown(row: Row) -> str:
    note = f"\n    {row.note}" if row.note else ""
    if row.ratio is None:
        alone = _seconds(row.ours) if row.ours else ""
        goal = "" if row.most is None else f"{row.most:g} s"
        return _line(row.what, row.data, alone, row.peer, "", goal, "" if row.met == "-" else row.met) + note
    goal = "" if row.goal is None else f"{row.goal:.2f}"
    peer = f"{_seconds(row.theirs)} {row.peer}"
    return _line(row.what, row.data, _seconds(row.ours), peer, f"{row.ratio:.3f}", goal, row.met) + note


def _seconds(taken: Sequence[float]) -> str:
    """The median, and the smallest and largest."""
    return f"{statistics.median(taken):.3g} s ({min(taken):.3g} to {max(taken):.3g})"


def _line(*cells: str) -> str:
    widths = (26, 30, 30, 56, 6, 5, 7)
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


if __name__ == "__main__":
    sys.exit(main())
