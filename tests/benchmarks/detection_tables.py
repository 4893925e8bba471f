"""What bench_detection.py measured, as Markdown tables.

    python tests/benchmarks/detection_tables.py FILE.json ... [--each]

Sets of one title are one row with their means; --each gives every set a row.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.scores.evaluation import evaluate_detection, evaluate_rule, find_shares

Array = np.ndarray[Any, Any]
Measured = Mapping[str, Any]
"""Figures by name; None is what there is not."""

ECE_BINS = 10


# Figures ---------------------------------------------------------------------------------------------------------


def quality(suspicion: Array, wrong: Array, listed: Array) -> dict[str, float | None]:
    """How well a ranking and a list find what is wrong.

    Args:    suspicion (N,), higher = more suspicious; wrong, listed (N,) bool
    Returns: auc, ap, listed (how many), precision, recall, f1; None where it is not defined
    """
    ranking, rule = evaluate_detection(suspicion, wrong), evaluate_rule(listed, wrong)
    precision, recall = rule.get("precision"), rule.get("recall")
    f1 = None if recall is None else 2 * float((listed & wrong).sum()) / float(listed.sum() + wrong.sum())
    found = {"auc": ranking.get("roc_auc"), "ap": ranking.get("average_precision"), "listed": int(listed.sum())}
    return {**found, "precision": precision, "recall": recall, "f1": f1}


def at_number(suspicion: Array, wrong: Array, number: int) -> dict[str, float | None]:
    """Precision and recall of the most suspicious `number` samples: precision_at_ours, recall_at_ours."""
    if not number or not wrong.any():
        return {"precision_at_ours": None, "recall_at_ours": None}
    recall = float(find_shares(suspicion, wrong, np.array([number / len(wrong)]))[0])
    return {"precision_at_ours": recall * float(wrong.sum()) / number, "recall_at_ours": recall}


def calibration_error(p_wrong: Array, wrong: Array) -> float:
    """Expected calibration error over ten equal bins of p_wrong, 0..1: sum over bins of share * |mean p - share wrong|."""
    bins = np.minimum((p_wrong * ECE_BINS).astype(int), ECE_BINS - 1)
    of_bin = [bins == k for k in np.unique(bins)]
    return float(sum(at.mean() * abs(p_wrong[at].mean(dtype=np.float64) - wrong[at].mean()) for at in of_bin))


# Tables ----------------------------------------------------------------------------------------------------------


def _number(name: str, digits: int) -> Callable[[Measured], str]:
    def cell(row: Measured) -> str:
        value = row.get(name)
        return "-" if value is None else f"{value:,.{digits}f}"

    return cell


def _percent(name: str) -> Callable[[Measured], str]:
    def cell(row: Measured) -> str:
        return "-" if row.get(name) is None else f"{100 * row[name]:.1f} %"

    return cell


def _estimate(row: Measured) -> str:
    if row.get("noise") is None:
        return "cannot tell"
    return f"{100 * row['noise']:.1f} % ({100 * row['noise_low']:.1f} to {100 * row['noise_high']:.1f})"


Columns = dict[str, Callable[[Measured], str]]

OWN: Columns = {
    "set": lambda row: str(row["title"]),
    "images": _number("n", 0),
    "wrong": _percent("real"),
    "AUC": _number("auc", 3),
    "AP": _number("ap", 3),
    "on the shortlist": _number("listed", 0),
    "precision": _number("precision", 2),
    "recall": _number("recall", 2),
    "F1": _number("f1", 2),
    "ECE of p_wrong": _number("ece", 3),
    "estimated share (95 %)": _estimate,
    "held-out accuracy": _percent("accuracy"),
    "ingest + run, s": lambda row: f"{row['ingest_seconds']:.0f} + {row['run_seconds']:.0f}",
    "memory, GB": _number("memory_gb", 1),
}

PEERS: Columns = {
    "set": lambda row: str(row["title"]),
    "ranking and list": lambda row: str(row["what"]),
    "AUC": _number("auc", 3),
    "AP": _number("ap", 3),
    "its own list": _number("listed", 0),
    "precision": _number("precision", 2),
    "recall": _number("recall", 2),
    "F1": _number("f1", 2),
    "precision of as many as Winnow lists": _number("precision_at_ours", 2),
    "recall of them": _number("recall_at_ours", 2),
}


def markdown(columns: Columns, rows: Iterable[Measured]) -> str:
    """A Markdown table, a row of it for each of the rows."""
    lines = [list(columns), ["---"] * len(columns), *([cell(row) for cell in columns.values()] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mean_row(rows: Sequence[Measured]) -> dict[str, Any]:
    """The means of the figures of some rows; texts are those of the first, and what one lacks, all lack."""
    out: dict[str, Any] = {}
    for name, first in rows[0].items():
        values = [row.get(name) for row in rows]
        numbers = all(isinstance(value, int | float) for value in values)
        out[name] = float(np.mean(values)) if numbers else first if isinstance(first, str) else None
    return out


def tables(cases: Sequence[Measured], each: bool = False) -> str:
    """Winnow's own figures, and beside them those of the peers where they were measured."""
    peers = [{"title": case["title"], "name": case["name"], **row} for case in cases for row in case.get("peers", ())]
    out = [markdown(OWN, _grouped(cases, ("title",), each))]
    if peers:
        out.append(markdown(PEERS, _grouped(peers, ("title", "what"), each)))
    return "\n\n".join(out)


def _grouped(rows: Sequence[Measured], by: tuple[str, ...], each: bool) -> list[dict[str, Any]]:
    """One row for all that agree in some columns, in order; with `each` all rows, with the name of the set in the title."""
    if each:
        return [{**row, "title": f"{row['title']}, {row['name']}"} for row in rows]
    groups: dict[tuple[Any, ...], list[Measured]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    found = []
    for group in groups.values():
        title = str(group[0]["title"]) + (f" (mean of {len(group)})" if len(group) > 1 else "")
        found.append({**mean_row(group), "title": title})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--each", action="store_true", help="a row for every set")
    given = parser.parse_args()
    print(tables([case for path in given.files for case in json.loads(path.read_text())["cases"]], given.each))


if __name__ == "__main__":
    main()
