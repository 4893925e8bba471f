"""What is known of a dataset and of its runs: classes, verdicts, scores, rules, curves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from dashboard.data.core import Snapshot, datasets, few, frame, snapshot, snapshot_of, workspace_root
from dashboard.data.jobs import jobs
from engine.fields import Setting, settings_of
from engine.queries import paper, pruned
from engine.queries.pruned import fetch_orders
from engine.queries.verdicts import Verdict
from engine.report.page import report_bytes
from engine.spec import PsiSpec, TrainingSpec
from engine.store.detector_files import shipped_detectors
from engine.store.schema import VIEWS
from engine.store.workspace import Workspace


def settings(kind: Literal["psi", "training"]) -> dict[str, Setting]:
    """The options of a psi-curve or of a training by name, in the order in which they are declared."""
    return settings_of(PsiSpec if kind == "psi" else TrainingSpec)


def dataset_facts(at: Snapshot) -> dict[str, Any]:
    facts: dict[str, Any] = few(at, "fetch_dataset")
    return facts


def classes(at: Snapshot) -> pd.DataFrame:
    return frame(few(at, "fetch_classes"))


def class_names(at: Snapshot) -> list[str]:
    return [str(name) for name in classes(at)["class_name"]]


def transition_matrix(at: Snapshot) -> pd.DataFrame:
    return frame(few(at, "fetch_transition_matrix"))


def runs(at: Snapshot) -> pd.DataFrame:
    return frame(few(at, "fetch_runs"))


def best_run(at: Snapshot) -> str:
    """The run that opens where none is chosen; "" when none has scores."""
    return str(few(at, "best_run") or "")


def verdict(at: Snapshot, run_id: str) -> Verdict | None:
    """What to believe of a run; None where it has no verdict."""
    found: Verdict | None = few(at, "fetch_verdict", run_id) if run_id else None
    return found


def verdicts_of(at: Snapshot) -> pd.DataFrame:
    return frame(few(at, "fetch_verdicts"))


def report(at: Snapshot, run_id: str) -> bytes:
    """The report of a run as the bytes of its file, as `winnow report` writes it."""
    return report_bytes(Workspace(Path(at.root)), at.dataset, run_id)


def suspicion(at: Snapshot, run_id: str) -> pd.DataFrame:
    return frame(few(at, "fetch_suspicion", run_id))


def unreadable(at: Snapshot) -> dict[str, str]:
    """What is wrong with the runs of a dataset that cannot be read, and with those too broken to name a dataset."""
    broken = {
        job.run_id: job.message for job in jobs() if job.state == "unreadable" and job.dataset in ("", at.dataset)
    }
    damaged = frame(few(at, "fetch_sql", "SELECT run_id, problem FROM unreadable ORDER BY run_id"))
    return broken | dict(zip(damaged["run_id"], damaged["problem"], strict=True))


def epochs(at: Snapshot, run_id: str) -> pd.DataFrame:
    return frame(few(at, "fetch_epochs", run_id))


def catalog(at: Snapshot, run_id: str) -> pd.DataFrame:
    return frame(few(at, "fetch_catalog", run_id))


def ranges(at: Snapshot, run_id: str) -> pd.DataFrame:
    return frame(few(at, "fetch_ranges", run_id))


def rules(at: Snapshot, run_id: str) -> pd.DataFrame:
    return frame(few(at, "fetch_rules", run_id))


def histogram(at: Snapshot, run_id: str, score: str) -> pd.DataFrame:
    return frame(few(at, "fetch_histogram", run_id, score))


def detection_curve(at: Snapshot, run_id: str, score: str) -> pd.DataFrame:
    return frame(few(at, "fetch_detection_curve", run_id, score))


def spearman(at: Snapshot, run_id: str) -> pd.DataFrame:
    return frame(few(at, "fetch_spearman", run_id))


def psi_points(run_ids: Sequence[str]) -> pd.DataFrame:
    """The points of psi runs of any datasets; of those that are not published, what they have journalled so far."""
    workspace = Workspace.open(workspace_root())
    found = [
        frame(few(snapshot_of(i), "fetch_psi", (i,)))
        if workspace.is_published(i)
        else pruned.fetch_psi_journal(workspace, i)
        for i in run_ids
    ]
    some = [part for part in found if len(part)]
    return pd.concat(some, ignore_index=True) if some else pd.DataFrame(columns=list(VIEWS["psi"].columns))


def window_points(points: pd.DataFrame) -> pd.DataFrame:
    """Those of the points that are of window experiments, with their score and offset (0..1)."""
    return pruned.window_offsets(points)


def kept_sets(run_id: str, order: str, pruned: Sequence[int]) -> pd.DataFrame:
    """What an order of a psi run keeps at each number pruned, as far as it is certain (see fetch_kept_sets)."""
    spec = Workspace.open(workspace_root()).read_record(run_id).spec
    if spec.get("class_balanced") or spec.get("window"):  # these keep other samples than the ranks alone say
        order = "random"
    (parts,) = fetch_orders([order]).to_dict("records")
    given = spec.get("scores_run"), parts["sampler"], parts["score"], tuple(pruned)
    return frame(few(snapshot_of(run_id), "fetch_kept_sets", *given))


def epoch_quality(at: Snapshot, run_id: str, column: str) -> pd.DataFrame:
    return frame(few(at, "fetch_epoch_quality", run_id, column))


def training(at: Snapshot, run_id: str) -> dict[str, Any]:
    """How the networks of a run were trained, by the names of `winnow run`'s options; empty when it trained none."""
    given = (Workspace(Path(at.root)).read_record(run_id).spec.get("training") or {}) if run_id else {}
    # Only what is declared: they become options of a command, and a copied spec may hold any name.
    return {name: given[name] for name in settings("training") if name in given}


