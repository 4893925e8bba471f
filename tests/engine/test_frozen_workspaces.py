"""Workspaces that released versions wrote, kept as files: this version finds their runs again and reads all of them."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest
from forked_command import winnow

import engine
from engine.queries.connection import connected, fetch_sql
from engine.queries.paper import fetch_gap_study, fetch_velocity
from engine.runs.compute import compute
from engine.runs.options import plan_run_from
from engine.spec import KINDS, spec_from_json
from engine.store.journal import read_journal
from engine.store.workspace import Workspace

COMMANDS = {
    "v0.1": {
        "56f263485fea": "run digits --model cnn --epochs 3 --seeds 1 --batch-size 32 --lr 0.002 --scores el2n,aum,forgetting "
        "--neighbors 5 --threshold-rounds 0",
        "0c3855da6bf6": "run noisy --model cnn --epochs 3 --seeds 2 --batch-size 32 --lr 0.002 --scores el2n@2,nli",
        "bb5b9c46dbfa": "psi noisy --orders random,el2n,el2n*,oracle,ccs(nli,beta=0.1) --points 3 --seeds 1 --epochs 1",
    },
    # After winnow ingest digits --from digits --limit 200, ingest noisy --from dataset:digits --noise symmetric:0.2; then,
    # before prove, decide noisy drop --samples 1,2 --note "not a digit" --as Ada, decide noisy relabel --samples 7
    # --label 3 --as Ben and version create noisy clean --drop-shortlist; in the end gap digits, velocity noisy --score el2n.
    "v0.2": {
        "298f180789aa": "run digits --model lenet --epochs 3 --seeds 1 --scores el2n,aum,forgetting,cg --neighbors 5",
        "bf4331374bfc": "run noisy --model lenet --epochs 4 --seeds 2 --batch-size 32 --scores standard,nli --neighbors 5 "
        "--threshold-rounds 2",
        "b7c7e320f715": "psi noisy --orders random,aum,aum*,oracle,ccs(nli,beta=0.1) --points 3 --seeds 1 --epochs 1",
        "a1d35352650c": "relabel noisy --method vote",
        "8141e6d5a49a": "relabel noisy --method rop --keep 0.4,0.8 --learner sop+ --model lenet --epochs 3 --seeds 1",
        "b35ae5e72423": "prove noisy --version clean --model lenet --epochs 2 --seeds 2",
    },
}
"""The commands that made runs of each (the window experiment of version 0.1 would now read a newer run with its score)."""

STANDARD = (
    "ac11671e94f9",
    "run noisy --model cnn --epochs 3 --seeds 2 --batch-size 32 --lr 0.002 --scores standard --neighbors 5 "
    "--threshold-rounds 2",
)
"""A run of the fixture among whose scores there are some with a formula that was corrected since, and its command."""


def unpacked(version: str, folder: Path) -> Workspace:
    """A copy of the workspace that a version wrote."""
    with tarfile.open(Path(__file__).parents[1] / "workspaces" / f"{version}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return Workspace.open(folder / version)


def stages(workspace: Workspace, run_id: str) -> list[str]:
    return [e["stage"] for e in read_journal(workspace.run_dir(run_id)) if e["event"] == "stage"]


@pytest.fixture
def old(tmp_path: Path) -> Workspace:
    return unpacked("v0.1", tmp_path)


@pytest.mark.parametrize("version", COMMANDS)
def test_runs_are_found_by_the_same_options(version: str, tmp_path: Path) -> None:
    workspace = unpacked(version, tmp_path)
    before = workspace.run_ids()
    for wanted, words in COMMANDS[version].items():
        done = winnow(*words.split(), workspace=workspace.root)
        assert done.returncode == 0 and f"run {wanted} was there already" in done.stderr, done.stderr
    assert workspace.run_ids() == before and len(before) == 6


@pytest.mark.parametrize("version", COMMANDS)
def test_every_file_is_what_was_published(version: str, tmp_path: Path) -> None:
    done = winnow("verify", "--json", workspace=unpacked(version, tmp_path).root)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("version", COMMANDS)
def test_specs_are_read(version: str, tmp_path: Path) -> None:
    workspace = unpacked(version, tmp_path)
    stored = [json.loads((workspace.run_dir(run) / "spec.json").read_text())["spec"] for run in workspace.run_ids()]
    for content in stored:
        spec = spec_from_json(content)
        assert type(spec) is KINDS[content["kind"]] and spec.fingerprint == content["fingerprint"]


def test_what_a_workspace_of_version_0_2_holds_is_read(tmp_path: Path) -> None:
    workspace = unpacked("v0.2", tmp_path)
    noisy = engine.open(workspace.root)["noisy"]
    assert noisy.decisions()[["sample_id", "action", "author"]].values.tolist() == [
        [1, "drop", "Ada"],
        [2, "drop", "Ada"],
        [7, "relabel", "Ben"],
    ]
    (clean,) = noisy.versions().to_dict("records")
    assert (clean["name"], clean["kept"], clean["relabeled"]) == ("clean", 158, 1)
    counts = (
        "SELECT (SELECT count(*) FROM suggestions), (SELECT count(*) FROM proofs), (SELECT count(*) FROM shortlist)"
    )
    assert (noisy.query(counts).iloc[0] > 0).all()
    assert len(fetch_velocity(workspace, "bf4331374bfc", "el2n")) == 30
    study = fetch_gap_study(workspace, "298f180789aa")
    assert study is not None and study.pair == (1, 8) and len(study.points) == 40


def test_corrected_formulas_of_version_1_are_computed_anew_without_training(old: Workspace) -> None:
    first, words = STANDARD
    done = winnow(*words.split(), workspace=old.root)
    assert done.returncode == 0, done.stderr
    (second,) = set(old.run_ids()) - {*COMMANDS, first} & set(re.findall(r"run (\w{12}) published", done.stderr))
    assert "training" not in stages(old, second)
    with connected(old, "noisy") as connection:
        changed = fetch_sql(
            connection,
            f"""SELECT score, max(abs(a.value - b.value)) AS moved, any_value(version) AS version
            FROM scores a JOIN scores b USING (score, sample_id) JOIN score_costs c USING (score)
            WHERE a.run_id = '{first}' AND b.run_id = '{second}' AND c.run_id = '{second}' AND score <> 'random'
            GROUP BY score""",
        ).set_index("score")
    assert {"gmm", "bmm", "tracin_self"} <= set(changed.index[changed["version"] > 1])
    assert (changed.loc[["gmm", "bmm"], "moved"] > 1e-3).all()
    assert (changed.loc[changed["version"] == 1, "moved"] < 1e-3).all()


def test_networks_of_version_1_serve_new_runs(old: Workspace) -> None:
    words = {"model": "cnn", "epochs": 3, "batch_size": 32, "lr": 0.002, "scores": "el2n,confidence"}
    more, existed = compute(old, plan_run_from(old, "noisy", {**words, "seeds": 3}), "cpu")
    with connected(old, "noisy") as connection:
        notes = fetch_sql(connection, f"SELECT notes FROM runs WHERE run_id = '{more}'")["notes"][0]
        same = fetch_sql(
            connection,
            f"SELECT count(*) FILTER (a.margin = b.margin) AS equal, count(*) AS n FROM dynamics a JOIN dynamics b "
            f"USING (seed, epoch, sample_id) WHERE a.run_id = 'ac11671e94f9' AND b.run_id = '{more}'",
        )
    assert not existed and "seed0, seed1" in notes
    assert int(same["equal"][0]) == int(same["n"][0]) == 2 * 3 * 150
