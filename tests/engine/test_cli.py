"""The command as people type it: real processes, real files, one line and exit code 2 for what is expected."""

import csv
import json
import shutil
import subprocess
import sys
import time

import duckdb
import numpy as np
import pytest
from forked_command import winnow

from engine.cli.commands import app
from engine.store.schema import VIEWS
from engine.store.workspace import FORMAT, Workspace


def started(*words, workspace=None, **options):
    """`winnow` as a shell starts it."""
    command = [sys.executable, "-m", "engine.cli", *map(str, words)]
    if workspace is not None:
        command += ["--workspace", str(workspace)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def refused(done, *words):
    """The one line that was said."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stdout == "" and "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert all(word in lines[0] for word in words), lines[0]
    return lines[0]


def test_from_a_folder_of_images_to_an_export(tmp_path):
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    for i in np.flatnonzero(data.target < 3)[:120]:
        folder = tmp_path / "photos" / f"class {data.target[i]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((data.images[i] * 15).astype("uint8")).resize((24, 20)).save(folder / f"{i}.png")
    w = tmp_path / "w"
    done = started("ingest", "mine", "--from", tmp_path / "photos", "--noise", "symmetric:0.1", "--json", workspace=w)
    made = json.loads(done.stdout)
    assert (made["train"], made["test"], made["classes"], made["existed"]) == (96, 24, 3, False)
    assert json.loads(
        winnow(
            "ingest", "mine", "--from", tmp_path / "photos", "--noise", "symmetric:0.1", "--json", workspace=w
        ).stdout
    )["existed"]
    done = started("run", "mine", "--epochs", 3, "--seeds", 1, "--batch-size", 16, "--json", workspace=w)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)["run_id"]
    assert json.loads(winnow("status", run[:6], "--json", workspace=w).stdout)["state"] == "done"
    listed = json.loads(winnow("runs", "--json", workspace=w).stdout)["runs"]
    assert [job["run_id"] for job in listed] == [run]
    rows = json.loads(
        winnow("query", "select score, count(*) as n from scores group by 1", "--format", "json", workspace=w).stdout
    )
    assert {"score": "aum", "n": 96} in rows
    text = winnow("query", "select 1 as a, NULL as b", "--format", "csv", workspace=w).stdout
    assert list(csv.reader(text.splitlines())) == [["a", "b"], ["1", ""]]

    done = winnow(
        "export", "mine", "--where", "NOT flagged AND label <> 1", "--to", tmp_path / "kept.csv", "--json", workspace=w
    )
    kept = json.loads(done.stdout)
    with open(tmp_path / "kept.csv") as file:
        exported = list(csv.DictReader(file))
    assert len(exported) == kept["kept"] < kept["of"] == 96
    assert {row["class_name"] for row in exported} == {"class 0", "class 2"} and exported[0]["source"].endswith(".png")
    winnow("export", "mine", "--where", "aum > 0", "--to", tmp_path / "kept.npy", workspace=w)
    winnow("export", "mine", "--where", "aum > 0", "--to", tmp_path / "kept.parquet", workspace=w)
    ids = np.load(tmp_path / "kept.npy")
    assert duckdb.execute(f"SELECT sample_id FROM '{tmp_path}/kept.parquet'").fetchall() == [(i,) for i in ids.tolist()]

    done = winnow(
        "psi", "mine", "--orders", "random,aum*", "--points", 3, "--seeds", 1, "--epochs", 1, "--json", workspace=w
    )
    assert json.loads(done.stdout)["title"].startswith("psi: random, aum*")
    assert json.loads(winnow("remove", "mine", "--json", workspace=w).stdout)["dataset"] == "mine"
    opened = Workspace.open(w)
    assert opened.datasets() == [] and opened.run_ids() == []


def test_expected_errors_are_one_line(tmp_path, small_workspace):
    w = small_workspace.root
    refused(
        started("run", "small", "--scores", "el2m", workspace=w),
        "unknown score 'el2m'; did you mean 'el2n'? (winnow scores lists them)",
    )
    refused(winnow("run", "smal", workspace=w), "unknown dataset 'smal'; did you mean 'small'?")
    refused(winnow("run", "small", "--model", "resnt18", workspace=w), "did you mean 'resnet18'")
    refused(winnow("run", "small", "--epochs", 0, workspace=w), "--epochs is 0; allowed: 1 to")
    refused(winnow("run", "small", "--optimizer", "sdg", workspace=w), "did you mean 'sgd'")
    refused(winnow("psi", "small", "--orders", "aum", workspace=w), "winnow run small --scores aum")
    refused(winnow("psi", "small", "--orders", "random,ccs", workspace=w), "write ccs(SCORE)")
    refused(winnow("psi", "small", "--preset", "prune-minst", workspace=w), "did you mean 'prune-mnist'?")
    refused(winnow("ingest", "x", "--from", tmp_path / "nowhere", workspace=w), "nowhere")
    refused(winnow("ingest", "x", "--from", "digits", "--noise", "symmetric:1.5", workspace=w), "1.5")
    refused(winnow("ingest", "../x", "--from", "digits", workspace=w), "dataset name")
    refused(winnow("query", "select nothing", workspace=w), "nothing")
    refused(winnow("export", "small", "--to", tmp_path / "x.docx", workspace=w), "unknown format 'docx'")
    refused(winnow("status", "zzz", workspace=w), "unknown run 'zzz'")
    refused(winnow("resume", "zzz", workspace=w), "unknown run")
    refused(winnow("runs", workspace=tmp_path / "none"), "no workspace at", "winnow demo")
    assert small_workspace.datasets() == ["small"] and small_workspace.run_ids() == []
    (w / "winnow.json").write_text(json.dumps({"format": FORMAT + 1}))
    refused(started("runs", workspace=w), f"format {FORMAT + 1}", "upgrade winnow")


def test_scores_are_listed():
    rows = json.loads(winnow("scores", "--json").stdout)["scores"]
    assert {"score", "title", "higher_means", "evidence", "value_min", "value_max", "source", "cost", "version"} == set(
        rows[0]
    )
    el2n = next(row for row in rows if row["score"] == "el2n")
    assert el2n["higher_means"] == "harder" and el2n["value_max"] == pytest.approx(2**0.5)
    assert "area under the margin" in winnow("scores").stdout.lower()


def test_a_run_in_another_process_can_be_watched_cancelled_and_resumed(small_workspace):
    w = small_workspace.root
    words = [
        "run",
        "small",
        "--model",
        "mlp",
        "--scores",
        "aum",
        "--epochs",
        "4000",
        "--seeds",
        "1",
        "--threshold-rounds",
        "0",
        "--workspace",
        str(w),
    ]
    process = subprocess.Popen([sys.executable, "-m", "engine.cli", *words], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 300  # a busy machine takes minutes to import what it trains with
        jobs = []
        while time.monotonic() < deadline and not (
            jobs and jobs[0]["state"] == "running" and "seed0" in jobs[0]["stage"]
        ):
            jobs = json.loads(winnow("runs", "--json", workspace=w).stdout)["runs"]
        assert jobs[0]["state"] == "running" and "seed0" in jobs[0]["stage"]
        run = jobs[0]["run_id"]
        # A page asks while the run is computed: no lock is in the way.
        assert winnow("query", "select count(*) from samples", workspace=w).returncode == 0
        assert winnow("cancel", run, workspace=w).returncode == 0
        assert process.wait(timeout=60) == 130  # long before its epochs would end
        assert "winnow resume" in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert json.loads(winnow("status", run, "--json", workspace=w).stdout)["state"] == "cancelled"
    assert winnow("remove", run, workspace=w).returncode == 0
    assert json.loads(winnow("runs", "--json", workspace=w).stdout) == {"runs": []}


def test_every_command_and_option_says_what_it_is():
    import typer.main

    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None) or parameter.name == "help", f"{name} {parameter.name}"


def test_scores_are_evaluated_chosen_by_and_learned_from(small_workspace, tmp_path):
    w = small_workspace.root
    done = winnow(
        "run", "small", "--preset", "rop-cifar10n-fast", "--model", "mlp", "--epochs", 3, "--json", workspace=w
    )
    assert done.returncode == 0, done.stderr
    assert "preset rop-cifar10n-fast (ROP" in done.stderr
    assert json.loads(done.stdout)["title"] == "mlp, 3 epochs, 1 seed"
    found = json.loads(winnow("evaluate", "small", "--json", workspace=w).stdout)["metrics"]
    assert {row["name"] for row in found} == {"nli", "loss_last", "margin_last", "grand_last_layer", "forgetting"}
    costs = json.loads(winnow("scores", "--dataset", "small", "--json", workspace=w).stdout)["costs"]
    assert {row["score"] for row in costs} == {row["name"] for row in found}
    kept = tmp_path / "kept.csv"
    done = winnow("select", "small", "ccs(nli)", "--keep", 0.4, "--to", kept, "--json", workspace=w)
    assert json.loads(done.stdout) == {"kept": 80, "of": 200, "to": str(kept)}
    assert len(kept.read_text().splitlines()) == 81
    done = winnow("detector", "train", "mine", "--dataset", "small", "--epochs", 1, "--json", workspace=w)
    assert json.loads(done.stdout)["name"] == "mine", done.stderr
    applied = json.loads(winnow("detector", "apply", "mine", "small", "--json", workspace=w).stdout)
    assert applied["existed"] is False and 0 <= applied["metrics"]["roc_auc"] <= 1
    listed = json.loads(winnow("detector", "list", "--json", workspace=w).stdout)["detectors"]
    assert [row["name"] for row in listed] == ["digits+textures", "mine"]
    explained = json.loads(winnow("detector", "explain", "small", 3, "--json", workspace=w).stdout)
    assert len(explained["epochs"]) == 3
    refused(winnow("detector", "apply", "mien", "small", workspace=w), "did you mean 'mine'")
    refused(winnow("run", "small", "--preset", "aum", workspace=w), "unknown preset", "aum")


def test_a_query_prints_names_and_text_as_they_are(old_workspace):
    words = "[/x]", "[click](u)", ":red[x]", ":smile:", "a_b", "[bold]x[/bold]"
    columns = ", ".join(f"'{word}' AS \"{word} c\"" for word in words)
    done = started("query", f"SELECT {columns}, chr(27) || '[2J' AS esc_ape", workspace=old_workspace)
    assert done.returncode == 0, done.stderr
    header, cells = (line for line in done.stdout.splitlines() if line.strip())
    assert all(f"{word} c" in header and word in cells for word in words)
    assert "esc_ape" in header and "\x1b" not in done.stdout and r"\x1b[2J" in cells
    rows = json.loads(winnow("query", "SELECT '[/x]' AS a_b", "--json", workspace=old_workspace).stdout)
    assert rows == [{"a_b": "[/x]"}]


def test_a_query_prints_so_many_rows_and_writes_all(old_workspace):
    sql = "SELECT range AS i FROM range(10003)"
    done = winnow("query", sql, workspace=old_workspace)
    assert len(done.stdout.splitlines()) == 10_001 and "3 more rows are left out" in done.stderr
    assert len(winnow("query", sql, "--format", "csv", workspace=old_workspace).stdout.splitlines()) == 10_004
    assert len(json.loads(winnow("query", sql, "--json", workspace=old_workspace).stdout)) == 10_003
    began = time.monotonic()
    done = winnow("query", "SELECT repeat('x', 50000000) AS long", workspace=old_workspace)
    assert "(50,000,000 characters)" in " ".join(done.stdout.split()) and time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DETACH run_x; SELECT 1", "2 statements were given; allowed: one SELECT"),
        ("create table x(i int)", "type CREATE was given; allowed: one SELECT"),
        ("COPY (SELECT 'x') TO 'x.csv'", "type COPY was given"),
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled"),
    ],
)
def test_what_is_no_query_is_refused_in_one_line(old_workspace, tmp_path, monkeypatch, sql, said):
    monkeypatch.chdir(tmp_path)
    refused(winnow("query", sql, workspace=old_workspace), said)
    assert list(tmp_path.iterdir()) == []


def test_a_condition_that_is_more_than_one_is_refused(old_workspace, tmp_path):
    where = "1) UNION SELECT sample_id, split, label, 1, 'x', 'y' FROM samples; --"
    done = winnow("export", "noisy", "--where", where, "--to", tmp_path / "x.csv", workspace=old_workspace)
    refused(done, "the condition is not one SQL expression")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_run_is_listed_and_stops_no_command(old_workspace, tmp_path):
    w = shutil.copytree(old_workspace, tmp_path / "w")
    workspace = Workspace.open(w)
    broken = workspace.run_ids()[0]
    (workspace.run_dir(broken) / "spec.json").write_text("[1]")
    done = winnow("runs", workspace=w)
    assert done.returncode == 0 and "unreadable" in done.stdout
    assert f"{broken}: " in done.stderr and f"winnow remove {broken}" in done.stderr
    states = {job["run_id"]: job["state"] for job in json.loads(winnow("runs", "--json", workspace=w).stdout)["runs"]}
    assert states.pop(broken) == "unreadable" and set(states.values()) == {"done"}
    assert "unreadable" in winnow("status", broken, workspace=w).stderr
    rows = json.loads(winnow("query", "FROM unreadable", "--json", workspace=w).stdout)
    assert [row["run_id"] for row in rows] == [broken]
    assert json.loads(winnow("remove", broken, "--json", workspace=w).stdout)["runs"] == [broken]
    assert winnow("query", "SELECT count(*) FROM unreadable", "--format", "csv", workspace=w).stdout.endswith("\n0\n")


def test_a_query_reads_what_views_and_columns_hold(old_workspace):
    sql = "SELECT comment FROM duckdb_columns() WHERE (table_name, column_name) = ('flags', 'rule') AND database_name = 'memory'"
    (row,) = json.loads(winnow("query", sql, "--json", workspace=old_workspace).stdout)
    assert row["comment"] == VIEWS["flags"].columns["rule"][1]