def having(at: Snapshot, kind: Literal["score", "order"], wanted: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The run with most of the scores (or the psi run with most of the orders) that are wanted, the newest of equals.

    Returns: run id, "" when none has any; what it has, by what was wanted: el2n@5 counts as el2n
    """
    runs = frame(few(at, f"fetch_{kind}_runs"))
    best: tuple[str, dict[str, str]] = ("", {})
    for run_id, names in runs.groupby("run_id", sort=False)["name"]:
        found = {w: n for w in wanted for n in sorted(names, reverse=True) if re.sub(r"@\d+", "", n) == w}
        found |= {w: w for w in wanted if w in set(names)}
        if len(found) > len(best[1]):
            best = str(run_id), found
    return best


def figure_table(at: Snapshot, name: str, *given: Any) -> pd.DataFrame:
    """What one figure shows: the query of that name."""
    return frame(few(at, name, *given))


def networks_of_curves(at: Snapshot) -> pd.DataFrame:
    """run_id, model, pretrained (on the features of a pretrained network): of the psi runs, the newest first."""
    rows = []
    for run_id in dict.fromkeys(frame(few(at, "fetch_order_runs"))["run_id"]):
        training = Workspace(Path(at.root)).read_record(run_id).spec.get("training")
        training = training if isinstance(training, dict) else {}
        rows.append((run_id, str(training.get("model", "")), bool(training.get("trained_on"))))
    return pd.DataFrame(rows, columns=["run_id", "model", "pretrained"])


def detector_quality() -> pd.DataFrame:
    """detector, dataset, average_precision, run_id: the newest run of each noise detector on each dataset whose wrong labels
    are known."""
    rows = []
    for name in datasets():
        at = snapshot(name)
        found = frame(few(at, "fetch_evaluation"))
        found = found[(found["name"] == "lstm_detector") & found["average_precision"].notna()].set_index("run_id")
        for run_id in (run for run in runs(at)["run_id"] if run in found.index):
            detector = str(
                Workspace(Path(at.root)).read_record(run_id).spec.get("detector") or next(iter(shipped_detectors()))
            )
            rows.append((detector, name, float(found["average_precision"][run_id]), run_id))
    table = pd.DataFrame(rows, columns=["detector", "dataset", "average_precision", "run_id"])
    return table.drop_duplicates(["detector", "dataset"], ignore_index=True)


def windows(at: Snapshot) -> pd.DataFrame:
    """The points of every window experiment: run_id, score, offset (0..1), seed, accuracy."""
    return frame(few(at, "fetch_windows"))


def velocity(at: Snapshot, run_id: str, score: str) -> pd.DataFrame:
    """Kernel velocity by decile of a score, as `winnow velocity` has computed it; empty where it has not."""
    return paper.fetch_velocity(Workspace(Path(at.root)), run_id, score)


def gap_study(at: Snapshot, run_id: str) -> paper.GapStudy | None:
    """What `winnow gap` has found of the complexity gap of a run; None where it has not."""
    return paper.fetch_gap_study(Workspace(Path(at.root)), run_id)
