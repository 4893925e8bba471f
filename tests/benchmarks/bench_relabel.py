"""What corrected labels gain on photographs: accuracy as given, without the shortlist, with it relabeled, and of an oracle.

    python tests/benchmarks/bench_relabel.py TRAIN_PARQUET TEST_PARQUET [--human PARQUET:COLUMN] [--noise symmetric:0.2 ...]
                                             [--n 3000] [--tested 2000] [--seeds 3] [--to FOLDER]

The Parquet files hold images with their labels as Hugging Face has them, such as CIFAR-10's. N training images get
label noise, or people's labels from a column in the same order; the test images keep the right labels. `winnow run`
with its defaults chooses features and gives the shortlist; its held-out predictions and two learners propose labels for
it; then the same networks are trained on each set. The oracles, which read the truth, are not methods: one drops every
wrong label, one corrects every one.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `winnow` itself does; read when torch is imported

import argparse
import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from bench_curation import write_images

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.reproduce.bench import Bench, Job
from engine.reproduce.size import Size
from engine.store.workspace import Workspace

ROWS = (
    "as given",
    "shortlist dropped",
    "shortlist relabeled",
    "relabeled above 0.9",
    "oracle drops",
    "oracle relabels",
)


LEARNERS = ("sop+", "dividemix")


def main() -> None:
    from machine import print_machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--human", default="")
    parser.add_argument("--noise", nargs="*", default=["symmetric:0.2", "symmetric:0.4"])
    parser.add_argument("--n", type=int, default=3_000)
    parser.add_argument("--tested", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--to", type=Path)
    given = parser.parse_args()
    print_machine()
    folder = given.to or Path(tempfile.mkdtemp())
    workspace = Workspace.open(folder / "workspace", create=True)
    if "photographs" not in workspace.datasets():
        ingest_photographs(workspace, folder, given.train, given.test, given.n, given.tested, given.human)
    names = [*given.noise, *(["human"] if given.human else [])]
    for name in names:
        for line in measure(workspace, name, given.seeds):
            print(line, flush=True)


def ingest_photographs(
    workspace: Workspace, folder: Path, train: Path, test: Path, n: int, tested: int, human: str
) -> None:
    """The dataset with right labels, and one with those that people gave, if there is a column of them."""
    rng = np.random.default_rng(0)
    chosen = np.random.default_rng(0).choice(
        pq.read_metadata(train).num_rows, n, replace=False
    )  # as write_images draws
    rows = [*write_images(train, folder / "train", n, 0.0, rng), *write_images(test, folder / "test", tested, 0.0, rng)]
    listed(folder / "right.csv", [(path, true, true, split) for path, _, true, split in rows])
    ingest(workspace, IngestSpec(name="photographs", source=str(folder / "right.csv")))
    if human:
        from bench_curation import CLASSES

        file, column = human.rsplit(":", 1)
        labels = pq.read_table(file, columns=[column])[column].to_numpy()[chosen]
        people = [CLASSES[int(label)] for label in labels] + [true for *_, true, _ in rows[n:]]
        listed(folder / "human.csv", [(p, label, t, s) for (p, _, t, s), label in zip(rows, people, strict=True)])
        ingest(workspace, IngestSpec(name="photographs-human", source=str(folder / "human.csv")))


def listed(path: Path, rows: list[tuple[str, str, str, str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "true_label", "split"])
        writer.writerows(rows)


def relabeled(sample_ids: torch.Tensor, given: torch.Tensor, suggestions: pd.DataFrame) -> torch.Tensor:
    """The given labels (N,), with those that are suggested in their place."""
    found = suggestions[suggestions["sample_id"].isin(sample_ids.tolist())]  # a run suggests for the test part too
    labels = given.clone()
    at = np.searchsorted(sample_ids.numpy(), found["sample_id"].to_numpy())
    labels[torch.from_numpy(at)] = torch.tensor(found["suggested_label"].to_numpy(dtype=np.int64))
    return labels


def measure(workspace: Workspace, noise: str, seeds: int) -> Iterator[str]:
    """The rows of the table of one kind of label noise."""
    folder = workspace.reproduced_dir("bench-relabel")
    folder.mkdir(parents=True, exist_ok=True)
    size = Size("photographs", {}, seeds, ())
    bench = Bench(workspace, "photographs", size, True, folder, "auto", "", lambda stage, share, left: None)
    dataset = "photographs-human" if noise == "human" else bench.noisy(noise)
    run = bench.run(dataset, "standard")
    training = bench.training_of(run)
    samples = bench.samples(dataset)
    given, truth = samples.labels, samples.true_labels
    assert truth is not None
    shortlist = run.shortlist()
    ids = torch.tensor(shortlist.loc[shortlist["listed"], "sample_id"].to_numpy())
    suspect = torch.isin(samples.sample_ids, ids)
    proposals = {"the run": run.suggestions().query("method == 'heldout_prediction'")}
    for learner in LEARNERS:
        proposals[learner] = bench.relabel(dataset, learner, run=run.id).suggestions()
    sets: dict[str, tuple[torch.Tensor | None, torch.Tensor]] = {"as given": (None, given)}
    sets["shortlist dropped"] = (~suspect, given)
    for method, found in proposals.items():
        labels = relabeled(samples.sample_ids, given, found)
        sets[f"shortlist relabeled by {method}"] = (None, torch.where(suspect, labels, given))
    sets |= {"oracle drops": (given == truth, given), "oracle relabels": (None, truth)}
    everyone = torch.ones(len(given), dtype=torch.bool)
    right = given == truth
    yield (
        f"## {noise}: {100 * float((~right).double().mean()):.1f} % wrong, {int(suspect.sum())} on the shortlist "
        f"({100 * float((~right)[suspect].double().mean()):.0f} % of them wrong), {training.model} on "
        f"{run.spec.get('features') or 'pixels'}"
    )
    yield "| set | samples | wrong labels | test accuracy | against as given |\n| --- | --- | --- | --- | --- |"
    column = noise
    for name, (kept, labeled) in sets.items():
        stay = everyone if kept is None else kept
        jobs = [Job(seed, stay.nonzero()[:, 0], labeled, what=name) for seed in range(seeds)]
        for job, outcome in zip(jobs, bench.train(dataset, training, jobs), strict=True):
            bench.put(name, column, outcome.accuracy, job.seed)
        wrong = int((labeled != truth)[stay].sum())
        gain = bench.values.differences(name, "as given")
        mean = 100 * sum(gain) / len(gain)
        yield f"| {name} | {int(stay.sum()):,} | {wrong} | {bench.values.shown(name, column)} % | {mean:+.1f} |"


if __name__ == "__main__":
    main()
