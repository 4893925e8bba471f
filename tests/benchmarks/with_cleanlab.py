"""The label issues that cleanlab finds, for bench_detection.py. Runs in a Python that has cleanlab[datalab], not Winnow.

    python with_cleanlab.py IN.npz OUT.json

IN has labels (N,) and arrays of held-out probabilities (N, C) by name. OUT has cleanlab's version, and for each name
what `find_label_issues` and Datalab give: suspicion (N,), higher = more suspicious, and listed (N,).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

import cleanlab
import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores


def main() -> None:
    given = np.load(sys.argv[1], allow_pickle=False)
    labels, out = given["labels"], {"version": cleanlab.__version__, "found": {}}
    for name in given.files:
        if name != "labels":
            out["found"][name] = judge(labels, given[name])
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(out, file)


def judge(labels: Any, probs: Any) -> dict[str, Any]:
    """cleanlab's functions with their defaults; the suspicion is one minus its quality of the label."""
    listed = find_label_issues(labels, probs, n_jobs=1)
    confidence = get_label_quality_scores(labels, probs, method="self_confidence")
    lab = cleanlab.Datalab(data={"label": labels.tolist()}, label_name="label", verbosity=0)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        lab.find_issues(pred_probs=probs, issue_types={"label": {}})
    issues = lab.get_issues("label")
    return {
        "find_label_issues": {"suspicion": (1 - confidence).tolist(), "listed": listed.tolist()},
        "Datalab": {
            "suspicion": (1 - issues["label_score"]).tolist(),
            "listed": issues["is_label_issue"].astype(bool).tolist(),
        },
    }


if __name__ == "__main__":
    main()
